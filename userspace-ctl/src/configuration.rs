// SPDX-License-Identifier: GPL-2.0-only
//! The configuration file, checked as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use hippos_abi::parameters::{Parameter, ParameterKind};
use hippos_abi::UDP_RATE_MIN;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::exit::end;
use crate::{credentials, keys, networks};

/// The default path.
pub(crate) const FILE: &str = "/etc/hippos/hippos.toml";
/// The longest name of an interface (`IFNAMSIZ`, without the zero).
const INTERFACE_MOST: usize = 15;

/// The values in a file, and defaults for those that it does not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// By key name, each in the form of [`keys::canonical`].
    values: BTreeMap<&'static str, String>,
}

/// An error or a warning about a file, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Line and column, both from 1; 0 if the finding is about the whole file.
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// Only a warning: the configuration is used nevertheless.
    pub(crate) is_warning: bool,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(" ")?,
            line => write!(f, "{line}:{}: ", self.column)?,
        }
        if self.is_warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.what)
    }
}

impl Configuration {
    /// Reads a file, and the file of users that it names.
    ///
    /// # Errors
    ///
    /// A file cannot be read or has errors, which are all reported.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let (configuration, findings) = Self::check(file)?;
        let mut wrong = String::new();
        for finding in findings {
            if finding.is_warning {
                eprintln!("{}:{finding}", file.display());
            } else {
                wrong.push_str(&format!("\n{}:{finding}", file.display()));
            }
        }
        if !wrong.is_empty() {
            end!(Found, "the configuration has errors{wrong}");
        }
        Ok(configuration)
    }

    /// Like `read`, but returns all findings.
    pub(crate) fn check(file: &Path) -> Result<(Self, Vec<Finding>)> {
        let text =
            fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        let (configuration, mut findings) = Self::parse(&text);
        let users = configuration.get(&keys::AUTH_FILE);
        if !users.is_empty() {
            let checked = fs::read(&users)
                .with_context(|| format!("can't read {users}"))
                .and_then(|lines| credentials::check(&lines).with_context(|| users.clone()));
            let mut find = |is_warning, what: String| {
                findings.push(Finding {
                    line: 0,
                    column: 0,
                    is_warning,
                    what: format!("auth_file: {what}"),
                });
            };
            if let Err(error) = checked {
                find(false, format!("{error:#}"));
            } else if credentials::is_readable_by_all(users.as_ref()) {
                find(
                    true,
                    format!("{users} is readable by all users of this host"),
                );
            }
        }
        Ok((configuration, findings))
    }

    /// Parses the text of a file, and returns its errors in the order of their lines.
    pub(crate) fn parse(text: &str) -> (Self, Vec<Finding>) {
        let mut reader = Reader {
            text,
            values: BTreeMap::new(),
            findings: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            reader.wrong(error.span().unwrap_or(0..0), error.message().to_owned());
        }
        reader.table(table.get_ref(), None);
        if errors.is_empty() {
            reader.check_together();
        }
        let Reader {
            values,
            mut findings,
            ..
        } = reader;
        findings.sort_by_key(|finding| (finding.line, finding.column));
        let values = values
            .into_iter()
            .map(|(name, (value, _))| (name, value))
            .collect();
        (Self { values }, findings)
    }

    /// The value of a key, or its default, in the form of [`keys::canonical`].
    pub(crate) fn get(&self, key: &'static Parameter) -> String {
        match self.values.get(key.name) {
            Some(value) => value.clone(),
            None => keys::canonical(key, key.default).unwrap_or_default(),
        }
    }

    /// Sets a key.
    pub(crate) fn set(&mut self, key: &'static Parameter, value: String) {
        self.values.insert(key.name, value);
    }

    /// The items of a key whose value is a list.
    pub(crate) fn list(&self, key: &'static Parameter) -> Vec<String> {
        let value = self.get(key);
        let words = value.split(',').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// The parameters that the file sets, in the form that insmod takes.
    pub(crate) fn parameters(&self) -> Vec<String> {
        let given = keys::all().filter(|key| keys::is_parameter(key));
        given
            .filter_map(|key| Some(format!("{}={}", key.name, self.values.get(key.name)?)))
            .collect()
    }

    /// Formats it as a file, with a comment for each key; keys with their default values are commented out.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::from("# hippos-ctl check, diff, start and reload read this file.\n");
        let mut table = "";
        for key in keys::all() {
            if key.text.starts_with("test only") {
                continue;
            }
            let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if of != table {
                out.push_str(&format!("\n[{of}]\n"));
                table = of;
            }
            let value = self.get(key);
            let is_default =
                keys::canonical(key, key.default).is_ok_and(|default| default == value);
            let comment = if is_default { "# " } else { "" };
            out.push_str(&format!("\n# {}: {}\n", key.text, key.kind));
            out.push_str(&format!("{comment}{name} = {}\n", literal(key, &value)));
        }
        out
    }
}

