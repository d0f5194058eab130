// SPDX-License-Identifier: GPL-2.0-only
//! Kernel sockets (`linux/net.h`). Their calls may sleep for a
//! lock but do not wait for the peer.

use core::ffi::{c_int, c_void};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU32;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::ffi;
use crate::latency;
use crate::namespace::Namespace;

/// A socket; closed when dropped.
///
/// # Invariants
///
/// `raw` is an open socket, ours alone.
pub struct Socket {
    raw: NonNull<ffi::socket>,
    namespace: Arc<Namespace>,
}

// SAFETY: a socket belongs to no thread; its functions lock for themselves.
unsafe impl Send for Socket {}
// SAFETY: as above.
unsafe impl Sync for Socket {}

/// Whether an error means that another socket has the port.
pub fn is_in_use(error: Error) -> bool {
    error.to_errno() == -(bindings::EADDRINUSE as c_int)
}

/// Both ends of a datagram or a connection.
#[derive(Clone, Copy, Default)]
pub struct SocketAddresses(ffi::hippos_addresses);

impl SocketAddresses {
    /// The peer's address; an IPv4 one is mapped (`::ffff:a.b.c.d`).
    pub fn peer(&self) -> &[u8; 16] {
        &self.0.peer
    }

    /// The peer's address; an IPv4 one is not mapped.
    pub fn peer_ip(&self) -> IpAddr {
        Ipv6Addr::from(self.0.peer).to_canonical()
    }

    /// The peer's address and port; an IPv4 address is not mapped.
    pub fn peer_address(&self) -> SocketAddr {
        SocketAddr::new(self.peer_ip(), self.peer_port())
    }

    /// Our own address, in the same form as [`peer`](Self::peer)'s.
    pub fn own(&self) -> &[u8; 16] {
        &self.0.own
    }

    /// The peer's port.
    pub fn peer_port(&self) -> u16 {
        self.0.peer_port
    }

    /// The number of the interface that a datagram came by.
    pub fn interface(&self) -> u32 {
        self.0.interface
    }

    /// Whether no network lies between the ends.
    pub fn is_local(&self) -> bool {
        self.0.local
    }

    /// Whether a reply may be sent from the request's destination: it is one of our
    /// addresses, not a multicast or broadcast one.
    pub fn is_unicast(&self) -> bool {
        self.0.unicast
    }
}

impl Socket {
    fn new(namespace: &Arc<Namespace>, raw: *mut ffi::socket) -> Result<Self> {
        // INVARIANT: the callers just opened it.
        Ok(Self {
            raw: NonNull::new(from_err_ptr(raw)?).ok_or(EINVAL)?,
            namespace: namespace.clone(),
        })
    }

    /// A TCP listener on `port`, for IPv6 and IPv4, of one interface or of
    /// all. With a CPU it shares the port with other such listeners and gets
    /// the connections that arrive on that CPU.
    pub fn listen(
        namespace: &Arc<Namespace>,
        port: u16,
        interface: Option<NonZeroU32>,
        cpu: Option<u32>,
        backlog: u32,
    ) -> Result<Self> {
        // SAFETY: the namespace is held, here and by the socket.
        let raw = unsafe {
            ffi::hippos_tcp_listen(
                namespace.as_ptr(),
                port,
                interface.map_or(0, NonZeroU32::get),
                cpu.map_or(-1, |cpu| cpu as c_int),
                backlog as c_int,
            )
        };
        Self::new(namespace, raw)
    }

    /// A UDP socket on `port`, for IPv6 and IPv4, of one interface or of
    /// all. A send waits `send_ms` milliseconds for buffer space.
    pub fn bind_datagram(
        namespace: &Arc<Namespace>,
        port: u16,
        interface: Option<NonZeroU32>,
        send_ms: u32,
    ) -> Result<Self> {
        let interface = interface.map_or(0, NonZeroU32::get);
        // SAFETY: the namespace is held, here and by the socket.
        let raw = unsafe { ffi::hippos_udp_bind(namespace.as_ptr(), port, interface, send_ms) };
        Self::new(namespace, raw)
    }

