// SPDX-License-Identifier: GPL-2.0-only
//! Which sources are allowed, and how many reply bytes each gets over UDP.

use core::net::IpAddr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use hippos_invariant::Exact;
use hippos_store::{Guard, Platform};

use crate::refusals::RefusalCounter;
use crate::sources::{halves, mapped, mask, ChangeError, Network, Networks, SourcesChange};
use crate::Engine;

/// The access that a source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None.
    Refused,
    /// It may send requests, and gets reply bytes over UDP, within its rate limit if it has one.
    Granted {
        /// Its address is in a private network.
        private: bool,
    },
}

/// Bytes of a reply, counted against the rate limit of its source. Those that are not [spent](Self::spend) are returned
/// when the charge is dropped.
pub(crate) struct RateCharge<'a, P: Platform> {
    engine: &'a Engine<P>,
    source: IpAddr,
    /// The second that they were counted in.
    second: u32,
    /// 0 if the source has no limit.
    bytes: usize,
}

impl<P: Platform> RateCharge<'_, P> {
    /// Marks bytes as sent.
    #[inline]
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl<P: Platform> Drop for RateCharge<'_, P> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes != 0 {
            self.engine.give_back(self.source, self.second, self.bytes);
        }
    }
}

impl<P: Platform> Engine<P> {
    /// Whether an IPv4 source is certainly allowed and has no rate limit: if this returns true,
    /// [`access`](Self::access) and [`may_reply`](Self::may_reply) would allow it too. 0 stands for no address.
    /// Softirq-safe.
    #[inline]
    pub fn is_allowed(&self, _guard: &Guard<'_, P>, source: u32) -> bool {
        let limited = self.settings.limiter.limited();
        source != 0 && !limited && self.settings.sources.is_allowed(source)
    }

    /// The access of a source. `local`: the source is this host, which is always allowed. Softirq-safe.
    #[inline]
    pub fn access(&self, _guard: &Guard<'_, P>, source: IpAddr, local: bool) -> Access {
        let address = mapped(source);
        let mut rows = self.settings.sources.rows().iter();
        match rows.find(|row| row.contains(halves(address))) {
            _ if local => Access::Granted { private: true },
            Some(row) if row.private.load(Relaxed) => Access::Granted { private: true },
            // A source in a private network may match a wider entry of the list.
            Some(_) => Access::Granted {
                private: Network::PRIVATE.iter().any(|n| n.contains(address)),
            },
            None => Access::Refused,
        }
    }

    /// Whether a source that has [`Access`] may get a UDP reply of this many bytes; a refusal is counted. Softirq-safe.
    #[inline]
    pub fn may_reply(&self, access: Access, source: IpAddr, bytes: usize) -> bool {
        self.charge(access, source, bytes)
            .map(|mut charge| charge.spend(bytes))
            .is_some()
    }

