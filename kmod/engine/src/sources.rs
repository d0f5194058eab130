// SPDX-License-Identifier: GPL-2.0-only
//! The allow list: the networks whose clients are served.
//!
//! UDP packets are answered before the firewall's input chain sees them, so the server keeps a list of its own. It can
//! be replaced at any time: there are two tables. Readers use the current one; a writer fills the other, makes it
//! current, and waits until no reader uses the first.

use hippos_invariant::Exact;
use hippos_semantics::NETWORKS_MAX;

use core::fmt;
use core::iter;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use heapless::Vec;

/// A list of networks.
pub type Networks = Vec<Network, NETWORKS_MAX>;

/// A network: addresses that equal `address` in the first `bits` bits. IPv4 addresses are mapped into IPv6:
/// `10.0.0.0/8` is `::ffff:10.0.0.0/104`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
}

impl Network {
    /// All addresses.
    pub const ANY: Self = Self::new(0, 0);

    /// Private, link-local and loopback networks of both families, the most frequent first: the default allow list.
    pub const PRIVATE: [Self; 8] = [
        Self::ipv4(10, 0, 8),
        Self::ipv4(192, 168, 16),
        Self::ipv4(172, 16, 12),
        Self::ipv4(169, 254, 16),
        Self::ipv6(0xfc00, 7),
        Self::ipv6(0xfe80, 10),
        Self::ipv4(127, 0, 8),
        Self::new(1, 128),
    ];

    const fn new(address: u128, bits: u32) -> Self {
        Self {
            address: address & mask(bits),
            bits,
        }
    }

    const fn ipv4(a: u8, b: u8, bits: u32) -> Self {
        let address = Ipv4Addr::new(a, b, 0, 0).to_ipv6_mapped().to_bits();
        Self::new(address, MAPPED.wrapping_add(bits))
    }

    const fn ipv6(first: u16, bits: u32) -> Self {
        Self::new((first as u128) << 112, bits)
    }

    /// Parses `a.b.c.d/n` or `a::b/n` with no bits set beyond the first n, or one address without `/n`, or `any`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "any" {
            return Some(Self::ANY);
        }
        let (address, bits) = match text.bytes().position(|byte| byte == b'/') {
            Some(slash) => {
                let bits = text.get(slash.checked_add(1)?..)?;
                (text.get(..slash)?, Some(bits.parse::<u32>().ok()?))
            }
            None => (text, None),
        };
        let (address, width, before) = match address.parse::<Ipv4Addr>() {
            Ok(address) => (address.to_ipv6_mapped(), 32, MAPPED),
            Err(_) => (address.parse::<Ipv6Addr>().ok()?, 128, 0),
        };
        let bits = bits.unwrap_or(width);
        if bits > width {
            return None;
        }
        let network = Self::new(address.to_bits(), before.add_exact(bits));
        (network.address == address.to_bits()).then_some(network)
    }

    /// Passes each network of a list to `take`. An operator writes a list as networks separated by commas, with
    /// `default` for [`PRIVATE`](Self::PRIVATE). An empty list is the default too.
    pub(crate) fn each(
        text: &[u8],
        mut take: impl FnMut(Self) -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        for word in text.split(|byte| *byte == b',') {
            if word == b"default" || text.is_empty() {
                Self::PRIVATE.into_iter().try_for_each(&mut take)?;
                continue;
            }
            let word = core::str::from_utf8(word).map_err(|_| ChangeError::Malformed)?;
            take(Self::parse(word).ok_or(ChangeError::Malformed)?)?;
        }
        Ok(())
    }

    /// Whether the network contains an address.
    pub fn contains(&self, address: u128) -> bool {
        (address ^ self.address) & mask(self.bits) == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.address);
        match address.to_ipv4_mapped().zip(self.bits.checked_sub(MAPPED)) {
            Some((address, bits)) => write!(f, "{address}/{bits}"),
            None if self.bits == 0 => f.write_str("any"),
            None => write!(f, "{address}/{}", self.bits),
        }
    }
}

/// The bits before a mapped IPv4 address.
const MAPPED: u32 = 96;

