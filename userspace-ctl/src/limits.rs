// SPDX-License-Identifier: GPL-2.0-only
//! `limits`: the limits of UDP clients.

use anyhow::Result;
use hippos_abi::{GetLimits, GetRanges, LimitsChange, Ranges, UDP_BYTES_MIN, UDP_RATE_MIN};
use serde_json::json;

use crate::answer::Answer;
use crate::arguments;
use crate::device::Device;
use crate::exit::end;

impl arguments::Limits {
    /// Whether any limit is given.
    pub(crate) fn is_change(&self) -> bool {
        let given = [
            self.udp_bytes,
            self.udp_datagrams,
            self.udp_rate,
            self.udp_private_rate,
        ];
        given.iter().any(Option::is_some)
    }

    /// The call that sets the given ones, and no other.
    fn change(&self) -> LimitsChange {
        LimitsChange::new(
            self.udp_bytes,
            self.udp_datagrams,
            self.udp_rate,
            self.udp_private_rate,
        )
    }
}

/// Sets the given limits, and prints all of them.
pub(crate) fn limits(device: &Device, given: &arguments::Limits) -> Result<Answer> {
    if let Some(bytes) = given.udp_bytes {
        check_udp_bytes(bytes, &device.call::<GetRanges>(&())?)?;
    }
    for (option, rate) in [
        ("--udp-rate", given.udp_rate),
        ("--udp-private-rate", given.udp_private_rate),
    ] {
        if let Some(warning) = rate.and_then(|rate| rate_warning(option, rate)) {
            eprintln!("hippos-ctl: warning: {warning}");
        }
    }
    if given.is_change() {
        device.change_limits(&given.change())?;
    }
    let limits = device.call::<GetLimits>(&())?;
    let rows = [
        ("udp-bytes", limits.udp_bytes),
        ("udp-datagrams", limits.udp_datagrams),
        ("udp-rate", limits.udp_rate),
        ("udp-private-rate", limits.udp_private_rate),
    ];
    let text: String = rows
        .iter()
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    let json = json!({
        "udp_bytes": limits.udp_bytes,
        "udp_datagrams": limits.udp_datagrams,
        "udp_rate": limits.udp_rate,
        "udp_private_rate": limits.udp_private_rate,
    });
    Ok(Answer::new(text, json))
}

/// Refuses a longer reply than the module has buffers for.
fn check_udp_bytes(bytes: u32, ranges: &Ranges) -> Result<()> {
    let most = ranges.udp_bytes_most;
    if !(UDP_BYTES_MIN..=most).contains(&bytes) {
        end!(
            Refused,
            "--udp-bytes {bytes}: must be from {UDP_BYTES_MIN} to {most}, what the module was \
             loaded with (udp_bytes=)"
        );
    }
    Ok(())
}

/// A warning for a rate at which a full datagram is never sent.
fn rate_warning(option: &str, rate: u32) -> Option<String> {
    (1..UDP_RATE_MIN).contains(&rate).then(|| {
        format!(
            "{option} {rate}: with less than {UDP_RATE_MIN} bytes a second no full datagram is ever \
             sent; 0 is no limit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hippos_abi::LIMITS_RATE;

    #[test]
    fn replies_are_bounded_by_what_the_module_was_loaded_with() {
        let ranges = Ranges {
            udp_bytes_most: 100_000,
            ..Ranges::default()
        };
        assert!(check_udp_bytes(1392, &ranges).is_ok());
        assert!(check_udp_bytes(100_000, &ranges).is_ok());
        for bytes in [1391, 100_001] {
            let error = check_udp_bytes(bytes, &ranges).unwrap_err().to_string();
            assert!(error.contains("from 1392 to 100000"), "{error}");
        }
    }

    #[test]
    fn a_change_of_one_limit_leaves_the_others_to_the_module() {
        let given = arguments::Limits {
            udp_bytes: None,
            udp_datagrams: None,
            udp_rate: Some(0),
            udp_private_rate: None,
        };
        let rate_alone = LimitsChange {
            fields: LIMITS_RATE,
            ..LimitsChange::default()
        };
        assert_eq!(given.change(), rate_alone);
    }

    #[test]
    fn a_rate_below_a_datagram_is_warned_of() {
        assert_eq!(rate_warning("--udp-rate", 0), None);
        assert_eq!(rate_warning("--udp-rate", 1400), None);
        let warning = rate_warning("--udp-rate", 1).unwrap();
        assert!(warning.contains("less than 1400"), "{warning}");
    }
}
