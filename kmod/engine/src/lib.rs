// SPDX-License-Identifier: GPL-2.0-only
//! Sans-IO sessions that connect protocol and store: bytes in, bytes out.
//!
//! An [`Engine`] holds the state that all clients share. UDP requests that only read go through [`Engine::answer`], in
//! softirq. All others are served in process context, by a [`Session`] for each TCP connection, or [`Engine::datagram`]
//! for each UDP datagram. The host provides sockets, threads and clocks.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod access;
mod administration;
mod authentication;
mod class_statistics;
mod command;
pub mod connection;
mod counters;
mod credentials;
mod datagram;
mod engine;
#[cfg(test)]
mod fixture;
mod histogram;
mod host_counters;
mod host_stats;
mod interval;
mod latency;
mod limiter;
mod prefix;
mod refusals;
mod reply;
mod session;
mod settings;
mod sources;
mod statistics;
mod summary;
mod uploads;
mod watchers;

pub use access::Access;
pub use counters::{EngineCounter, ENGINE_COUNTERS};
pub use credentials::{Credentials, CredentialsError, CREDENTIALS_MAX};
pub use datagram::answer::{DatagramRequest, Pass};
pub use datagram::multi_get::MULTI_GET_MAX;
pub use datagram::plan::{Plan, PlanOutcome, PIECES};
pub use datagram::worker::{DatagramReply, Message};
pub use engine::Engine;
pub use hippos_proto::reply::{Cursor, Out};
pub use hippos_semantics::Administration;
pub use host_counters::HostCounter;
pub use host_stats::{
    Change, FastPathStats, HostState, HostStats, Refusal, SocketInfo, SteeringStats,
};
pub use interval::Interval;
pub use limiter::Limiter;
pub use prefix::Prefixes;
pub use refusals::RefusalCounter;
pub use reply::event::CloseReason;
pub use reply::REPLY_HEADER_MAX;
pub use session::state::{FeedResult, Next, Session, Transport};
pub use settings::Settings;
pub use sources::{ChangeError, Network, Networks, Sources, SourcesChange};
pub use summary::{outcome, PrintableKey, Summary};