/// A mask of the first `bits` bits.
pub(crate) const fn mask(bits: u32) -> u128 {
    // A network of no bits contains all addresses; a shift by all bits would overflow.
    match u128::MAX.checked_shl(128u32.saturating_sub(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

/// An address as a number, IPv4 addresses mapped.
#[inline]
pub(crate) fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(crate) const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}

/// One of the two tables.
struct NetworkTable {
    count: AtomicUsize,
    networks: [NetworkRow; NETWORKS_MAX],
}

/// IPv4 networks that are checked first: one cache line of them.
const INLINE: usize = 8;
/// An empty entry: 0.0.0.1 alone, which no source has.
const NOWHERE: u64 = 1 << 32 | u32::MAX as u64;

/// The IPv4 part of a network in a word: address and mask. `None` if it has none.
fn ipv4_part(network: &Network) -> Option<u64> {
    let all = Network::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().to_bits(), MAPPED);
    let bits = network.bits.saturating_sub(MAPPED);
    let address = if network.bits >= MAPPED && all.contains(network.address) {
        network.address as u32
    } else if network.contains(all.address) {
        0
    } else {
        return None;
    };
    let mask = u32::MAX.checked_shl(32u32.sub_exact(bits)).unwrap_or(0);
    Some(u64::from(address) << 32 | u64::from(mask))
}

pub(crate) struct NetworkRow {
    address: [AtomicU64; 2],
    mask: [AtomicU64; 2],
    /// The whole network is private.
    pub(crate) private: AtomicBool,
}

impl NetworkTable {
    const fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            networks: [const {
                NetworkRow {
                    address: [const { AtomicU64::new(0) }; 2],
                    mask: [const { AtomicU64::new(0) }; 2],
                    private: AtomicBool::new(false),
                }
            }; NETWORKS_MAX],
        }
    }

    #[inline]
    fn rows(&self) -> &[NetworkRow] {
        self.networks
            .get(..self.count.load(Relaxed))
            .unwrap_or_default()
    }
}

impl NetworkRow {
    #[inline]
    pub(crate) fn contains(&self, [high, low]: [u64; 2]) -> bool {
        let [address_high, address_low] = &self.address;
        let [mask_high, mask_low] = &self.mask;
        (high ^ address_high.load(Relaxed)) & mask_high.load(Relaxed) == 0
            && (low ^ address_low.load(Relaxed)) & mask_low.load(Relaxed) == 0
    }

    fn set(&self, network: &Network) {
        for (place, word) in self.address.iter().zip(halves(network.address)) {
            place.store(word, Relaxed);
        }
        for (place, word) in self.mask.iter().zip(halves(mask(network.bits))) {
            place.store(word, Relaxed);
        }
        let within =
            |private: &Network| private.bits <= network.bits && private.contains(network.address);
        let private = Network::PRIVATE.iter().any(within);
        self.private.store(private, Relaxed);
    }

    fn network(&self) -> Network {
        let word = |[high, low]: &[AtomicU64; 2]| {
            (u128::from(high.load(Relaxed)) << 64) | u128::from(low.load(Relaxed))
        };
        Network {
            address: word(&self.address),
            bits: word(&self.mask).count_ones(),
        }
    }
}

/// The allow list. It is empty until it is set.
pub struct Sources {
    /// The first IPv4 networks of the list, each as a word of [`ipv4_part`].
    inline: [AtomicU64; INLINE],
    tables: [NetworkTable; 2],
    current: AtomicUsize,
    pub(crate) changing: AtomicBool,
}

/// A change of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcesChange {
    /// Replaces the list.
    Set,
    /// Adds networks that are not in it.
    Add,
    /// Removes networks, which must all be in it.
    Remove,
}

/// Why a list was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The text is not a list of networks.
    Malformed,
    /// Another caller is changing it.
    Busy,
    /// It would be too long.
    Full,
    /// A network to be removed is not in it.
    Missing,
    /// No network would be left, so that only this host would be allowed.
    NoneLeft,
}

impl Sources {
    /// An empty list.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self {
            inline: [const { AtomicU64::new(NOWHERE) }; INLINE],
            tables: [const { NetworkTable::new() }; 2],
            current: AtomicUsize::new(0),
            changing: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn rows(&self) -> &[NetworkRow] {
        let table = self.tables.get(self.current.load(Acquire));
        table.map_or(&[], NetworkTable::rows)
    }

    /// Whether an IPv4 source is in one of the first networks.
    #[inline]
    pub(crate) fn is_allowed(&self, source: u32) -> bool {
        let contains = |part: &AtomicU64| {
            let part = part.load(Relaxed);
            ((part >> 32) as u32 ^ source) & part as u32 == 0
        };
        self.inline.iter().any(contains)
    }

    /// The list.
    pub(crate) fn list(&self) -> Networks {
        self.rows().iter().map(NetworkRow::network).collect()
    }

    /// Replaces the list; `wait` returns when all readers that began before have ended.
    pub(crate) fn replace(&self, list: &[Network], wait: impl FnOnce()) {
        let other = self.current.load(Relaxed) ^ 1;
        let Some(table) = self.tables.get(other) else {
            return;
        };
        for (row, network) in table.networks.iter().zip(list) {
            row.set(network);
        }
        table.count.store(list.len(), Relaxed);
        self.current.store(other, Release);
        // Each word is valid by itself: a concurrent reader may find some of the old networks and some of the new ones.
        let parts = list.iter().filter_map(ipv4_part);
        for (place, part) in self.inline.iter().zip(parts.chain(iter::repeat(NOWHERE))) {
            place.store(part, Relaxed);
        }
        wait();
    }
}
