// SPDX-License-Identifier: GPL-2.0-only
//! Hours of mixed load with faults at random, and the kernel's memory meanwhile.
//!
//! Prints a line for each sample: `sample` and then `name=number` for each
//! figure. The host plots them, and checks whether memory grows.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hippos_client::Tcp;

use crate::load::{under, ClientNamespace};
use crate::modules::Hippos;
use crate::netns::{self, Namespace};
use crate::random::Random;
use crate::system::{memory, run};

/// The time between two samples; a fault is injected before each.
const STEP: Duration = Duration::from_secs(5);

/// The most memory that the cache gets, MiB.
const MEMORY: u64 = 32;

/// `soak::run_for [SECONDS [SEED]]`
pub(super) fn run_for(arguments: &[String]) -> Result<()> {
    let number = |at: usize, usual: u64| -> Result<u64> {
        arguments
            .get(at)
            .map_or(Ok(usual), |text| Ok(text.parse()?))
    };
    let (seconds, seed) = (number(0, 60)?, number(1, 1)?);
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    // Hardly a block for each size of values: there is eviction as well, and slabs move.
    let hippos = Hippos::load(&format!("memory_mb={MEMORY}"))?;
    let client_namespace = |namespace, host: &str| ClientNamespace {
        namespace,
        host: host.to_owned(),
    };
    let namespaces = [
        client_namespace(None, "127.0.0.1"),
        client_namespace(Some(&there), &link.here_ipv4),
        client_namespace(Some(&there), &link.here_ipv6),
        client_namespace(None, "::1"),
    ];
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut random = Random::new(seed);
    let mut faults = 0u64;
    under(&namespaces, "127.0.0.1", || {
        while Instant::now() < end {
            thread::sleep(STEP);
            inject_fault(&mut random, &link, &there)?;
            faults += 1;
            sample(start, faults)?;
        }
        Ok(())
    })?;
    hippos.verify()?;
    hippos.unload()
}

/// Injects a random fault, or none.
fn inject_fault(random: &mut Random, link: &netns::Link, there: &Namespace) -> Result<()> {
    let pause = Duration::from_millis(100 + random.below(400) as u64);
    let cpu = Path::new("/sys/devices/system/cpu/cpu1/online");
    match random.below(7) {
        0 => {
            run(&format!("ip link set {} down", link.here))?;
            thread::sleep(pause);
            run(&format!("ip link set {} up", link.here))?;
            run(&format!(
                "ip addr add {}/64 dev {} nodad",
                link.here_ipv6, link.here
            ))?;
        }
        1 => {
            let mtu = *random.pick(&[1280, 1500, 4000, 9000]);
            run(&format!("ip link set {} mtu {mtu}", link.here))?;
            there.ip(&format!("link set {} mtu {mtu}", link.far))?;
        }
        2 => {
            run(&format!(
                "ip addr del {}/24 dev {}",
                link.here_ipv4, link.here
            ))?;
            thread::sleep(pause);
            run(&format!(
                "ip addr add {}/24 dev {}",
                link.here_ipv4, link.here
            ))?;
        }
        3 if cpu.exists() => {
            fs::write(cpu, "0").context("CPU 1 does not go")?;
            thread::sleep(pause);
            fs::write(cpu, "1").context("CPU 1 does not come")?;
        }
        4 => {
            let megabytes = if random.one_in(2) { MEMORY / 2 } else { MEMORY };
            run(&format!("hippos-ctl memory {megabytes}"))?;
        }
        5 => drop(run("hippos-ctl flush")?),
        _ => {}
    }
    Ok(())
}

fn sample(start: Instant, faults: u64) -> Result<()> {
    let mut tcp = Tcp::patient("127.0.0.1")?;
    let mut line = format!("sample seconds={}", start.elapsed().as_secs());
    for (name, field) in [
        ("free", "MemFree:"),
        ("slab", "SUnreclaim:"),
        ("percpu", "Percpu:"),
    ] {
        line += &format!(" {name}={}", memory(field)?);
    }
    for stat in [
        "cmd_set",
        "cmd_get",
        "get_hits",
        "evictions",
        "curr_items",
        "bytes",
        "curr_connections",
        "total_connections",
    ] {
        let value = tcp.stat(stat)?;
        line += &format!(" {stat}={value}");
        ensure!(
            stat != "bytes" || value <= MEMORY << 20,
            "{value} bytes of items in {MEMORY} MiB"
        );
    }
    println!("{line} faults={faults}");
    Ok(())
}
