// SPDX-License-Identifier: GPL-2.0-only
//! A worker's sockets and the lock-free list of the ready ones, to which the
//! kernel's callbacks add them (`kmod/c/poll.c`).

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use kernel::prelude::*;
use kernel::types::Opaque;

use hippos_invariant::Exact;

use crate::ffi;
use crate::latency;
use crate::socket::Socket;
use crate::stream::{LockedStream, SocketStream, SoftirqPages, SoftirqPagesUser};
use crate::thread::Context;

/// The service of a connection by its callback.
pub trait Serve: Send {
    /// Serves in softirq the requests that can be served there. `false` leaves the
    /// rest, which may be all, to the worker. A reply is written to `pages`.
    fn serve(&mut self, stream: &mut SocketStream<'_>, pages: SoftirqPages<'_>) -> bool;
}

/// For workers without connections.
impl Serve for () {
    fn serve(&mut self, _stream: &mut SocketStream<'_>, _pages: SoftirqPages<'_>) -> bool {
        false
    }
}

/// The sockets of one worker: connections, each with a `T`, and others. Stays
/// on the worker's thread.
///
/// # Invariants
///
/// `first` starts a doubly linked list of all entries, which are ours. `raw`
/// holds the worker's thread.
pub struct Poll<T: Serve> {
    raw: KBox<Opaque<ffi::hippos_poll>>,
    first: *mut Entry<T>,
    /// Entries that have a deadline.
    deadlines: usize,
    /// Dropped after the entries.
    _softirq_pages: SoftirqPagesUser,
    _worker: PhantomData<*mut ()>,
}

/// # Invariants
///
/// `watch` comes first, so that a pointer to it is one to the entry. While
/// `socket` is there, `watch` is registered with the socket's callbacks.
/// `value` belongs to the holder of the socket's lock.
#[repr(C)]
struct Entry<T> {
    watch: Opaque<ffi::hippos_watch>,
    next: *mut Entry<T>,
    previous: *mut Entry<T>,
    /// See [`Ready::set_deadline`].
    deadline: Option<u32>,
    /// None when closed: such an entry is freed when it comes off the ready list.
    socket: Option<Socket>,
    /// A connection's.
    value: UnsafeCell<Option<T>>,
    connection: bool,
}

impl<T: Serve> Poll<T> {
    /// An empty set for the calling worker.
    pub fn new(_worker: &Context) -> Result<Self> {
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        // SAFETY: the memory is ours; called by the worker's own thread, as its context shows.
        unsafe {
            ffi::hippos_poll_init(raw.get(), serve::<T>);
            ffi::hippos_poll_start(raw.get());
        }
        Ok(Self {
            raw,
            first: ptr::null_mut(),
            deadlines: 0,
            _softirq_pages: SoftirqPagesUser::get(),
            _worker: PhantomData,
        })
    }

    /// Adds a listener or a datagram socket. It is ready at once, in case input
    /// came before.
    pub fn add(&mut self, socket: Socket) -> Result {
        self.add_entry(socket, None)
    }

    /// Adds a TCP connection. It is ready at once, too.
    pub fn add_connection(&mut self, socket: Socket, value: T) -> Result {
        self.add_entry(socket, Some(value))
    }

    fn add_entry(&mut self, socket: Socket, value: Option<T>) -> Result {
        let entry = KBox::new(
            Entry {
                watch: Opaque::uninit(),
                next: self.first,
                previous: ptr::null_mut(),
                deadline: None,
                socket: Some(socket),
                connection: value.is_some(),
                value: UnsafeCell::new(value),
            },
            GFP_KERNEL,
        )?;
        let entry = KBox::into_raw(entry);
        if !self.first.is_null() {
            // SAFETY: by the invariant an entry of ours.
            unsafe { (*self.first).previous = entry };
        }
        self.first = entry;
        // SAFETY: the entry was just made, with a socket, and stays where it is until the
        // watch is removed; the poll outlives its entries.
        unsafe {
            if let Some(socket) = &(*entry).socket {
                ffi::hippos_watch_add((*entry).watch.get(), self.raw.get(), socket.as_ptr());
            }
        }
        Ok(())
    }

