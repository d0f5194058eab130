// SPDX-License-Identifier: GPL-2.0-only
//! Who may ask: networks, and how many reply bytes a source gets over UDP.
//!
//! UDP packets are answered before the firewall's input chain sees them, so
//! the server keeps a list of its own. It can be replaced at any time: there
//! are two tables, readers use the one that is current, and a writer fills the
//! other, makes it current, and waits for those who may still read the first.

use core::fmt;
use core::iter;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use heapless::Vec;
use hippos_store::{Guard, Platform};

use crate::counters::Tally;
use crate::Engine;

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
        let network = Self::new(address.to_bits(), before.wrapping_add(bits));
        (network.address == address.to_bits()).then_some(network)
    }

    /// Gives each network of a list as an operator writes it to `take`:
    /// networks with commas between them, `default` among them for
    /// [`PRIVATE`](Self::PRIVATE). Nothing is the default too.
    fn each(
        text: &[u8],
        mut take: impl FnMut(Self) -> Result<(), Unchanged>,
    ) -> Result<(), Unchanged> {
        for word in text.split(|byte| *byte == b',') {
            if word == b"default" || text.is_empty() {
                Self::PRIVATE.into_iter().try_for_each(&mut take)?;
                continue;
            }
            let word = core::str::from_utf8(word).map_err(|_| Unchanged::Malformed)?;
            take(Self::parse(word).ok_or(Unchanged::Malformed)?)?;
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
const fn mask(bits: u32) -> u128 {
    // A network of no bits is everything: a shift by all bits gives none.
    match u128::MAX.checked_shl(128u32.saturating_sub(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

/// An address as a number, an IPv4 one mapped.
#[inline]
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}

/// What a source may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Refused,
    /// Ask, and get so many reply bytes over UDP, if that is limited.
    Granted {
        /// It is of a private network.
        private: bool,
    },
}

/// One of the two tables.
struct Table {
    count: AtomicUsize,
    networks: [Row; NETWORKS_MAX],
}

/// IPv4 networks that are told by a quick look: a cache line of them.
const QUICK: usize = 8;
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
    let mask = u32::MAX
        .checked_shl(32u32.saturating_sub(bits))
        .unwrap_or(0);
    Some(u64::from(address) << 32 | u64::from(mask))
}

struct Row {
    address: [AtomicU64; 2],
    mask: [AtomicU64; 2],
    /// The whole network is private.
    private: AtomicBool,
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
    fn contains(&self, [high, low]: [u64; 2]) -> bool {
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
    quick: [AtomicU64; QUICK],
    tables: [Table; 2],
    current: AtomicUsize,
    changing: AtomicBool,
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
pub enum Unchanged {
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
            quick: [const { AtomicU64::new(NOWHERE) }; QUICK],
            tables: [const { Table::new() }; 2],
            current: AtomicUsize::new(0),
            changing: AtomicBool::new(false),
        }
    }

    #[inline]
    fn rows(&self) -> &[Row] {
        let table = self.tables.get(self.current.load(Acquire));
        table.map_or(&[], Table::rows)
    }

    /// The list.
    fn list(&self) -> Networks {
        self.rows().iter().map(Row::network).collect()
    }

    /// Replaces the list; `wait` returns when nobody reads any more who began
    /// before.
    fn replace(&self, list: &[Network], wait: impl FnOnce()) {
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
        for (place, part) in self.quick.iter().zip(parts.chain(iter::repeat(NOWHERE))) {
            place.store(part, Relaxed);
        }
        wait();
    }
}

/// How many UDP sources are told apart.
const BUCKETS: usize = 4096;

/// Reply bytes for each source of UDP datagrams: buckets that are full again
/// after a second. Sources that fall into one bucket share it, so that memory
/// is bounded whoever asks.
pub struct Limiter {
    /// The second of the last reply, and below it the bytes since it began.
    buckets: [AtomicU64; BUCKETS],
    /// Bytes a second for sources outside private networks; 0 is no limit.
    rate: AtomicU32,
    /// The same for those within.
    private_rate: AtomicU32,
}

impl Limiter {
    /// No limits.
    #[allow(clippy::new_without_default, reason = "made at compile time")]
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            rate: AtomicU32::new(0),
            private_rate: AtomicU32::new(0),
        }
    }

    #[inline]
    fn rate(&self, private: bool) -> u32 {
        if private {
            self.private_rate.load(Relaxed)
        } else {
            self.rate.load(Relaxed)
        }
    }

    #[inline]
    fn limited(&self) -> bool {
        self.rate.load(Relaxed) | self.private_rate.load(Relaxed) != 0
    }

    /// Takes `bytes` out of a bucket, if there are so many in it.
    fn take(&self, hash: u64, now: u32, bytes: usize, rate: u32) -> bool {
        let Some(bucket) = self.buckets.get(hash as usize % BUCKETS) else {
            return false;
        };
        let taken = bucket.fetch_update(Relaxed, Relaxed, |then| {
            let used = if then >> 32 == u64::from(now) {
                then & u64::from(u32::MAX)
            } else {
                0
            };
            let used = used.saturating_add(bytes as u64);
            (used <= u64::from(rate)).then_some((u64::from(now) << 32) | used)
        });
        taken.is_ok()
    }
}

