// SPDX-License-Identifier: GPL-2.0-only
//! Clients that are refused by their address, their number or their rate, or closed because they are too slow: a trace
//! point, and a line in the kernel's log unless there were many. Any context, softirq too.

use core::ffi::CStr;
use core::net::SocketAddr;

use kernel::prelude::*;

use hippos_kapi::{log, trace};

use crate::config::printable;
use crate::traced::TCP_WORKER;

/// Reports that a receive path refused a client.
#[cold]
#[inline(never)]
pub(crate) fn refused(path: &'static CStr, reason: &'static CStr, client: SocketAddr) {
    if trace::refusals_on() {
        trace::refuse(path, reason, client);
    }
    let kind = if path == TCP_WORKER {
        log::Kind::Connection
    } else {
        log::Kind::Datagram
    };
    if log::permits(kind) {
        let (path, reason) = (printable(path.to_bytes()), printable(reason.to_bytes()));
        pr_info!("{}\n", format_args!("{client} refused by {path}: {reason}"));
    }
}
