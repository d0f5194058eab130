// SPDX-License-Identifier: GPL-2.0-only
//! Planted defects, one for each checker of the debug kernel, which must report
//! it. The module commits them (`kmod/kapi/fault.rs`); the kernel's report fails
//! the test, and the host checks that it does, in a guest for each.

use anyhow::{bail, Context, Result};
use nix::errno::Errno;

use crate::leaks;
use crate::modules;

/// Loads the module to commit the fault of that name.
fn commit(fault: &str) -> Result<()> {
    match modules::insert(modules::HIPPOS.as_ref(), &format!("selftest_fault={fault}")) {
        Err(Errno::EDOM) => Ok(()),
        Err(error) => Err(error).context("insmod hippos.ko"),
        Ok(()) => {
            modules::remove("hippos")?;
            bail!("this module has no faults: is it for the debug kernel?")
        }
    }
}

macro_rules! faults {
    ($($name:ident: $what:literal;)+) => {$(
        #[doc = $what]
        pub(super) fn $name() -> Result<()> {
            commit(stringify!($name))
        }
    )+};
}

faults! {
    use_after_free: "KASAN: an object of the slab allocator's, by Rust.";
    freed_pages: "KASAN: a block of pages, as items lie in, by Rust.";
    sleep_in_softirq: "DEBUG_ATOMIC_SLEEP: an allocation that may sleep, by Rust.";
    sleep_under_rcu: "DEBUG_ATOMIC_SLEEP: the same in a read-side section, by Rust.";
    unguarded: "PROVE_RCU: a pointer followed outside of such a section.";
    unsafe_lock: "PROVE_LOCKING: a lock that softirq takes too, held with softirqs on.";
    lock_order: "PROVE_LOCKING: two locks in both orders.";
    freed_timer: "DEBUG_OBJECTS: memory given back with a running timer in it.";
}

/// kmemleak: memory from Rust to which no pointer is left.
pub(super) fn leak() -> Result<()> {
    commit("leak")?;
    match leaks::find()? {
        Some(found) if !found.is_empty() => bail!("{found}"),
        _ => Ok(()),
    }
}
