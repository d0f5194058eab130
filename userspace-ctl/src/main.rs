// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-ctl`: shows and changes the state of a loaded Hippos.

mod admin;
mod answer;
mod arguments;
mod check;
mod config;
mod configuration;
mod connect;
mod conns;
mod credentials;
mod detail;
mod device;
mod difference;
mod doctor;
mod dump;
mod durable;
mod exit;
mod exporter;
mod firewall;
mod in_force;
mod item_keys;
mod kernel_log;
mod kernels;
mod keys;
mod latency;
mod limits;
mod live_change;
mod lockdown;
mod metrics;
mod module;
mod networks;
mod page;
mod proxy;
mod refusals;
mod reload;
mod server;
mod slabs;
mod source;
mod start;
mod stats;
mod stats_watch;
mod status;
mod status_rates;
mod system;
mod terminal_text;
mod timed;
mod top;
mod verify;
mod version;
mod warm;
#[cfg_attr(not(feature = "xdp"), path = "xdp/absent.rs")]
mod xdp;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use std::time::Duration;

use anyhow::{Context, Result};
use hippos_abi::{
    Admin, Flush, GetAdmin, GetInfo, GetRanges, Latency, Memory, Ranges, Section, SetAdmin,
    SetFlush, SetLatency, SetMemory, LATENCY_OFF, LATENCY_ON, LATENCY_RESET,
};
use serde_json::json;

use admin::AdminAccess;
use answer::Answer;
use arguments::{
    Allow, Arguments, Auth, Command, Config, Conns, DebugAction, SectionName, Switch, Xdp, XdpMode,
};
use configuration::Configuration;
use device::Device;
use exit::{end, Status};
use in_force::InForce;
use source::Source;
use stats::Stats;
use status::Snapshot;
use system::System;

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    // The output of such a dump is not followed by anything else.
    let is_dump = matches!(&arguments.command, Command::Dump(dump) if dump.file.as_os_str() == "-");
    let is_json = arguments.json && !is_dump;
    match run(arguments) {
        Ok(answer) => {
            let text = if is_json && !answer.json.is_null() {
                format!("{}\n", answer.json)
            } else {
                answer.text
            };
            match std::io::stdout().lock().write_all(text.as_bytes()) {
                Ok(()) => answer.status.into(),
                Err(_) => Status::Failed.into(),
            }
        }
        Err(error) => {
            let status = Status::of(&error);
            // Neither a closed nor a full output changes the status.
            drop(writeln!(std::io::stderr(), "hippos-ctl: {error:#}"));
            if is_json {
                status.print_json(&format!("{error:#}"));
            }
            status.into()
        }
    }
}

/// Runs the command; a change is recorded in the kernel's log.
fn run(arguments: Arguments) -> Result<Answer> {
    let is_change = is_change(&arguments.command);
    let has_parts = has_parts(&arguments.command);
    let answer = answer(arguments);
    let words = || std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    match &answer {
        Ok(_) if is_change => kernel_log::note(&words()),
        Err(error) if has_parts => kernel_log::note(&format!("{} failed: {error:#}", words())),
        _ => {}
    }
    answer
}

/// Whether a part of the change stays when the command fails.
fn has_parts(command: &Command) -> bool {
    matches!(command, Command::Reload { .. } | Command::Load(_))
}

