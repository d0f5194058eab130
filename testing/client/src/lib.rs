// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The least of a memcached client, for tests and tools: one request after the other over TCP, UDP requests
//! in their frames, and the receive path that these are to meet first.

mod receive_path;
mod tcp;
mod udp;

pub use receive_path::ReceivePath;
pub use tcp::{stream, Tcp};
pub use udp::{check, framed, socket, Udp, DATAGRAM, FRAME};

use std::time::Duration;

/// memcached's port.
pub const PORT: u16 = 11211;

/// How long an answer may take, unless another time is given.
const LIMIT: Duration = Duration::from_secs(5);
