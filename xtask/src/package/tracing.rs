// SPDX-License-Identifier: GPL-2.0-only
//! Debian's `perf` and `bpftrace` with the module's trace points, on a machine with the packages: the lines and the
//! scripts of docs/bpftrace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{ensure, Result};

use crate::progress;
use crate::root;
use crate::target::Selection;

use super::install::{ask, Trial, APT, LONG};

/// Where hippos-tools has the scripts.
const SCRIPTS: &str = "/usr/share/doc/hippos-tools/bpftrace";
/// Runs the first argument while the others, a tracer, use the module's events; prints what the tracer said.
const TRACED: &str = r#"#!/bin/bash
work=$1
shift
references() { cat /sys/module/hippos/refcnt; }
before=$(references)
"$@" > /tmp/said 2>&1 &
tracer=$!
# A tracer holds the module as soon as it uses the first event.
for _ in $(seq 600); do
    [ "$(references)" = "$before" ] && kill -0 $tracer 2> /dev/null || break
    sleep 0.5
done
sleep 10
"$work" > /dev/null
sleep 5
kill -INT $tracer
wait $tracer
cat /tmp/said
"#;
/// One request, which is served alone; `slowest_keys.bt` leaves out those that are not.
const ASK: &str = r#"#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/11211
printf 'get traced\r\n' >&3
read -r line <&3
printf 'quit\r\n' >&3
"#;
const TOO_LARGE: &str = r#"#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/11211
printf 'set large 0 0 2000000\r\n' >&3
read -r line <&3
"#;
const EVICT: &str = r#"#!/bin/bash
hippos-ctl memory 8
exec 3<>/dev/tcp/127.0.0.1/11211
for number in $(seq 60); do
    printf 'set item%s 0 0 400000\r\n' "$number" >&3
    head -c 400000 /dev/zero >&3
    printf '\r\n' >&3
    read -r line <&3
done
"#;
const PROGRAMS: &[(&str, &str)] = &[
    ("traced", TRACED),
    ("ask", ASK),
    ("too_large", TOO_LARGE),
    ("evict", EVICT),
];

/// Runs each tracer on a machine of the selected kernel.
pub(crate) fn trial(selection: &Selection) -> Result<()> {
    let machine = Trial::new(selection)?;
    machine.sh(
        "perf and bpftrace (apt)",
        &format!(
            "apt-get update
             apt-get install -y --no-install-recommends bpftrace
             apt-get install -y --no-install-recommends -t {} linux-perf
             apt-get clean",
            root::BACKPORTS
        ),
    )?;
    for (name, text) in PROGRAMS {
        let path = machine.path(&format!("root/{name}"));
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let dir = tempfile::Builder::new().prefix("hippos-").tempdir()?;
    let disk = machine.disk(dir.path())?;
    let mut vm = machine.boot(&disk)?;
    progress::step("apt install hippos", || {
        vm.ask_within(&format!("exec {APT} update"), LONG)?;
        vm.ask_within(&format!("exec {APT} install hippos"), LONG)
    })?;
    for (work, tracer, shown) in [
        ("ask", "perf trace --event 'hippos:*'", "hippos:request("),
        (
            "ask",
            "bpftrace slowest_keys.bt",
            "@slowest_us[traced, get]: ",
        ),
        (
            "too_large",
            "bpftrace refused.bt",
            "@refused[item_too_large, tcp_worker, ::ffff:127.0.0.1]: ",
        ),
        ("evict", "bpftrace evictions.bt", "@items["),
    ] {
        progress::step(tracer, || {
            let said = ask(
                &mut vm,
                &format!("cd {SCRIPTS} && /root/traced /root/{work} {tracer}"),
            )?;
            ensure!(
                said.iter().any(|line| line.contains(shown)),
                "{tracer} does not show {shown:?}: {said:?}"
            );
            Ok(())
        })?;
    }
    progress::step("the module can be unloaded", || {
        ask(
            &mut vm,
            "systemctl stop hippos.service && test ! -e /sys/module/hippos",
        )?;
        ask(&mut vm, "! dmesg | grep -e BUG: -e WARNING: -e Oops").map(drop)
    })?;
    vm.off()
}

impl Trial {
    /// A file of the machine's tree.
    fn path(&self, name: &str) -> PathBuf {
        self.tree().join(name)
    }
}
