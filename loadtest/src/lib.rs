// SPDX-License-Identifier: GPL-2.0-only
//! Open-loop memcached load: workloads as data, trace replay, verified replies, reports. The command `hippos-load` is a
//! thin layer over this library, so that benches can use it and simulators can use its [`workload`] models alone.

pub mod arrival;
pub mod binary;
pub mod dist;
pub mod echo;
pub mod element;
pub mod generate;
pub mod hgrm;
pub mod html;
pub mod link;
pub mod live;
pub mod merge;
pub mod mmsg;
mod named;
pub mod order;
pub mod output;
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
pub mod stat;
pub mod stats;
pub mod tcp;
#[cfg(feature = "tls")]
mod tls;
pub mod trace;
pub mod udp;
pub mod versions;
pub mod wire;
pub mod worker;
pub mod workload;
pub mod ycsb;
