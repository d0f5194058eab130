// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The module's parameters: one table, from which the kernel's parameters, the text of `modinfo`, the check at load and
//! the rows of `stats settings` are generated.
//!
//! To add a parameter: a line in [`parameters!`](crate::parameters), and the code that uses it: `kmod/src/config.rs`, or
//! the file that reads it from `ServerConfig::params`.

use core::fmt;

/// The table. Calls the given macro with lines of
///
/// ```text
/// name: kind(range) = default, shown "row", "text";
/// ```
///
/// `kind` is one of [`ParameterKind`]'s, in lower case. `shown` is the source of its row of `stats settings`: `live` is
/// a row of the engine, with the value in force; `loaded` shows the value that the module was loaded with.
#[macro_export]
macro_rules! parameters {
    ($($with:tt)*) => {
        $($with)*! {
            port: number(1, 65535) = 11211, live "tcpport",
                "TCP and UDP port to serve";
            memory_mb: number(8, 16777216) = 64, live "maxbytes",
                "memory for items, MiB";
            maxconns: number(1, 1000000) = 1024, live "maxconns",
                "simultaneous TCP connections";
            threads: number(0, 1024) = 0, live "num_threads",
                "TCP workers, on CPUs that are not isolated; 0: one for each";
            backlog: number(1, 65535) = 1024, live "tcp_backlog",
                "connections waiting to be accepted, a worker";
            steer: number(0, 100) = 70, loaded "hippos_steer",
                "load of the CPU that polls a card with one receive queue, percent, beyond which \
                 its packets are spread over all CPUs that are not isolated; 0: never";
            upload_timeout: number(0, 86400) = 30, loaded "hippos_upload_timeout",
                "seconds after which a connection is closed whose upload, or whose large reply, stalls: \
                 no byte in that time, or fewer than 4096 a second over a longer time; 0: never";
            item_max: size("1k", "4m") = "1m", live "item_size_max",
                "largest item, bytes or with k or m, at most half of memory_mb";
            item_min: number(1, 1024) = 48, live "chunk_size",
                "space for the smallest item's key and value, bytes";
            factor: number(102, 1000) = 125, live "growth_factor",
                "growth from slab class to slab class, percent";
            eviction: choice("clock", "sieve", "s3fifo") = "clock", live "hippos_eviction",
                "the eviction policy";
            udp: switch() = "1", live "udpport",
                "serve UDP too";
            udp_fast: choice("1", "always", "late", "0") = "1", loaded "hippos_udp_fast",
                "answer UDP GETs in softirq, bypassing the firewall's input: 1 unless NAT or rules \
                 for outgoing packets could apply, always, late (behind destination NAT), or 0: all \
                 UDP goes through a socket";
            udp_bytes: number(1392, 8388608) = 1114112, live "hippos_udp_bytes",
                "longest UDP reply, bytes";
            udp_rate: number(0, 4294967295) = 0, live "hippos_udp_rate",
                "UDP reply bytes a second for each source outside private networks; 0: no limit";
            dev: text() = "", live "inter",
                "the only interface to serve; empty: all";
            allow: text() = "default", loaded "hippos_allow",
                "allowed clients: networks like 10.0.0.0/8,fd00::/8, any, or default (loopback, \
                 private and link-local ranges)";
            admin: choice("network", "local", "off") = "network", live "hippos_admin",
                "which clients may use administration commands: network (all), local (on this host, \
                 over TCP) or off";
            closed: switch() = "0", live "hippos_closed",
                "serve no client until hippos-ctl auth sets the logins, or turns them off";
            latency: switch() = "0", live "hippos_latency",
                "measure service and queue times by receive path: hippos-ctl latency";
            selftest: switch() = "0", loaded "hippos_selftest",
                "test the store and the sending of replies in the kernel before serving";
        }
    };
}

