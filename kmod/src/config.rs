// SPDX-License-Identifier: GPL-2.0-only
//! The module's parameters, checked.

use core::num::NonZeroU32;

use kernel::prelude::*;

use hippos_abi::{UDP_BYTES_MIN, UDP_RATE_MIN};
use hippos_engine::Administration;
use hippos_kapi::hook::Fast;
use hippos_kapi::namespace::Namespace;
use hippos_kapi::pages;
use hippos_kapi::params::Params;
use hippos_store::Eviction;

use crate::platform::reserve;

/// What the server runs with.
pub(crate) struct Config {
    pub(crate) port: u16,
    /// Bytes.
    pub(crate) memory: usize,
    pub(crate) maxconns: usize,
    /// TCP workers; `None` is one a CPU.
    pub(crate) threads: Option<usize>,
    pub(crate) backlog: u32,
    /// Seconds; 0 is never.
    pub(crate) upload_timeout: u32,
    /// Percent; 0 is never.
    pub(crate) steer: u32,
    pub(crate) udp: bool,
    /// Before the socket: the hook and XDP.
    pub(crate) udp_fast: Option<Fast>,
    pub(crate) selftest: Selftest,
    /// Bytes.
    pub(crate) udp_bytes: u32,
    /// Bytes a second; 0 is no limit.
    pub(crate) udp_rate: u32,
    /// Who may ask at first; not looked at yet.
    pub(crate) allow: &'static [u8],
    pub(crate) administration: Administration,
    /// The only interface that is served.
    pub(crate) interface: Option<NonZeroU32>,
    /// Its name.
    pub(crate) interface_name: Option<&'static str>,
    pub(crate) selftest_oops: bool,
    /// Bytes.
    pub(crate) item_max: usize,
    /// Bytes.
    pub(crate) item_min: usize,
    /// Percent.
    pub(crate) factor: u32,
    pub(crate) eviction: Eviction,
}

/// Whether the store is tested before anything is served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selftest {
    No,
    Yes,
    /// With a fault that must be found.
    Planted,
}

/// The most memory that the cache may be given on this machine, in bytes.
pub(crate) fn memory_most() -> u64 {
    let machine = pages::total();
    machine.saturating_sub(reserve(machine))
}

impl Config {
    /// Takes the parameters, or says in the log which one can't be and refuses.
    pub(crate) fn new(params: &Params) -> Result<Self> {
        let range = |name: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                pr_err!("{name}={value}: must be from {least} to {most}\n");
                Err(EINVAL)
            }
        };
        let port = range("port", params.port, 1, u16::MAX.into())?;
        let memory_mb = range("memory_mb", params.memory_mb, 8, 1 << 24)?;
        let maxconns = range("maxconns", params.maxconns, 1, 1_000_000)?;
        let threads = range("threads", params.threads, 0, 1024)?;
        let backlog = range("backlog", params.backlog, 1, 65_535)?;
        let upload_timeout = range("upload_timeout", params.upload_timeout, 0, 86_400)?;
        let steer = range("steer", params.steer, 0, 100)?;
        let item_min = range("item_min", params.item_min, 1, 1024)?;
        let factor = range("factor", params.factor, 102, 1000)?;
        let selftest = match range("selftest", params.selftest, 0, 2)? {
            0 => Selftest::No,
            1 => Selftest::Yes,
            _ => Selftest::Planted,
        };
        let item_max = size(params.item_max)
            .filter(|size| (1 << 10..=4 << 20).contains(size))
            .ok_or_else(|| {
                let given = printable(params.item_max);
                pr_err!("item_max={given}: must be from 1k to 4m\n");
                EINVAL
            })?;
        let eviction = match params.eviction {
            b"clock" => Eviction::Clock,
            b"sieve" => Eviction::Sieve,
            b"s3fifo" => Eviction::S3Fifo,
            other => {
                let given = printable(other);
                pr_err!("eviction={given}: must be clock, sieve or s3fifo\n");
                return Err(EINVAL);
            }
        };
        let udp_fast = match params.udp_fast {
            b"0" | b"n" | b"N" | b"off" => None,
            b"1" | b"y" | b"Y" | b"on" => Some(Fast::Auto),
            b"always" => Some(Fast::Always),
            b"late" => Some(Fast::Late),
            other => {
                let given = printable(other);
                pr_err!("udp_fast={given}: must be 0, 1, always or late\n");
                return Err(EINVAL);
            }
        };
        let administration = Administration::parse(params.admin).ok_or_else(|| {
            let given = printable(params.admin);
            pr_err!("admin={given}: must be network, local or off\n");
            EINVAL
        })?;
        if (1..UDP_RATE_MIN).contains(&params.udp_rate) {
            let rate = params.udp_rate;
            pr_warn!("udp_rate={rate}: less than a datagram of {UDP_RATE_MIN}, which will never be sent\n");
        }
        let udp_bytes = range("udp_bytes", params.udp_bytes, UDP_BYTES_MIN, 8 << 20)?;
        let memory = memory_mb as usize * (1 << 20);
        let (machine, most) = (pages::total(), memory_most());
        if memory as u64 > most {
            pr_err!(
                "memory_mb={memory_mb}: must be from 8 to {} on this machine: it has {} MiB, \
                 of which {} are left to everything else\n",
                most >> 20,
                machine >> 20,
                reserve(machine) >> 20
            );
            return Err(EINVAL);
        }
        if item_max > memory / 2 {
            pr_err!("item_max={item_max}: must be at most half of memory_mb={memory_mb}\n");
            return Err(EINVAL);
        }
        Ok(Self {
            port: port as u16,
            memory,
            maxconns: maxconns as usize,
            threads: (threads != 0).then_some(threads as usize),
            backlog,
            upload_timeout,
            steer,
            udp: params.udp,
            udp_fast,
            selftest,
            udp_bytes,
            udp_rate: params.udp_rate,
            allow: params.allow,
            administration,
            interface: None,
            interface_name: None,
            selftest_oops: params.selftest_oops,
            item_max,
            item_min: item_min as usize,
            factor,
            eviction,
        })
    }
}

impl Config {
    /// Looks up the interface of `dev=`.
    pub(crate) fn find_interface(&mut self, params: &Params, namespace: &Namespace) -> Result {
        if params.dev.to_bytes().is_empty() {
            return Ok(());
        }
        self.interface = namespace.interface(params.dev);
        if self.interface.is_none() {
            let given = printable(params.dev.to_bytes());
            pr_err!("dev={given}: there is no such interface\n");
            return Err(ENODEV);
        }
        self.interface_name = Some(printable(params.dev.to_bytes()));
        Ok(())
    }
}

/// A number of bytes, with `k` or `m` behind it for the larger ones.
fn size(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        _ => (text, 1),
    };
    let number: usize = core::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_mul(unit)
}

/// What the operator wrote, for the log.
pub(crate) fn printable(text: &[u8]) -> &str {
    core::str::from_utf8(text).unwrap_or("?")
}