/// A value in TOML's notation.
fn literal(key: &Parameter, value: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match key.kind {
        ParameterKind::Number(..) | ParameterKind::Size(..) => value.to_owned(),
        ParameterKind::Switch => (value == "1").to_string(),
        ParameterKind::Text if keys::is_list(key) => {
            let words = value.split(',').filter(|word| !word.is_empty());
            format!("[{}]", words.map(quoted).collect::<Vec<_>>().join(", "))
        }
        ParameterKind::Choice(_) | ParameterKind::Text => quoted(value),
    }
}

struct Reader<'t> {
    text: &'t str,
    /// With the position of each value.
    values: BTreeMap<&'static str, (String, Range<usize>)>,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn find(&mut self, span: Range<usize>, is_warning: bool, what: String) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.findings.push(Finding {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            is_warning,
            what,
        });
    }

    fn wrong(&mut self, span: Range<usize>, what: String) {
        self.find(span, false, what);
    }

    fn table(&mut self, table: &DeTable<'_>, within: Option<&str>) {
        for (key, value) in table {
            let name = match within {
                Some(within) => format!("{within}.{}", key.get_ref()),
                None => key.get_ref().to_string(),
            };
            match (value.get_ref(), keys::find(&name)) {
                (_, Some(key)) => self.value(key, value),
                (DeValue::Table(inner), None) if within.is_none() && is_table(&name) => {
                    self.table(inner, Some(&name));
                }
                _ => self.unknown(key.span(), &name),
            }
        }
    }

    fn unknown(&mut self, span: Range<usize>, name: &str) {
        let tables = keys::all().filter_map(|key| Some(key.name.split_once('.')?.0));
        let names = keys::all().map(|key| key.name).chain(tables);
        // Most likely the key has the right name but is in the wrong table.
        let last = name.rsplit('.').next().unwrap_or(name);
        let elsewhere = keys::all()
            .map(|key| key.name)
            .find(|known| known.rsplit('.').next() == Some(last));
        let hint = match elsewhere.or_else(|| keys::like(name, names)) {
            Some(meant) => format!("; did you mean {meant}?"),
            None => String::new(),
        };
        self.wrong(span, format!("{name}: there is no such key{hint}"));
    }

    fn value(&mut self, key: &'static Parameter, value: &Spanned<DeValue<'_>>) {
        let given = match (value.get_ref(), key.kind) {
            (DeValue::Boolean(yes), ParameterKind::Switch | ParameterKind::Choice(_)) => {
                Some(i32::from(*yes).to_string())
            }
            (
                DeValue::Integer(number),
                ParameterKind::Number(..) | ParameterKind::Size(..) | ParameterKind::Choice(_),
            ) => Some(match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => number.to_string(),
                Err(_) => number.as_str().to_owned(),
            }),
            (
                DeValue::String(text),
                ParameterKind::Size(..) | ParameterKind::Choice(_) | ParameterKind::Text,
            ) => Some(text.to_string()),
            (DeValue::Array(words), ParameterKind::Text) if keys::is_list(key) => {
                let words: Option<Vec<&str>> =
                    words.iter().map(|word| word.get_ref().as_str()).collect();
                words.map(|words| words.join(","))
            }
            _ => None,
        };
        let what = match key.kind {
            ParameterKind::Switch => "true or false".to_owned(),
            ParameterKind::Number(..) => format!("a number {}", key.kind),
            ParameterKind::Text if keys::is_list(key) => "an array of texts".to_owned(),
            _ => key.kind.to_string(),
        };
        let Some(given) = given else {
            let found = value.get_ref().type_str();
            return self.wrong(
                value.span(),
                format!("{}: must be {what}, not a TOML {found}", key.name),
            );
        };
        let checked = keys::canonical(key, &given).and_then(|value| {
            let checked = match key.name {
                "allow" => networks::check_for_load(&value).map_err(|error| error.to_string()),
                "dev" if value.is_empty() => Ok(()),
                "dev" => interface(&value),
                "xdp.interfaces" if value.is_empty() => Ok(()),
                "xdp.interfaces" => value.split(',').try_for_each(interface),
                "auth_file" | "load.module" | "warm.file"
                    if !value.is_empty() && !value.starts_with('/') =>
                {
                    Err(format!("{value}: must be a whole path, from the root"))
                }
                _ => Ok(()),
            };
            checked.map_err(|what| format!("{}: {what}", key.name))?;
            Ok(value)
        });
        match checked {
            Ok(given) => {
                self.values.insert(key.name, (given, value.span()));
            }
            Err(what) => self.wrong(value.span(), what),
        }
    }

    /// Checks values that are valid by themselves but may contradict each other.
    fn check_together(&mut self) {
        let get = |name: &str| {
            let key = keys::find(name);
            match self.values.get(name) {
                Some((value, _)) => value.as_str(),
                None => key.map_or("", |key| key.default),
            }
        };
        let number = |name: &str| get(name).parse::<u64>().unwrap_or(0);
        let mut found = Vec::new();
        for name in ["udp_rate", "limits.udp_private_rate"] {
            if (1..u64::from(UDP_RATE_MIN)).contains(&number(name)) {
                let what = format!(
                    "{name}: with less than {UDP_RATE_MIN} bytes a second no full datagram is ever \
                     sent; 0 is no limit"
                );
                found.push((name, true, what));
            }
        }
        if !get("warm.file").is_empty() && get("admin") == "off" {
            let what = "warm.file: the dump lists the keys by lru_crawler, which admin=off refuses";
            found.push(("warm.file", false, what.to_owned()));
        }
        if !get("warm.file").is_empty() && !["", "lo"].contains(&get("dev")) {
            let what = "warm.file: the dump is made over 127.0.0.1, which dev= excludes";
            found.push(("warm.file", false, what.to_owned()));
        }
        if !get("xdp.interfaces").is_empty() {
            for (name, off) in [("udp", "0"), ("udp_fast", "0")] {
                if get(name) == off {
                    let what = format!("xdp.interfaces: XDP answers nothing with {name} off");
                    found.push(("xdp.interfaces", false, what));
                }
            }
        }
        for (name, is_warning, what) in found {
            let span = self.values.get(name).map_or(0..0, |(_, span)| span.clone());
            self.find(span, is_warning, what);
        }
    }
}