impl<P: Platform> Engine<P> {
    /// Whether an IPv4 source surely may ask, and there is no limit on what it
    /// gets: where it says so, [`access`](Self::access) and
    /// [`may_reply`](Self::may_reply) would. 0 is nobody. Softirq-safe.
    #[inline]
    pub fn welcomes(&self, _guard: &Guard<'_, P>, source: u32) -> bool {
        let limited = self.settings.limiter.limited();
        let contains = |part: &AtomicU64| {
            let part = part.load(Relaxed);
            ((part >> 32) as u32 ^ source) & part as u32 == 0
        };
        source != 0 && !limited && self.settings.sources.quick.iter().any(contains)
    }

    /// What a source may do. `local` says that it is this host, which may
    /// always ask. Softirq-safe.
    #[inline]
    pub fn access(&self, _guard: &Guard<'_, P>, source: IpAddr, local: bool) -> Access {
        let address = mapped(source);
        let mut rows = self.settings.sources.rows().iter();
        match rows.find(|row| row.contains(halves(address))) {
            _ if local => Access::Granted { private: true },
            Some(row) if row.private.load(Relaxed) => Access::Granted { private: true },
            // One of its private sources may come by a wider network.
            Some(_) => Access::Granted {
                private: Network::PRIVATE.iter().any(|n| n.contains(address)),
            },
            None => Access::Refused,
        }
    }

    /// Whether a source, which has [`Access`], may get a UDP reply of so many
    /// bytes; if not, it is counted. Softirq-safe.
    #[inline]
    pub fn may_reply(&self, access: Access, source: IpAddr, bytes: usize) -> bool {
        let private = access == Access::Granted { private: true };
        let rate = self.settings.limiter.rate(private);
        rate == 0 || self.take(source, bytes, rate)
    }

    #[cold]
    fn take(&self, source: IpAddr, bytes: usize, rate: u32) -> bool {
        /// Whoever has one IPv6 address has the network's other ones too.
        const NETWORK: u32 = 64;
        let source = match source {
            IpAddr::V4(_) => mapped(source),
            IpAddr::V6(_) => mapped(source) & mask(NETWORK),
        };
        let hash = self.store.hash(&source.to_be_bytes()).get();
        let granted = self
            .settings
            .limiter
            .take(hash, self.store.now(), bytes, rate);
        if !granted {
            self.tally(Tally::UdpLimited, 1);
        }
        granted
    }

    /// Who may ask.
    pub fn sources(&self) -> Networks {
        self.settings.sources.list()
    }

    /// Changes who may ask: `text` has networks with commas between them, or
    /// `any`, or `default`, or nothing for that. Process context; sleeps until
    /// nobody goes by the old list.
    pub fn change_sources(&self, change: Change, text: &[u8]) -> Result<(), Unchanged> {
        let sources = self.settings.sources;
        if sources.changing.swap(true, Acquire) {
            return Err(Unchanged::Busy);
        }
        let result = self.changed(change, text);
        sources.changing.store(false, Release);
        result
    }

    /// Out of line: a list takes a third of what a function may have of the
    /// kernel's stack.
    #[inline(never)]
    fn changed(&self, change: Change, text: &[u8]) -> Result<(), Unchanged> {
        let sources = self.settings.sources;
        let mut list = match change {
            Change::Set => Networks::new(),
            Change::Add | Change::Remove => sources.list(),
        };
        // What is taken away is overwritten by what comes behind it.
        let mut len = list.len();
        Network::each(text, |network| {
            let known = list.iter().take(len).position(|n| *n == network);
            match (change, known) {
                (Change::Remove, None) => return Err(Unchanged::Missing),
                (Change::Remove, Some(gone)) => {
                    let rest = list.get_mut(gone..len).unwrap_or_default();
                    let cells = core::cell::Cell::from_mut(rest).as_slice_of_cells();
                    for (place, next) in cells.iter().zip(cells.iter().skip(1)) {
                        place.set(next.get());
                    }
                    len = len.saturating_sub(1);
                }
                (_, None) => {
                    list.push(network).map_err(|_| Unchanged::Full)?;
                    len = list.len();
                }
                (_, Some(_)) => {}
            }
            Ok(())
        })?;
        let list = list.get(..len).unwrap_or_default();
        if list.is_empty() {
            return Err(Unchanged::Nobody);
        }
        sources.replace(list, || self.store.platform().gp_wait());
        Ok(())
    }

