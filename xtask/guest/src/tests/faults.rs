//! The ground shakes under load: memory fails, cards and addresses come and go,
//! CPUs too. The service may halt meanwhile; what it acknowledged stays true.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::client::{Tcp, Udp};
use crate::load::{under, Seat, Sum};
use crate::modules::Hippos;
use crate::netns::{self, Link, Namespace};
use crate::system::{memory, run};

/// Time for the clients between two disturbances.
const PAUSE: Duration = Duration::from_millis(400);

/// Loads the module, and disturbs clients on loopback and in a namespace.
fn disturbed(
    parameters: &str,
    disturb: impl FnOnce(&Link, &Namespace) -> Result<()>,
) -> Result<Sum> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load(parameters)?;
    let seat = |namespace, host: &str| Seat {
        namespace,
        host: host.to_owned(),
    };
    let seats = [
        seat(None, "127.0.0.1"),
        seat(None, "::1"),
        seat(Some(&there), &link.here_ipv4),
        seat(Some(&there), &link.here_ipv6),
    ];
    let sum = under(&seats, "127.0.0.1", || {
        thread::sleep(PAUSE);
        disturb(&link, &there)
    })?;
    answers("127.0.0.1")?;
    hippos.unload()?;
    Ok(sum)
}

/// Both doors, once more.
fn answers(host: &str) -> Result<()> {
    Tcp::connect(host)?.set("after", b"value")?;
    let reply = Udp::connect(host)?.ask(b"get after\r\n")?;
    ensure!(reply == b"VALUE after 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
    Ok(())
}

/// The card goes down and comes up.
pub(super) fn link_down() -> Result<()> {
    disturbed("memory_mb=64", |link, there| {
        for round in 0..4 {
            if round % 2 == 0 {
                run(&format!("ip link set {} down", link.here))?;
                thread::sleep(PAUSE);
                run(&format!("ip link set {} up", link.here))?;
                // What IPv6 loses with the card it does not get back.
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

/// The card takes less, and more, than a usual frame.
pub(super) fn mtu() -> Result<()> {
    disturbed("memory_mb=64", |link, there| {
        for mtu in [1280, 1500, 9000, 1300, 65535, 1500] {
            run(&format!("ip link set {} mtu {mtu}", link.here))?;
            there.ip(&format!("link set {} mtu {mtu}", link.far))?;
            thread::sleep(PAUSE);
        }
        Ok(())
    })
    .map(drop)
}

/// The address that clients use is taken away and given back.
pub(super) fn address() -> Result<()> {
    disturbed("memory_mb=64", |link, _| {
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

/// The cards between the namespaces go, for good.
pub(super) fn card_removed() -> Result<()> {
    disturbed("memory_mb=64", |link, _| {
        run(&format!("ip link del {}", link.here))?;
        thread::sleep(PAUSE);
        Ok(())
    })
    .map(drop)
}

/// The namespace that is served is deleted while clients use it: it lives until the module goes.
pub(super) fn namespace_removed() -> Result<()> {
    let one = Namespace::new("one")?;
    let hippos = one.enter(|| Hippos::load("memory_mb=64"))?;
    let inside = |host: &str| Seat {
        namespace: Some(&one),
        host: host.to_owned(),
    };
    let seats = [inside("127.0.0.1"), inside("::1")];
    one.enter(|| {
        under(&seats, "127.0.0.1", || {
            thread::sleep(PAUSE);
            run("ip netns del one")?;
            thread::sleep(PAUSE);
            Ok(())
        })
    })?;
    hippos.unload()?;
    run("ip netns add one")?;
    Ok(())
}

/// CPUs go and come back, under their workers.
pub(super) fn cpu_offline() -> Result<()> {
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    ensure!(switch.exists(), "this guest has no CPU to spare");
    disturbed("memory_mb=64", |_, _| {
        for _ in 0..3 {
            fs::write(switch, "0").context("CPU 1 does not go")?;
            thread::sleep(PAUSE);
            fs::write(switch, "1").context("CPU 1 does not come")?;
            thread::sleep(PAUSE);
        }
        Ok(())
    })
    .map(drop)?;
    // A module that starts with a CPU less.
    fs::write(switch, "0")?;
    let result = disturbed("memory_mb=64", |_, _| {
        fs::write(switch, "1")?;
        thread::sleep(PAUSE);
        Ok(())
    });
    fs::write(switch, "1")?;
    result.map(drop)
}

/// A process takes nearly all of the machine's memory while the cache wants to grow.
pub(super) fn memory_pressure() -> Result<()> {
    disturbed("memory_mb=64", |_, _| {
        let mut held = Vec::new();
        // Short of the point where the kernel would kill somebody.
        while memory("MemAvailable:")? > 48 << 20 {
            held.push(vec![1u8; 4 << 20]);
        }
        thread::sleep(PAUSE * 4);
        drop(held);
        thread::sleep(PAUSE);
        Ok(())
    })
    .map(drop)
}

/// More failures than a test can see; what is left of them tells how many there were.
const TIMES: u64 = 1_000_000;

/// The end of all code: calls from everywhere fail.
const ANYWHERE: &str = "0xffffffffffffffff";

/// Fault injection (Documentation/fault-injection/fault-injection.rst), off again when dropped.
struct Injection(&'static str);

impl Injection {
    /// Lets one in `100 / percent` allocations fail whose call came through the module.
    fn new(name: &'static str, percent: u32) -> Result<Option<Self>> {
        let dir = Path::new("/sys/kernel/debug").join(name);
        if !dir.exists() {
            return Ok(None);
        }
        let sections = Path::new("/sys/module/hippos/sections/.text");
        let text = fs::read_to_string(sections)?;
        let start = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16)?;
        let modules = fs::read_to_string("/proc/modules")?;
        let line = modules.lines().find(|line| line.starts_with("hippos "));
        let size = line.and_then(|line| line.split(' ').nth(1));
        let end = start + size.context("/proc/modules")?.parse::<u64>()?;
        for (file, value) in [
            ("require-start", format!("{start:#x}")),
            ("require-end", format!("{end:#x}")),
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

/// Allocations fail, first one in a hundred, then one in five. Only the debug kernel can do that.
pub(super) fn allocations() -> Result<()> {
    let (mut able, mut failed) = (false, 0);
    let sum = disturbed("memory_mb=64", |_, _| {
        for percent in [1, 5, 20] {
            for names in [
                &["failslab"][..],
                &["fail_page_alloc"],
                &["failslab", "fail_page_alloc"],
            ] {
                let mut on = Vec::new();
                for name in names {
                    on.extend(Injection::new(name, percent)?);
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
