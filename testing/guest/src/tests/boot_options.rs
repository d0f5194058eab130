// SPDX-License-Identifier: GPL-2.0-only
//! On a kernel that was booted with `ipv6.disable=1 isolcpus=1`, on two CPUs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::Tcp;

use crate::modules::Hippos;
use crate::receive_path;
use crate::request::short;
use crate::system::run;
use crate::tap::{text, Datagram, Tap, FAR_MAC, NEAR_MAC};
use crate::tests::packet::ask;

const LIMIT: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_millis(300);

/// IPv4 is answered, IPv6 is not, whatever receive path a frame meets first: none may ask for
/// what such a kernel does not have.
pub(super) fn disabled_ipv6_leaves_ipv4_served() -> Result<()> {
    ensure!(
        !Path::new("/proc/net/if_inet6").exists(),
        "this kernel has IPv6"
    );
    let mut tap = Tap::unconfigured("wire", NEAR_MAC)?;
    run("ip addr add 10.9.200.1/24 dev wire")?;
    run("ip link set wire up")?;
    let far = text(FAR_MAC);
    run(&format!("ip neigh add 10.9.200.2 lladdr {far} dev wire"))?;
    for (parameters, xdp) in [
        ("udp_fast=0", None),
        ("", None),
        ("udp_fast=late", None),
        ("", Some("native")),
        ("", Some("generic")),
    ] {
        let shown = format!("{parameters:?}, XDP: {xdp:?}");
        let hippos = Hippos::load(parameters).context(shown.clone())?;
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set("key", b"value")?;
        if let Some(mode) = xdp {
            receive_path::attach("wire", mode)?;
        }
        let (ipv4, ipv6) = (Datagram::ipv4(&short()), Datagram::ipv6(&short()));
        let passed = |tcp: &mut Tcp| tcp.stat_of("hippos_pass", "hippos_pass_xdp_addresses");
        let before = (passed(&mut tcp)?, tcp.stat("hippos_xdp_served")?);
        let answer = ask(&mut tap, &ipv6, SILENCE)?;
        ensure!(answer.is_none(), "{shown}: IPv6: {answer:02x?}");
        let frame = ask(&mut tap, &ipv4, LIMIT)?.with_context(|| format!("{shown}: silent"))?;
        ipv4.answered_by(&frame).context(shown.clone())?;
        let counted = (
            passed(&mut tcp)? - before.0,
            tcp.stat("hippos_xdp_served")? - before.1,
        );
        let by_xdp = u64::from(xdp.is_some());
        ensure!(counted == (by_xdp, by_xdp), "{shown}: {counted:?}");
        drop(tcp);
        hippos.unload_all()?;
    }
    Ok(())
}

/// An isolated CPU gets no worker; a number of threads beyond the other CPUs shares these.
pub(super) fn isolated_cpus_get_no_worker() -> Result<()> {
    let isolated = fs::read_to_string("/sys/devices/system/cpu/isolated")?;
    ensure!(isolated.trim() == "1", "isolated: {isolated:?}");
    for (parameters, workers) in [("", 1), ("threads=3", 3)] {
        let hippos = Hippos::load(parameters)?;
        let cpus = worker_cpus()?;
        ensure!(
            cpus == vec!["0"; workers],
            "{parameters:?}: workers on {cpus:?}"
        );
        hippos.unload()?;
    }
    Ok(())
}

/// The CPUs that each of the TCP workers may run on.
fn worker_cpus() -> Result<Vec<String>> {
    let mut cpus = Vec::new();
    for process in fs::read_dir("/proc")? {
        let status = fs::read_to_string(process?.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let number = field("Name:");
        let number = number.strip_prefix("hippos/").map(str::parse::<u32>);
        if matches!(number, Some(Ok(_))) {
            cpus.push(field("Cpus_allowed_list:"));
        }
    }
    Ok(cpus)
}