    /// Sleeps until a socket is ready, the thread is woken or stopped, or the timeout
    /// ends. Without a timeout it waits without a limit.
    pub fn wait(&mut self, timeout_ms: Option<u32>) {
        // SAFETY: the worker's own thread, since `Poll` can't leave it.
        unsafe { ffi::hippos_poll_wait(self.raw.get(), timeout_ms.map_or(-1, i64::from)) }
    }

    /// Whether sockets are [parked](Ready::park).
    pub fn has_parked(&self) -> bool {
        // SAFETY: the worker's own thread.
        unsafe { ffi::hippos_poll_has_parked(self.raw.get()) }
    }

    /// Makes the parked sockets ready, at most once a tick.
    pub fn unpark(&mut self) {
        // SAFETY: the worker's own thread.
        unsafe { ffi::hippos_poll_unpark(self.raw.get()) }
    }

    /// Whether sockets have deadlines.
    pub fn has_deadlines(&self) -> bool {
        self.deadlines != 0
    }

    /// Makes the sockets ready whose deadline is over. Examines all sockets if one has a deadline.
    pub fn expire(&mut self, now: u32) {
        let mut entry = if self.deadlines == 0 {
            ptr::null_mut()
        } else {
            self.first
        };
        while !entry.is_null() {
            // SAFETY: one of ours, by the invariant; its watch was added while it has a socket.
            unsafe {
                if (*entry).socket.is_some() && (*entry).deadline.is_some_and(|at| at <= now) {
                    ffi::hippos_watch_again((*entry).watch.get());
                }
                entry = (*entry).next;
            }
        }
    }

    /// The socket that has been ready for longest.
    pub fn pop(&mut self) -> Option<Ready<'_, T>> {
        loop {
            // SAFETY: the worker's own thread.
            let watch = unsafe { ffi::hippos_poll_next(self.raw.get()) };
            let entry = NonNull::new(watch.cast::<Entry<T>>())?;
            // SAFETY: a watch on the list is the start of an entry of ours, by `Entry`'s
            // invariant, and entries are freed only off the list.
            if unsafe { entry.as_ref() }.socket.is_some() {
                return Some(Ready { entry, poll: self });
            }
            // SAFETY: closed and now off the list: there is no other pointer to it.
            unsafe { self.free(entry.as_ptr()) };
        }
    }

    /// # Safety
    ///
    /// `entry` is one of ours, its value was dropped, and its watch is neither
    /// registered with callbacks nor on the list.
    unsafe fn free(&mut self, entry: *mut Entry<T>) {
        // SAFETY: entries of one list that only this thread touches; the one to free came
        // from a `KBox`.
        unsafe {
            let (previous, next) = ((*entry).previous, (*entry).next);
            if previous.is_null() {
                self.first = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            drop(KBox::from_raw(entry));
        }
    }

    /// Unregisters the watch from the socket's callbacks and closes the socket.
    ///
    /// # Safety
    ///
    /// `entry` is one of ours and there is no reference into it.
    unsafe fn close(entry: *mut Entry<T>) {
        // SAFETY: by this function's own requirement; callbacks do not use the field `socket`.
        if let Some(socket) = unsafe { (*entry).socket.take() } {
            // SAFETY: added with this socket, removed once. After that no callback reaches the
            // value any more.
            unsafe {
                ffi::hippos_watch_remove((*entry).watch.get(), socket.as_ptr());
                *(*entry).value.get() = None;
            }
        }
    }
}

impl<T: Serve> Drop for Poll<T> {
    fn drop(&mut self) {
        let mut entry = self.first;
        while !entry.is_null() {
            // SAFETY: one of ours; there are no borrows of a poll that is dropped.
            unsafe {
                Self::close(entry);
                entry = (*entry).next;
            }
        }
        // No callback can touch the ready list any more.
        while !self.first.is_null() {
            // SAFETY: closed above; the list is used no more.
            unsafe { self.free(self.first) };
        }
    }
}