    /// Binds a UDP socket to its interface again, if it has lost it; returns whether it had.
    pub fn rebind_datagram(&self, interface: Option<NonZeroU32>) -> bool {
        let interface = interface.map_or(0, NonZeroU32::get);
        // SAFETY: by the invariant a socket.
        unsafe { ffi::hippos_udp_rebind(self.raw.as_ptr(), interface) }
    }

    /// Accepts a connection; `EAGAIN` when there is none.
    pub fn accept(&self) -> Result<Self> {
        // SAFETY: by the invariant a socket.
        let raw = unsafe { ffi::hippos_accept(self.raw.as_ptr()) };
        Self::new(&self.namespace, raw)
    }

    /// Both ends of this connection.
    pub fn ends(&self) -> SocketAddresses {
        let mut ends = SocketAddresses::default();
        // SAFETY: by the invariant a socket; `ends` is written only.
        unsafe { ffi::hippos_peer(self.raw.as_ptr(), &mut ends.0) };
        ends
    }

    /// How long the datagram that was received last had been in the kernel, in nanoseconds, if the kernel
    /// had stamped it.
    pub fn queued(&self) -> Option<u64> {
        // SAFETY: by the invariant a socket.
        latency::queued(unsafe { ffi::hippos_udp_queued(self.raw.as_ptr()) })
    }

    /// Receives one datagram; `EAGAIN` when there is none. Bytes that do not fit
    /// `buffer` are lost.
    pub fn receive_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddresses)> {
        let mut ends = SocketAddresses::default();
        // SAFETY: by the invariant a socket; it writes at most `len` bytes to `buffer`.
        let count = unsafe {
            ffi::hippos_receive_from(
                self.raw.as_ptr(),
                buffer.as_mut_ptr().cast::<c_void>(),
                buffer.len(),
                &mut ends.0,
            )
        };
        Ok((result(count)?, ends))
    }

    /// Sends `head` and `body` as one datagram back to the sender of one.
    pub fn send_to(&self, head: &[u8], body: &[u8], ends: &SocketAddresses) -> Result {
        // SAFETY: by the invariant a socket; the rest is only read.
        let count = unsafe {
            ffi::hippos_send_to(
                self.raw.as_ptr(),
                head.as_ptr().cast(),
                head.len(),
                body.as_ptr().cast(),
                body.len(),
                &ends.0,
            )
        };
        result(count).map(|_| ())
    }

    /// A reference to this connection.
    pub fn connection(&self) -> Option<ConnectionRef> {
        // SAFETY: by the invariant a socket, which has a sock until it is closed.
        let sk = unsafe { ffi::hippos_connection_get(self.raw.as_ptr()) };
        // INVARIANT: the reference was just taken.
        NonNull::new(sk).map(ConnectionRef)
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::socket {
        self.raw.as_ptr()
    }
}

/// A reference to a TCP connection, which its owner may close meanwhile.
///
/// # Invariants
///
/// A counted reference to a TCP sock, ours alone.
pub struct ConnectionRef(NonNull<ffi::sock>);

// SAFETY: a sock belongs to no thread, and the functions below lock for themselves.
unsafe impl Send for ConnectionRef {}
// SAFETY: as above.
unsafe impl Sync for ConnectionRef {}

impl ConnectionRef {
    /// Ends the connection in both directions; its owner notices and closes it. `false` if it
    /// had ended. May sleep.
    pub fn shut_down(&self) -> bool {
        // SAFETY: by the invariant a TCP sock that is there.
        unsafe { ffi::hippos_connection_shut_down(self.0.as_ptr()) }
    }

    /// Bytes received, and bytes sent that the peer has acknowledged.
    pub fn bytes(&self) -> (u64, u64) {
        let sk = self.0.as_ptr();
        // SAFETY: by the invariant a TCP sock that is there; the counts are read without its lock.
        unsafe {
            (
                ffi::hippos_connection_received(sk),
                ffi::hippos_connection_sent(sk),
            )
        }
    }
}

impl Drop for ConnectionRef {
    fn drop(&mut self) {
        // SAFETY: by the invariant ours to give back.
        unsafe { ffi::hippos_connection_put(self.0.as_ptr()) }
    }
}

/// A count, or a negative error number.
pub(crate) fn result(count: c_int) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::from_errno(count))
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: by the invariant ours to close.
        unsafe { ffi::hippos_socket_release(self.raw.as_ptr()) }
    }
}
