// SPDX-License-Identifier: GPL-2.0-only
//! A tap device that joins one guest to this host, for as long as it lives.
//!
//! QEMU's own network handles each packet several times in user space; a tap
//! is nearer to a wire, but making one needs root's rights.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{bail, Result};

use crate::shell;

/// The device with its two ends' addresses, a network of their own.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
    number: u8,
}

impl Tap {
    /// Makes a device with a name and a network that are free on this machine.
    pub(crate) fn new() -> Result<Self> {
        Self::make(&["mode", "tap"])
    }

    /// One with several queues.
    pub(crate) fn with_queues() -> Result<Self> {
        Self::make(&["mode", "tap", "multi_queue"])
    }

    fn make(kind: &[&str]) -> Result<Self> {
        // Processes started at the same time begin at different numbers.
        let start = (std::process::id() % 250) as u8;
        for step in 0..250u8 {
            let number = start.wrapping_add(step) % 250;
            let name = format!("hippos{number}");
            if ip(&[&["tuntap", "add", "dev", &name], kind].concat()).is_err() {
                // Another process uses this device.
                continue;
            }
            // From here on a failure drops the device again.
            let tap = Tap { name, number };
            let address = format!("{}/30", tap.host());
            ip(&["addr", "add", &address, "dev", &tap.name])?;
            ip(&["link", "set", &tap.name, "up"])?;
            return Ok(tap);
        }
        bail!("no tap device can be made")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// This host's end.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// The guest's end.
    pub(crate) fn guest(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 2)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "del", &self.name]) {
            eprintln!("hippos: {}: {error:#}", self.name);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::output(Command::new("ip").args(arguments)).map(drop)
}