/// The values that a parameter accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A number from the first to the second.
    Number(u32, u32),
    /// A number of bytes from the first to the second, where a suffix `k` or `m` multiplies it.
    Size(&'static str, &'static str),
    /// Yes or no.
    Switch,
    /// One of these words. If `0` and `1` are among them, the spellings of the kernel's own switches are accepted too.
    Choice(&'static [&'static str]),
    /// Any text, checked by its reader.
    Text,
}

/// The words of the parameter `udp_fast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpFast {
    /// Softirq answers unless NAT or rules for outgoing packets could apply.
    Auto,
    /// It always does.
    Always,
    /// It does behind destination NAT, unless rules for outgoing packets could apply.
    Late,
    /// The socket answers.
    Off,
}

impl UdpFast {
    /// Every word's meaning.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Always, Self::Late, Self::Off];

    /// The meaning of a word of the table.
    pub fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| one.name().as_bytes() == word)
    }

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "1",
            Self::Always => "always",
            Self::Late => "late",
            Self::Off => "0",
        }
    }
}

/// A row of `stats settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsRow {
    /// A row of the engine, with the value in force.
    Live(&'static str),
    /// With the value as loaded.
    Loaded(&'static str),
}

impl SettingsRow {
    /// The row's name.
    pub const fn name(self) -> &'static str {
        match self {
            SettingsRow::Live(name) | SettingsRow::Loaded(name) => name,
        }
    }
}

/// A parameter of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as for insmod.
    pub name: &'static str,
    /// The values that it accepts.
    pub kind: ParameterKind,
    /// The default, as it would be given to insmod.
    pub default: &'static str,
    /// Its row.
    pub row: SettingsRow,
    /// Its meaning.
    pub text: &'static str,
    /// The meaning and the accepted values, as `modinfo` shows them.
    pub modinfo: &'static str,
}

/// Why a parameter was refused, for the kernel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterError<'a> {
    parameter: &'static Parameter,
    given: Given<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given<'a> {
    Number(u32),
    Text(&'a [u8]),
}

impl Parameter {
    /// Checks a [`ParameterKind::Number`].
    pub fn number(&'static self, given: u32) -> Result<u32, ParameterError<'static>> {
        match self.kind {
            ParameterKind::Number(least, most) if (least..=most).contains(&given) => Ok(given),
            _ => Err(self.refuse(Given::Number(given))),
        }
    }

    /// Checks a [`ParameterKind::Size`], and returns its bytes.
    pub fn size<'a>(&'static self, given: &'a [u8]) -> Result<usize, ParameterError<'a>> {
        let range = match self.kind {
            ParameterKind::Size(least, most) => bytes(least.as_bytes()).zip(bytes(most.as_bytes())),
            _ => None,
        };
        range
            .zip(bytes(given))
            .and_then(|((least, most), size)| (least..=most).contains(&size).then_some(size))
            .ok_or(self.refuse(Given::Text(given)))
    }

    /// Checks a [`ParameterKind::Choice`], and returns the word of the table.
    pub fn choice<'a>(&'static self, given: &'a [u8]) -> Result<&'static str, ParameterError<'a>> {
        let ParameterKind::Choice(words) = self.kind else {
            return Err(self.refuse(Given::Text(given)));
        };
        let find = |given: &[u8]| words.iter().find(|word| word.as_bytes() == given);
        let other: &[u8] = match given {
            b"y" | b"Y" | b"on" => b"1",
            b"n" | b"N" | b"off" => b"0",
            other => other,
        };
        find(given)
            .or_else(|| find(other))
            .copied()
            .ok_or(self.refuse(Given::Text(given)))
    }

    const fn refuse<'a>(&'static self, given: Given<'a>) -> ParameterError<'a> {
        ParameterError {
            parameter: self,
            given,
        }
    }
}

/// Parses a number of bytes, which may have a suffix `k` or `m`.
pub const fn bytes(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        _ => (text, 1),
    };
    let Ok(digits) = core::str::from_utf8(digits) else {
        return None;
    };
    match usize::from_str_radix(digits, 10) {
        Ok(number) => number.checked_mul(unit),
        Err(_) => None,
    }
}

