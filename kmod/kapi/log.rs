// SPDX-License-Identifier: GPL-2.0-only
//! Lines in the kernel's log that clients can cause (`linux/ratelimit.h`), and who causes those of an administrator
//! (`linux/cred.h`).

use core::fmt;

use crate::ffi;

/// The subject of a line.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    /// A connection that is refused.
    Connection = 0,
    /// A datagram that is refused.
    Datagram = 1,
    /// A change by a client.
    Change = 2,
}

/// Whether one more such line may be written: ten a minute of each kind.
pub fn permits(kind: Kind) -> bool {
    // SAFETY: takes a spin lock by trying; any context.
    unsafe { ffi::hippos_log_permits(kind as u32) }
}

/// The user who makes this system call, as `hippos-ctl` names it in its own lines.
pub struct Caller {
    user: u32,
    login: u32,
}

impl Caller {
    /// Process context.
    pub fn current() -> Self {
        // SAFETY: both read fields of the current task.
        let (user, login) = unsafe { (ffi::hippos_log_user(), ffi::hippos_log_login()) };
        Self { user, login }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by user {}", self.user)?;
        if self.login == u32::MAX {
            return Ok(());
        }
        write!(f, ", who logged in as {}", self.login)
    }
}
