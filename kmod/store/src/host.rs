// SPDX-License-Identifier: GPL-2.0-only
//! The platform of a host process: threads as CPUs, the system allocator, and a stand-in for RCU.
//!
//! The stand-in is as strict as RCU allows: a grace period ends as soon as all sections that existed at its start are
//! over. A section records the epoch in which it began; a grace period starts a new epoch and is over when no section
//! of an older one is left. Entering a section costs one store, because on Linux the grace period's side pays for
//! memory ordering, with membarrier(2).

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{
    compiler_fence, fence, AtomicBool, AtomicIsize, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::alloc::Layout;
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

use crate::platform::{Cookie, Platform, RawLock};

/// Threads that may use the store at the same time.
const THREADS: usize = 512;

/// Counts of the threads that are in a section: `epoch << 8 | depth`, 0 outside.
#[repr(align(128))]
struct Reader(AtomicU64);

/// A platform for tests, benches and servers in user space.
pub struct Host {
    cpus: usize,
    poison: bool,
    /// Grace periods end at once, which is wrong: it shows that a test notices.
    careless: bool,
    /// Use membarrier, not a fence in each section.
    membarrier: bool,
    epoch: AtomicU64,
    /// All sections of epochs before this one are over.
    done: AtomicU64,
    readers: &'static [Reader],
    /// Blocks that may still be allocated.
    blocks: AtomicUsize,
    /// Free halves of huge pages.
    halves: Mutex<Vec<usize>>,
    woken: AtomicBool,
    /// See [`Host::set_spare`]; `isize::MAX` for none.
    spare: AtomicIsize,
}

/// Reader words of platforms that were dropped. Guards refer to them and could outlive a platform, so they are not
/// freed but reused: a fuzzer makes a platform for each input.
static SPARE: Mutex<Vec<&'static [Reader]>> = Mutex::new(Vec::new());

/// Which thread numbers are in use.
static TAKEN: [AtomicBool; THREADS] = [const { AtomicBool::new(false) }; THREADS];
/// All numbers in use are less than this.
static NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// A thread's number, given back when the thread ends.
struct Number(usize);

impl Number {
    fn new() -> Self {
        let free = TAKEN.iter().position(|taken| !taken.swap(true, Acquire));
        let number = free.expect("not so many threads");
        NUMBERS.fetch_max(number + 1, Relaxed);
        THREAD.set(number);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        THREAD.set(usize::MAX);
        TAKEN[self.0].store(false, Release);
    }
}

std::thread_local! {
    static OWNED: Number = Number::new();
    /// The same number without a destructor, which makes access cheap.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[cold]
fn new_thread() -> usize {
    OWNED.with(|n| n.0)
}

#[inline]
fn thread() -> usize {
    match THREAD.get() {
        usize::MAX => new_thread(),
        n => n,
    }
}

/// Whether the kernel supports membarrier, which orders other threads' memory accesses.
#[cfg(all(target_os = "linux", not(miri)))]
fn register_membarrier() -> bool {
    const REGISTER_PRIVATE_EXPEDITED: i32 = 16;
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn membarrier() {
    const PRIVATE_EXPEDITED: i32 = 8;
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) };
    assert_eq!(result, 0, "membarrier");
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn register_membarrier() -> bool {
    false
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn membarrier() {}

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Asks for huge pages, as the kernel's direct map has.
#[cfg(all(target_os = "linux", not(miri)))]
fn want_huge(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the range was just allocated; the advice does not change its contents.
    unsafe { libc::madvise(at.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn want_huge(_: NonNull<u8>, _: usize) {}

/// `bytes` bytes, aligned to as many.
fn aligned_alloc(bytes: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes, bytes).ok()?;
    // SAFETY: the layout is not empty.
    let at = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
    if bytes >= HUGE {
        want_huge(at, bytes);
    }
    Some(at)
}

/// # Safety
///
/// `at` came from `aligned_alloc(bytes)`, and nothing refers to it any more.
unsafe fn aligned_free(at: usize, bytes: usize) {
    if let Ok(layout) = Layout::from_size_align(bytes, bytes) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::dealloc(at as *mut u8, layout) };
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A platform with as many CPUs as the machine has.
    pub fn new() -> Self {
        let spare = SPARE.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let fresh = || -> &'static [Reader] {
            let readers: Vec<Reader> = (0..THREADS).map(|_| Reader(AtomicU64::new(0))).collect();
            Box::leak(readers.into_boxed_slice())
        };
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            poison: false,
            careless: false,
            membarrier: register_membarrier(),
            epoch: AtomicU64::new(1),
            done: AtomicU64::new(0),
            readers: spare.unwrap_or_else(fresh),
            blocks: AtomicUsize::new(usize::MAX),
            halves: Mutex::new(Vec::new()),
            woken: AtomicBool::new(false),
            spare: AtomicIsize::new(isize::MAX),
        }
    }

    /// Sets the number of CPUs.
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus.max(1);
        self
    }

    /// Overwrites slots when they are freed.
    pub fn poison(mut self) -> Self {
        self.poison = true;
        self
    }

    /// Ends grace periods without waiting, to check that a test notices.
    pub fn careless(mut self) -> Self {
        self.careless = true;
        self
    }

    /// Orders memory in the sections themselves, which race detectors understand.
    pub fn fenced(mut self) -> Self {
        self.membarrier = false;
        self
    }

    /// Limits further allocations to this many blocks.
    pub fn allow_blocks(&self, blocks: usize) {
        self.blocks.store(blocks, Relaxed);
    }

    /// Sets the memory that may still be taken or, if negative, that is to be given back; `isize::MAX` for no limit.
    pub fn set_spare(&self, bytes: isize) {
        self.spare.store(bytes, Relaxed);
    }

    /// Whether the store has asked for maintenance since the last call.
    pub fn take_wake(&self) -> bool {
        self.woken.swap(false, Relaxed)
    }

    /// Whether all sections of epochs before `epoch` are over.
    fn passed(&self, epoch: u64) -> bool {
        if self.careless || self.done.load(Acquire) >= epoch {
            return true;
        }
        // One pass answers for all grace periods that were started before it.
        let now = self.epoch.load(SeqCst);
        if self.membarrier {
            membarrier();
        } else {
            fence(SeqCst);
        }
        let threads = NUMBERS.load(Acquire);
        let mut oldest = now;
        for reader in self.readers.iter().take(threads) {
            // Without membarrier a read-modify-write orders the load, in a way that race detectors understand.
            let word = if self.membarrier {
                reader.0.load(Acquire)
            } else {
                reader.0.fetch_add(0, SeqCst)
            };
            if word != 0 {
                oldest = oldest.min(word >> 8);
            }
        }
        if oldest >= epoch {
            // Not `fetch_max`, whose order ThreadSanitizer does not see.
            let later = |done| (done < oldest).then_some(oldest);
            let _ = self.done.fetch_update(Release, Relaxed, later);
            return true;
        }
        false
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self
            .readers
            .iter()
            .all(|reader| reader.0.load(Acquire) == 0)
        {
            let mut spare = SPARE.lock().unwrap_or_else(|e| e.into_inner());
            spare.push(self.readers);
        }
    }
}

/// A read-side section of a [`Host`].
pub struct ReadSection {
    reader: &'static AtomicU64,
    stay: core::marker::PhantomData<*const ()>,
}

impl Drop for ReadSection {
    #[inline]
    fn drop(&mut self) {
        let word = self.reader.load(Relaxed);
        let left = if word & 0xff == 1 { 0 } else { word - 1 };
        self.reader.store(left, Release);
    }
}

/// A spin lock that yields the CPU when it has to wait for long.
#[derive(Default)]
pub struct Spin(AtomicBool);

// SAFETY: the flag is taken by a compare-exchange and cleared by its holder.
unsafe impl RawLock for Spin {
    #[inline]
    fn lock(&self) {
        let mut tries = 0u32;
        while !self.try_lock() {
            tries += 1;
            if tries % 128 == 0 {
                std::thread::yield_now();
            } else {
                core::hint::spin_loop();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        !self.0.load(Relaxed)
            && self
                .0
                .compare_exchange(false, true, Acquire, Relaxed)
                .is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(false, Release);
    }
}

// SAFETY: blocks come from the system's allocator. A section writes its epoch before it reads
// anything of the store, in an order that `passed` sees (see the head of the file).
unsafe impl Platform for Host {
    type Guard = ReadSection;
    type Lock = Spin;

    #[inline]
    fn read_lock(&self) -> ReadSection {
        let reader = &self.readers[thread()].0;
        let word = reader.load(Relaxed);
        if word != 0 {
            reader.store(word + 1, Release);
        } else {
            let word = self.epoch.load(Acquire) << 8 | 1;
            if self.membarrier {
                reader.store(word, Relaxed);
                compiler_fence(SeqCst);
            } else {
                reader.swap(word, SeqCst);
                fence(SeqCst);
            }
        }
        ReadSection {
            reader,
            stay: core::marker::PhantomData,
        }
    }

    fn block_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.blocks
            .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
            .ok()?;
        let block = if bytes == HUGE / 2 {
            let mut halves = self.halves.lock().unwrap_or_else(|e| e.into_inner());
            match halves.pop() {
                Some(half) => NonNull::new(half as *mut u8)?,
                None => {
                    let whole = aligned_alloc(HUGE)?;
                    halves.push(whole.as_ptr() as usize + HUGE / 2);
                    whole
                }
            }
        } else {
            aligned_alloc(bytes)?
        };
        if self.poison {
            // SAFETY: the block is ours.
            unsafe { block.write_bytes(0xa5, bytes) };
        }
        Some(block)
    }

    unsafe fn block_free(&self, block: NonNull<u8>, bytes: usize) {
        let at = block.as_ptr() as usize;
        if bytes != HUGE / 2 {
            // SAFETY: the block came from `block_alloc`, which took it alone.
            return unsafe { aligned_free(at, bytes) };
        }
        let mut halves = self.halves.lock().unwrap_or_else(|e| e.into_inner());
        match halves.iter().position(|half| *half == at ^ bytes) {
            Some(other) => {
                halves.swap_remove(other);
                // SAFETY: neither half is in use.
                unsafe { aligned_free(at & !bytes, HUGE) }
            }
            None => halves.push(at),
        }
    }

    fn table_alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, 4096).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
    }

    unsafe fn table_free(&self, table: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes, 4096) {
            // SAFETY: the table came from `table_alloc` with this layout.
            unsafe { std::alloc::dealloc(table.as_ptr(), layout) };
        }
    }

    fn gp_start(&self) -> Cookie {
        // Sections that begin from here on see all earlier writes.
        Cookie(self.epoch.fetch_add(1, SeqCst) + 1)
    }

    fn gp_done(&self, cookie: Cookie) -> bool {
        self.passed(cookie.0)
    }

    fn gp_wait(&self) {
        let Cookie(epoch) = self.gp_start();
        while !self.passed(epoch) {
            std::thread::yield_now();
        }
    }

    #[inline]
    fn cpu(&self) -> usize {
        let n = thread();
        if n < self.cpus {
            n
        } else {
            n % self.cpus
        }
    }

    fn cpus(&self) -> usize {
        self.cpus
    }

    fn unix_us(&self) -> u64 {
        let since = std::time::UNIX_EPOCH.elapsed();
        since.map_or(0, |since| since.as_micros() as u64)
    }

    fn cond_resched(&self) {
        std::thread::yield_now();
    }

    fn short_sleep(&self) {
        std::thread::sleep(std::time::Duration::from_micros(100));
    }

    fn memory_headroom(&self) -> Option<isize> {
        Some(self.spare.load(Relaxed)).filter(|spare| *spare != isize::MAX)
    }

    fn wake(&self) {
        self.woken.store(true, Relaxed);
    }

    fn poison(&self) -> bool {
        self.poison
    }
}
