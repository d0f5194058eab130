//! `hippos-ctl`: looks into a loaded Hippos and steers it.

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use hippos_abi::{Limits, Section};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

mod device;
mod module;
mod stats;
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
        /// Seconds to wait before
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
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
        /// The most bytes of one reply
        #[arg(long, value_name = "BYTES")]
        udp_bytes: Option<u32>,
        /// The most datagrams of one reply
        #[arg(long, value_name = "COUNT")]
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
    let memory = match arguments.command {
        Command::Memory { mib } => bytes(mib)?,
        _ => 0,
    };
    let mut out = std::io::stdout().lock();
    match &arguments.command {
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
        Command::Stats { section, json } => {
            let text = device.stats(section.section())?;
            let stats = stats::parse(&text)?;
            if json {
                writeln!(out, "{}", stats::json(&stats))?;
            } else {
                out.write_all(stats::table(&stats).as_bytes())?;
            }
        }
        Command::Flush { delay } => device.flush(delay)?,
        Command::Allow { change } => match change {
            Allow::List => out.write_all(device.sources()?.as_bytes())?,
            Allow::Set { networks } => device.allow(hippos_abi::ALLOW_SET, &networks)?,
            Allow::Add { networks } => device.allow(hippos_abi::ALLOW_ADD, &networks)?,
            Allow::Remove { networks } => device.allow(hippos_abi::ALLOW_REMOVE, &networks)?,
        },
        Command::Auth { change } => match change {
            Auth::Set { file } => {
                let lines = std::fs::read(&file)
                    .with_context(|| format!("can't read {}", file.display()))?;
                if !lines.contains(&b':') {
                    bail!("{}: nobody in there", file.display());
                }
                device.set_credentials(&lines)?;
            }
            Auth::Off => device.set_credentials(b"")?,
        },
        Command::Limits {
            udp_bytes,
            udp_datagrams,
            udp_rate,
            udp_private_rate,
        } => {
            let now = device.limits()?;
            let limits = Limits {
                udp_bytes: udp_bytes.unwrap_or(now.udp_bytes),
                udp_datagrams: udp_datagrams.unwrap_or(now.udp_datagrams),
                udp_rate: udp_rate.unwrap_or(now.udp_rate),
                udp_private_rate: udp_private_rate.unwrap_or(now.udp_private_rate),
            };
            if limits != now {
                device.set_limits(&limits)?;
            }
            writeln!(out, "udp-bytes {}", limits.udp_bytes)?;
            writeln!(out, "udp-datagrams {}", limits.udp_datagrams)?;
            writeln!(out, "udp-rate {}", limits.udp_rate)?;
            writeln!(out, "udp-private-rate {}", limits.udp_private_rate)?;
        }
        Command::Memory { .. } => device.set_memory(memory)?,
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

/// A memory limit in bytes, if the module would take it.
fn bytes(mib: u64) -> Result<u64> {
    let least = hippos_abi::MEMORY_MIN;
    match mib.checked_mul(1 << 20) {
        Some(bytes) if bytes >= least => Ok(bytes),
        Some(_) => bail!(
            "{mib} MiB is less than the least limit, {} MiB",
            least >> 20
        ),
        None => bail!("{mib} MiB is more than any machine has"),
    }
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
        assert_eq!(bytes(8).unwrap(), 8 << 20);
        assert!(bytes(7).unwrap_err().to_string().contains("least limit"));
        assert!(bytes(u64::MAX).is_err());
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
