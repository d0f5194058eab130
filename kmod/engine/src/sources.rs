// SPDX-License-Identifier: GPL-2.0-only
//! The networks that may ask.
//!
//! UDP packets are answered before the firewall's input chain sees them, so
//! the server keeps a list of its own. It can be replaced at any time: there
//! are two tables, readers use the one that is current, and a writer fills the
//! other, makes it current, and waits for those who may still read the first.

use hippos_invariant::Exact;

use core::fmt;
use core::iter;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use heapless::Vec;

/// The most networks of a list.
pub const NETWORKS_MAX: usize = 32;

/// A list of networks.
pub type Networks = Vec<Network, NETWORKS_MAX>;

/// A network: addresses that agree with `address` in the first `bits` bits.
/// An IPv4 address stands among the IPv6 ones, mapped: `10.0.0.0/8` is
/// `::ffff:10.0.0.0/104`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
}

impl Network {
    /// Everybody.
    pub const ANY: Self = Self::new(0, 0);

    /// Private, link-local and loopback networks of both families, the
    /// commonest first: who may ask unless told otherwise.
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

    /// `a.b.c.d/n` or `a::b/n` with no bits beyond the first n, without `/n` one
    /// address, or `any`.
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

    /// Gives each network of a list as an operator writes it to `take`:
    /// networks with commas between them, `default` among them for
    /// [`PRIVATE`](Self::PRIVATE). Nothing is the default too.
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

    /// Whether an address is one of the network's.
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

/// The bits before an IPv4 address that is mapped.
const MAPPED: u32 = 96;

/// The first `bits` bits.
pub(crate) const fn mask(bits: u32) -> u128 {
    // A network of no bits is everything: a shift by all bits gives none.
    match u128::MAX.checked_shl(128u32.saturating_sub(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

/// An address as a number, an IPv4 one mapped.
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
struct Table {
    count: AtomicUsize,
    networks: [Row; NETWORKS_MAX],
}

/// IPv4 networks that are told by a quick look: a cache line of them.
const INLINE: usize = 8;
/// None of them: 0.0.0.1 alone, which is nobody's address.
const NOWHERE: u64 = 1 << 32 | u32::MAX as u64;

/// The IPv4 part of a network in a word: address and mask. `None` when it has
/// none.
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

pub(crate) struct Row {
    address: [AtomicU64; 2],
    mask: [AtomicU64; 2],
    /// The whole network is private.
    pub(crate) private: AtomicBool,
}

impl Table {
    const fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            networks: [const {
                Row {
                    address: [const { AtomicU64::new(0) }; 2],
                    mask: [const { AtomicU64::new(0) }; 2],
                    private: AtomicBool::new(false),
                }
            }; NETWORKS_MAX],
        }
    }

    #[inline]
    fn rows(&self) -> &[Row] {
        self.networks
            .get(..self.count.load(Relaxed))
            .unwrap_or_default()
    }
}

impl Row {
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

/// The networks that may ask. Nobody, until they are set.
pub struct Sources {
    /// The first IPv4 networks of the list, each as [`ipv4_part`] has it.
    inline: [AtomicU64; INLINE],
    tables: [Table; 2],
    current: AtomicUsize,
    pub(crate) changing: AtomicBool,
}

/// What becomes of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is replaced.
    Set,
    /// It grows by networks that are not in it.
    Add,
    /// It shrinks by networks that are all in it.
    Remove,
}

/// Why a list was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// What was written is no list.
    Malformed,
    /// Somebody else is changing it.
    Busy,
    /// It would be too long.
    Full,
    /// A network to be removed is not in it.
    Missing,
    /// None would be left, and nobody but this host could ask.
    Nobody,
}

impl Sources {
    /// Nobody.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self {
            inline: [const { AtomicU64::new(NOWHERE) }; INLINE],
            tables: [const { Table::new() }; 2],
            current: AtomicUsize::new(0),
            changing: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn rows(&self) -> &[Row] {
        let table = self.tables.get(self.current.load(Acquire));
        table.map_or(&[], Table::rows)
    }

    /// Whether an IPv4 source is of one of the first networks.
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
        self.rows().iter().map(Row::network).collect()
    }

    /// Replaces the list; `wait` returns when nobody reads any more who began
    /// before.
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
        // Each word is whole in itself: who looks now may find some of the old
        // networks and some of the new ones.
        let parts = list.iter().filter_map(ipv4_part);
        for (place, part) in self.inline.iter().zip(parts.chain(iter::repeat(NOWHERE))) {
            place.store(part, Relaxed);
        }
        wait();
    }
}
