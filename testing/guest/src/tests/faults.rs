// SPDX-License-Identifier: GPL-2.0-only
//! Faults under load: allocations fail; cards, addresses and CPUs are removed and
//! return. The service may stop meanwhile; acknowledged values must survive.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp};
use nix::errno::Errno;

use crate::leaks;
use crate::load::{under, ClientNamespace, Sum};
use crate::modules::{self, Hippos};
use crate::netns::{self, Link, Namespace};
use crate::system::{memory, run};

/// Time for the clients between two faults.
const PAUSE: Duration = Duration::from_millis(400);

/// Loads the module, and injects faults beside clients on loopback and in a namespace.
fn with_faults(
    parameters: &str,
    inject_fault: impl FnOnce(&Link, &Namespace) -> Result<()>,
) -> Result<Sum> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load(parameters)?;
    let client_namespace = |namespace, host: &str| ClientNamespace {
        namespace,
        host: host.to_owned(),
    };
    let namespaces = [
        client_namespace(None, "127.0.0.1"),
        client_namespace(None, "::1"),
        client_namespace(Some(&there), &link.here_ipv4),
        client_namespace(Some(&there), &link.here_ipv6),
    ];
    let sum = under(&namespaces, "127.0.0.1", || {
        thread::sleep(PAUSE);
        inject_fault(&link, &there)
    })?;
    answers("127.0.0.1")?;
    hippos.verify()?;
    hippos.unload()?;
    Ok(sum)
}

