// SPDX-License-Identifier: GPL-2.0-only
//! Kernel threads (`linux/kthread.h`).

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::{Arc, Completion};
use kernel::types::Opaque;

use crate::ffi;

/// Microseconds that all threads started here have run.
pub fn runtime_us() -> u64 {
    // SAFETY: takes a spin lock; process context.
    unsafe { ffi::hippos_threads_us() }
}

/// Microseconds that the machine's CPUs have spent in softirqs.
pub fn softirq_us() -> u64 {
    // SAFETY: reads counters.
    unsafe { ffi::hippos_softirq_us() }
}

/// The process id of the thread that was started last here; 0 if there is none.
pub fn last_pid() -> u32 {
    // SAFETY: takes a spin lock; process context.
    unsafe { ffi::hippos_threads_pid() }
}

/// A running thread. Dropping it stops the thread and waits for its end.
///
/// # Invariants
///
/// `task` is held and was not stopped; it runs `body`, which is a `KBox` of
/// the type that `discard` drops.
pub struct Thread {
    task: NonNull<ffi::task_struct>,
    body: *mut c_void,
    discard: unsafe fn(*mut c_void),
}

// SAFETY: a thread may be stopped from any other.
unsafe impl Send for Thread {}
// SAFETY: a shared thread has no methods.
unsafe impl Sync for Thread {}

/// Shows that the code runs on a thread of ours.
pub struct Context {
    _thread: PhantomData<*mut ()>,
}

impl Context {
    /// Whether the thread is being stopped.
    pub fn should_stop(&self) -> bool {
        // SAFETY: called on a kernel thread, as `Context` shows.
        unsafe { ffi::hippos_thread_should_stop() }
    }

    /// Sleeps until the timeout ends or the thread is stopped.
    pub fn sleep(&self, timeout_ms: u32) {
        // SAFETY: called on a kernel thread, as `Context` shows.
        unsafe { ffi::hippos_thread_sleep(timeout_ms.into()) }
    }
}

/// A new thread's report that its start succeeded. Dropped without the report it
/// means that the start failed.
pub struct Started {
    report: Arc<Report>,
}

#[pin_data]
struct Report {
    #[pin]
    done: Completion,
    ready: AtomicBool,
}

impl Started {
    /// The thread is ready: [`Thread::spawn`] returns.
    pub fn ready(self) {
        self.report.ready.store(true, Ordering::Relaxed);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.report.done.complete_all();
    }
}

impl Thread {
    /// Starts a thread that runs `body`, bound to `cpu` if given, and waits
    /// until it is ready, or fails with `ENOMEM` when its start fails.
    pub fn spawn<F>(name: &CStr, cpu: Option<u32>, body: F) -> Result<Self>
    where
        F: FnOnce(&Context, Started) + Send + 'static,
    {
        let report = Arc::pin_init(
            pin_init!(Report {
                done <- Completion::new(),
                ready: AtomicBool::new(false),
            }),
            GFP_KERNEL,
        )?;
        let started = Started {
            report: report.clone(),
        };
        let thread = Self::start(name, cpu, move |context: &Context| body(context, started))?;
        report.done.wait_for_completion();
        // The completion orders this after the thread's store.
        if report.ready.load(Ordering::Relaxed) {
            Ok(thread)
        } else {
            Err(ENOMEM)
        }
    }

    fn start<F>(name: &CStr, cpu: Option<u32>, body: F) -> Result<Self>
    where
        F: FnOnce(&Context) + Send + 'static,
    {
        let body = KBox::into_raw(KBox::new(body, GFP_KERNEL)?).cast::<c_void>();
        // SAFETY: `run::<F>` gets a pointer to its own `F`; `name` is copied.
        let task = from_err_ptr(unsafe {
            ffi::hippos_thread_start(
                run::<F>,
                body,
                cpu.map_or(-1, |cpu| cpu as c_int),
                name.as_char_ptr(),
            )
        });
        match task.and_then(|task| NonNull::new(task).ok_or(ENOMEM)) {
            // INVARIANT: just started with this body.
            Ok(task) => Ok(Self {
                task,
                body,
                discard: discard::<F>,
            }),
            Err(error) => {
                // SAFETY: no thread has it.
                unsafe { discard::<F>(body) };
                Err(error)
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: held and not stopped before, by the invariant.
        let result = unsafe { ffi::hippos_thread_stop(self.task.as_ptr()) };
        if result != 0 {
            // It was stopped before it began, and `run` never called.
            // SAFETY: so the body is still ours.
            unsafe { (self.discard)(self.body) }
        }
    }
}

/// # Safety
///
/// `body` is from `KBox<F>`, and the caller is its only owner.
unsafe fn discard<F>(body: *mut c_void) {
    // SAFETY: by this function's own requirement.
    drop(unsafe { KBox::from_raw(body.cast::<F>()) });
}

/// # Safety
///
/// Called once, on a new kernel thread, with a `KBox<F>`'s pointer.
unsafe extern "C" fn run<F: FnOnce(&Context)>(body: *mut c_void) -> c_int {
    // SAFETY: by this function's own requirement.
    let body = unsafe { KBox::from_raw(body.cast::<F>()) };
    let context = Context {
        _thread: PhantomData,
    };
    KBox::into_inner(body)(&context);
    // The caller that stops the thread relies on its existence.
    while !context.should_stop() {
        context.sleep(u32::MAX);
    }
    0
}

/// Wakes a thread, from any context. It is there before the thread, and may
/// be woken, without effect, before it has a receiver and after the receiver's end.
///
/// # Invariants
///
/// `raw.task` is null or a task that is held.
pub struct Waker {
    raw: Opaque<ffi::hippos_waker>,
}

// SAFETY: the C side uses atomic operations throughout, and the task is held.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}

impl Waker {
    /// A waker without a receiver.
    pub fn new() -> Self {
        Self {
            // INVARIANT: no task.
            raw: Opaque::new(ffi::hippos_waker {
                task: ptr::null_mut(),
                pending: 0,
            }),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::hippos_waker {
        self.raw.get()
    }

    /// Wakes the receiving thread, or keeps it from its next sleep.
    pub fn wake(&self) {
        // SAFETY: the waker is initialised; any context will do.
        unsafe { ffi::hippos_waker_wake(self.raw.get()) }
    }
}

impl Default for Waker {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: no caller of `wake` holds a waker that is dropped; the task, if any, is held.
        unsafe { ffi::hippos_waker_detach(self.raw.get()) }
    }
}

/// The receiving end of a [`Waker`].
pub struct WakeReceiver<'a> {
    waker: &'a Waker,
    context: &'a Context,
}

impl<'a> WakeReceiver<'a> {
    /// Makes the calling thread the one that `waker` wakes; `EBUSY` when it
    /// has one already.
    pub fn new(waker: &'a Waker, context: &'a Context) -> Result<Self> {
        // SAFETY: on the thread itself, as its context shows.
        if unsafe { ffi::hippos_waker_attach(waker.raw.get()) } {
            Ok(Self { waker, context })
        } else {
            Err(EBUSY)
        }
    }

    /// Sleeps until the timeout ends, the waker wakes the thread, or it is stopped.
    /// Does not sleep when it was woken since the last time.
    pub fn wait(&self, timeout_ms: u32) {
        let _ = self.context;
        // SAFETY: the waker's thread, which this can't leave.
        unsafe { ffi::hippos_waker_wait(self.waker.raw.get(), timeout_ms.into()) }
    }
}
