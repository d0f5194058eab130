// SPDX-License-Identifier: GPL-2.0-only
//! The keys of the configuration file: the module's parameters, from the module's own table, and settings that are not
//! parameters.

use hippos_abi::parameters::{Parameter, ParameterKind, SettingsRow, PARAMETERS};
use hippos_abi::UDP_DATAGRAMS_MAX;

/// A key that is not a parameter of the module. The part before the dot is its table in the file.
const fn own(
    name: &'static str,
    kind: ParameterKind,
    default: &'static str,
    text: &'static str,
) -> Parameter {
    Parameter {
        name,
        kind,
        default,
        row: SettingsRow::Loaded(""),
        text,
        modinfo: text,
    }
}

pub(crate) static AUTH_FILE: Parameter = own(
    "auth_file",
    ParameterKind::Text,
    "",
    "file of user:password lines; clients log in over TCP, and UDP is refused. Empty: no client has to",
);
pub(crate) static UDP_DATAGRAMS: Parameter = own(
    "limits.udp_datagrams",
    ParameterKind::Number(1, UDP_DATAGRAMS_MAX),
    "65535",
    "most datagrams of a UDP reply",
);
pub(crate) static UDP_PRIVATE_RATE: Parameter = own(
    "limits.udp_private_rate",
    ParameterKind::Number(0, u32::MAX),
    "0",
    "UDP reply bytes a second for each source inside private networks; 0: no limit",
);
pub(crate) static XDP_INTERFACES: Parameter = own(
    "xdp.interfaces",
    ParameterKind::Text,
    "",
    "interfaces on which XDP answers GETs",
);
pub(crate) static XDP_MODE: Parameter = own(
    "xdp.mode",
    ParameterKind::Choice(&["auto", "native", "generic"]),
    "auto",
    "in the driver, behind it, or in the driver where that is possible",
);
pub(crate) static MODULE: Parameter = own(
    "load.module",
    ParameterKind::Text,
    "",
    "the module's file; empty: the one that modprobe finds",
);
pub(crate) static WAIT: Parameter = own(
    "load.wait",
    ParameterKind::Number(0, 86400),
    "30",
    "seconds that start waits for the interfaces that are named here",
);

pub(crate) static WARM_FILE: Parameter = own(
    "warm.file",
    ParameterKind::Text,
    "",
    "stop writes all items into this file, and start loads them. Empty: a stop loses them",
);

static OWN: [&Parameter; 8] = [
    &AUTH_FILE,
    &UDP_DATAGRAMS,
    &UDP_PRIVATE_RATE,
    &XDP_INTERFACES,
    &XDP_MODE,
    &MODULE,
    &WAIT,
    &WARM_FILE,
];

/// Whether a key is only used for loading; it has no value in force afterwards.
pub(crate) fn is_of_loading(key: &Parameter) -> bool {
    ["load.module", "load.wait", "warm.file", "xdp.mode"].contains(&key.name)
}

/// All keys, those without a table first.
pub(crate) fn all() -> impl Iterator<Item = &'static Parameter> {
    let parameters = PARAMETERS.iter().copied();
    parameters.chain(OWN)
}

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Parameter> {
    all().find(|key| key.name == name)
}

/// Whether a key is a parameter of the module.
pub(crate) fn is_parameter(key: &Parameter) -> bool {
    PARAMETERS
        .iter()
        .any(|parameter| parameter.name == key.name)
}

/// Whether the file may have an array of strings for a key.
pub(crate) fn is_list(key: &Parameter) -> bool {
    ["allow", "xdp.interfaces"].contains(&key.name)
}

/// Converts a value that insmod accepts or sysfs shows to the form that is compared and passed to insmod.
///
/// # Errors
///
/// A message that names the values that the key accepts.
pub(crate) fn canonical(key: &'static Parameter, given: &str) -> Result<String, String> {
    match key.kind {
        ParameterKind::Number(..) => {
            let number: u32 = given
                .parse()
                .map_err(|_| format!("{}={given}: must be {}", key.name, key.kind))?;
            key.number(number)
                .map(|number| number.to_string())
                .map_err(|refused| refused.to_string())
        }
        ParameterKind::Size(..) => key
            .size(given.as_bytes())
            .map(|bytes| bytes.to_string())
            .map_err(|refused| refused.to_string()),
        ParameterKind::Choice(_) => key
            .choice(given.as_bytes())
            .map(str::to_owned)
            .map_err(|refused| refused.to_string()),
        ParameterKind::Switch => match given {
            "1" | "Y" | "y" | "true" => Ok("1".into()),
            "0" | "N" | "n" | "false" => Ok("0".into()),
            _ => Err(format!("{}={given}: must be true or false", key.name)),
        },
        ParameterKind::Text => Ok(given.to_owned()),
    }
}

/// The name that is most similar to a misspelt one.
pub(crate) fn like<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| {
        // `memory` probably means `memory_mb`; `xpd` probably means `xdp`.
        let starts = if candidate.starts_with(name) {
            0.2
        } else {
            0.0
        };
        let is_slip = strsim::osa_distance(name, candidate) <= 1;
        strsim::jaro(name, candidate) + starts + if is_slip { 0.3 } else { 0.0 }
    };
    names
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.72)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_among_the_values() {
        for key in all() {
            assert!(canonical(key, key.default).is_ok(), "{}", key.name);
            assert_eq!(find(key.name), Some(key));
        }
    }

    #[test]
    fn two_spellings_of_a_value_are_equal() {
        let of = |name: &str, value: &str| canonical(find(name).unwrap(), value).unwrap();
        assert_eq!(of("item_max", "1m"), of("item_max", "1048576"));
        assert_eq!(of("udp", "Y"), of("udp", "1"));
        assert_eq!(of("udp_fast", "on"), of("udp_fast", "1"));
    }

    #[test]
    fn misspelt_names_are_suggested() {
        let like = |name| like(name, all().map(|key| key.name));
        assert_eq!(like("memory"), Some("memory_mb"));
        assert_eq!(like("max_conns"), Some("maxconns"));
        assert_eq!(like("evicton"), Some("eviction"));
        assert_eq!(like("thread"), Some("threads"));
        assert_eq!(like("zzz"), None);
    }
}
