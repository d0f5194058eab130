// SPDX-License-Identifier: GPL-2.0-only
//! The servers that are compared, and how their guests are joined to this host.

/// The servers that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Server {
    /// This project's module
    Hippos,
    /// As `Hippos`, but with a new buffer for each reply: the cost that reuse of the request's buffer saves
    HipposFresh,
    /// As `Hippos`, with the UDP socket alone for datagrams
    HipposSocket,
    /// As `Hippos`, with times measured (`latency=1`)
    HipposLatency,
    /// As `Hippos`, with its XDP program on the card, in native mode
    HipposXdp,
    /// The same with times measured
    HipposXdpLatency,
    /// Debian's memcached as installed, UDP on, a thread for each vCPU
    Memcached,
    /// The same with its LRU threads off and interrupts deferred: its steadiest cell
    MemcachedSteady,
    /// A memcached for each vCPU, each with a port of its own
    MemcachedMultiport,
    /// A module that sends packets back as they are, in the way that Hippos does: the limit
    Mirror,
    /// The same, each packet straight to the driver
    MirrorDirect,
    /// The same, each packet through the queueing discipline
    MirrorQueued,
    /// An XDP program that sends frames back as they are: the limit of that receive path
    MirrorXdp,
}

impl Server {
    /// All, the reference first.
    pub(crate) const ALL: [Server; 13] = [
        Server::Memcached,
        Server::MemcachedSteady,
        Server::MemcachedMultiport,
        Server::MirrorQueued,
        Server::MirrorDirect,
        Server::Mirror,
        Server::HipposFresh,
        Server::HipposSocket,
        Server::HipposLatency,
        Server::Hippos,
        Server::MirrorXdp,
        Server::HipposXdpLatency,
        Server::HipposXdp,
    ];

    /// Whether it sends packets back as they are.
    pub(crate) fn mirrors(self) -> bool {
        matches!(
            self,
            Server::Mirror | Server::MirrorDirect | Server::MirrorQueued | Server::MirrorXdp
        )
    }

    /// Whether a quick look takes it in.
    pub(crate) fn quick(self) -> bool {
        matches!(
            self,
            Server::Memcached | Server::MemcachedSteady | Server::Mirror | Server::Hippos
        )
    }

    /// Whether it is measured by the wall clock; the other servers are for counting instructions.
    pub(crate) fn clocked(self) -> bool {
        !matches!(
            self,
            Server::MemcachedSteady
                | Server::MirrorDirect
                | Server::MirrorQueued
                | Server::HipposFresh
                | Server::HipposSocket
                | Server::HipposLatency
                | Server::HipposXdpLatency
        )
    }

    /// The parameters of Hippos's module, where they are not the defaults.
    pub(crate) fn parameters(self) -> &'static str {
        match self {
            Server::HipposSocket => "udp_fast=0",
            Server::HipposLatency | Server::HipposXdpLatency => "latency=1",
            _ => "",
        }
    }

    /// Whether its instructions are counted: where a guest has one processor, one memcached a
    /// processor is just memcached.
    pub(crate) fn counted(self, vcpus: u32) -> bool {
        self != Server::MemcachedMultiport || vcpus > 1
    }

    /// Whether frames are answered in the card's driver.
    pub(crate) fn native(self) -> bool {
        matches!(
            self,
            Server::HipposXdp | Server::HipposXdpLatency | Server::MirrorXdp
        )
    }

    /// As reports name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Hippos => "hippos",
            Server::HipposFresh => "hippos-fresh",
            Server::HipposSocket => "hippos-socket",
            Server::HipposLatency => "hippos-latency",
            Server::HipposXdp => "hippos-xdp",
            Server::HipposXdpLatency => "hippos-xdp-latency",
            Server::Memcached => "memcached",
            Server::MemcachedSteady => "memcached-steady",
            Server::MemcachedMultiport => "memcached-multiport",
            Server::Mirror => "mirror",
            Server::MirrorDirect => "mirror-direct",
            Server::MirrorQueued => "mirror-queued",
            Server::MirrorXdp => "mirror-xdp",
        }
    }
}

/// How a guest is joined to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wire {
    /// A tap device where that is allowed, else QEMU's own network
    Auto,
    /// A tap device of this host's (asks for root's rights)
    Tap,
    /// QEMU's own network
    User,
}
