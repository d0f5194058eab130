//! Open-loop memcached load: workloads as data, trace replay, checked replies,
//! reports. Simulators can use the [`workload`] models alone.

pub mod dist;
pub mod payload;
pub mod request;
pub mod workload;