    /// Like [`may_reply`](Self::may_reply), for a reply that may not be sent because memory is missing: the request
    /// then passes, and the reply of the next receive path is charged instead. Softirq-safe.
    #[inline]
    pub(crate) fn charge(
        &self,
        access: Access,
        source: IpAddr,
        bytes: usize,
    ) -> Option<RateCharge<'_, P>> {
        let private = access == Access::Granted { private: true };
        let rate = self.settings.limiter.rate(private);
        let second = match rate {
            0 => 0,
            rate => self.take(source, bytes, rate)?,
        };
        Some(RateCharge {
            engine: self,
            source,
            second,
            bytes: if rate == 0 { 0 } else { bytes },
        })
    }

    /// Returns the second that the bytes were counted in, if they are within the rate limit.
    #[cold]
    fn take(&self, source: IpAddr, bytes: usize, rate: u32) -> Option<u32> {
        let (limiter, now) = (self.settings.limiter, self.store.now());
        let granted = limiter.take(self.bucket(source), now, bytes, rate);
        if granted.is_none() {
            self.count_refused(RefusalCounter::UdpRate);
        }
        granted
    }

    #[cold]
    fn give_back(&self, source: IpAddr, second: u32, bytes: usize) {
        let limiter = self.settings.limiter;
        limiter.give_back(self.bucket(source), second, bytes);
    }

    fn bucket(&self, source: IpAddr) -> u64 {
        /// The owner of an IPv6 address also has the other addresses of its network.
        const NETWORK: u32 = 64;
        let source = match source {
            IpAddr::V4(_) => mapped(source),
            IpAddr::V6(_) => mapped(source) & mask(NETWORK),
        };
        self.store.hash(&source.to_be_bytes()).get()
    }

    /// The allow list.
    pub fn sources(&self) -> Networks {
        self.settings.sources.list()
    }

    /// How many networks it has.
    pub(crate) fn allowed_networks(&self) -> usize {
        self.settings.sources.rows().len()
    }

    /// Changes the allow list: `text` has networks separated by commas, or `any`, or `default`, or is empty, which
    /// means `default`. Process context; sleeps until no reader uses the old list.
    pub fn change_sources(&self, change: SourcesChange, text: &[u8]) -> Result<(), ChangeError> {
        let sources = self.settings.sources;
        if sources.changing.swap(true, Acquire) {
            return Err(ChangeError::Busy);
        }
        let result = self.changed(change, text);
        sources.changing.store(false, Release);
        result
    }

    /// Not inlined: a list takes a third of the stack that a function may have in the kernel.
    #[inline(never)]
    fn changed(&self, change: SourcesChange, text: &[u8]) -> Result<(), ChangeError> {
        let sources = self.settings.sources;
        let mut list = match change {
            SourcesChange::Set => Networks::new(),
            SourcesChange::Add | SourcesChange::Remove => sources.list(),
        };
        // An entry that is removed is overwritten by those behind it.
        let mut len = list.len();
        Network::each(text, |network| {
            let known = list.iter().take(len).position(|n| *n == network);
            match (change, known) {
                (SourcesChange::Remove, None) => return Err(ChangeError::Missing),
                (SourcesChange::Remove, Some(gone)) => {
                    let rest = list.get_mut(gone..len).unwrap_or_default();
                    let cells = core::cell::Cell::from_mut(rest).as_slice_of_cells();
                    for (place, next) in cells.iter().zip(cells.iter().skip(1)) {
                        place.set(next.get());
                    }
                    len = len.sub_exact(1);
                }
                (_, None) => {
                    list.push(network).map_err(|_| ChangeError::Full)?;
                    len = list.len();
                }
                (_, Some(_)) => {}
            }
            Ok(())
        })?;
        let list = list.get(..len).unwrap_or_default();
        if list.is_empty() {
            return Err(ChangeError::NoneLeft);
        }
        sources.replace(list, || self.store.platform().gp_wait());
        Ok(())
    }

    /// Reply bytes per second for each UDP source outside private networks, and inside them; 0 is no limit.
    pub fn udp_rates(&self) -> (u32, u32) {
        let limiter = self.settings.limiter;
        (limiter.rate(false), limiter.rate(true))
    }

    /// Sets both.
    pub fn set_udp_rates(&self, public: u32, private: u32) {
        self.change_udp_rates(Some(public), Some(private));
    }

    /// Sets those that are given.
    pub fn change_udp_rates(&self, public: Option<u32>, private: Option<u32>) {
        self.settings.limiter.set_rates(public, private);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::EngineCounter;
    use crate::{fixture, Limiter, Settings, Sources};
    use core::net::Ipv4Addr;
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
        let changed = engine.change_sources(SourcesChange::Set, list.as_bytes());
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
        let change = |text: &str| engine.change_sources(SourcesChange::Set, text.as_bytes());
        assert_eq!(change(&many.join(",")), Err(ChangeError::Full));
        assert_eq!(change("8.8.8.8,x"), Err(ChangeError::Malformed));
        assert_eq!(change(","), Err(ChangeError::Malformed));
        assert_eq!(engine.sources().len(), 32);
    }

    #[test]
    fn source_on_inline_list_has_access() {
        let engine = engine();
        let is_allowed = |address: &str| {
            let Ok(source) = address.parse::<Ipv4Addr>() else {
                panic!("{address}");
            };
            engine.is_allowed(&engine.store.read(), source.to_bits())
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
                assert_eq!(is_allowed(address), granted, "{address} in {network}");
            }
        }
        let many = Vec::from_iter((1..=9).map(|n| std::format!("10.0.0.{n}")));
        set(&engine, &many.join(","));
        assert!(is_allowed("10.0.0.8") && !is_allowed("10.0.0.9"));
        set(&engine, "0.0.0.0/0");
        assert!(is_allowed("0.0.0.1") && !is_allowed("0.0.0.0"));
        engine.set_udp_rates(1, 0);
        assert!(!is_allowed("10.0.0.1"));
        engine.set_udp_rates(0, 1);
        assert!(!is_allowed("10.0.0.1"));
    }

    #[test]
    fn unlisted_source_is_refused() {
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
        assert_eq!(change(SourcesChange::Add, "8.8.8.8,10.0.0.0/8,any"), Ok(()));
        assert_eq!(list(&engine), "10.0.0.0/8,8.8.8.8/32,any");
        let missing = change(SourcesChange::Remove, "8.8.8.8,9.9.9.9");
        assert_eq!(missing, Err(ChangeError::Missing));
        let twice = change(SourcesChange::Remove, "8.8.8.8,8.8.8.8");
        assert_eq!(twice, Err(ChangeError::Missing));
        assert_eq!(list(&engine), "10.0.0.0/8,8.8.8.8/32,any");
        assert_eq!(change(SourcesChange::Remove, "any,10.0.0.0/8"), Ok(()));
        assert_eq!(list(&engine), "8.8.8.8/32");
        assert_eq!(
            change(SourcesChange::Remove, "8.8.8.8"),
            Err(ChangeError::NoneLeft)
        );
        assert_eq!(list(&engine), "8.8.8.8/32");
        let many = Vec::from_iter((0..32).map(|n| std::format!("10.0.0.{n}")));
        assert_eq!(
            change(SourcesChange::Add, &many.join(",")),
            Err(ChangeError::Full)
        );
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
    fn a_source_is_rate_limited() {
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
        // All addresses of an IPv6 network are one source.
        assert!(ask(PUBLIC, "2001:db8::1", 1000));
        assert!(!ask(PUBLIC, "2001:db8::2", 1000));
        assert!(ask(PUBLIC, "2001:db8:0:1::2", 1000));
        engine.store.tick(11, 1001);
        assert!(ask(PUBLIC, "8.8.8.8", 1000));
        engine.set_udp_rates(0, 10);
        assert!(ask(PUBLIC, "8.8.8.8", 1000));
        assert!(!ask(PRIVATE, "10.0.0.1", 11));
        assert_eq!(engine.engine_counted(EngineCounter::UdpLimited), 4);
    }

    #[test]
    fn unsent_bytes_are_returned_to_their_own_second() {
        let engine = engine();
        engine.store.tick(10, 1000);
        engine.set_udp_rates(1000, 0);
        let source = ip("8.8.8.8");
        let charge = engine.charge(PUBLIC, source, 600).unwrap();
        engine.store.tick(11, 1001);
        assert!(engine.may_reply(PUBLIC, source, 1000));
        drop(charge);
        assert!(!engine.may_reply(PUBLIC, source, 1));
        drop(engine.charge(PUBLIC, source, 0));
        engine.store.tick(12, 1002);
        drop(engine.charge(PUBLIC, source, 600).unwrap());
        assert!(engine.may_reply(PUBLIC, source, 1000));
    }
}
