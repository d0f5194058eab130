// SPDX-License-Identifier: GPL-2.0-only
//! `start`: from the configuration file to a module that serves. At no time does it serve more clients than the file
//! allows.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hippos_abi::LimitsChange;
use nix::errno::Errno;
use nix::kmod::{finit_module, ModuleInitFlags};
use serde_json::json;

use crate::answer::Answer;
use crate::configuration::Configuration;
use crate::device::Device;
use crate::exit::{end, Status, StatusError};
use crate::kernel_log::Log;
use crate::system::System;
use crate::{credentials, keys, lockdown, module, warm, xdp, XdpMode};

/// The kernel unpacks the file itself (`MODULE_INIT_COMPRESSED_FILE`, linux/module.h).
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);
/// How long the device's node may take to appear.
const NODE_COMES: Duration = Duration::from_secs(5);

/// Loads the module and puts the whole file into force.
pub(crate) fn start(system: &System, node: &Path, file: &Path) -> Result<Answer> {
    let wanted = Configuration::read(file)?;
    if system.is_loaded() {
        end!(
            Refused,
            "the module is loaded already: `hippos-ctl reload` puts the file in force, \
             `hippos-ctl stop` unloads the module"
        );
    }
    let users = users(&wanted)?;
    let timeout = Duration::from_secs(number(&wanted, "load.wait"));
    system.wait_for(&interfaces(&wanted), timeout)?;
    let parameters = parameters(system, &wanted);
    load(system, &wanted.get(&keys::MODULE), &parameters)?;
    if let Err(error) = finish(node, &wanted, &users) {
        let undone = match module::stop() {
            Ok(()) => "the module is unloaded again".to_owned(),
            Err(error) => format!("the module can't be unloaded again: {error:#}"),
        };
        return Err(error.context(undone));
    }
    // Clients are served meanwhile.
    warm::load_at_start(node, &wanted);
    let port = wanted.get(&hippos_abi::parameters::each::port);
    let text = format!("serving port {port}\n");
    Ok(Answer::new(text, json!({"port": number(&wanted, "port")})))
}

/// Whether a setting that is not a parameter must be made before the first client is served.
fn must_be_closed(wanted: &Configuration) -> bool {
    let rest = [
        &keys::UDP_DATAGRAMS,
        &keys::UDP_PRIVATE_RATE,
        &keys::AUTH_FILE,
    ];
    rest.iter().any(|key| wanted.get(key) != key.default)
}

/// The parameters that the module is loaded with. A parameter that only modprobe's files set returns to its default:
/// modprobe puts their options before these, and the kernel takes the last value.
fn parameters(system: &System, wanted: &Configuration) -> Vec<String> {
    let mut parameters = wanted.parameters();
    for (_, _, option) in system.modprobe_options() {
        let name = option.split('=').next().unwrap_or_default();
        let is_given = |parameter: &String| parameter.split('=').next() == Some(name);
        if let Some(key) = keys::find(name).filter(|key| keys::is_parameter(key)) {
            if !parameters.iter().any(is_given) {
                parameters.push(format!("{name}={}", wanted.get(key)));
            }
        }
    }
    if must_be_closed(wanted) {
        parameters.retain(|parameter| !parameter.starts_with("closed="));
        parameters.push("closed=1".into());
    }
    parameters
}

/// All interfaces that the file names.
fn interfaces(wanted: &Configuration) -> Vec<String> {
    let mut all = wanted.list(&hippos_abi::parameters::each::dev);
    all.extend(wanted.list(&keys::XDP_INTERFACES));
    all
}

fn load(system: &System, file: &str, parameters: &[String]) -> Result<()> {
    let mut log = Log::from_now();
    let loaded = if file.is_empty() {
        by_modprobe(parameters)
    } else {
        by_file(file, parameters)
    };
    loaded.map_err(|error| {
        if let Some(reason) = lockdown::reason(system, &format!("{error:#}")) {
            return error.context(reason);
        }
        let messages = log.of_module();
        if messages.is_empty() {
            return error;
        }
        error.context(messages.join("; "))
    })
}

fn by_file(file: &str, parameters: &[String]) -> Result<()> {
    let open = File::open(file).with_context(|| format!("can't open {file}"))?;
    let is_packed = [".xz", ".zst", ".gz"].iter().any(|end| file.ends_with(end));
    let flags = if is_packed {
        COMPRESSED
    } else {
        ModuleInitFlags::empty()
    };
    let text = std::ffi::CString::new(parameters.join(" "))?;
    match finit_module(open, &text, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => {
            end!(NoPermission, "only root may load the module")
        }
        Err(error) => {
            let status = match error {
                Errno::EPERM => Status::NoPermission,
                _ => Status::Refused,
            };
            let why = format!(
                "the kernel does not take {file} {}: {error}",
                parameters.join(" ")
            );
            Err(StatusError::new(status, why).into())
        }
    }
}

