// SPDX-License-Identifier: GPL-2.0-only
//! `config` and `diff`: the configuration in force, printed as a file or compared with one.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{fchown, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use crate::answer::Answer;
use crate::configuration::Configuration;
use crate::durable;
use crate::exit::Status;
use crate::in_force::InForce;
use crate::{keys, reload};

/// Prints the configuration in force.
pub(crate) fn show(in_force: &InForce) -> Answer {
    let configuration = &in_force.configuration;
    let mut text = String::new();
    if in_force.has_logins {
        text.push_str("# Clients have to log in; the module does not report by which auth_file.\n");
    }
    text.push_str(&configuration.to_toml());
    let of = |key: &'static hippos_abi::parameters::Parameter| {
        let value = configuration.get(key);
        let value = value
            .parse::<u64>()
            .map_or(Value::String(value), Value::from);
        (key.name.to_owned(), value)
    };
    let shown = keys::all().filter(|key| !keys::is_of_loading(key) && key.name != "auth_file");
    let mut json: serde_json::Map<_, _> = shown.map(of).collect();
    json.insert("auth".into(), in_force.has_logins.into());
    Answer::new(text, Value::Object(json))
}

/// Writes the configuration in force to `file`. Values that the module does not have are taken from the previous file,
/// which is kept beside it.
pub(crate) fn save(in_force: &InForce, file: &Path) -> Result<Answer> {
    let old = match Configuration::check(file) {
        Ok((old, _)) => old,
        Err(error) => {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == ErrorKind::NotFound) {
                Configuration::default()
            } else {
                return Err(error);
            }
        }
    };
    let (new, warning) = to_save(in_force, &old);
    if let Some(warning) = warning {
        eprintln!("hippos-ctl: warning: {warning}");
    }
    let beside = |end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // Written atomically, also if the power fails.
    let fresh = beside(".new");
    let written = fs::File::create(&fresh).and_then(|mut out| {
        // It keeps the owner and the mode that the administrator has chosen.
        if let Ok(old) = fs::metadata(file) {
            fchown(&out, Some(old.uid()), Some(old.gid()))?;
            out.set_permissions(old.permissions())?;
        }
        out.write_all(new.to_toml().as_bytes())?;
        out.sync_all()
    });
    written.with_context(|| fresh.display().to_string())?;
    if file.exists() {
        fs::copy(file, beside(".old")).with_context(|| beside(".old").display().to_string())?;
    }
    durable::rename(&fresh, file).with_context(|| file.display().to_string())?;
    let text = format!("{} is written\n", file.display());
    Ok(Answer::new(text, json!({"file": file})))
}

/// The configuration to write, and a warning.
fn to_save(in_force: &InForce, old: &Configuration) -> (Configuration, Option<String>) {
    let mut new = in_force.configuration.clone();
    for key in keys::all().filter(|key| keys::is_of_loading(key)) {
        new.set(key, old.get(key));
    }
    let users = old.get(&keys::AUTH_FILE);
    let warning = (in_force.has_logins && users.is_empty()).then(|| {
        "clients have to log in, but the module does not report by which file: set auth_file"
            .to_owned()
    });
    let users = if in_force.has_logins {
        users
    } else {
        String::new()
    };
    new.set(&keys::AUTH_FILE, users);
    let closed = &hippos_abi::parameters::each::closed;
    new.set(closed, old.get(closed));
    (new, warning)
}

/// Prints the changes that a start with the file would make.
pub(crate) fn diff(in_force: &InForce, wanted: &Configuration) -> Answer {
    let differences = in_force.differences(wanted);
    let mut text = String::new();
    for difference in &differences {
        text.push_str(&format!("{difference}\n"));
    }
    let status = Status::found(!differences.is_empty());
    Answer::new(text, reload::to_json(&differences)).ending(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;
    use std::os::unix::fs::PermissionsExt;

    fn in_force(text: &str, has_logins: bool) -> InForce {
        InForce {
            configuration: Configuration::parse(text).0,
            has_logins,
            memory_mb: 8..=64,
            udp_bytes_most: 1_114_112,
        }
    }

    #[test]
    fn a_saved_file_makes_no_difference_and_keeps_what_the_module_does_not_know() {
        let old = "# mine\nauth_file = '/etc/hippos/users'\nport = 1\n[load]\nmodule = '/h.ko'\n";
        let folder = Folder::new("save", &[("/h.toml", old)]);
        let file = folder.system().path("/h.toml");
        let now = in_force("port = 2\nmemory_mb = 32\n", true);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        save(&now, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        let (saved, _) = Configuration::check(&file).unwrap();
        assert_eq!(saved.get(&keys::MODULE), "/h.ko");
        assert_eq!(saved.get(&keys::AUTH_FILE), "/etc/hippos/users");
        assert_eq!(diff(&now, &saved).text, "");
        let kept = fs::read_to_string(folder.system().path("/h.toml.old")).unwrap();
        assert_eq!(kept, old);
        assert!(to_save(&now, &Configuration::default()).1.is_some());
    }

    #[test]
    fn a_difference_sets_the_exit_status() {
        let (wanted, _) = Configuration::parse("port = 3\n");
        let answer = diff(&in_force("port = 2\n", false), &wanted);
        assert_eq!(answer.status, Status::Found);
        assert_eq!(
            answer.text,
            "port: 2 is in force, 3 in the file (needs a restart)\n"
        );
        assert_eq!(answer.json[0]["needs_restart"], true);
    }

    #[test]
    fn shown_configuration_parses_as_a_file() {
        let answer = show(&in_force("port = 2\n", true));
        let (again, findings) = Configuration::parse(&answer.text);
        assert_eq!(findings, []);
        assert_eq!(again.get(&hippos_abi::parameters::each::port), "2");
        assert_eq!(answer.json["port"], 2);
    }
}
