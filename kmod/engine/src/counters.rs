// SPDX-License-Identifier: GPL-2.0-only
//! The engine's counters, in addition to the store's, sharded by CPU.

hippos_store::counters! {
    /// The engine's own counters, kept in the store's per-CPU tallies. `stats` shows all of them.
    pub enum EngineCounter {
        /// Commands served by the UDP fast path.
        FastCommands = "hippos_udp_fast_commands",
        /// Datagrams that the UDP fast path answered, or served without a reply.
        FastDatagrams = "hippos_udp_fast_datagrams",
        /// Commands served for the UDP socket.
        UdpCommands = "hippos_udp_commands",
        /// Datagrams served for the UDP socket.
        UdpDatagrams = "hippos_udp_datagrams",
        /// Datagrams dropped because they are not requests.
        UdpInvalid = "hippos_udp_invalid",
        /// Datagrams whose reply would have been larger than allowed.
        UdpTooLarge = "hippos_udp_too_large",
        /// Datagrams whose commands took too long, so that the rest of them was dropped.
        UdpTooSlow = "hippos_udp_too_slow",
        /// Datagrams of sources that are not allowed, or while clients have to authenticate.
        UdpRefused = "hippos_udp_refused",
        /// Replies of the UDP socket of which nothing or a part was sent: a slow link, no memory, no route, the firewall.
        UdpIncomplete = "hippos_udp_incomplete",
        /// Replies not sent because their source had used up its rate limit.
        UdpLimited = "hippos_udp_limited",
        /// Connections of sources that are not allowed.
        TcpRefused = "hippos_tcp_refused",
        /// Connections closed because the value that they sent arrived too slowly.
        UploadsTimedOut = "hippos_uploads_timed_out",
        /// Reads of large values refused because slow readers hold all the memory that they may.
        ReadsRefused = "hippos_reads_refused",
        /// Commands served over TCP.
        TcpCommands = "hippos_tcp_commands",
        /// Request bytes.
        BytesRead = "bytes_read",
        /// Reply bytes.
        BytesWritten = "bytes_written",
        /// Times that a connection left commands that had arrived to a later turn, so that others were served
        Yields = "conn_yields",
        /// `me` commands.
        MetaCommands = "cmd_meta",
        /// Stores refused because the item is too large.
        TooLarge = "store_too_large",
        /// Stores refused for lack of memory.
        NoMemory = "store_no_memory",
        /// Other requests refused for lack of memory: `incr`, `decr`, `ma`, joins and `mg` with `N`, and all of the binary protocol.
        OtherNoMemory = "hippos_no_memory",
        /// Attempts to authenticate.
        AuthCommands = "auth_cmds",
        /// Attempts that failed.
        AuthErrors = "auth_errors",
        /// Administration commands of clients that are not allowed to use them.
        AdminRefused = "hippos_admin_refused",
        /// Events of any kind that watchers lost because they were slow.
        EventsSkipped = "log_watcher_skipped",
        /// Events sent to watchers.
        EventsSent = "log_watcher_sent",
    }
}

/// The number of counters, including those of [histograms](crate::Interval): the minimum of
/// [`hippos_store::Config::tallies`].
pub const ENGINE_COUNTERS: usize = EngineCounter::Count as usize + crate::interval::TALLIES;
