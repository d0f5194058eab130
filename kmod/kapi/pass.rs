// SPDX-License-Identifier: GPL-2.0-only
//! Why datagrams are passed to the next receive path: the list of `kmod/c/pass.h`.

use core::mem::MaybeUninit;
use core::{slice, str};

use crate::ffi;

const LIST: &[u8] = include_bytes!("../c/pass.h");
/// How many reasons there are: the enumeration follows the list.
const COUNT: u32 = Reason::named(b"enum hippos_pass_reason").0;

/// A reason.
#[derive(Clone, Copy)]
pub struct Reason(u32);

impl Reason {
    /// Its source is not allowed.
    pub const SOURCE: Self = Self::named(b"\tX(SOURCE,");
    /// It came by another interface than the served one.
    pub const INTERFACE: Self = Self::named(b"\tX(INTERFACE,");
    /// Its reply is too long for a packet here, or there is no memory for it.
    pub const ROOM: Self = Self::named(b"\tX(ROOM,");
    /// It is no valid request.
    pub const INVALID: Self = Self::named(b"\tX(INVALID,");
    /// Only the socket's worker serves it.
    pub const UNSERVED: Self = Self::named(b"\tX(UNSERVED,");

    /// The reason of a row that begins so: its number is that of the rows before.
    const fn named(start: &[u8]) -> Self {
        let (mut at, mut number) = (0, 0);
        while at < LIST.len() {
            if matches(at, start) {
                return Self(number);
            }
            if matches(at, b"\tX(") {
                number += 1;
            }
            at += 1;
        }
        panic!("kmod/c/pass.h has no such reason");
    }

    /// Counts it, for a frame before there is an sk_buff or for a packet.
    #[cold]
    pub(crate) fn count(self, xdp: bool) {
        let kind = if xdp {
            ffi::HIPPOS_XDP
        } else {
            ffi::HIPPOS_HOOK
        };
        // SAFETY: a reason of the list.
        unsafe { ffi::hippos_pass(kind, self.0) };
    }
}

/// Whether the list has these bytes there.
const fn matches(at: usize, bytes: &[u8]) -> bool {
    let mut i = 0;
    while i < bytes.len() {
        if at + i >= LIST.len() || LIST[at + i] != bytes[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// How often a reason held, on all CPUs since the load.
pub struct PassCount {
    /// The reason's name.
    pub name: &'static str,
    /// Datagrams that PRE_ROUTING left to the stack.
    pub hook: u64,
    /// Frames that XDP left to PRE_ROUTING.
    pub xdp: u64,
}

/// All reasons.
pub fn rows() -> impl Iterator<Item = PassCount> {
    (0..COUNT).map_while(|reason| {
        let mut row = MaybeUninit::uninit();
        // SAFETY: the row is ours to write to.
        if !unsafe { ffi::hippos_pass_row(reason, row.as_mut_ptr()) } {
            return None;
        }
        // SAFETY: it was written.
        let row = unsafe { row.assume_init() };
        // SAFETY: the names are literals of the module's, of that length.
        let name = unsafe { slice::from_raw_parts(row.name, row.len) };
        Some(PassCount {
            name: str::from_utf8(name).unwrap_or("?"),
            hook: row.sum.hook,
            xdp: row.sum.xdp,
        })
    })
}
