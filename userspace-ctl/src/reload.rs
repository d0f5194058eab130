// SPDX-License-Identifier: GPL-2.0-only
//! `reload`: changes a loaded module to the file's values, and reports the settings that need a restart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hippos_abi::{
    Admin, Latency, Memory, SetAdmin, SetLatency, SetMemory, LATENCY_OFF, LATENCY_ON,
};
use serde_json::{json, Value};

use crate::admin::AdminAccess;
use crate::answer::Answer;
use crate::configuration::Configuration;
use crate::device::Device;
use crate::difference::Difference;
use crate::exit::Status;
use crate::in_force::InForce;
use crate::live_change::LiveChange;
use crate::start::{attach, number, set_limits, users};
use crate::system::System;
use crate::{keys, networks, xdp};

/// Puts the live settings into force, and reports those that need a restart.
pub(crate) fn reload(system: &System, device: &Device, file: &Path) -> Result<Answer> {
    let wanted = Configuration::read(file)?;
    let before = InForce::ask(system, device)?;
    let differences = before.differences(&wanted);
    let (live, left): (Vec<_>, Vec<_>) = differences.into_iter().partition(|d| d.is_live);
    let users = users(&wanted)?;
    let reload = Reload {
        device,
        before: &before.configuration,
        wanted: &with(&before.configuration, &wanted, &live),
        users: &users,
    };
    let timeout = Duration::from_secs(number(&wanted, "load.wait"));
    system.wait_for(&reload.interfaces_to_attach(), timeout)?;
    let mut made = Vec::new();
    for step in LiveChange::ordered(&live) {
        let of_step: Vec<_> = live
            .iter()
            .filter(|d| LiveChange::of(d.key) == Some(step))
            .collect();
        // The file of users is read again even if its name is the same.
        let is_forced = step == LiveChange::Users && !users.is_empty();
        let key = match of_step.first() {
            Some(d) => d.key,
            None if is_forced => keys::AUTH_FILE.name,
            None => continue,
        };
        reload.make(step).with_context(|| failed(key, &made))?;
        made.extend(of_step.into_iter().cloned());
    }
    Ok(report(&live, &left))
}

/// The context of an error: the change that failed, and those made before it, which stay.
fn failed(key: &str, made: &[Difference]) -> String {
    if made.is_empty() {
        return format!("nothing is changed; {key}");
    }
    let lines: Vec<_> = made.iter().map(changed_line).collect();
    format!("these changes are in force: {}; {key}", lines.join(", "))
}

fn changed_line(d: &Difference) -> String {
    format!("{}: {} (was {})", d.key, d.wanted, d.now)
}

/// The configuration in force after the changes: `now`, with the wanted values of these keys.
fn with(now: &Configuration, wanted: &Configuration, live: &[Difference]) -> Configuration {
    let mut then = now.clone();
    then.set(&keys::XDP_MODE, wanted.get(&keys::XDP_MODE));
    for key in live
        .iter()
        .filter_map(|difference| keys::find(difference.key))
    {
        then.set(key, wanted.get(key));
    }
    then
}

struct Reload<'c> {
    device: &'c Device,
    before: &'c Configuration,
    wanted: &'c Configuration,
    users: &'c [u8],
}