/// Whether TCP and UDP still answer.
fn answers(host: &str) -> Result<()> {
    Tcp::patient(host)?.set("after", b"value")?;
    let reply = Udp::connect(host)?.ask(b"get after\r\n")?;
    ensure!(reply == b"VALUE after 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
    Ok(())
}

/// The card is set down and up again.
pub(super) fn values_survive_link_down() -> Result<()> {
    with_faults("memory_mb=64", |link, there| {
        for round in 0..4 {
            if round % 2 == 0 {
                run(&format!("ip link set {} down", link.here))?;
                thread::sleep(PAUSE);
                run(&format!("ip link set {} up", link.here))?;
                // IPv6 addresses are lost with the card and do not return by themselves.
                run(&format!(
                    "ip addr add {}/64 dev {} nodad",
                    link.here_ipv6, link.here
                ))?;
            } else {
                there.ip(&format!("link set {} down", link.far))?;
                thread::sleep(PAUSE);
                there.ip(&format!("link set {} up", link.far))?;
                there.ip(&format!(
                    "addr add {}/64 dev {} nodad",
                    link.far_ipv6, link.far
                ))?;
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    })
    .map(drop)
}

/// The card's MTU changes to less and to more than the usual 1500 bytes.
pub(super) fn values_survive_mtu_changes() -> Result<()> {
    with_faults("memory_mb=64", |link, there| {
        for mtu in [1280, 1500, 9000, 1300, 65535, 1500] {
            run(&format!("ip link set {} mtu {mtu}", link.here))?;
            there.ip(&format!("link set {} mtu {mtu}", link.far))?;
            thread::sleep(PAUSE);
        }
        Ok(())
    })
    .map(drop)
}

/// The address that clients use is removed and added again.
pub(super) fn values_survive_address_changes() -> Result<()> {
    with_faults("memory_mb=64", |link, _| {
        for _ in 0..4 {
            for (address, mask, more) in [(&link.here_ipv4, 24, ""), (&link.here_ipv6, 64, "nodad")]
            {
                let (here, mask) = (&link.here, mask);
                run(&format!("ip addr del {address}/{mask} dev {here}"))?;
                thread::sleep(PAUSE / 2);
                run(&format!("ip addr add {address}/{mask} dev {here} {more}"))?;
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    })
    .map(drop)
}

/// The cards between the namespaces are removed, for good.
pub(super) fn values_survive_card_removal() -> Result<()> {
    with_faults("memory_mb=64", |link, _| {
        run(&format!("ip link del {}", link.here))?;
        thread::sleep(PAUSE);
        Ok(())
    })
    .map(drop)
}

/// The served namespace is deleted while clients use it: it exists until the module is unloaded.
pub(super) fn values_survive_namespace_removal() -> Result<()> {
    let one = Namespace::new("one")?;
    let hippos = one.enter(|| Hippos::load("memory_mb=64"))?;
    let inside = |host: &str| ClientNamespace {
        namespace: Some(&one),
        host: host.to_owned(),
    };
    let namespaces = [inside("127.0.0.1"), inside("::1")];
    one.enter(|| {
        under(&namespaces, "127.0.0.1", || {
            thread::sleep(PAUSE);
            run("ip netns del one")?;
            thread::sleep(PAUSE);
            Ok(())
        })
    })?;
    hippos.verify()?;
    hippos.unload()?;
    run("ip netns add one")?;
    Ok(())
}

/// The CPUs that a thread of the kernel may run on, by its name.
fn allowed_cpus(thread: &str) -> Result<String> {
    for process in fs::read_dir("/proc")? {
        let status = fs::read_to_string(process?.path().join("status")).unwrap_or_default();
        let value = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        if value("Name:").as_deref() == Some(thread) {
            return value("Cpus_allowed_list:").context("no list of CPUs");
        }
    }
    bail!("no thread {thread}")
}

/// A CPU goes offline and returns, with its worker.
pub(super) fn values_and_affinity_survive_cpu_offline() -> Result<()> {
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    ensure!(switch.exists(), "this guest has no CPU to spare");
    with_faults("memory_mb=64", |_, _| {
        for _ in 0..3 {
            fs::write(switch, "0").context("CPU 1 does not go")?;
            thread::sleep(PAUSE);
            fs::write(switch, "1").context("CPU 1 does not come")?;
            thread::sleep(PAUSE);
        }
        // Its worker is bound to it again from its next turn on.
        const TURNS: usize = 50;
        let mut allowed = String::new();
        for _ in 0..TURNS {
            allowed = allowed_cpus("hippos/1")?;
            if allowed == "1" {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        bail!("hippos/1 may run on CPUs {allowed}")
    })
    .map(drop)?;
    // A module that starts while a CPU is offline.
    fs::write(switch, "0")?;
    let result = with_faults("memory_mb=64", |_, _| {
        fs::write(switch, "1")?;
        thread::sleep(PAUSE);
        Ok(())
    });
    fs::write(switch, "1")?;
    result.map(drop)
}

/// A process takes nearly all of the machine's memory while the cache grows.
pub(super) fn values_survive_memory_pressure() -> Result<()> {
    with_faults("memory_mb=64", |_, _| {
        // With less the kernel would kill processes.
        const LEFT: u64 = 48 << 20;
        let mut held = Vec::new();
        loop {
            let available = memory("MemAvailable:")?;
            if available <= LEFT {
                break;
            }
            // Large pieces get huge pages: by the debug kernel's page faults gigabytes take a
            // quarter of an hour.
            let piece = ((available - LEFT) / 2).clamp(4 << 20, 128 << 20);
            held.push(vec![1u8; piece as usize]);
        }
        thread::sleep(PAUSE * 4);
        drop(held);
        thread::sleep(PAUSE);
        Ok(())
    })
    .map(drop)
}

/// More failures than a test can cause; the remaining number shows how many occurred.
const TIMES: u64 = 1_000_000;

/// The end of the address space: calls from everywhere fail.
const ANYWHERE: &str = "0xffffffffffffffff";

/// The allocations that can be made to fail: objects of the slab allocator, and pages.
const FAILING: [&str; 2] = ["failslab", "fail_page_alloc"];

/// Fault injection (Documentation/fault-injection/fault-injection.rst), off again when dropped.
struct Injection(&'static str);

impl Injection {
    /// Makes `percent` of the allocations fail whose call came through `code`. `None` when the kernel
    /// has no fault injection.
    fn new(name: &'static str, percent: u32, code: &Range<u64>) -> Result<Option<Self>> {
        let dir = Path::new("/sys/kernel/debug").join(name);
        if !dir.exists() {
            return Ok(None);
        }
        for (file, value) in [
            ("require-start", format!("{:#x}", code.start)),
            ("require-end", format!("{:#x}", code.end)),
            ("stacktrace-depth", "32".into()),
            ("verbose", "0".into()),
            ("interval", "1".into()),
            ("times", TIMES.to_string()),
            ("ignore-gfp-wait", "N".into()),
            ("probability", percent.to_string()),
        ] {
            fs::write(dir.join(file), &value)
                .with_context(|| format!("{name}/{file} does not take {value}"))?;
        }
        if name == "fail_page_alloc" {
            fs::write(dir.join("min-order"), "0")?;
            fs::write(dir.join("ignore-gfp-highmem"), "N")?;
        }
        Ok(Some(Injection(name)))
    }

    /// How many allocations failed so far.
    fn count(&self) -> Result<u64> {
        let left = fs::read_to_string(Path::new("/sys/kernel/debug").join(self.0).join("times"))?;
        Ok(TIMES.saturating_sub(left.trim().parse()?))
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let dir = Path::new("/sys/kernel/debug").join(self.0);
        for (file, value) in [
            ("probability", "0"),
            ("require-start", "0"),
            ("require-end", ANYWHERE),
        ] {
            if let Err(error) = fs::write(dir.join(file), value) {
                eprintln!("{}/{file}: {error}", self.0);
            }
        }
    }
}

/// Where the module's code lies.
fn loaded_code() -> Result<Range<u64>> {
    let text = fs::read_to_string("/sys/module/hippos/sections/.text")?;
    let start = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)?;
    let modules = fs::read_to_string("/proc/modules")?;
    let line = modules.lines().find(|line| line.starts_with("hippos "));
    let size = line.and_then(|line| line.split(' ').nth(1));
    Ok(start..start + size.context("/proc/modules")?.parse::<u64>()?)
}

/// Allocations fail, first one in a hundred, then one in five. Needs the debug kernel.
pub(super) fn values_survive_failing_allocations() -> Result<()> {
    let (mut able, mut failed) = (false, 0);
    let sum = with_faults("memory_mb=64", |_, _| {
        let code = loaded_code()?;
        for percent in [1, 5, 20] {
            for names in [&FAILING[..1], &FAILING[1..], &FAILING] {
                let mut on = Vec::new();
                for name in names {
                    on.extend(Injection::new(name, percent, &code)?);
                }
                able |= !on.is_empty();
                thread::sleep(PAUSE);
                for injection in &on {
                    failed += injection.count()?;
                }
                drop(on);
            }
        }
        thread::sleep(PAUSE);
        Ok(())
    })?;
    println!(
        "{failed} allocations failed, {} sets were refused",
        sum.refused
    );
    ensure!(failed > 0 || !able, "no allocation failed");
    Ok(())
}

/// Where any module's code lies (Documentation/arch/x86/x86_64/mm.rst).
const MODULES: Range<u64> = 0xffff_ffff_c000_0000..0xffff_ffff_ff00_0000;

/// The most starts that are tried.
const STARTS: u32 = 2000;

/// The first allocation of the start fails, at the next start the second one, and so on through all of
/// them. Each time the start fails and undoes everything, or it succeeds without the memory. Needs the debug kernel.
/// `TEST [FIRST]`
pub(super) fn start_survives_each_failing_allocation(arguments: &[String]) -> Result<()> {
    let first: u32 = arguments
        .first()
        .map_or(Ok(1), |text| text.parse().context("from which on?"))?;
    let nth = Path::new("/proc/thread-self/fail-nth");
    let mut on = Vec::new();
    for name in FAILING {
        on.extend(Injection::new(name, 0, &MODULES)?);
    }
    if on.is_empty() {
        return Ok(());
    }
    let (mut refused, mut without) = (0, 0);
    for number in first.. {
        ensure!(number < STARTS, "it allocates without end");
        fs::write(nth, number.to_string()).context("fail-nth")?;
        let result = modules::insert(modules::HIPPOS.as_ref(), "memory_mb=16");
        // The allocations that were left until the failing one: 0 if one failed.
        let left: u32 = fs::read_to_string(nth)?.trim().parse()?;
        fs::write(nth, "0")?;
        let context = || format!("allocation {number} fails");
        match result {
            Ok(()) => {
                answers("127.0.0.1").with_context(context)?;
                modules::remove("hippos").with_context(context)?;
                without += 1;
            }
            // Sockets return one of the latter three: EADDRINUSE when there is no memory to record that a
            // port is in use.
            Err(error @ (Errno::ENOMEM | Errno::ENOBUFS | Errno::ENFILE | Errno::EADDRINUSE))
                if left == 0 =>
            {
                ensure!(!modules::loaded("hippos"), "{}, but it is there", context());
                if error == Errno::EADDRINUSE {
                    Hippos::load("").with_context(context)?.unload()?;
                }
                refused += 1;
            }
            Err(error) => return Err(error).with_context(context),
        }
        if left > 0 {
            break;
        }
        if number % 25 == 0 {
            println!("{number} starts");
        }
    }
    drop(on);
    println!("{refused} starts were refused, {} did without", without - 1);
    ensure!(refused > 0, "no allocation failed");
    match leaks::find()? {
        Some(found) if !found.is_empty() => bail!("{found}"),
        _ => Ok(()),
    }
}
