// SPDX-License-Identifier: MIT

//! The structure of the TOML configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) listen: Option<Spanned<String>>,
    pub(crate) udp: Option<Spanned<String>>,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) http: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) threads: usize,
    #[serde(default = "defaults::connections")]
    pub(crate) max_connections: usize,
    #[serde(default = "defaults::value_max")]
    pub(crate) value_max: u32,
    #[serde(default = "defaults::memory_mb")]
    pub(crate) memory_mb: usize,
    #[serde(default = "defaults::default_true")]
    pub(crate) batch: bool,
    #[serde(default = "defaults::window_us")]
    pub(crate) window_us: u64,
    #[serde(default = "defaults::default_true")]
    pub(crate) fixed_window: bool,
    #[serde(default = "defaults::timeout_ms")]
    pub(crate) timeout_ms: u64,
    #[serde(default = "defaults::udp_timeout_ms")]
    pub(crate) udp_timeout_ms: u64,
    #[serde(default = "defaults::failures")]
    pub(crate) failures: u32,
    #[serde(default = "defaults::retry_ms")]
    pub(crate) retry_ms: u64,
    #[serde(default = "defaults::drain_s")]
    pub(crate) drain_s: u64,
    #[serde(default = "defaults::resolve_s")]
    pub(crate) resolve_s: u64,
    #[serde(default)]
    pub(crate) log_one_in: u64,
    pub(crate) zone: Option<String>,
    pub(crate) tls: Option<Spanned<TlsFile>>,
    pub(crate) l1: Option<L1File>,
    #[serde(default)]
    pub(crate) allow: Vec<Spanned<String>>,
    pub(crate) pools: BTreeMap<String, Spanned<PoolFile>>,
    #[serde(default)]
    pub(crate) routes: Vec<Spanned<RouteFile>>,
}

mod defaults {
    pub(super) fn connections() -> usize {
        10_000
    }
    pub(super) fn value_max() -> u32 {
        8 << 20
    }
    pub(super) fn memory_mb() -> usize {
        128
    }
    pub(super) fn window_us() -> u64 {
        1
    }
    pub(super) fn timeout_ms() -> u64 {
        1000
    }
    pub(super) fn udp_timeout_ms() -> u64 {
        50
    }
    pub(super) fn failures() -> u32 {
        3
    }
    pub(super) fn retry_ms() -> u64 {
        1000
    }
    pub(super) fn drain_s() -> u64 {
        10
    }
    pub(super) fn resolve_s() -> u64 {
        30
    }
    pub(super) fn l1_keys() -> usize {
        1000
    }
    pub(super) fn default_true() -> bool {
        true
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolFile {
    pub(crate) nodes: Vec<Spanned<NodeFile>>,
    pub(crate) distribution: Option<Spanned<String>>,
    pub(crate) hash: Option<Spanned<String>>,
    pub(crate) hash_tag: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) hash_stop: bool,
    pub(crate) failover: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) failover_ttl_s: u32,
    pub(crate) returning: Option<Spanned<String>>,
    pub(crate) zone: Option<String>,
    pub(crate) tls: Option<Spanned<PoolTlsFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    pub(crate) listen: Spanned<String>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct L1File {
    pub(crate) ttl_ms: u64,
    #[serde(default = "defaults::l1_keys")]
    pub(crate) keys: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolTlsFile {
    pub(crate) ca: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum NodeFile {
    Address(String),
    Table(NodeTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeTable {
    pub(crate) address: String,
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) weight: Option<u32>,
    #[serde(default = "defaults::default_true")]
    pub(crate) udp: bool,
    #[serde(default)]
    pub(crate) each: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteFile {
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) name: Option<String>,
    pub(crate) commands: Option<Vec<Spanned<String>>>,
    pub(crate) pool: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) pools: Vec<Spanned<String>>,
    pub(crate) write: Option<Spanned<String>>,
    pub(crate) read: Option<Spanned<String>>,
    pub(crate) warm: Option<Spanned<String>>,
    pub(crate) shadow: Option<ShadowFile>,
    pub(crate) migrate: Option<MigrateFile>,
    #[serde(default)]
    pub(crate) limit: LimitFile,
    #[serde(default)]
    pub(crate) single_flight_ms: u64,
    #[serde(default)]
    pub(crate) lock_s: u32,
    #[serde(default)]
    pub(crate) split_bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShadowFile {
    pub(crate) pool: Spanned<String>,
    pub(crate) share: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigrateFile {
    pub(crate) to: Spanned<String>,
    pub(crate) start: u64,
    pub(crate) interval_s: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitFile {
    #[serde(default)]
    pub(crate) requests: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) in_flight: u32,
}
