// SPDX-License-Identifier: GPL-2.0-only
//! The module's parameters, checked.

use core::num::NonZeroU32;

use kernel::prelude::*;

use hippos_engine::{Administration, Settings, ENGINE_COUNTERS};
use hippos_kapi::hook::Fast;
use hippos_kapi::namespace::Namespace;
use hippos_kapi::params::Params;
use hippos_kapi::version::version;
use hippos_kapi::{cpu, pages, random};
use hippos_store::{Eviction, FACTOR, ITEM_MAX, ITEM_MIN};

use hippos_abi::parameters::{bytes, each, ParameterKind, UdpFast};
use hippos_abi::{memory_reserve, MEMORY_MIN, UDP_BYTES_MIN, UDP_RATE_MIN};

// The parameters' ranges agree with the control device's limits.
const _: () = {
    assert!(
        matches!(each::memory_mb.kind, ParameterKind::Number(least, _) if (least as u64) << 20 == MEMORY_MIN)
    );
    assert!(
        matches!(each::udp_bytes.kind, ParameterKind::Number(least, _) if least == UDP_BYTES_MIN)
    );
};

// The store has the limits of the parameters.
const _: () = {
    const fn is(size: &str, bytes_of_store: usize) -> bool {
        matches!(bytes(size.as_bytes()), Some(bytes) if bytes == bytes_of_store)
    }
    assert!(
        matches!(each::factor.kind, ParameterKind::Number(least, most) if least == *FACTOR.start() && most == *FACTOR.end())
    );
    assert!(
        matches!(each::item_min.kind, ParameterKind::Number(least, most) if least as usize == *ITEM_MIN.start() && most as usize == *ITEM_MIN.end())
    );
    assert!(
        matches!(each::item_max.kind, ParameterKind::Size(least, most) if is(least, *ITEM_MAX.start()) && is(most, *ITEM_MAX.end()))
    );
};

/// The server's configuration: the parameters, and the settings derived from them.
pub(crate) struct ServerConfig {
    pub(crate) params: Params,
    /// Of the store.
    pub(crate) store: hippos_store::Config,
    /// Of the engine.
    pub(crate) settings: Settings,
    pub(crate) port: u16,
    /// TCP workers.
    pub(crate) threads: usize,
    /// The receive paths before the socket: the hook and XDP.
    pub(crate) udp_fast: Option<Fast>,
    /// The only interface that is served.
    pub(crate) interface: Option<NonZeroU32>,
}

/// The most memory that the cache may be given on this machine, in bytes.
pub(crate) fn memory_max_settable() -> u64 {
    let machine = pages::total();
    machine.saturating_sub(memory_reserve(machine))
}

impl ServerConfig {
    /// Reads the parameters; an invalid one is logged and refused.
    pub(crate) fn new() -> Result<Self> {
        let params = Params::get().map_err(|refused| {
            pr_err!("{}\n", format_args!("{refused}"));
            EINVAL
        })?;
        let memory_mb = params.memory_mb;
        let memory = memory_mb as usize * (1 << 20);
        let (machine, most) = (pages::total(), memory_max_settable());
        if memory as u64 > most {
            pr_err!(
                "memory_mb={memory_mb}: must be from 8 to {} on this machine: it has {} MiB, \
                 of which {} are left to everything else\n",
                most >> 20,
                machine >> 20,
                memory_reserve(machine) >> 20
            );
            return Err(EINVAL);
        }
        let item_max = params.item_max;
        if item_max > memory / 2 {
            pr_err!("item_max={item_max}: must be at most half of memory_mb={memory_mb}\n");
            return Err(EINVAL);
        }
        if (1..UDP_RATE_MIN).contains(&params.udp_rate) {
            let rate = params.udp_rate;
            pr_warn!("udp_rate={rate}: less than a datagram of {UDP_RATE_MIN}, which will never be sent\n");
        }
        let threads = match params.threads {
            0 => cpu::usable().count(),
            n => n as usize,
        };
        // A number of the table's range.
        let port = params.port as u16;
        let store = hippos_store::Config {
            memory,
            // The limit up to which the administrator may raise it.
            memory_max: memory.saturating_mul(4).max(1 << 30).min(most as usize),
            item_max,
            item_min: params.item_min as usize,
            factor: params.factor,
            seed: random::words(),
            eviction: Eviction::parse(params.eviction.as_bytes()).ok_or(EINVAL)?,
            tallies: ENGINE_COUNTERS,
            ..Default::default()
        };
        let settings = Settings {
            tcp_port: port,
            udp_port: if params.udp { port } else { 0 },
            max_connections: params.maxconns,
            backlog: params.backlog,
            threads: threads as u32,
            udp_bytes: params.udp_bytes,
            administration: Administration::parse(params.admin.as_bytes()).ok_or(EINVAL)?,
            version: version(),
            ..Default::default()
        };
        Ok(Self {
            store,
            settings,
            port,
            threads,
            udp_fast: match UdpFast::parse(params.udp_fast.as_bytes()).ok_or(EINVAL)? {
                UdpFast::Auto => Some(Fast::Auto),
                UdpFast::Always => Some(Fast::Always),
                UdpFast::Late => Some(Fast::Late),
                UdpFast::Off => None,
            },
            interface: None,
            params,
        })
    }

    /// Looks up the interface of `dev=`.
    pub(crate) fn find_interface(&mut self, namespace: &Namespace) -> Result {
        let dev = self.params.dev;
        if dev.to_bytes().is_empty() {
            return Ok(());
        }
        let given = printable(dev.to_bytes());
        self.interface = namespace.interface(dev);
        if self.interface.is_none() {
            pr_err!("dev={given}: there is no such interface\n");
            return Err(ENODEV);
        }
        self.settings.interface = given;
        Ok(())
    }
}

/// The operator's text, for the log.
pub(crate) fn printable(text: &[u8]) -> &str {
    core::str::from_utf8(text).unwrap_or("?")
}