fn is_change(command: &Command) -> bool {
    match command {
        Command::Start { .. }
        | Command::Stop { .. }
        | Command::Reload { .. }
        | Command::Load(_)
        | Command::Flush { .. } => true,
        Command::Config { action } => matches!(action, Config::Save { .. }),
        Command::Allow { change } => !matches!(change, Allow::List),
        Command::Conns { action } => action.is_some(),
        Command::Admin { who } => who.is_some(),
        Command::Auth { change } => !matches!(change, Auth::Status),
        Command::Limits(limits) => limits.is_change(),
        Command::Memory { mib } => mib.is_some(),
        Command::Latency { switch, reset, .. } => switch.is_some() || *reset,
        Command::Xdp { action } => !matches!(action, Xdp::Status),
        Command::Check { .. }
        | Command::Diff { .. }
        | Command::Info
        | Command::Status { .. }
        | Command::Top(_)
        | Command::Slabs
        | Command::Keys { .. }
        | Command::Dump(_)
        | Command::Doctor
        | Command::Debug { .. }
        | Command::Exporter { .. }
        // They change no module.
        | Command::Proxy { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => false,
        Command::Stats {
            section, switch, ..
        } => *section == SectionName::Reset || switch.is_some(),
    }
}

/// Whether a command reads or changes the module or the host itself, where `--server` has no meaning.
fn is_of_this_host(command: &Command) -> bool {
    match command {
        Command::Start { .. }
        | Command::Stop { .. }
        | Command::Reload { .. }
        | Command::Diff { .. }
        | Command::Config { .. }
        | Command::Info
        | Command::Flush { .. }
        | Command::Allow { .. }
        | Command::Admin { .. }
        | Command::Auth { .. }
        | Command::Limits(_)
        | Command::Memory { .. }
        | Command::Doctor
        // Its address is --http.
        | Command::Proxy { .. }
        | Command::Debug { .. }
        | Command::Xdp { .. } => true,
        Command::Conns { action } => action.is_some(),
        Command::Latency { switch, reset, .. } => switch.is_some() || *reset,
        Command::Check { .. }
        | Command::Status { .. }
        | Command::Stats { .. }
        | Command::Top(_)
        | Command::Slabs
        | Command::Keys { .. }
        | Command::Dump(_)
        | Command::Load(_)
        | Command::Exporter { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => false,
    }
}

fn answer(arguments: Arguments) -> Result<Answer> {
    if let Some(server) = &arguments.server {
        if is_of_this_host(&arguments.command) {
            end!(
                Usage,
                "--server {server}: this command is of the module on this host, and can't be sent to a server"
            );
        }
    }
    let system = System::host();
    let open = || Device::open(&arguments.device);
    let in_force = || InForce::ask(&system, &open()?);
    let users = arguments.auth_file.as_deref();
    let source = Source::new(&arguments.device, arguments.server.as_deref(), users)?;
    match arguments.command {
        Command::Start { file } => start::start(&system, &arguments.device, &file),
        Command::Stop { file, no_dump } => {
            if !no_dump {
                warm::dump_at_stop(&arguments.device, &file)?;
            }
            module::stop().map(|()| Answer::done())
        }
        Command::Reload { file } => reload::reload(&system, &open()?, &file),
        Command::Check { file } => check::check(&system, &file),
        Command::Diff { file } => {
            let wanted = Configuration::read(&file)?;
            Ok(config::diff(&in_force()?, &wanted))
        }
        Command::Config { action } => match action {
            Config::Show => Ok(config::show(&in_force()?)),
            Config::Save { file } => config::save(&in_force()?, &file),
        },
        Command::Info => info(&open()?),
        Command::Status { interval } => {
            let system = source.is_here().then_some(&system);
            if interval == 0.0 {
                return status::status(&Snapshot::read(&source)?, system);
            }
            let (before, now) = top::samples(&source, Duration::from_secs_f64(interval))?;
            let mut answer = status::status(&now.snapshot, system)?;
            let model = top::model::frame(&before, &now, system, top::model::Sort::Rate);
            let (text, json) = status_rates::rates(&model);
            answer.text.push_str(&text);
            answer.json["rates"] = json;
            Ok(answer)
        }
        Command::Stats {
            section: SectionName::Detail,
            switch,
            watch: None,
            rates: false,
        } => {
            let section = match switch {
                None => return Ok(detail::detail(&source.open()?.text(Section::Detail)?)),
                Some(Switch::On) => Section::DetailOn,
                Some(Switch::Off) => Section::DetailOff,
            };
            source.open()?.text(section)?;
            Ok(Answer::done())
        }
        Command::Stats {
            switch: Some(_), ..
        } => end!(
            Usage,
            "on and off are of stats detail, without --watch and --rates"
        ),
        Command::Stats {
            section,
            switch: None,
            watch: None,
            rates: false,
        } => {
            let stats = source.stats(section.section())?;
            if section == SectionName::Reset {
                return Ok(Answer::done());
            }
            Ok(Answer::new(stats.table(), stats.json()))
        }
        Command::Stats {
            section,
            switch: None,
            watch,
            rates,
        } => {
            if matches!(section, SectionName::Reset | SectionName::Detail) {
                end!(
                    Usage,
                    "stats reset is done once, and stats detail printed once: without --watch and --rates"
                );
            }
            let every = Duration::from_secs(u64::from(watch.unwrap_or(1)));
            let mut out = std::io::stdout().lock();
            let section = section.section();
            stats_watch::watch(&source, section, every, rates, arguments.json, &mut out)?;
            Ok(Answer::silent())
        }
        Command::Top(given) => top::top(&source, &given, arguments.json),
        Command::Latency {
            switch,
            reset,
            watch,
        } => {
            let change = |action| open()?.call::<SetLatency>(&Latency { action });
            if reset {
                change(LATENCY_RESET)?;
            }
            match switch {
                Some(Switch::On) => change(LATENCY_ON)?,
                Some(Switch::Off) => change(LATENCY_OFF)?,
                None => {}
            }
            let Some(seconds) = watch else {
                return if reset || switch.is_some() {
                    Ok(Answer::done())
                } else {
                    latency::latency(&source)
                };
            };
            let every = Duration::from_secs(u64::from(seconds));
            latency::watch(
                &source,
                every,
                arguments.json,
                &mut std::io::stdout().lock(),
            )?;
            Ok(Answer::silent())
        }
        Command::Conns { action: None } => Ok(conns::conns(&source.stats(Section::Conns)?)),
        Command::Conns {
            action: Some(Conns::Kill(kill)),
        } => conns::kill(&open()?, &kill),
        Command::Slabs => Ok(slabs::slabs(
            &source.stats(Section::Slabs)?,
            &source.stats(Section::Items)?,
        )),
        Command::Keys { prefix, most } => {
            let mut server = source.connect()?;
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let prefix = prefix.as_bytes();
            let found = item_keys::keys(&mut server, prefix, most, arguments.json, &mut out)?;
            out.flush()?;
            if found > most {
                eprintln!("hippos-ctl: {most} of {found} keys are listed (--most)");
            }
            Ok(Answer::silent())
        }
        Command::Dump(given) => dump::dump(&source.target()?, &given),
        Command::Load(given) => dump::load(&source.target()?, &given),
        Command::Doctor => Ok(doctor::doctor(&system, &read_module(open()))),
        Command::Debug {
            action: DebugAction::Verify,
        } => verify::verify(&open()?),
        Command::Proxy { http, action } => proxy::proxy(&http, &action),
        Command::Exporter { listen } => exporter::serve(source, &listen).map(|()| Answer::silent()),
        Command::Completions { shell } => {
            let (mut line, mut out) = (Arguments::line(), Vec::new());
            clap_complete::generate(shell, &mut line, "hippos-ctl", &mut out);
            std::io::stdout().write_all(&out)?;
            Ok(Answer::silent())
        }
        Command::Man { folder } => {
            let path = || folder.display().to_string();
            std::fs::create_dir_all(&folder).with_context(path)?;
            clap_mangen::generate_to(Arguments::line(), &folder).with_context(path)?;
            Ok(Answer::done())
        }
        Command::Flush { delay } => {
            open()?.call::<SetFlush>(&Flush { delay })?;
            Ok(Answer::done())
        }
        Command::Allow { change } => allow(change, open),
        Command::Auth { change } => auth(change, open),
        Command::Admin { who: Some(who) } => {
            let who = who.0.number();
            open()?.call::<SetAdmin>(&Admin { who })?;
            Ok(Answer::done())
        }
        Command::Admin { who: None } => {
            let name = AdminAccess::named(open()?.call::<GetAdmin>(&())?.who)?;
            Ok(Answer::new(format!("{name}\n"), json!({"admin": name})))
        }
        Command::Limits(given) => limits::limits(&open()?, &given),
        Command::Memory { mib: Some(mib) } => {
            let device = open()?;
            let bytes = bytes(mib, &device.call::<GetRanges>(&())?)?;
            device.call::<SetMemory>(&Memory { bytes })?;
            Ok(Answer::done())
        }
        Command::Memory { mib: None } => {
            let device = open()?;
            let mib = device.call::<GetInfo>(&())?.memory >> 20;
            let ranges = device.call::<GetRanges>(&())?;
            let (least, most) = (
                ranges.memory_least.div_ceil(1 << 20),
                ranges.memory_most >> 20,
            );
            Ok(Answer::new(
                format!("{mib} MiB, may be set from {least} to {most} MiB\n"),
                json!({"mib": mib, "least_mib": least, "most_mib": most}),
            ))
        }
        Command::Xdp { action } => xdp(&action),
    }
}

/// The module's state, or why it cannot be read.
fn read_module(device: Result<Device>) -> doctor::Module {
    let read = |device: Device| -> Result<doctor::Module> {
        let release = String::from_utf8_lossy(&device.info().release).into_owned();
        let loaded = release.trim_end_matches('\0').to_owned();
        Ok(doctor::Module {
            error: None,
            version: Some((loaded, version::VERSION.to_owned())),
            general: Stats::parse(&device.stats(Section::General)?)?,
        })
    };
    device
        .and_then(read)
        .unwrap_or_else(|error| doctor::Module {
            error: Some(format!("{error:#}")),
            ..doctor::Module::default()
        })
}

fn info(device: &Device) -> Result<Answer> {
    let info = device.info();
    let release = String::from_utf8_lossy(&info.release);
    let release = release.trim_end_matches('\0');
    let (port, mib) = (info.port, info.memory >> 20);
    Ok(Answer::new(
        format!("hippos {release}\nport {port}\nmemory {mib} MiB\n"),
        json!({"hippos": release, "port": port, "memory_mib": mib}),
    ))
}

fn allow(change: Allow, open: impl FnOnce() -> Result<Device>) -> Result<Answer> {
    let (operation, networks) = match change {
        Allow::List => {
            let sources = open()?.sources()?;
            let list = sources.lines().collect::<Vec<_>>().into();
            return Ok(Answer::new(sources, list));
        }
        Allow::Set { networks } => (hippos_abi::ALLOW_SET, networks),
        Allow::Add { networks } => (hippos_abi::ALLOW_ADD, networks),
        Allow::Remove { networks } => (hippos_abi::ALLOW_REMOVE, networks),
    };
    // Input that can be checked without the module is checked first.
    if let Err(error) = networks::check(&networks) {
        end!(Usage, "{error}");
    }
    open()?.allow(operation, &networks)?;
    Ok(Answer::done())
}

fn auth(change: Auth, open: impl FnOnce() -> Result<Device>) -> Result<Answer> {
    match change {
        Auth::Status => {
            let settings = Stats::parse(&open()?.stats(Section::Settings)?)?;
            let is_on = settings.get("auth_enabled_ascii") == Some("yes");
            let text = match is_on {
                true => "clients have to log in over TCP, and UDP is refused\n",
                false => "no client has to log in\n",
            };
            return Ok(Answer::new(text, json!({"auth": is_on})));
        }
        Auth::Set { file } => {
            let users = users(&file)?;
            let device = open()?;
            if credentials::is_readable_by_all(&file) {
                eprintln!(
                    "hippos-ctl: warning: {} is readable by all users of this host",
                    file.display()
                );
            }
            device.set_credentials(&users)?;
        }
        Auth::Off => open()?.set_credentials(b"")?,
    }
    Ok(Answer::done())
}

fn xdp(action: &Xdp) -> Result<Answer> {
    match action {
        Xdp::Attach { dev, mode } => {
            let mode = xdp::attach(dev, *mode)?;
            Ok(Answer::new(format!("{dev} {mode}\n"), json!({dev: mode})))
        }
        Xdp::Detach { dev } => xdp::detach(dev).map(|()| Answer::done()),
        Xdp::Status => {
            let all = xdp::status()?;
            let line = |(interface, mode): &(String, &str)| format!("{interface} {mode}\n");
            let text: String = all.iter().map(line).collect();
            let json: serde_json::Map<_, _> = all
                .into_iter()
                .map(|(interface, mode)| (interface, mode.into()))
                .collect();
            Ok(Answer::new(text, json.into()))
        }
    }
}

/// The users in a file.
fn users(file: &Path) -> Result<Vec<u8>> {
    let lines = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    if let Err(error) = credentials::check(&lines) {
        end!(Refused, "{}: {error}", file.display());
    }
    Ok(lines)
}

/// A memory limit in bytes, if the module would accept it.
fn bytes(mib: u64, ranges: &Ranges) -> Result<u64> {
    let (least, most) = (ranges.memory_least, ranges.memory_most);
    match mib.checked_mul(1 << 20) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        _ => end!(
            Refused,
            "{mib} MiB: this module's memory limit must be from {} to {} MiB",
            least.div_ceil(1 << 20),
            most >> 20
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn memory_is_refused_out_of_range() {
        let ranges = Ranges {
            memory_least: 8 << 20,
            memory_most: 1 << 30,
            ..Ranges::default()
        };
        assert_eq!(bytes(8, &ranges).unwrap(), 8 << 20);
        assert_eq!(bytes(1024, &ranges).unwrap(), 1 << 30);
        for mib in [0, 7, 1025, 4096, u64::MAX] {
            let error = bytes(mib, &ranges).unwrap_err();
            assert!(
                error.to_string().contains("must be from 8 to 1024 MiB"),
                "{error}"
            );
            assert_eq!(Status::of(&error), Status::Refused);
        }
    }

    /// These are refused without a module.
    #[test]
    fn bad_lists_and_files_are_refused_before_the_device_is_opened() {
        for (line, expected, status) in [
            (
                "allow add 10.0.0.1/8",
                "did you mean 10.0.0.0/8",
                Status::Usage,
            ),
            ("allow set 10.0.0.0/33", "from 0 to 32", Status::Usage),
            ("auth set /etc/passwd", "passwd(5)", Status::Refused),
            ("auth set /nonexistent/users", "can't read", Status::Failed),
            ("auth set /dev/null", "it has no users", Status::Refused),
            (
                "diff /nonexistent/hippos.toml",
                "can't read",
                Status::Failed,
            ),
            ("stats", "is the module loaded?", Status::NotLoaded),
            ("stats reset --watch 1", "done once", Status::Usage),
            ("stats detail --rates", "printed once", Status::Usage),
            ("stats slabs on", "of stats detail", Status::Usage),
            (
                "conns kill 10.0.0.1",
                "is the module loaded?",
                Status::NotLoaded,
            ),
            ("allow set any", "is the module loaded?", Status::NotLoaded),
        ] {
            let words = ["hippos-ctl", "--device", "/nonexistent/hippos"];
            let words = words.into_iter().chain(line.split(' '));
            let error = answer(Arguments::parse_from(words)).expect_err(line);
            assert!(format!("{error:#}").contains(expected), "{line}: {error:#}");
            assert_eq!(Status::of(&error), status, "{line}");
        }
    }

    #[test]
    fn server_is_refused_by_commands_of_this_host() {
        let server = [
            "hippos-ctl",
            "--device",
            "/nonexistent/hippos",
            "--server",
            "127.0.0.1:1",
        ];
        for line in [
            "start",
            "stop",
            "reload",
            "diff",
            "config show",
            "info",
            "flush",
            "allow list",
            "admin off",
            "auth off",
            "limits",
            "memory 64",
            "doctor",
            "debug verify",
            "xdp status",
            "conns kill 10.0.0.1",
            "latency on",
            "latency --reset",
        ] {
            let words = server.into_iter().chain(line.split(' '));
            let error = answer(Arguments::parse_from(words)).expect_err(line);
            assert_eq!(Status::of(&error), Status::Usage, "{line}: {error:#}");
        }
        for line in ["stats", "conns", "latency", "slabs"] {
            let words = server.into_iter().chain(line.split(' '));
            let error = answer(Arguments::parse_from(words)).expect_err(line);
            assert_eq!(Status::of(&error), Status::NotLoaded, "{line}: {error:#}");
        }
    }

    #[test]
    fn another_file_is_not_taken_for_the_device() {
        let error = Device::open("/dev/null".as_ref()).unwrap_err();
        assert!(error.to_string().contains("not a Hippos"), "{error}");
    }
}