fn is_table(name: &str) -> bool {
    keys::all().any(|key| {
        key.name
            .split_once('.')
            .is_some_and(|(table, _)| table == name)
    })
}

fn interface(name: &str) -> Result<(), String> {
    let fits = (1..=INTERFACE_MOST).contains(&name.len()) && name != "." && name != "..";
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if fits && !name.contains(bad) {
        return Ok(());
    }
    Err(format!("{name:?} is no interface's name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;
    use std::os::unix::fs::PermissionsExt;

    fn findings(text: &str) -> Vec<String> {
        let (_, findings) = Configuration::parse(text);
        findings.iter().map(Finding::to_string).collect()
    }

    const WHOLE: &str = r#"
port = 11212
memory_mb = 256
item_max = "2m"
eviction = "sieve"
udp = true
udp_fast = "late"
allow = ["default", "192.0.2.0/24"]
dev = "lo"
admin = "local"

[limits]
udp_datagrams = 8

[xdp]
interfaces = ["eth0", "eth1"]
mode = "generic"

[load]
module = "/lib/hippos.ko"
wait = 5

[warm]
file = "/var/lib/hippos/cache.dump"
"#;

    #[test]
    fn a_file_becomes_parameters_in_the_words_of_insmod() {
        let (configuration, findings) = Configuration::parse(WHOLE);
        assert_eq!(findings, []);
        assert_eq!(
            configuration.parameters().join(" "),
            "port=11212 memory_mb=256 item_max=2097152 eviction=sieve udp=1 udp_fast=late dev=lo \
             allow=default,192.0.2.0/24 admin=local"
        );
        assert_eq!(configuration.get(&keys::UDP_DATAGRAMS), "8");
        assert_eq!(configuration.get(&keys::UDP_PRIVATE_RATE), "0");
        assert_eq!(configuration.list(&keys::XDP_INTERFACES), ["eth0", "eth1"]);
    }

    #[test]
    fn each_error_has_its_line_and_column() {
        let text = "port = 70000\nmemory = 64\n  evicton = 1\nudp = 2\nudp_datagrams = 3\n\n\
                    [limits]\nudp_datagrams = \"8\"\n[xpd]\nx = 1\n";
        assert_eq!(
            findings(text),
            [
                "1:8: port=70000: must be from 1 to 65535",
                "2:1: memory: there is no such key; did you mean memory_mb?",
                "3:3: evicton: there is no such key; did you mean eviction?",
                "4:7: udp: must be true or false, not a TOML integer",
                "5:1: udp_datagrams: there is no such key; did you mean limits.udp_datagrams?",
                "8:17: limits.udp_datagrams: must be a number from 1 to 65535, not a TOML string",
                "9:2: xpd: there is no such key; did you mean xdp?",
            ]
        );
    }

    #[test]
    fn values_that_the_module_would_refuse_are_refused() {
        for (text, expected) in [
            (
                "allow = '10.0.0.1/8'",
                "1:9: allow: 10.0.0.1/8: the address has bits",
            ),
            ("allow = ['any', 3]", "must be an array of texts"),
            ("item_max = '8m'", "must be from 1k to 4m"),
            ("eviction = 'lru'", "must be clock, sieve or s3fifo"),
            ("dev = 'a/b'", "is no interface's name"),
            ("dev = 'averyveryverylongname'", "is no interface's name"),
            ("auth_file = 'users'", "must be a whole path"),
            ("[warm]\nfile = 'cache'", "must be a whole path"),
            ("port = -1", "must be from 1 to 65535"),
            ("memory_mb = 99999999999999999999", "must be from 8 to"),
        ] {
            let found = findings(text);
            assert!(found[0].contains(expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn values_that_contradict_each_other_are_reported() {
        let text = "udp = false\n[xdp]\ninterfaces = ['eth0']\n";
        assert_eq!(
            findings(text),
            ["3:14: xdp.interfaces: XDP answers nothing with udp off"]
        );
        assert_eq!(
            findings("admin = 'off'\n[warm]\nfile = '/f'\n"),
            ["3:8: warm.file: the dump lists the keys by lru_crawler, which admin=off refuses"]
        );
        assert_eq!(
            findings("dev = 'eth0'\n[warm]\nfile = '/var/lib/hippos/cache.dump'"),
            ["3:8: warm.file: the dump is made over 127.0.0.1, which dev= excludes"]
        );
        let found = findings("udp_rate = 1\n");
        assert!(found[0].starts_with("1:12: warning: udp_rate"), "{found:?}");
    }

    #[test]
    fn bad_toml_has_a_place_and_does_not_hide_the_rest() {
        let found = findings("port = \nmemory = 3\n");
        assert!(found[0].starts_with("1:"), "{found:?}");
        assert!(
            found.iter().any(|what| what.contains("memory_mb")),
            "{found:?}"
        );
    }

    #[test]
    fn the_file_of_users_is_checked_too() {
        let folder = Folder::new("users", &[("/users", "user:pass\n"), ("/bad", "user\n")]);
        let at = |name: &str| folder.system().path(name);
        let found = |users: &str| {
            let file = at("/h.toml");
            fs::write(&file, format!("auth_file = '{}'\n", at(users).display())).unwrap();
            let (_, findings) = Configuration::check(&file).unwrap();
            findings
                .iter()
                .map(Finding::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let mode =
            |bits| fs::set_permissions(at("/users"), fs::Permissions::from_mode(bits)).unwrap();
        mode(0o644);
        assert!(
            found("/users").contains("warning: auth_file: "),
            "{}",
            found("/users")
        );
        mode(0o600);
        assert_eq!(found("/users"), "");
        assert!(found("/bad").contains("line 1: must be like user:password"));
        assert!(found("/none").contains("can't read"));
    }

    #[test]
    fn a_saved_file_reads_back_the_same() {
        let (configuration, _) = Configuration::parse(WHOLE);
        let (again, findings) = Configuration::parse(&configuration.to_toml());
        assert_eq!(findings, []);
        for key in keys::all() {
            assert_eq!(again.get(key), configuration.get(key), "{}", key.name);
        }
        let (nothing, findings) = Configuration::parse(&Configuration::default().to_toml());
        assert_eq!((nothing, findings), (Configuration::default(), vec![]));
    }
}
