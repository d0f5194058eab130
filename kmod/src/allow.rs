// SPDX-License-Identifier: GPL-2.0-only
//! Who may ask: networks by their prefixes.
//!
//! UDP packets are answered before the firewall's input chain sees them, so
//! the module keeps a list of its own. An IPv4 address stands among the IPv6
//! ones, mapped: `10.0.0.0/8` is `::ffff:10.0.0.0/104`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::prelude::*;

/// A network: addresses that agree with `address` in the bits of `mask`.
#[derive(Clone, Copy)]
struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    const fn new(address: u128, bits: u32) -> Self {
        // A network of no bits is everything: a shift by all bits gives none.
        let mask = match u128::MAX.checked_shl(128u32.wrapping_sub(bits)) {
            Some(mask) => mask,
            None => 0,
        };
        Self {
            address: address & mask,
            mask,
        }
    }

    const fn ipv4(a: u8, b: u8, bits: u32) -> Self {
        Self::new(
            Ipv4Addr::new(a, b, 0, 0).to_ipv6_mapped().to_bits(),
            96 + bits,
        )
    }

    const fn ipv6(first: u16, bits: u32) -> Self {
        Self::new((first as u128) << 112, bits)
    }

    /// `a.b.c.d/n` or `a::b/n`; without `/n` one address.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let (address, width, before) = match address.parse::<Ipv4Addr>() {
            Ok(address) => (address.to_ipv6_mapped(), 32, 96),
            Err(_) => (address.parse::<Ipv6Addr>().ok()?, 128, 0),
        };
        let bits = bits.unwrap_or(width);
        (bits <= width).then(|| Self::new(address.to_bits(), before + bits))
    }
}

/// The list. This host itself is always on it.
pub(crate) struct Allow {
    networks: KVec<Network>,
    /// What of it holds IPv4 addresses: address and mask.
    ipv4: KVec<(u32, u32)>,
}

impl Allow {
    /// The most networks of a list.
    pub(crate) const MOST: usize = 32;

    /// Private, link-local and loopback networks of both families.
    const DEFAULT: [Network; 8] = [
        Network::ipv4(10, 0, 8),
        Network::ipv4(192, 168, 16),
        Network::ipv4(172, 16, 12),
        Network::ipv4(169, 254, 16),
        Network::ipv6(0xfc00, 7),
        Network::ipv6(0xfe80, 10),
        Network::ipv4(127, 0, 8),
        Network::new(1, 128),
    ];

    /// A list as the operator wrote it: networks with commas between them,
    /// `any`, or nothing for the default. `EINVAL` when it is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let mut allow = Self {
            networks: KVec::new(),
            ipv4: KVec::new(),
        };
        match text {
            b"" => Self::DEFAULT.into_iter().try_for_each(|n| allow.add(n))?,
            b"any" => allow.add(Network::new(0, 0))?,
            _ => core::str::from_utf8(text)
                .map_err(|_| EINVAL)?
                .split(',')
                .try_for_each(|text| allow.add(Network::parse(text).ok_or(EINVAL)?))?,
        }
        Ok(allow)
    }

    fn add(&mut self, network: Network) -> Result {
        if self.networks.len() >= Self::MOST {
            return Err(EINVAL);
        }
        // The part of the network that is mapped IPv4 addresses, if there is one.
        let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().to_bits();
        let wide = network.mask & !u128::from(u32::MAX);
        if mapped & wide == network.address & wide {
            let ipv4 = (network.address as u32, network.mask as u32);
            self.ipv4.push(ipv4, GFP_KERNEL)?;
        }
        Ok(self.networks.push(network, GFP_KERNEL)?)
    }

    /// As [`permits`](Self::permits), for an address that is not mapped.
    #[inline]
    pub(crate) fn admits(&self, source: IpAddr, local: bool) -> bool {
        match source {
            IpAddr::V4(source) => {
                let source = source.to_bits();
                local
                    || self
                        .ipv4
                        .iter()
                        .any(|(address, mask)| source & mask == *address)
            }
            IpAddr::V6(source) => self.permits(&source.octets(), local),
        }
    }

    /// Whether `source` may ask; `local` says that it is this host.
    #[inline]
    pub(crate) fn permits(&self, source: &[u8; 16], local: bool) -> bool {
        let source = u128::from_be_bytes(*source);
        local
            || self
                .networks
                .iter()
                .any(|network| source & network.mask == network.address)
    }
}
