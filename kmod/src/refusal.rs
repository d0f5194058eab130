// SPDX-License-Identifier: GPL-2.0-only
//! Clients that are refused by their address, their number or their rate, or closed because they are too slow: a trace
//! point, and a line in the kernel's log unless there were many.

use core::ffi::CStr;

use kernel::prelude::*;

use hippos_engine::Address;
use hippos_kapi::{log, trace};

use crate::config::printable;
use crate::traced::UDP_SOCKET;

/// Reports that a receive path refused a client.
#[cold]
#[inline(never)]
pub(crate) fn refused(path: &'static CStr, reason: &'static CStr, client: Address) {
    if trace::refusals_on() {
        let Address { ip, port } = client;
        trace::refuse(path, reason, trace::Client { ip, port });
    }
    if log::permits(path == UDP_SOCKET) {
        let (path, reason) = (printable(path.to_bytes()), printable(reason.to_bytes()));
        pr_info!("{}\n", format_args!("{client} refused by {path}: {reason}"));
    }
}