impl fmt::Display for ParameterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterKind::Number(least, most) => write!(f, "from {least} to {most}"),
            ParameterKind::Size(least, most) => write!(f, "from {least} to {most}"),
            ParameterKind::Switch => f.write_str("0 or 1"),
            ParameterKind::Choice(words) => {
                for (i, word) in words.iter().enumerate() {
                    let before = match i {
                        0 => "",
                        i if i.saturating_add(1) == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}{word}")?;
                }
                Ok(())
            }
            ParameterKind::Text => f.write_str("a text"),
        }
    }
}

impl fmt::Display for ParameterError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameter { name, kind, .. } = self.parameter;
        match self.given {
            Given::Number(given) => write!(f, "{name}={given}: must be {kind}"),
            Given::Text(given) => {
                let given = core::str::from_utf8(given).unwrap_or("?");
                write!(f, "{name}={given}: must be {kind}")
            }
        }
    }
}

macro_rules! kind {
    (number($least:literal, $most:literal)) => {
        ParameterKind::Number($least, $most)
    };
    (size($least:literal, $most:literal)) => {
        ParameterKind::Size($least, $most)
    };
    (switch()) => {
        ParameterKind::Switch
    };
    (choice($($word:literal),*)) => {
        ParameterKind::Choice(&[$($word),*])
    };
    (text()) => {
        ParameterKind::Text
    };
}

macro_rules! modinfo {
    ($text:literal, $default:literal, number($least:literal, $most:literal)) => {
        concat!($text, " (", $least, " to ", $most, ", default ", $default, ")")
    };
    ($text:literal, $default:literal, size($least:literal, $most:literal)) => {
        concat!($text, " (", $least, " to ", $most, ", default ", $default, ")")
    };
    ($text:literal, $default:literal, choice($first:literal $(, $word:literal)*)) => {
        concat!($text, " (", $first $(, "|", $word)*, ", default ", $default, ")")
    };
    ($text:literal, $default:literal, switch()) => {
        concat!($text, " (0|1, default ", $default, ")")
    };
    ($text:literal, $default:literal, text()) => {
        concat!($text, " (default \"", $default, "\")")
    };
}

macro_rules! row {
    (live $row:literal) => {
        SettingsRow::Live($row)
    };
    (loaded $row:literal) => {
        SettingsRow::Loaded($row)
    };
}

macro_rules! table {
    ($($name:ident: $kind:ident($($range:literal),*) = $default:literal,
       $shown:ident $row:literal, $text:literal;)+) => {
        /// Each parameter by its name.
        #[allow(non_upper_case_globals)]
        pub mod each {
            use super::{ParameterKind, Parameter, SettingsRow};
            $(
                #[doc = $text]
                pub static $name: Parameter = Parameter {
                    name: stringify!($name),
                    kind: kind!($kind($($range),*)),
                    default: concat!($default),
                    row: row!($shown $row),
                    text: $text,
                    modinfo: modinfo!($text, $default, $kind($($range),*)),
                };
            )+
        }

        /// All parameters.
        pub static PARAMETERS: &[&Parameter] = &[$(&each::$name),+];
    };
}