impl Reload<'_> {
    fn make(&self, change: LiveChange) -> Result<()> {
        let get = |name| keys::find(name).map_or_else(String::new, |key| self.wanted.get(key));
        match change {
            LiveChange::Users => self.device.set_credentials(self.users),
            LiveChange::Sources => {
                let list = networks::expand(&get("allow"));
                let list = Vec::from_iter(list).join(",");
                self.device.allow(hippos_abi::ALLOW_SET, &list)
            }
            LiveChange::Admin => {
                let who = AdminAccess::numbered(&get("admin")).context("none of the three")?;
                self.device.call::<SetAdmin>(&Admin { who })
            }
            LiveChange::Limits => set_limits(self.device, self.wanted),
            LiveChange::Memory => {
                let bytes = number(self.wanted, "memory_mb") << 20;
                self.device.call::<SetMemory>(&Memory { bytes })
            }
            LiveChange::Latency => {
                let action = if get("latency") == "1" {
                    LATENCY_ON
                } else {
                    LATENCY_OFF
                };
                self.device.call::<SetLatency>(&Latency { action })
            }
            LiveChange::Interfaces => {
                let (before, wanted) = self.interfaces();
                for interface in before.iter().filter(|name| !wanted.contains(name)) {
                    xdp::detach(interface)?;
                }
                attach(&self.interfaces_to_attach(), self.wanted)
            }
        }
    }

    /// The interfaces with the program before and after.
    fn interfaces(&self) -> (Vec<String>, Vec<String>) {
        let of = |configuration: &Configuration| configuration.list(&keys::XDP_INTERFACES);
        (of(self.before), of(self.wanted))
    }

    fn interfaces_to_attach(&self) -> Vec<String> {
        let (before, mut wanted) = self.interfaces();
        wanted.retain(|name| !before.contains(name));
        wanted
    }
}

fn report(changed: &[Difference], left: &[Difference]) -> Answer {
    let mut text = String::new();
    for difference in changed {
        text.push_str(&format!("{}\n", changed_line(difference)));
    }
    for Difference {
        key, now, wanted, ..
    } in left
    {
        text.push_str(&format!("{key}: stays {now}; {wanted} needs a restart\n"));
    }
    if !left.is_empty() {
        text.push_str("restart with: hippos-ctl stop && hippos-ctl start\n");
    }
    let json = json!({"changed": to_json(changed), "needs_restart": to_json(left)});
    Answer::new(text, json).ending(Status::found(!left.is_empty()))
}

/// Differences as JSON.
pub(crate) fn to_json(differences: &[Difference]) -> Value {
    let of = |d: &Difference| json!({"key": d.key, "in_force": d.now, "in_file": d.wanted, "needs_restart": !d.is_live});
    differences.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_need_a_restart_are_reported_and_set_the_exit_status() {
        let of = |key, is_live| Difference {
            key,
            now: "1".into(),
            wanted: "2".into(),
            is_live,
        };
        let answer = report(&[of("memory_mb", true)], &[of("port", false)]);
        assert_eq!(
            answer.text,
            "memory_mb: 2 (was 1)\nport: stays 1; 2 needs a restart\n\
             restart with: hippos-ctl stop && hippos-ctl start\n"
        );
        assert_eq!(answer.status, Status::Found);
        assert_eq!(answer.json["needs_restart"][0]["key"], "port");
        assert_eq!(report(&[of("memory_mb", true)], &[]).status, Status::Done);
        assert_eq!(
            failed("xdp.interfaces", &[of("memory_mb", true)]),
            "these changes are in force: memory_mb: 2 (was 1); xdp.interfaces"
        );
    }

    #[test]
    fn each_live_key_has_a_change_that_is_made() {
        let live: Vec<_> = keys::all()
            .filter_map(|key| LiveChange::of(key.name))
            .collect();
        assert_eq!(live.len(), 10);
        for change in LiveChange::ORDER {
            assert!(live.contains(&change), "{change:?}");
        }
        assert!(live.iter().all(|change| LiveChange::ORDER.contains(change)));
    }

    #[test]
    fn values_that_need_a_restart_are_not_put_in_force() {
        let parse = |text| Configuration::parse(text).0;
        let now = parse("udp_bytes = 5000\nudp_rate = 0");
        let wanted = parse("udp_bytes = 9000\nudp_rate = 7000");
        let live = [Difference {
            key: "udp_rate",
            now: "0".into(),
            wanted: "7000".into(),
            is_live: true,
        }];
        let then = with(&now, &wanted, &live);
        assert_eq!(number(&then, "udp_bytes"), 5000);
        assert_eq!(number(&then, "udp_rate"), 7000);
    }
}
