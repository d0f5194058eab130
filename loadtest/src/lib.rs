//! Open-loop memcached load: workloads as data, trace replay, checked replies,
//! reports. The command `hippos-load` is a thin layer over this library, so that
//! benches can drive it and simulators can use its [`workload`] models alone.

pub mod arrival;
pub mod dist;
pub mod echo;
pub mod generate;
pub mod live;
pub mod mmsg;
pub mod payload;
pub mod pending;
pub mod plot;
pub mod replay;
pub mod report;
pub mod request;
pub mod search;
pub mod session;
pub mod settings;
pub mod source;
pub mod stats;
pub mod tcp;
pub mod trace;
pub mod udp;
pub mod versions;
pub mod wire;
pub mod worker;
pub mod workload;