fn by_modprobe(parameters: &[String]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        end!(NoPermission, "only root may load the module");
    }
    let modprobe = Command::new("modprobe")
        // A module that another start has loaded meanwhile is not configured, nor unloaded after an error.
        .args(["--first-time", "hippos"])
        .args(parameters)
        .output();
    let output = match modprobe {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            end!(
                Failed,
                "there is no modprobe here: name the module's file (load.module)"
            )
        }
        other => other.context("modprobe")?,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        end!(
            Refused,
            "modprobe hippos {}: {}",
            parameters.join(" "),
            stderr.trim()
        );
    }
    Ok(())
}

/// Makes the settings that are not parameters, and then opens the module.
fn finish(node: &Path, wanted: &Configuration, users: &[u8]) -> Result<()> {
    let end = Instant::now() + NODE_COMES;
    while !node.exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    let device = Device::open(node)?;
    set_limits(&device, wanted)?;
    attach(&wanted.list(&keys::XDP_INTERFACES), wanted)?;
    let stays_closed = users.is_empty() && wanted.get(&hippos_abi::parameters::each::closed) == "1";
    if must_be_closed(wanted) && !stays_closed {
        device.set_credentials(users)?;
    }
    Ok(())
}

/// The lines of the file of users; empty only if the configuration names none. They are checked here, since the file
/// may have changed after the configuration was: empty lines would let in every client.
pub(crate) fn users(wanted: &Configuration) -> Result<Vec<u8>> {
    match wanted.get(&keys::AUTH_FILE) {
        file if file.is_empty() => Ok(Vec::new()),
        file => {
            let lines = fs::read(&file).with_context(|| format!("can't read {file}"))?;
            if let Err(error) = credentials::check(&lines) {
                end!(Found, "auth_file: {file}: {error}");
            }
            Ok(lines)
        }
    }
}

/// Puts the UDP limits into force.
pub(crate) fn set_limits(device: &Device, wanted: &Configuration) -> Result<()> {
    let number = |name| Some(u32::try_from(number(wanted, name)).unwrap_or(u32::MAX));
    device.change_limits(&LimitsChange::new(
        number("udp_bytes"),
        number("limits.udp_datagrams"),
        number("udp_rate"),
        number("limits.udp_private_rate"),
    ))
}

/// Attaches the XDP program to these interfaces.
pub(crate) fn attach(interfaces: &[String], wanted: &Configuration) -> Result<()> {
    let mode = match wanted.get(&keys::XDP_MODE).as_str() {
        "native" => XdpMode::Native,
        "generic" => XdpMode::Generic,
        _ => XdpMode::Auto,
    };
    for interface in interfaces {
        xdp::attach(interface, mode).with_context(|| format!("xdp.interfaces: {interface}"))?;
    }
    Ok(())
}

pub(crate) fn number(wanted: &Configuration, name: &str) -> u64 {
    let key = keys::find(name);
    key.map_or(0, |key| wanted.get(key).parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    fn of(text: &str) -> Configuration {
        let (configuration, findings) = Configuration::parse(text);
        assert_eq!(findings, []);
        configuration
    }

    #[test]
    fn settings_made_after_the_load_load_the_module_closed() {
        let none = System::at("/nonexistent");
        for text in [
            "auth_file = '/etc/hippos/users'",
            "[limits]\nudp_datagrams = 8",
            "closed = false\n[limits]\nudp_private_rate = 8000",
        ] {
            let given = parameters(&none, &of(text));
            assert_eq!(given, ["closed=1"], "{text}");
        }
        let open = "allow = ['default']\nadmin = 'off'\n[xdp]\ninterfaces = ['eth0']";
        assert_eq!(parameters(&none, &of(open)), ["allow=default", "admin=off"]);
    }

    #[test]
    fn options_of_modprobe_do_not_hold_beside_the_file() {
        let options = "options hippos allow=any port=5 dev=eth0\n";
        let folder = Folder::new("options", &[("/etc/modprobe.d/h.conf", options)]);
        let given = parameters(&folder.system(), &of("port = 11212"));
        assert_eq!(given, ["port=11212", "allow=default", "dev="]);
    }

    #[test]
    fn file_of_users_that_became_empty_is_refused() {
        let folder = Folder::new("users", &[("/users", "")]);
        let mut wanted = of("");
        let file = folder.system().path("/users").display().to_string();
        wanted.set(&keys::AUTH_FILE, file);
        assert_eq!(Status::of(&users(&wanted).unwrap_err()), Status::Found);
        assert_eq!(users(&of("")).unwrap(), b"");
    }

    #[test]
    fn all_interfaces_are_waited_for() {
        let text = "dev = 'eth0'\n[xdp]\ninterfaces = ['eth0', 'eth1']";
        assert_eq!(interfaces(&of(text)), ["eth0", "eth0", "eth1"]);
        assert_eq!(interfaces(&of("")), [""; 0]);
    }
}
