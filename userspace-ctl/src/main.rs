//! `hippos-ctl`: looks into a loaded Hippos and steers it.

use anyhow::{bail, Result};
use clap::{Parser, Subcommand, ValueEnum};
use hippos_abi::Section;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

mod device;
mod stats;

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
    /// Sets the memory limit; a lower one is reached by evicting
    #[command(after_help = "Example:\n  hippos-ctl memory 512")]
    Memory {
        /// MiB, at least 8
        #[arg(value_name = "MIB")]
        mib: u64,
    },
}

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
    let device = Device::open(&arguments.device)?;
    let mut out = std::io::stdout().lock();
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
        Command::Memory { .. } => device.set_memory(memory)?,
    }
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
