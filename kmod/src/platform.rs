// SPDX-License-Identifier: GPL-2.0-only
//! The kernel as the store's platform. The only file of the module itself with unsafe code: the store's platform trait
//! is unsafe to implement.

use core::ffi::CStr;
use core::ptr::NonNull;

use hippos_abi::memory_reserve;
use hippos_engine::PrintableKey;
use hippos_kapi::lock::SpinLock;
use hippos_kapi::thread::Waker;
use hippos_kapi::{cpu, pages, rcu, time, trace};
use hippos_store::{Cookie, LockClass, Platform, RawLock, Removed};

/// The kernel's pages, grace periods and locks.
pub(crate) struct Kernel {
    /// Woken when the store needs maintenance.
    pub(crate) waker: Waker,
    direct_map: usize,
    reserve: u64,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Self {
            waker: Waker::new(),
            direct_map: pages::direct_map(),
            reserve: memory_reserve(pages::total()),
        }
    }

    /// Blocks are freed when less memory is available.
    pub(crate) fn low(&self) -> u64 {
        self.reserve / 2
    }

    /// No blocks are allocated when less memory is available.
    fn high(&self) -> u64 {
        self.reserve / 8 * 5
    }
}

/// A spin lock of the store.
#[derive(Default)]
pub(crate) struct Lock(SpinLock);

// SAFETY: a kernel spin lock has one holder at a time, acquires and releases.
unsafe impl RawLock for Lock {
    fn init(&self, class: LockClass) {
        self.0.init(class as u32);
    }

    #[inline]
    fn lock(&self) {
        self.0.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds it.
        unsafe { self.0.unlock() }
    }
}

/// Passes an item to `emit`, as trace points have it.
fn with_traced(
    item: &Removed<'_>,
    reason: &'static CStr,
    emit: impl FnOnce(&trace::TracedItem<'_>),
) {
    let key = PrintableKey::new(item.key);
    emit(&trace::TracedItem {
        reason,
        key: trace::TracedKey {
            text: key.text(),
            len: key.key_len(),
        },
        slab_class: item.class,
        size: item.size,
        idle: item.idle,
        fetched: item.fetched,
    });
}

#[cold]
#[inline(never)]
fn trace_evicted(item: &Removed<'_>) {
    with_traced(item, c"memory", |traced| traced.evict());
}

#[cold]
#[inline(never)]
fn trace_dead(item: &Removed<'_>) {
    let reason = if item.flushed { c"flushed" } else { c"expired" };
    with_traced(item, reason, |traced| traced.expire());
}

// SAFETY: blocks come from the page allocator and have no other owner; guards are RCU read-side sections, and cookies
// are of the grace periods that wait for them.
unsafe impl Platform for Kernel {
    type Guard = rcu::ReadSection;
    type Lock = Lock;

    #[inline]
    fn read_lock(&self) -> rcu::ReadSection {
        rcu::read_lock()
    }

    fn block_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        if pages::available() < self.high().saturating_add(bytes as u64) {
            return None;
        }
        pages::alloc(bytes)
    }

    unsafe fn block_free(&self, block: NonNull<u8>, bytes: usize) {
        // SAFETY: from `block_alloc`, and the store refers to it no more.
        unsafe { pages::free(block, bytes) }
    }

    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        pages::alloc_table(bytes)
    }

    unsafe fn table_free(&self, table: NonNull<u8>, _bytes: usize) {
        // SAFETY: from `table_alloc`, and the store refers to it no more.
        unsafe { pages::free_table(table) }
    }

    fn gp_start(&self) -> Cookie {
        Cookie(rcu::start())
    }

    fn gp_done(&self, cookie: Cookie) -> bool {
        rcu::is_over(cookie.0)
    }

    fn gp_wait(&self) {
        rcu::wait_expedited();
    }

    #[inline]
    fn cpu(&self) -> usize {
        cpu::current()
    }

    fn cpus(&self) -> usize {
        cpu::count()
    }

    #[inline]
    fn base(&self) -> usize {
        self.direct_map
    }

    fn unix_us(&self) -> u64 {
        time::unix_us()
    }

    fn cond_resched(&self) {
        cpu::resched();
    }

    fn short_sleep(&self) {
        cpu::short_sleep();
    }

    fn memory_headroom(&self) -> Option<isize> {
        let available = pages::available();
        if available < self.low() {
            let lack = self.low().saturating_sub(available);
            return Some((lack as isize).wrapping_neg());
        }
        Some(available.saturating_sub(self.high()) as isize)
    }

    #[inline(always)]
    fn trace_evicted<'a>(&self, item: impl FnOnce() -> Removed<'a>) {
        if trace::evictions_on() {
            trace_evicted(&item());
        }
    }

    #[inline(always)]
    fn trace_dead<'a>(&self, item: impl FnOnce() -> Removed<'a>) {
        if trace::expiries_on() {
            trace_dead(&item());
        }
    }

    #[inline]
    fn trace_slab_moved(&self, from: u32, to: u32) {
        if trace::reclaims_on() {
            trace::reclaim(from, to);
        }
    }

    fn wake(&self) {
        self.waker.wake();
    }
}
