// SPDX-License-Identifier: GPL-2.0-only
//! What the engine counts beside the store's counters, one shard a CPU.

/// The engine's own counters, kept in the store's per-CPU tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Tally {
    /// Commands served by the UDP fast path.
    FastCommands,
    /// Datagrams that the UDP fast path answered, or served in silence.
    FastDatagrams,
    /// Commands served for the UDP socket.
    UdpCommands,
    /// Datagrams served for the UDP socket.
    UdpDatagrams,
    /// Datagrams dropped because they aren't requests.
    UdpInvalid,
    /// Datagrams whose reply would have been larger than allowed.
    UdpTooLarge,
    /// Datagrams of sources that may not ask, or while clients have to log in.
    UdpRefused,
    /// Replies not sent because their source had its share.
    UdpLimited,
    /// Connections of sources that may not ask.
    TcpRefused,
    /// Connections closed since the value that they sent did not get on.
    UploadsTimedOut,
    /// Commands served over TCP.
    TcpCommands,
    /// Request bytes.
    BytesRead,
    /// Reply bytes.
    BytesWritten,
    /// `me` commands.
    MetaCommands,
    /// Stores refused because the item is too large.
    TooLarge,
    /// Stores refused for lack of memory.
    NoMemory,
    /// Attempts to authenticate.
    AuthCommands,
    /// Attempts that failed.
    AuthErrors,
    /// Administration commands of clients that may not use them.
    AdminRefused,
    #[doc(hidden)]
    Count,
}

/// How many counters there are: what [`hippos_store::Config::tallies`] has to
/// be at least.
pub const TALLIES: usize = Tally::Count as usize;
