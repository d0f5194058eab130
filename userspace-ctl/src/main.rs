// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-ctl`: looks into a loaded Hippos and steers it.

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use hippos_abi::{
    Admin, Flush, GetAdmin, GetLimits, GetRanges, Limits, Memory, Ranges, Section, SetAdmin,
    SetFlush, SetMemory, UDP_BYTES_MIN, UDP_RATE_MIN,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

mod credentials;
mod device;
mod module;
mod networks;
mod stats;
mod status;
#[cfg(feature = "xdp")]
mod xdp;

use device::Device;

/// Looks into a loaded Hippos and steers it, through /dev/hippos (root only).
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Every command ends with status 0 when the module did what was \
asked, 1 when it didn't (the reason is on standard error), and 2 when the command line is wrong."
)]
struct Arguments {
    /// The control device
    #[arg(long, global = true, default_value = hippos_abi::DEVICE, value_name = "PATH")]
    device: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says which Hippos is loaded, its port and its memory limit
    Info,
    /// Says which ways of answering UDP are open, and why a closed one is closed
    #[command(
        after_help = "Examples:\n  hippos-ctl status\n  hippos-ctl status --json\n\nXDP answers \
where its program is attached: hippos-ctl xdp status. What is closed is served by the UDP socket."
    )]
    Status {
        /// One JSON object: the statistics that this is told from
        #[arg(long)]
        json: bool,
    },
    /// Prints the server's statistics, the names as memcached's `stats` has them
    #[command(
        after_help = "Examples:\n  hippos-ctl stats\n  hippos-ctl stats slabs\n  \
hippos-ctl stats --json | jq .get_hits"
    )]
    Stats {
        /// Which statistics
        #[arg(value_enum, default_value = "general")]
        section: SectionName,
        /// One JSON object instead of two columns
        #[arg(long)]
        json: bool,
    },
    /// Forgets every item, as memcached's flush_all does
    Flush {
        /// Seconds to wait before, at most 30 days
        #[arg(long, default_value_t = 0, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(..=i64::from(hippos_abi::FLUSH_DELAY_MAX)))]
        delay: u32,
    },
    /// Says or changes who may ask: networks like 10.0.0.0/8, any, or default
    #[command(after_help = "Examples:\n  hippos-ctl allow list\n  \
hippos-ctl allow set default,192.0.2.0/24\n  hippos-ctl allow remove 169.254.0.0/16\n\n\
`default` is loopback, private and link-local networks. Connections that are open stay open.")]
    Allow {
        #[command(subcommand)]
        change: Allow,
    },
    /// Says or sets which clients may use administration commands
    #[command(
        after_help = "Examples:\n  hippos-ctl admin\n  hippos-ctl admin local\n\nThese are \
flush_all, cache_memlimit, slabs, lru, lru_crawler, verbosity, stats reset, stats detail, stats \
cachedump and the like, in the text and the binary protocol. hippos-ctl itself is never refused."
    )]
    Admin {
        /// Which clients; said when none is given
        #[arg(value_enum)]
        who: Option<Who>,
    },
    /// Has clients log in over TCP with memcached's text authentication; refuses UDP meanwhile
    #[command(
        after_help = "Examples:\n  hippos-ctl auth set /etc/hippos/users\n  hippos-ctl auth off\n\n\
The file has lines like user:password, as memcached's -Y takes it. Connections that are open stay open."
    )]
    Auth {
        #[command(subcommand)]
        change: Auth,
    },
    /// Says or sets what UDP clients get
    #[command(after_help = "Example:\n  hippos-ctl limits --udp-datagrams 8 --udp-rate 1000000")]
    Limits {
        /// The most bytes of one reply, at least 1392
        #[arg(long, value_name = "BYTES",
            value_parser = clap::value_parser!(u32).range(i64::from(UDP_BYTES_MIN)..))]
        udp_bytes: Option<u32>,
        /// The most datagrams of one reply, 1 to 65535
        #[arg(long, value_name = "COUNT",
            value_parser = clap::value_parser!(u32).range(1..=i64::from(hippos_abi::UDP_DATAGRAMS_MAX)))]
        udp_datagrams: Option<u32>,
        /// Reply bytes a second for each source outside private networks; 0 is no limit
        #[arg(long, value_name = "BYTES")]
        udp_rate: Option<u32>,
        /// The same for those within
        #[arg(long, value_name = "BYTES")]
        udp_private_rate: Option<u32>,
    },
    /// Sets the memory limit; a lower one is reached by evicting
    #[command(after_help = "Example:\n  hippos-ctl memory 512")]
    Memory {
        /// MiB, at least 8
        #[arg(value_name = "MIB")]
        mib: u64,
    },
    /// Answers GETs before the kernel makes packets of frames (XDP)
    #[command(
        after_help = "Examples:\n  hippos-ctl xdp attach --dev eth0\n  hippos-ctl xdp status\n  \
hippos-ctl xdp detach --dev eth0\n\nThe program stays until it is detached, whatever becomes of this \
command. While it is attached the module can't be unloaded but by hippos-ctl unload."
    )]
    Xdp {
        #[command(subcommand)]
        action: XdpAction,
    },
    /// Takes the XDP program off all interfaces, then the module out of the kernel
    Unload,
}

