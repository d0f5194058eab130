// SPDX-License-Identifier: MIT

//! Networks, for the list of allowed clients.

use std::net::IpAddr;

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    /// Parses `address/length` or an address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let len = len.unwrap_or(most);
        if len > most {
            return None;
        }
        let host = most - len;
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        let bits = to_ipv6_bits(address) & mask;
        Some(Self { bits, mask })
    }

    /// Whether the network contains `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        to_ipv6_bits(address) & self.mask == self.bits
    }
}

/// An IPv6 address, or an IPv4 one mapped to IPv6.
fn to_ipv6_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Private and loopback addresses, as the module's.
pub(crate) const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1",
    "fc00::/7",
    "fe80::/10",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network, address: &str| {
            Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "11.0.0.1"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("fc00::/7", "fd00::1"));
        assert!(!contains("0.0.0.0/0", "fd00::1"));
    }
}
