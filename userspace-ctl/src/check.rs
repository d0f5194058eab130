// SPDX-License-Identifier: GPL-2.0-only
//! `check`: whether the file and modprobe's options would be accepted.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::answer::Answer;
use crate::configuration::{Configuration, Finding};
use crate::exit::Status;
use crate::keys;
use crate::start::number;
use crate::system::System;

/// Reports all errors of a file.
pub(crate) fn check(system: &System, file: &Path) -> Result<Answer> {
    let (configuration, findings) = Configuration::check(file)?;
    let name = file.display().to_string();
    let mut all: Vec<(String, Finding)> = findings
        .into_iter()
        .chain(memory(system, &configuration))
        .map(|finding| (name.clone(), finding))
        .collect();
    all.extend(modprobe(system));
    let is_wrong = all.iter().any(|(_, finding)| !finding.is_warning);
    let mut text = String::new();
    for (file, finding) in &all {
        writeln!(text, "{file}:{finding}")?;
    }
    if all.is_empty() {
        writeln!(text, "{name}: no findings")?;
    }
    let json = all
        .iter()
        .map(|(file, f)| {
            json!({"file": file, "line": f.line, "column": f.column, "warning": f.is_warning,
                "what": f.what})
        })
        .collect();
    Ok(Answer::new(text, json).ending(Status::found(is_wrong)))
}

/// Checks that this machine has enough memory.
fn memory(system: &System, configuration: &Configuration) -> Option<Finding> {
    let most = system.cache_most()? >> 20;
    let wanted = number(configuration, "memory_mb");
    (wanted > most).then(|| Finding {
        line: 0,
        column: 0,
        is_warning: false,
        what: format!("memory_mb={wanted}: at most {most} on this machine"),
    })
}

/// The module's options in modprobe's files, and errors in them.
fn modprobe(system: &System) -> Vec<(String, Finding)> {
    let mut found = Vec::new();
    for (file, line, option) in system.modprobe_options() {
        let (name, value) = option.split_once('=').unwrap_or((&option, "1"));
        let parameters = || keys::all().filter(|key| keys::is_parameter(key));
        let what = match parameters().find(|key| key.name == name) {
            Some(key) => keys::canonical(key, value).err(),
            None => {
                let like = keys::like(name, parameters().map(|key| key.name));
                let hint = like.map_or_else(String::new, |name| format!("; did you mean {name}?"));
                Some(format!("{name}: the module has no such parameter{hint}"))
            }
        };
        if let Some(what) = what {
            let finding = Finding {
                line,
                column: 1,
                is_warning: false,
                what,
            };
            found.push((file.display().to_string(), finding));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    #[test]
    fn options_of_modprobe_and_the_machines_memory_are_checked_too() {
        let folder = Folder::new(
            "check",
            &[
                ("/etc/hippos/hippos.toml", "memory_mb = 2000\nport = 0\n"),
                (
                    "/etc/modprobe.d/hippos.conf",
                    "options hippos max_conns=5 port=11211 udp_fast=no\n",
                ),
                (
                    "/proc/meminfo",
                    "MemTotal:        1048576 kB\nMemFree: 1 kB\n",
                ),
            ],
        );
        let system = folder.system();
        let file = system.path("/etc/hippos/hippos.toml");
        let answer = check(&system, &file).unwrap();
        assert_eq!(answer.status, Status::Found);
        for expected in [
            "hippos.toml:2:8: port=0: must be from 1 to 65535",
            "hippos.toml: memory_mb=2000: at most 960 on this machine",
            "/etc/modprobe.d/hippos.conf:1:1: max_conns: the module has no such parameter; did you mean maxconns?",
            "/etc/modprobe.d/hippos.conf:1:1: udp_fast=no: must be 1, always, late or 0",
        ] {
            assert!(answer.text.contains(expected), "{expected}: {}", answer.text);
        }
        assert_eq!(answer.json.as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_good_file_ends_with_status_0() {
        let folder = Folder::new("good", &[("/f.toml", "port = 1\nudp_rate = 1\n")]);
        let system = folder.system();
        let answer = check(&system, &system.path("/f.toml")).unwrap();
        assert_eq!(answer.status, Status::Done);
        assert!(answer.text.contains("warning"), "{}", answer.text);
    }
}