#[derive(Debug, Subcommand)]
enum Allow {
    /// Prints the networks
    List,
    /// Replaces all of them
    Set { networks: String },
    /// Adds to them
    Add { networks: String },
    /// Takes from them
    Remove { networks: String },
}

#[derive(Debug, Subcommand)]
enum Auth {
    /// Whoever is in the file may log in
    Set { file: PathBuf },
    /// Nobody has to log in
    Off,
}

#[derive(Debug, Subcommand)]
enum XdpAction {
    /// Puts the program on an interface
    Attach {
        /// The interface, for example eth0
        #[arg(long, value_name = "INTERFACE")]
        dev: String,
        /// In the driver, behind it, or in the driver where that is possible
        #[arg(long, value_enum, default_value = "auto")]
        mode: Mode,
    },
    /// Takes the program off an interface
    Detach {
        /// The interface
        #[arg(long, value_name = "INTERFACE")]
        dev: String,
    },
    /// Lists the interfaces with the program, and how it runs there
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// All of them, as with memcached
    Network,
    /// Those on this host, over TCP
    Local,
    /// None
    Off,
}

impl Who {
    const ALL: [(Who, u32, &'static str); 3] = [
        (Who::Network, hippos_abi::ADMIN_NETWORK, "network"),
        (Who::Local, hippos_abi::ADMIN_LOCAL, "local"),
        (Who::Off, hippos_abi::ADMIN_OFF, "off"),
    ];

    fn number(self) -> u32 {
        let found = Self::ALL.iter().find(|(who, ..)| *who == self);
        found.map_or(hippos_abi::ADMIN_OFF, |(_, number, _)| *number)
    }

    fn name(number: u32) -> Option<&'static str> {
        let found = Self::ALL.iter().find(|(_, n, _)| *n == number);
        found.map(|(.., name)| *name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Native on a card whose driver can, else generic
    Auto,
    /// In the driver, before there is an sk_buff
    Native,
    /// Behind any driver; slower than native
    Generic,
}

/// How long a detached program, by this call or one before it, may hold on to the module: the
/// kernel frees it later.
const PROGRAM_GOES: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SectionName {
    General,
    Settings,
    Items,
    Slabs,
    Conns,
}

impl SectionName {
    fn section(self) -> Section {
        match self {
            SectionName::General => Section::General,
            SectionName::Settings => Section::Settings,
            SectionName::Items => Section::Items,
            SectionName::Slabs => Section::Slabs,
            SectionName::Conns => Section::Conns,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hippos-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    // What can be refused without the module is refused first.
    let mut out = std::io::stdout().lock();
    match &arguments.command {
        Command::Allow {
            change: Allow::Set { networks } | Allow::Add { networks } | Allow::Remove { networks },
        } => networks::check(networks)?,
        Command::Auth {
            change: Auth::Set { file },
        } => drop(users(file)?),
        Command::Xdp { action } => return xdp(action, &mut out),
        Command::Unload => {
            detach_all()?;
            return module::unload(PROGRAM_GOES);
        }
        _ => {}
    }
    let device = Device::open(&arguments.device)?;
    match arguments.command {
        Command::Info => {
            let info = device.info();
            let release = String::from_utf8_lossy(&info.release);
            writeln!(out, "hippos {}", release.trim_end_matches('\0'))?;
            writeln!(out, "port {}", info.port)?;
            writeln!(out, "memory {} MiB", info.memory >> 20)?;
        }
        Command::Status { json } => {
            let text = device.stats(Section::General)?;
            let stats = stats::parse(&text)?;
            if json {
                writeln!(out, "{}", stats::json(&status::only(&stats)))?;
            } else {
                out.write_all(status::lines(&stats)?.as_bytes())?;
            }
        }
        Command::Stats { section, json } => {
            let text = device.stats(section.section())?;
            let stats = stats::parse(&text)?;
            if json {
                writeln!(out, "{}", stats::json(&stats))?;
            } else {
                out.write_all(stats::table(&stats).as_bytes())?;
            }
        }
        Command::Flush { delay } => device.call::<SetFlush>(&Flush { delay })?,
        Command::Allow { change } => match change {
            Allow::List => out.write_all(device.sources()?.as_bytes())?,
            Allow::Set { networks } => device.allow(hippos_abi::ALLOW_SET, &networks)?,
            Allow::Add { networks } => device.allow(hippos_abi::ALLOW_ADD, &networks)?,
            Allow::Remove { networks } => device.allow(hippos_abi::ALLOW_REMOVE, &networks)?,
        },
        Command::Auth { change } => match change {
            Auth::Set { file } => {
                if is_readable_by_all(&file) {
                    eprintln!(
                        "hippos-ctl: warning: {} may be read by everybody on this host",
                        file.display()
                    );
                }
                device.set_credentials(&users(&file)?)?;
            }
            Auth::Off => device.set_credentials(b"")?,
        },
        Command::Admin { who: Some(who) } => {
            device.call::<SetAdmin>(&Admin { who: who.number() })?;
        }
        Command::Admin { who: None } => {
            let number = device.call::<GetAdmin>(&())?.who;
            let name = Who::name(number)
                .with_context(|| format!("the module says {number}, which is none of the three"))?;
            writeln!(out, "{name}")?;
        }
        Command::Limits {
            udp_bytes,
            udp_datagrams,
            udp_rate,
            udp_private_rate,
        } => {
            let now = device.call::<GetLimits>(&())?;
            let limits = Limits {
                udp_bytes: udp_bytes.unwrap_or(now.udp_bytes),
                udp_datagrams: udp_datagrams.unwrap_or(now.udp_datagrams),
                udp_rate: udp_rate.unwrap_or(now.udp_rate),
                udp_private_rate: udp_private_rate.unwrap_or(now.udp_private_rate),
            };
            check_udp_bytes(limits.udp_bytes, &device.call::<GetRanges>(&())?)?;
            for (option, rate) in [
                ("--udp-rate", udp_rate),
                ("--udp-private-rate", udp_private_rate),
            ] {
                if let Some(warning) = rate.and_then(|rate| rate_warning(option, rate)) {
                    eprintln!("hippos-ctl: warning: {warning}");
                }
            }
            if limits != now {
                device.set_limits(&limits)?;
            }
            writeln!(out, "udp-bytes {}", limits.udp_bytes)?;
            writeln!(out, "udp-datagrams {}", limits.udp_datagrams)?;
            writeln!(out, "udp-rate {}", limits.udp_rate)?;
            writeln!(out, "udp-private-rate {}", limits.udp_private_rate)?;
        }
        Command::Memory { mib } => {
            let bytes = bytes(mib, &device.call::<GetRanges>(&())?)?;
            device.call::<SetMemory>(&Memory { bytes })?;
        }
        // Done already: they need no device.
        Command::Xdp { .. } | Command::Unload => {}
    }
    Ok(())
}

#[cfg(feature = "xdp")]
fn xdp(action: &XdpAction, out: &mut impl Write) -> Result<()> {
    match action {
        XdpAction::Attach { dev, mode } => {
            writeln!(out, "{dev} {}", xdp::attach(dev, *mode)?)?;
        }
        XdpAction::Detach { dev } => xdp::detach(dev)?,
        XdpAction::Status => {
            for (interface, mode) in xdp::status()? {
                writeln!(out, "{interface} {mode}")?;
            }
        }
    }
    Ok(())
}

/// Takes the program off all interfaces.
#[cfg(feature = "xdp")]
fn detach_all() -> Result<()> {
    xdp::interfaces()?
        .iter()
        .try_for_each(|dev| xdp::detach(dev))
}

#[cfg(not(feature = "xdp"))]
fn xdp(_: &XdpAction, _: &mut impl Write) -> Result<()> {
    bail!(
        "this hippos-ctl was built without XDP; build it with --features xdp (needs clang, \
         pkg-config and the headers of libelf and zlib)"
    )
}

/// Without XDP there is nothing to detach.
#[cfg(not(feature = "xdp"))]
fn detach_all() -> Result<()> {
    Ok(())
}

/// Who may log in, by a file.
fn users(file: &Path) -> Result<Vec<u8>> {
    let lines = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    credentials::check(&lines).with_context(|| file.display().to_string())?;
    Ok(lines)
}

fn is_readable_by_all(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// A memory limit in bytes, if the module would take it.
fn bytes(mib: u64, ranges: &Ranges) -> Result<u64> {
    let (least, most) = (ranges.memory_least, ranges.memory_most);
    match mib.checked_mul(1 << 20) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        _ => bail!(
            "{mib} MiB: this module's memory limit must be from {} to {} MiB",
            least.div_ceil(1 << 20),
            most >> 20
        ),
    }
}

/// Refuses more bytes for a reply than the module was loaded for.
fn check_udp_bytes(bytes: u32, ranges: &Ranges) -> Result<()> {
    let most = ranges.udp_bytes_most;
    if !(UDP_BYTES_MIN..=most).contains(&bytes) {
        bail!(
            "--udp-bytes {bytes}: must be from {UDP_BYTES_MIN} to {most}, what the module was \
             loaded with (udp_bytes=)"
        );
    }
    Ok(())
}

/// What there is to say of a rate that lets no full datagram pass.
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

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
            let error = bytes(mib, &ranges).unwrap_err().to_string();
            assert!(error.contains("must be from 8 to 1024 MiB"), "{error}");
        }
    }

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
    fn a_rate_below_a_datagram_is_warned_of() {
        assert_eq!(rate_warning("--udp-rate", 0), None);
        assert_eq!(rate_warning("--udp-rate", 1400), None);
        let warning = rate_warning("--udp-rate", 1).unwrap();
        assert!(warning.contains("less than 1400"), "{warning}");
    }

    /// The message of a command line that is refused.
    fn refused(line: &str) -> String {
        let words = ["hippos-ctl"].into_iter().chain(line.split(' '));
        Arguments::try_parse_from(words)
            .expect_err(line)
            .to_string()
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        for (line, range) in [
            ("limits --udp-datagrams 70000", "1..=65535"),
            ("limits --udp-datagrams 0", "1..=65535"),
            ("limits --udp-bytes 100", "1392..=4294967295"),
            ("limits --udp-rate -1", "unexpected argument"),
            ("limits --udp-rate 4294967296", "0..=4294967295"),
            ("flush --delay 2592001", "0..=2592000"),
            ("memory -1", "unexpected argument"),
            ("memory many", "invalid digit"),
            ("admin everybody", "[possible values: network, local, off]"),
            (
                "xdp attach --dev eth0 --mode fast",
                "[possible values: auto, native, generic]",
            ),
        ] {
            let error = refused(line);
            assert!(error.contains(range), "{line}: {error}");
        }
    }

    /// Those need no module to be refused.
    #[test]
    fn bad_lists_and_files_are_refused_before_the_device_is_opened() {
        for (line, told) in [
            ("allow add 10.0.0.1/8", "did you mean 10.0.0.0/8"),
            ("allow set 10.0.0.0/33", "from 0 to 32"),
            ("auth set /etc/passwd", "passwd(5)"),
            ("auth set /nonexistent/users", "can't read"),
            ("auth set /dev/null", "nobody is in there"),
        ] {
            let words = ["hippos-ctl", "--device", "/nonexistent/hippos"];
            let words = words.into_iter().chain(line.split(' '));
            let error = run(Arguments::parse_from(words)).expect_err(line);
            assert!(format!("{error:#}").contains(told), "{line}: {error:#}");
        }
    }

    #[test]
    fn a_missing_device_says_what_to_do() {
        let error = Device::open("/nonexistent/hippos".as_ref()).unwrap_err();
        assert!(error.to_string().contains("insmod"), "{error}");
    }

    #[test]
    fn another_file_is_not_taken_for_the_device() {
        let error = Device::open("/dev/null".as_ref()).unwrap_err();
        assert!(error.to_string().contains("not a Hippos"), "{error}");
    }
}