    /// Reply bytes a second for each UDP source outside private networks, and
    /// within; 0 is no limit.
    pub fn udp_rates(&self) -> (u32, u32) {
        let limiter = self.settings.limiter;
        (limiter.rate(false), limiter.rate(true))
    }

    /// Sets both.
    pub fn set_udp_rates(&self, public: u32, private: u32) {
        self.settings.limiter.rate.store(public, Relaxed);
        self.settings.limiter.private_rate.store(private, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, Settings};
    use hippos_store::host::Host;
    use std::boxed::Box;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn engine() -> Engine<Host> {
        fixture::engine(Settings {
            sources: Box::leak(Box::new(Sources::new())),
            limiter: Box::leak(Box::new(Limiter::new())),
            ..Settings::default()
        })
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn access(engine: &Engine<Host>, address: &str) -> Access {
        engine.access(&engine.store.read(), ip(address), false)
    }

    fn set(engine: &Engine<Host>, list: &str) {
        let changed = engine.change_sources(Change::Set, list.as_bytes());
        assert_eq!(changed, Ok(()), "{list}");
    }

    fn list(engine: &Engine<Host>) -> String {
        let list = engine.sources();
        Vec::from_iter(list.iter().map(Network::to_string)).join(",")
    }

    const PRIVATE: Access = Access::Granted { private: true };
    const PUBLIC: Access = Access::Granted { private: false };

    #[test]
    fn networks_are_read_and_written() {
        for text in [
            "10.0.0.0/8",
            "8.8.8.8/32",
            "0.0.0.0/0",
            "fd00::/8",
            "::1/128",
            "any",
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
        let whole = |text| Network::parse(text).unwrap().to_string();
        assert_eq!(whole("10.1.2.3"), "10.1.2.3/32");
        assert_eq!(whole("2001:db8::1"), "2001:db8::1/128");
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "x",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "10.0.0.1/8",
            "11.0.0.0/7",
            "fd00::1/64",
            "0.0.0.1/0",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        let engine = engine();
        set(&engine, "");
        assert_eq!(engine.sources(), Network::PRIVATE);
        set(&engine, "default,8.8.8.8");
        assert_eq!(engine.sources().len(), 9);
        let many = Vec::from_iter((0..33).map(|n| std::format!("10.0.0.{n}")));
        set(&engine, &many[..32].join(","));
        let change = |text: &str| engine.change_sources(Change::Set, text.as_bytes());
        assert_eq!(change(&many.join(",")), Err(Unchanged::Full));
        assert_eq!(change("8.8.8.8,x"), Err(Unchanged::Malformed));
        assert_eq!(change(","), Err(Unchanged::Malformed));
        assert_eq!(engine.sources().len(), 32);
    }

    #[test]
    fn who_is_welcome_has_access() {
        let engine = engine();
        let welcome = |address: &str| {
            let Ok(source) = address.parse::<Ipv4Addr>() else {
                panic!("{address}");
            };
            engine.welcomes(&engine.store.read(), source.to_bits())
        };
        let networks = [
            "10.0.0.0/8",
            "8.8.8.8",
            "0.0.0.0/0",
            "0.0.0.0/1",
            "::/0",
            "::/80",
            "::ffff:0.0.0.0/100",
            "::ffff:128.0.0.0/97",
            "::1",
            "fd00::/8",
            "any",
            "default",
        ];
        let addresses = ["10.255.0.1", "8.8.8.8", "8.8.8.9", "127.0.0.1", "200.1.1.1"];
        for network in networks {
            set(&engine, network);
            for address in addresses {
                let granted = access(&engine, address) != Access::Refused;
                assert_eq!(welcome(address), granted, "{address} in {network}");
            }
        }
        let many = Vec::from_iter((1..=9).map(|n| std::format!("10.0.0.{n}")));
        set(&engine, &many.join(","));
        assert!(welcome("10.0.0.8") && !welcome("10.0.0.9"));
        set(&engine, "0.0.0.0/0");
        assert!(welcome("0.0.0.1") && !welcome("0.0.0.0"));
        engine.set_udp_rates(1, 0);
        assert!(!welcome("10.0.0.1"));
        engine.set_udp_rates(0, 1);
        assert!(!welcome("10.0.0.1"));
    }

    #[test]
    fn nobody_may_ask_who_is_not_on_the_list() {
        let engine = engine();
        assert_eq!(access(&engine, "10.1.2.3"), Access::Refused);
        set(&engine, "");
        for address in [
            "10.1.2.3",
            "192.168.3.4",
            "172.31.0.1",
            "127.0.0.1",
            "::1",
            "fd12::1",
        ] {
            assert_eq!(access(&engine, address), PRIVATE, "{address}");
        }
        for address in [
            "11.0.0.1",
            "172.32.0.1",
            "8.8.8.8",
            "2001:db8::1",
            "::2",
            "::",
        ] {
            assert_eq!(access(&engine, address), Access::Refused, "{address}");
            let local = engine.access(&engine.store.read(), ip(address), true);
            assert_eq!(local, PRIVATE, "{address}");
        }
        set(&engine, "any");
        assert_eq!(access(&engine, "8.8.8.8"), PUBLIC);
        assert_eq!(access(&engine, "10.0.0.1"), PRIVATE);
        set(&engine, "8.8.8.0/24");
        assert_eq!(access(&engine, "8.8.8.1"), PUBLIC);
        assert_eq!(access(&engine, "10.0.0.1"), Access::Refused);
    }

    #[test]
    fn the_list_is_changed_as_a_whole_or_not_at_all() {
        let engine = engine();
        let change = |how, text: &str| engine.change_sources(how, text.as_bytes());
        set(&engine, "10.0.0.0/8");
        assert_eq!(change(Change::Add, "8.8.8.8,10.0.0.0/8,any"), Ok(()));
        assert_eq!(list(&engine), "10.0.0.0/8,8.8.8.8/32,any");
        let missing = change(Change::Remove, "8.8.8.8,9.9.9.9");
        assert_eq!(missing, Err(Unchanged::Missing));
        let twice = change(Change::Remove, "8.8.8.8,8.8.8.8");
        assert_eq!(twice, Err(Unchanged::Missing));
        assert_eq!(list(&engine), "10.0.0.0/8,8.8.8.8/32,any");
        assert_eq!(change(Change::Remove, "any,10.0.0.0/8"), Ok(()));
        assert_eq!(list(&engine), "8.8.8.8/32");
        assert_eq!(change(Change::Remove, "8.8.8.8"), Err(Unchanged::Nobody));
        assert_eq!(list(&engine), "8.8.8.8/32");
        let many = Vec::from_iter((0..32).map(|n| std::format!("10.0.0.{n}")));
        assert_eq!(change(Change::Add, &many.join(",")), Err(Unchanged::Full));
        assert_eq!(access(&engine, "8.8.8.8"), PUBLIC);
    }

    #[test]
    fn readers_see_the_old_list_or_the_new_one() {
        let engine: &'static Engine<Host> = Box::leak(Box::new(engine()));
        set(engine, "9.9.9.9,8.8.8.8");
        let reader = std::thread::spawn(|| {
            for _ in 0..20_000 {
                assert_eq!(access(engine, "8.8.8.8"), PUBLIC);
                assert_eq!(access(engine, "7.7.7.7"), Access::Refused);
            }
        });
        while !reader.is_finished() {
            set(engine, "8.8.8.0/24");
            set(engine, "1.1.1.1,2.2.2.2,8.8.0.0/16");
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_source_gets_so_many_bytes_a_second() {
        let engine = engine();
        engine.store.tick(10, 1000);
        let ask = |access, address, bytes| engine.may_reply(access, ip(address), bytes);
        assert!(ask(PUBLIC, "8.8.8.8", 1 << 20), "no limit yet");
        engine.set_udp_rates(1000, 0);
        assert!(ask(PUBLIC, "8.8.8.8", 600));
        assert!(!ask(PUBLIC, "8.8.8.8", 600));
        assert!(ask(PUBLIC, "8.8.8.8", 400), "what is left");
        assert!(!ask(PUBLIC, "8.8.8.8", 1));
        assert!(ask(PUBLIC, "8.8.4.4", 600), "another source");
        assert!(ask(PRIVATE, "10.0.0.1", 1 << 20));
        // An IPv6 network is one source.
        assert!(ask(PUBLIC, "2001:db8::1", 1000));
        assert!(!ask(PUBLIC, "2001:db8::2", 1000));
        assert!(ask(PUBLIC, "2001:db8:0:1::2", 1000));
        engine.store.tick(11, 1001);
        assert!(ask(PUBLIC, "8.8.8.8", 1000));
        engine.set_udp_rates(0, 10);
        assert!(ask(PUBLIC, "8.8.8.8", 1000));
        assert!(!ask(PRIVATE, "10.0.0.1", 11));
        assert_eq!(engine.tallied(Tally::UdpLimited), 4);
    }
}
