// SPDX-License-Identifier: GPL-2.0-only
//! Lists of networks in an operator's notation, checked before they are sent to the module.

use anyhow::{bail, ensure, Context, Result};
use hippos_abi::NETWORKS_MAX;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Checks a list: networks separated by commas, including `any` and `default`.
pub(crate) fn check(list: &str) -> Result<()> {
    list.split(',').try_for_each(|word| match word {
        "any" | "default" => Ok(()),
        "" => bail!("{list:?}: a network is missing; like 10.0.0.0/8,fd00::/8, any or default"),
        word => network(word),
    })
}

/// The most bytes of a parameter that is a text (`param_set_charp`, kernel/params.c).
const PARAMETER_MOST: usize = 1024;

/// Checks a list that the module is loaded with.
pub(crate) fn check_for_load(list: &str) -> Result<()> {
    check(list)?;
    let networks = list.split(',').map(|word| match word {
        "default" => DEFAULT.len(),
        _ => 1,
    });
    let networks: usize = networks.sum();
    ensure!(
        networks <= NETWORKS_MAX,
        "{networks} networks: must be at most {NETWORKS_MAX} (default is {})",
        DEFAULT.len()
    );
    ensure!(
        list.len() <= PARAMETER_MOST,
        "{} bytes: must be at most {PARAMETER_MOST}",
        list.len()
    );
    Ok(())
}

/// The meaning of `default`: private, link-local and loopback networks. The module decides; this is a copy, so that
/// lists can be compared (guest test `configuration`).
const DEFAULT: [&str; 8] = [
    "10.0.0.0/8",
    "192.168.0.0/16",
    "172.16.0.0/12",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "127.0.0.0/8",
    "::1/128",
];

/// The networks of a list that [`check`] accepts, as the module lists them.
pub(crate) fn expand(list: &str) -> BTreeSet<String> {
    let mut networks = BTreeSet::new();
    for word in list.split([',', '\n']).filter(|word| !word.is_empty()) {
        match word.parse::<IpAddr>() {
            _ if word == "default" => networks.extend(DEFAULT.map(str::to_owned)),
            Ok(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                networks.insert(format!("{address}/{bits}"));
            }
            Err(_) => {
                let mut parts = word.splitn(2, '/');
                let address = parts
                    .next()
                    .and_then(|address| address.parse::<IpAddr>().ok());
                networks.insert(match (address, parts.next()) {
                    (Some(address), Some(bits)) => format!("{address}/{bits}"),
                    _ => word.to_owned(),
                });
            }
        }
    }
    networks
}

/// Whether each network of the list `inner` lies in one of the list `outer`.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let outer = expand(outer);
    let parts = |word: &str| {
        let (address, bits) = word.split_once('/')?;
        Some((address.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?))
    };
    let lies_in = |inner: &str, outer: &str| {
        if inner == outer || outer == "any" {
            return true;
        }
        match (parts(inner), parts(outer)) {
            (Some((address, bits)), Some((first, shorter))) => {
                address.is_ipv4() == first.is_ipv4()
                    && shorter <= bits
                    && first_of(address, shorter) == first
            }
            _ => false,
        }
    };
    expand(inner)
        .iter()
        .all(|inner| outer.iter().any(|outer| lies_in(inner, outer)))
}

fn network(word: &str) -> Result<()> {
    let (address, bits) = match word.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (word, None),
    };
    let address: IpAddr = address.parse().ok().with_context(|| {
        format!("{word}: must be a network like 10.0.0.0/8 or fd00::/8, an address, any or default")
    })?;
    let Some(bits) = bits else {
        return Ok(());
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u32 = match bits.parse() {
        Ok(bits) if bits <= most => bits,
        _ => bail!("{word}: the length must be from 0 to {most}"),
    };
    let first = first_of(address, bits);
    ensure!(
        first == address,
        "{word}: the address has bits beyond the first {bits}; did you mean {first}/{bits}, or {address} alone?"
    );
    Ok(())
}

/// The first address of the network with this prefix length that contains an address.
fn first_of(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_networks_are_accepted() {
        for list in [
            "any",
            "default,192.0.2.0/24",
            "10.0.0.0/8,fd00::/8",
            "8.8.8.8",
            "::1/128",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert!(check(list).is_ok(), "{list}");
        }
    }

    #[test]
    fn lists_that_mean_the_same_are_equal() {
        for (a, b) in [
            ("10.0.0.0/8,8.8.8.8", "8.8.8.8/32\n10.0.0.0/8\n"),
            ("FD00:0::/8", "fd00::/8"),
            ("default,10.0.0.0/8", "default"),
            ("any", "any\n"),
        ] {
            assert_eq!(expand(a), expand(b), "{a}");
        }
        assert_ne!(expand("default"), expand("default,8.8.8.8"));
    }

    #[test]
    fn lists_cover_what_lies_in_their_networks() {
        assert!(covers("any", "default,8.8.8.8"));
        assert!(covers("default", "10.1.0.0/16,::1"));
        for (outer, inner) in [
            ("default", "any"),
            ("10.1.0.0/16", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.1.0.0/16,8.8.8.8"),
            ("0.0.0.0/0", "::1"),
        ] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    #[test]
    fn lists_that_the_module_would_refuse_at_its_load_are_refused() {
        let of = |count: usize| {
            let words: Vec<_> = (0..count).map(|n| format!("10.0.{n}.0/24")).collect();
            words.join(",")
        };
        assert!(check_for_load(&of(32)).is_ok());
        assert!(check_for_load(&format!("default,{}", of(24))).is_ok());
        for list in [of(33), format!("default,{}", of(25))] {
            let error = check_for_load(&list).unwrap_err().to_string();
            assert!(error.contains("33 networks"), "{error}");
        }
        let long = vec!["fd00:1111:2222:3333:4444:5555:6666:7777"; 30].join(",");
        let error = check_for_load(&long).unwrap_err().to_string();
        assert!(error.contains("at most 1024"), "{error}");
    }

    #[test]
    fn malformed_networks_are_refused_with_a_suggestion() {
        for (list, expected) in [
            ("10.0.0.1/8", "did you mean 10.0.0.0/8, or 10.0.0.1 alone"),
            ("default,fd00::1/64", "did you mean fd00::/64"),
            ("0.0.0.1/0", "did you mean 0.0.0.0/0"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("fd00::/129", "from 0 to 128"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/-1", "from 0 to 32"),
            ("10.0.0/8", "must be a network like"),
            ("x", "must be a network like"),
            ("", "is missing"),
            ("any,,10.0.0.0/8", "is missing"),
        ] {
            let error = check(list).expect_err(list).to_string();
            assert!(error.contains(expected), "{list}: {error}");
        }
    }
}