/// # Safety
///
/// `watch` is an [`Entry<T>`]'s, registered with the callbacks of its socket,
/// `sk`, a connection, whose lock the current context, a softirq, holds.
unsafe extern "C" fn serve<T: Serve>(watch: *mut ffi::hippos_watch, sk: *mut ffi::sock) -> bool {
    let entry = watch.cast::<Entry<T>>();
    // SAFETY: an entry that stays until its watch is removed, which takes the lock; the value is
    // the lock holder's.
    let Some(value) = (unsafe { &mut *(*entry).value.get() }) else {
        return false;
    };
    // SAFETY: in softirq, until this returns; the poll that the entry belongs to holds `SoftirqPagesUser`.
    let here = unsafe { SoftirqPages::new() };
    let (Some(sk), Some(here)) = (NonNull::new(sk), here) else {
        return false;
    };
    // SAFETY: locked by this function's own requirement.
    let mut stream = unsafe { SocketStream::new(sk) };
    value.serve(&mut stream, here)
}

/// A socket taken off the ready list. It may have no input.
pub struct Ready<'a, T: Serve> {
    entry: NonNull<Entry<T>>,
    poll: &'a mut Poll<T>,
}

impl<T: Serve> Ready<'_, T> {
    /// The socket, if it is no connection.
    pub fn socket(&self) -> Option<&Socket> {
        // SAFETY: an entry of the poll that this borrows; the fields that callbacks write are in cells.
        let entry = unsafe { self.entry.as_ref() };
        entry.socket.as_ref().filter(|_| !entry.connection)
    }

    /// Locks the connection and does `work` with it and its value, if it is
    /// one. May sleep.
    pub fn connection<R>(
        &mut self,
        work: impl FnOnce(&mut SocketStream<'_>, &mut T) -> R,
    ) -> Option<R> {
        // SAFETY: as above.
        let entry = unsafe { self.entry.as_ref() };
        let socket = entry.socket.as_ref().filter(|_| entry.connection)?;
        let mut locked = LockedStream::new(socket);
        // SAFETY: the value is the lock holder's, and the lock is held to the end.
        let value = unsafe { &mut *entry.value.get() }.as_mut()?;
        Some(work(locked.stream(), value))
    }

    /// Sets the time, by the caller's clock, at which the socket becomes ready even without input: see
    /// [`Poll::expire`].
    pub fn set_deadline(&mut self, deadline: Option<u32>) {
        // SAFETY: an entry of the poll that this borrows, of which only this thread touches the
        // deadline.
        let had = unsafe { ptr::replace(&raw mut (*self.entry.as_ptr()).deadline, deadline) };
        let count = &mut self.poll.deadlines;
        *count = count
            .add_exact(usize::from(deadline.is_some()))
            .sub_exact(usize::from(had.is_some()));
    }

    /// How long the socket was ready, in nanoseconds; if times were [measured](latency) when it
    /// became so.
    pub fn queued(&self) -> Option<u64> {
        // SAFETY: the worker's own thread, by the poll that this borrows.
        latency::queued(unsafe { ffi::hippos_poll_queued(self.poll.raw.get()) })
    }

    /// Parks the socket until [`Poll::unpark`]: its command waits for memory.
    pub fn park(self) {
        // SAFETY: an entry whose watch was added, on the worker's own thread.
        unsafe { ffi::hippos_watch_park((*self.entry.as_ptr()).watch.get()) }
    }

    /// Puts the socket at the end of the list: it has work left.
    pub fn again(self) {
        // SAFETY: an entry whose watch was added.
        unsafe { ffi::hippos_watch_again((*self.entry.as_ptr()).watch.get()) }
    }

    /// Closes the socket and removes it.
    pub fn close(mut self) {
        self.set_deadline(None);
        let entry = self.entry.as_ptr();
        // SAFETY: an entry of the poll that this borrows, used last here. When a callback has
        // put it on the list since it was taken off, `pop` frees it; else it is freed here.
        unsafe {
            Poll::close(entry);
            if !ffi::hippos_watch_is_queued((*entry).watch.get()) {
                self.poll.free(entry);
            }
        }
    }
}
