// SPDX-License-Identifier: GPL-2.0-only
//! The configuration of a loaded module: the parameters that it was loaded with, and the changes made since.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::Result;
use hippos_abi::parameters::Parameter;
use hippos_abi::{GetAdmin, GetInfo, GetLimits, GetRanges, Section};

use crate::admin::AdminAccess;
use crate::configuration::Configuration;
use crate::device::Device;
use crate::difference::Difference;
use crate::live_change::LiveChange;
use crate::stats::Stats;
use crate::system::{System, PINS};
use crate::{keys, networks};

/// The configuration in force, and the part of it that can be changed without a restart.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    pub(crate) configuration: Configuration,
    /// Whether clients have to authenticate; the module does not report the users.
    pub(crate) has_logins: bool,
    /// The memory limits that the module accepts, in MiB.
    pub(crate) memory_mb: RangeInclusive<u64>,
    /// The longest UDP reply that the module has buffers for.
    pub(crate) udp_bytes_most: u64,
}

impl InForce {
    pub(crate) fn ask(system: &System, device: &Device) -> Result<Self> {
        let mut configuration = Configuration::default();
        for key in keys::all().filter(|key| keys::is_parameter(key)) {
            // A module that is older than a parameter behaves like its default.
            if let Some(value) = system.parameter(key.name) {
                let value = keys::canonical(key, &value).unwrap_or(value);
                configuration.set(key, value);
            }
        }
        let mut set = |name: &str, value: String| {
            if let Some(key) = keys::find(name) {
                configuration.set(key, value);
            }
        };
        let memory = device.call::<GetInfo>(&())?.memory;
        set("memory_mb", (memory >> 20).to_string());
        let who = device.call::<GetAdmin>(&())?.who;
        set("admin", AdminAccess::named(who)?.to_owned());
        set("allow", list(&networks::expand(&device.sources()?)));
        let limits = device.call::<GetLimits>(&())?;
        set("udp_bytes", limits.udp_bytes.to_string());
        set("udp_rate", limits.udp_rate.to_string());
        set("limits.udp_datagrams", limits.udp_datagrams.to_string());
        set(
            "limits.udp_private_rate",
            limits.udp_private_rate.to_string(),
        );
        set("xdp.interfaces", system.names(PINS).join(","));
        let settings = Stats::parse(&device.stats(Section::Settings)?)?;
        if let Some(measured) = settings.get("hippos_latency") {
            let measured = if measured == "yes" { "1" } else { "0" };
            if let Some(key) = keys::find("latency") {
                configuration.set(key, measured.to_owned());
            }
        }
        // The parameter's file shows the value at load.
        if let Some(closed) = settings.get("hippos_closed") {
            let closed = if closed == "yes" { "1" } else { "0" };
            configuration.set(&hippos_abi::parameters::each::closed, closed.to_owned());
        }
        let has_logins = settings.get("auth_enabled_ascii") == Some("yes");
        let ranges = device.call::<GetRanges>(&())?;
        Ok(Self {
            configuration,
            has_logins,
            memory_mb: ranges.memory_least.div_ceil(1 << 20)..=ranges.memory_most >> 20,
            udp_bytes_most: u64::from(ranges.udp_bytes_most),
        })
    }

    /// Whether a value can be put into force in the loaded module.
    fn is_live(&self, key: &Parameter, wanted: &str) -> bool {
        let number = wanted.parse().unwrap_or(u64::MAX);
        match key.name {
            "memory_mb" => self.memory_mb.contains(&number),
            // A reply is bounded by the buffers that were allocated.
            "udp_bytes" => number <= self.udp_bytes_most,
            _ => LiveChange::of(key.name).is_some(),
        }
    }

    /// The settings that a start with `wanted` would change.
    pub(crate) fn differences(&self, wanted: &Configuration) -> Vec<Difference> {
        let on = |on: bool| if on { "on" } else { "off" }.to_owned();
        let mut found = Vec::new();
        for key in keys::all() {
            // A module that was loaded with `closed=1` has been opened since.
            if keys::is_of_loading(key) || key.name == "closed" {
                continue;
            }
            let (now, then) = (self.configuration.get(key), wanted.get(key));
            let is_same = match key.name {
                "allow" => networks::expand(&now) == networks::expand(&then),
                "xdp.interfaces" => words(&now) == words(&then),
                "auth_file" => self.has_logins != then.is_empty(),
                _ => now == then,
            };
            if is_same {
                continue;
            }
            let is_live = self.is_live(key, &then);
            let (now, wanted) = match key.name {
                "auth_file" => (on(self.has_logins), on(!then.is_empty())),
                _ => (now, then),
            };
            found.push(Difference {
                key: key.name,
                now,
                wanted,
                is_live,
            });
        }
        found
    }
}

fn words(list: &str) -> BTreeSet<&str> {
    list.split(',').filter(|word| !word.is_empty()).collect()
}

/// Networks as a list, with `default` for the default ones.
fn list(networks: &BTreeSet<String>) -> String {
    let default = networks::expand("default");
    let mut words = Vec::new();
    let mut rest = networks.clone();
    if networks.is_superset(&default) {
        words.push("default".to_owned());
        rest.retain(|network| !default.contains(network));
    }
    words.extend(rest);
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(text: &str) -> InForce {
        let (configuration, findings) = Configuration::parse(text);
        assert_eq!(findings, []);
        InForce {
            configuration,
            has_logins: false,
            memory_mb: 8..=256,
            udp_bytes_most: 100_000,
        }
    }

    fn differences(now: &str, wanted: &str) -> Vec<String> {
        let (wanted, findings) = Configuration::parse(wanted);
        assert_eq!(findings, []);
        let found = in_force(now).differences(&wanted);
        found.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn differences_that_need_a_restart_are_marked() {
        assert_eq!(
            differences(
                "memory_mb = 64\nport = 11211\nudp_bytes = 100000\n",
                "memory_mb = 128\nport = 11212\nadmin = 'off'\nauth_file = '/u'\nudp_bytes = 100000\n\
                 [xdp]\ninterfaces = ['eth0']\n"
            ),
            [
                "port: 11211 is in force, 11212 in the file (needs a restart)",
                "memory_mb: 64 is in force, 128 in the file",
                "admin: network is in force, off in the file",
                "auth_file: off is in force, on in the file",
                "xdp.interfaces: \"\" is in force, eth0 in the file",
            ]
        );
    }

    #[test]
    fn values_beyond_what_the_module_was_loaded_for_need_a_restart() {
        let now = "udp_bytes = 100000\n";
        let found = differences(now, "memory_mb = 257\nudp_bytes = 100001\n");
        assert!(
            found.iter().all(|what| what.ends_with("(needs a restart)")),
            "{found:?}"
        );
        assert_eq!(found.len(), 2);
        let found = differences(now, "udp_bytes = 2000\n");
        assert_eq!(found, ["udp_bytes: 100000 is in force, 2000 in the file"]);
    }

    #[test]
    fn equal_values_written_differently_are_no_difference() {
        let now = "allow = ['default']\n[xdp]\ninterfaces = ['a', 'b']\n";
        let file = "item_max = '1024k'\nudp = true\n\
                    allow = '10.0.0.0/8,default'\n[xdp]\ninterfaces = ['b', 'a']\n[load]\nwait = 1\n";
        assert_eq!(differences(now, file), [""; 0]);
    }

    #[test]
    fn a_list_of_networks_is_as_short_as_it_can_be() {
        let of = |text: &str| list(&networks::expand(text));
        assert_eq!(of("default,8.8.8.8"), "default,8.8.8.8/32");
        assert_eq!(of("any"), "any");
    }
}
