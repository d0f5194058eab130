// SPDX-License-Identifier: MIT

//! A fleet of memcached servers behind one address.
//!
//! Clients use memcached's protocols to the proxy, which sends each command to the node that has its key. GETs to
//! Hippos nodes are sent in datagrams of many keys ([`batch`]), everything else in TCP pipelines ([`framing`] finds the
//! end of a reply). A worker is one thread with its own epoll instance, clients and sockets to every node; workers
//! share nothing while they serve a request.
#![forbid(unsafe_code)]

pub mod batch;
pub mod config;
pub mod framing;
pub mod l1;
pub mod metrics;
pub mod network;
pub mod route;
pub mod server;
pub mod session;
pub mod watch;

mod answer;
mod bucket;
mod client;
mod connection;
mod dispatch;
mod event;
mod exclusion;
mod file;
mod flight;
mod health;
mod job;
mod job_runner;
mod job_step;
mod lengths;
mod lock;
mod metrics_page;
mod node;
mod numbered_list;
mod shared;
mod split;
mod splitting;
mod stream;
mod tls;
mod worker;