crate::parameters!(table);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::format;
    use std::string::ToString;

    #[test]
    fn check_and_modinfo_have_the_same_range() {
        for parameter in PARAMETERS {
            let Parameter {
                name,
                kind,
                default,
                modinfo,
                ..
            } = parameter;
            match kind {
                ParameterKind::Number(least, most) => {
                    assert_eq!(parameter.number(*least), Ok(*least), "{name}");
                    assert_eq!(parameter.number(*most), Ok(*most), "{name}");
                    assert!(parameter.number(default.parse().unwrap()).is_ok(), "{name}");
                    if let Some(less) = least.checked_sub(1) {
                        assert!(parameter.number(less).is_err(), "{name}");
                    }
                    if let Some(more) = most.checked_add(1) {
                        assert!(parameter.number(more).is_err(), "{name}");
                    }
                    let range = format!("({least} to {most}, default {default})");
                    assert!(modinfo.ends_with(&range), "{modinfo}");
                }
                ParameterKind::Size(least, most) => {
                    let edges = [least, most].map(|edge| bytes(edge.as_bytes()).unwrap());
                    for (edge, beyond) in edges.iter().zip([edges[0] - 1, edges[1] + 1]) {
                        assert_eq!(parameter.size(edge.to_string().as_bytes()), Ok(*edge));
                        assert!(parameter.size(beyond.to_string().as_bytes()).is_err());
                    }
                    assert!(parameter.size(default.as_bytes()).is_ok(), "{name}");
                    let range = format!("({least} to {most}, default {default})");
                    assert!(modinfo.ends_with(&range), "{modinfo}");
                }
                ParameterKind::Choice(words) => {
                    for word in *words {
                        assert_eq!(parameter.choice(word.as_bytes()), Ok(*word));
                    }
                    assert_eq!(parameter.choice(default.as_bytes()), Ok(*default));
                    for wrong in ["", "lru", "2"] {
                        assert!(parameter.choice(wrong.as_bytes()).is_err(), "{name}");
                    }
                    let range = format!("({}, default {default})", words.join("|"));
                    assert!(modinfo.ends_with(&range), "{modinfo}");
                }
                ParameterKind::Switch => assert!(["0", "1"].contains(default), "{name}"),
                ParameterKind::Text => {}
            }
            assert!(modinfo.starts_with(parameter.text), "{modinfo}");
        }
    }

    #[test]
    fn the_rate_of_upload_timeout_is_the_one_in_force() {
        let rate = format!("fewer than {} a second", hippos_semantics::VALUE_RATE_MIN);
        assert!(each::upload_timeout.text.contains(&rate), "{rate}");
    }

    #[test]
    fn each_word_of_udp_fast_has_a_meaning_of_its_own() {
        let ParameterKind::Choice(choice) = each::udp_fast.kind else {
            panic!("udp_fast is a choice");
        };
        assert_eq!(choice, UdpFast::ALL.map(UdpFast::name));
        for meaning in UdpFast::ALL {
            assert_eq!(UdpFast::parse(meaning.name().as_bytes()), Some(meaning));
        }
    }

    #[test]
    fn each_parameter_has_a_row_of_its_own() {
        let rows: BTreeSet<_> = PARAMETERS.iter().map(|p| p.row.name()).collect();
        assert_eq!(rows.len(), PARAMETERS.len());
        for parameter in PARAMETERS {
            if let SettingsRow::Loaded(row) = parameter.row {
                assert_eq!(row, format!("hippos_{}", parameter.name));
            }
        }
    }

    #[test]
    fn switches_may_be_written_as_the_kernels() {
        for (given, word) in [("y", "1"), ("on", "1"), ("N", "0"), ("off", "0")] {
            assert_eq!(each::udp_fast.choice(given.as_bytes()), Ok(word));
        }
        assert_eq!(each::admin.choice(b"off"), Ok("off"));
        assert!(each::admin.choice(b"n").is_err());
    }

    #[test]
    fn a_refusal_states_the_range() {
        let message = |refused: ParameterError<'_>| refused.to_string();
        assert_eq!(
            message(each::factor.number(101).unwrap_err()),
            "factor=101: must be from 102 to 1000"
        );
        for wrong in ["", "k", "5m", "12x", "-1", "99999999999999999999k"] {
            assert_eq!(
                message(each::item_max.size(wrong.as_bytes()).unwrap_err()),
                format!("item_max={wrong}: must be from 1k to 4m")
            );
        }
        assert_eq!(
            message(each::eviction.choice(b"lru").unwrap_err()),
            "eviction=lru: must be clock, sieve or s3fifo"
        );
        assert_eq!(
            message(each::eviction.choice(b"\xff").unwrap_err()),
            "eviction=?: must be clock, sieve or s3fifo"
        );
    }
}
