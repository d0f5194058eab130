// SPDX-License-Identifier: GPL-2.0-only
//! The host platform, with hooks that let a test observe the store's calls.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::OnceLock;

use hippos_store::host::{Host, Spin};
use hippos_store::{Cookie, LockClass, Platform, RawLock};

/// The hooks of a test into the store's calls.
pub(crate) trait Watch: Send + Sync + 'static {
    /// A block was allocated for the store.
    fn given(&self, _block: NonNull<u8>, _bytes: usize) {}
    /// The store freed a block.
    fn freed(&self, _block: NonNull<u8>, _bytes: usize) {}
    /// The store asks for memory, for a block or a table. True: refuse it.
    fn refuses(&self) -> bool {
        false
    }
    /// A table was allocated for the store.
    fn table_given(&self) {}
    /// The store freed a table.
    fn table_freed(&self) {}
    /// The base address of references.
    fn base(&self) -> usize {
        0
    }
    /// The store asks for the current CPU, as it does when it counts something.
    fn asked(&self) {}
    /// The store is about to enter a read-side section.
    fn entering(&self) {}
    /// The store has slept for a grace period, which ends all that were started up to `cookie`.
    fn waited(&self, _cookie: Cookie) {}
    /// The store asks whether a grace period has passed. False: it has not.
    fn polled(&self, _cookie: Cookie) -> bool {
        true
    }
}

std::thread_local! {
    /// Called before this thread takes a lock of the store.
    pub(crate) static LOCKING: Cell<Option<fn(LockClass)>> = const { Cell::new(None) };
}

/// The host's lock, with a hook.
#[derive(Default)]
pub(crate) struct WatchedLock {
    spin: Spin,
    class: OnceLock<LockClass>,
}

// SAFETY: the lock is the host's.
unsafe impl RawLock for WatchedLock {
    fn init(&self, class: LockClass) {
        let _ = self.class.set(class);
    }
    fn lock(&self) {
        if let (Some(hook), Some(class)) = (LOCKING.get(), self.class.get()) {
            hook(*class);
        }
        self.spin.lock();
    }
    fn try_lock(&self) -> bool {
        self.spin.try_lock()
    }
    unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.spin.unlock() }
    }
}

/// The host, and the test that sees its calls.
pub(crate) struct Instrumented<W> {
    pub(crate) host: Host,
    pub(crate) watch: W,
}

// SAFETY: all of it is the host's.
unsafe impl<W: Watch> Platform for Instrumented<W> {
    type Guard = <Host as Platform>::Guard;
    type Lock = WatchedLock;

    fn read_lock(&self) -> Self::Guard {
        self.watch.entering();
        self.host.read_lock()
    }
    fn block_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.watch.refuses() {
            return None;
        }
        let block = self.host.block_alloc(bytes)?;
        self.watch.given(block, bytes);
        Some(block)
    }
    unsafe fn block_free(&self, block: NonNull<u8>, bytes: usize) {
        self.watch.freed(block, bytes);
        // SAFETY: the caller's promise.
        unsafe { self.host.block_free(block, bytes) }
    }
    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.watch.refuses() {
            return None;
        }
        let table = self.host.table_alloc(bytes)?;
        self.watch.table_given();
        Some(table)
    }
    unsafe fn table_free(&self, table: NonNull<u8>, bytes: usize) {
        self.watch.table_freed();
        // SAFETY: the caller's promise.
        unsafe { self.host.table_free(table, bytes) }
    }
    fn gp_start(&self) -> Cookie {
        self.host.gp_start()
    }
    fn gp_done(&self, cookie: Cookie) -> bool {
        self.watch.polled(cookie) && self.host.gp_done(cookie)
    }
    fn gp_wait(&self) {
        let cookie = self.host.gp_start();
        self.host.gp_wait();
        self.watch.waited(cookie);
    }
    fn cpu(&self) -> usize {
        self.watch.asked();
        Platform::cpu(&self.host)
    }
    fn cpus(&self) -> usize {
        Platform::cpus(&self.host)
    }
    fn base(&self) -> usize {
        self.watch.base()
    }
    fn poison(&self) -> bool {
        Platform::poison(&self.host)
    }
}
