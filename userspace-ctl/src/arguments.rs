// SPDX-License-Identifier: GPL-2.0-only
//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use hippos_abi::{Section, UDP_BYTES_MIN};

use crate::admin::AdminAccess;
use crate::configuration::FILE;
use crate::exit::Status;

/// Connections of a dump or a load: as many as keep a server of a few CPUs busy.
pub(crate) const CONNECTIONS: u8 = 4;

/// Shows and changes the state of a loaded Hippos, through /dev/hippos (root only).
#[derive(Debug, Parser)]
#[command(name = "hippos-ctl", version)]
pub(crate) struct Arguments {
    /// The control device
    #[arg(long, global = true, default_value = hippos_abi::DEVICE, value_name = "PATH")]
    pub(crate) device: PathBuf,
    /// One JSON object or array instead of text, also for an error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Ask a server over TCP instead of the loaded module: status, stats, top, latency, conns, slabs,
    /// keys, dump, load, exporter
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Log in there with the first user:password line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// The whole command line, with what a derive can't express.
    pub(crate) fn line() -> clap::Command {
        Self::command().after_help(Status::help())
    }

    /// Those of this process; ends it when they are wrong.
    pub(crate) fn of_process() -> Self {
        let matches = Self::line().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Loads the module with the settings of the configuration file, and attaches XDP
    #[command(
        after_help = "Waits for the interfaces that the file names. Until all of the file is in \
force no client is served that may not be. An error leaves the module unloaded. When the file names a \
dump (warm.file) it is loaded at last, while clients are served; a failure is reported, and the cache \
stays as it is."
    )]
    Start {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Takes the XDP program off all interfaces, then the module out of the kernel
    #[command(
        visible_alias = "unload",
        after_help = "When the file names one for it (warm.file), all items are dumped before; start \
loads them. A dump that fails is reported, and the module is unloaded."
    )]
    Stop {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
        /// Lose all items
        #[arg(long)]
        no_dump: bool,
    },
    /// Puts the configuration file in force, and reports what needs a restart
    #[command(
        after_help = "What the file does not name goes back to its default. The file of users \
is read again."
    )]
    Reload {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Reports all errors of a configuration file and of modprobe's options
    #[command(
        after_help = "Findings are printed as FILE:LINE:COLUMN. The module need not be loaded."
    )]
    Check {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Prints the differences between a configuration file and what is in force
    Diff {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Prints or saves the configuration in force
    Config {
        #[command(subcommand)]
        action: Config,
    },
    /// Prints the loaded module's version, its port and its memory limit
    Info,
    /// Shows the cache's state in one screen: memory, hits, receive paths, refusals, warnings
    #[command(
        after_help = "The first word is healthy, serving (see the warnings) or degraded (clients do \
not get what they ask for).\n\nExamples:\n  hippos-ctl status\n  hippos-ctl status --json\n\nXDP answers \
where its program is attached: hippos-ctl xdp status. While a receive path is closed the UDP socket serves its requests."
    )]
    Status,
    /// Prints the server's statistics, the names as memcached's `stats` has them
    #[command(
        after_help = "Examples:\n  hippos-ctl stats\n  hippos-ctl stats slabs\n  \
hippos-ctl stats --json | jq .get_hits\n  hippos-ctl stats --watch 2 --rates"
    )]
    Stats {
        /// Which statistics; reset sets those to 0 that count
        #[arg(value_enum, default_value = "general")]
        section: SectionName,
        /// Of detail: begin or end counting by the keys' prefixes
        #[arg(value_enum)]
        switch: Option<Switch>,
        /// Print them again every so many seconds
        #[arg(long, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=86400))]
        watch: Option<u32>,
        /// Print what grew, a second (with --watch; every second without)
        #[arg(long)]
        rates: bool,
    },
    /// Shows live rates: by receive path, CPU, slab class and connection, with refusals and warnings
    #[command(
        after_help = "Keys: q ends it, s changes the order of rows (by rate, by size or idle time, by \
number or address), p pauses, + and - double and halve the interval.\n\nXDP, PRE_ROUTING and the UDP \
socket count datagrams, TCP commands. Of connections, bytes are counted as TCP acknowledges them.\n\n\
Examples:\n  hippos-ctl top --interval 5\n  hippos-ctl top --once\n  hippos-ctl top --json | jq .gets"
    )]
    Top(Top),
    /// Shows how long requests take and wait, by receive path; begins and ends measuring that
    #[command(
        after_help = "XDP, PRE_ROUTING (prerouting) and the UDP socket (udp) count datagrams, TCP \
commands; those that were served together have the time of all. service is from where the receive path begins to \
the reply, queue what a datagram or a connection waited before, from the kernel's time stamp. A percentile \
is at most a quarter more than the time was. While nothing is measured receive paths pay a no-op for it; latency = true in the \
configuration file measures from the start.\n\nExamples:\n  hippos-ctl latency on\n  hippos-ctl latency\n  \
hippos-ctl latency --watch 5\n  hippos-ctl latency off"
    )]
    Latency {
        /// Begin or end measuring; what was measured stays
        #[arg(value_enum)]
        switch: Option<Switch>,
        /// Forget what was measured
        #[arg(long)]
        reset: bool,
        /// Print every so many seconds what was measured in them
        #[arg(long, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=86400))]
        watch: Option<u32>,
    },
    /// Lists the open sockets, the idlest first, or closes connections
    #[command(
        after_help = "Examples:\n  hippos-ctl conns\n  hippos-ctl conns kill 10.0.0.7\n  \
hippos-ctl conns kill [fd00::1]:40312\n  hippos-ctl conns kill --idle 3600"
    )]
    Conns {
        #[command(subcommand)]
        action: Option<Conns>,
    },
    /// Shows which sizes of items have the memory, a bar each
    Slabs,
    /// Lists the keys that begin with a prefix
    #[command(
        after_help = "Dumps all items over TCP, from this host (lru_crawler metadump), which \
takes its time with many. With --json an object a line. A module whose clients log in wants --auth-file.\n\n\
Example:\n  hippos-ctl keys user: --most 10"
    )]
    Keys {
        /// What they begin with; without it, all
        #[arg(default_value = "")]
        prefix: String,
        /// Print no more than so many; all are counted
        #[arg(long, default_value_t = 1000, value_name = "COUNT")]
        most: u64,
    },
    /// Writes all items into a file, from which load stores them again
    #[command(
        after_help = "Asks over TCP, from this host, while clients are served. The file is made as \
FILE.partial and has its name when it is complete; the one of before stays until then. An item that is \
changed meanwhile is there as it was when it was read, or is missed. With - for FILE the dump goes to standard output. \
A module whose clients log in wants --auth-file.\n\nExamples:\n  \
hippos-ctl dump /var/lib/hippos/cache.dump\n  \
hippos-ctl --server 10.0.0.5:11211 dump - | hippos-ctl load -"
    )]
    Dump(Dump),
    /// Stores the items of a file that dump wrote
    #[command(
        after_help = "The file is read to its end first: one that is damaged or not complete changes \
nothing, unless --salvage is given. What remains of times to live is reckoned from the dump on. - for FILE \
is standard input, of which all is stored that comes before damage.\n\nExamples:\n  \
hippos-ctl load /var/lib/hippos/cache.dump\n  \
hippos-ctl --server 10.0.0.5:11211 load cache.dump --mode set"
    )]
    Load(Load),
    /// Forgets every item, as memcached's flush_all does
    Flush {
        /// Seconds to wait before, at most 30 days
        #[arg(long, default_value_t = 0, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(..=i64::from(hippos_abi::FLUSH_DELAY_MAX)))]
        delay: u32,
    },
    /// Shows or changes the networks that are served: networks like 10.0.0.0/8, any, or default
    #[command(after_help = "Examples:\n  hippos-ctl allow list\n  \
hippos-ctl allow set default,192.0.2.0/24\n  hippos-ctl allow remove 169.254.0.0/16\n\n\
`default` is loopback, private and link-local networks. Connections that are open stay open.")]
    Allow {
        #[command(subcommand)]
        change: Allow,
    },
    /// Shows or sets which clients may use administration commands
    #[command(
        after_help = "Examples:\n  hippos-ctl admin\n  hippos-ctl admin local\n\nThese are \
flush_all, cache_memlimit, slabs, lru, lru_crawler, verbosity, stats reset, stats detail, stats \
cachedump and the like, in the text and the binary protocol. hippos-ctl itself is never refused."
    )]
    Admin {
        /// Which clients; without it the setting is shown
        #[arg(value_enum)]
        who: Option<AdminAccess>,
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
    /// Shows or sets the limits of UDP clients
    #[command(after_help = "Example:\n  hippos-ctl limits --udp-datagrams 8 --udp-rate 1000000")]
    Limits(Limits),
    /// Shows or sets the memory limit; a lower one is reached by evicting
    #[command(after_help = "Example:\n  hippos-ctl memory 512")]
    Memory {
        /// MiB, at least 8; without it the limit is shown
        #[arg(value_name = "MIB")]
        mib: Option<u64>,
    },
    /// Checks for what makes the cache slow or wrong: each finding with its remedy
    #[command(
        after_help = "Looks at the module's version and refusals, memory, closed receive \
paths of UDP, each card's queues, interrupts and XDP, bridges, rp_filter, conntrack, and the CPUs' frequency and idle \
states. Ends with status 6 when something is broken or slow."
    )]
    Doctor,
    /// Looks for mistakes in the module itself, with a module for the debug kernel
    Debug {
        #[command(subcommand)]
        action: DebugAction,
    },
    /// Serves the statistics to Prometheus at /metrics, and the status to a browser at /
    #[command(
        after_help = "The metrics have memcached_exporter's names (memcached_*), and Hippos's own \
(hippos_*). With --server it is an exporter for any memcached.\n\nExample:\n  \
hippos-ctl exporter --listen 10.0.0.5:9150"
    )]
    Exporter {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:9150", value_name = "ADDRESS:PORT")]
        listen: String,
    },
    /// Prints completions for a shell
    #[command(
        after_help = "Example:\n  hippos-ctl completions bash > /etc/bash_completion.d/hippos-ctl"
    )]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Writes the man pages into a folder
    #[command(after_help = "Example:\n  hippos-ctl man /usr/local/share/man/man1")]
    Man {
        /// The folder; made if it is not there
        folder: PathBuf,
    },
    /// Answers GETs before the kernel makes packets of frames (XDP)
    #[command(
        after_help = "Examples:\n  hippos-ctl xdp attach --dev eth0\n  hippos-ctl xdp status\n  \
hippos-ctl xdp detach --dev eth0\n\nThe program stays until it is detached, whatever becomes of this \
command. While it is attached the module can't be unloaded but by hippos-ctl stop."
    )]
    Xdp {
        #[command(subcommand)]
        action: Xdp,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Seconds between samples, 0.1 to 3600
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval)]
    pub(crate) interval: f64,
    /// Print one frame as text, of the rates in one interval
    #[arg(long)]
    pub(crate) once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let range = crate::top::INTERVALS;
    match text.parse::<f64>() {
        Ok(seconds) if range.contains(&seconds) => Ok(seconds),
        _ => Err(format!("must be from {} to {}", range.start(), range.end())),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conns {
    /// Closes the TCP connections that meet all given conditions, and prints their number
    #[command(
        after_help = "The client gets what is sent already, then the end of the connection. Nothing \
keeps it from connecting again: hippos-ctl allow does."
    )]
    Kill(Kill),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Kill {
    /// Those of this client: an address, or an address and a port
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = crate::conns::peer)]
    pub(crate) peer: Option<(std::net::IpAddr, u16)>,
    /// Those without a command for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dump {
    /// The file
    pub(crate) file: PathBuf,
    /// Go on with FILE.partial of a dump that was interrupted; items that it has are not read again
    #[arg(long)]
    pub(crate) resume: bool,
    /// How many connections read values, 1 to 64
    #[arg(long, default_value_t = CONNECTIONS, value_name = "COUNT",
        value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,
    /// Print nothing but errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// The file
    pub(crate) file: PathBuf,
    /// Which value stays where the cache has the key already
    #[arg(long, value_enum, default_value = "add")]
    pub(crate) mode: crate::dump::Mode,
    /// Begin with this block: the one that an interrupted load reported
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) from_block: u64,
    /// Load the whole blocks of a file that is damaged or not complete, up to the damage
    #[arg(long)]
    pub(crate) salvage: bool,
    /// How many connections store, 1 to 64
    #[arg(long, default_value_t = CONNECTIONS, value_name = "COUNT",
        value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,
    /// Print nothing but errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Prints it as a configuration file
    Show,
    /// Writes it; the file as it was is kept beside it, with .old behind its name
    Save {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Allow {
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
pub(crate) enum Auth {
    /// Shows whether clients have to log in
    Status,
    /// Only users of the file may log in
    Set { file: PathBuf },
    /// No client has to log in
    Off,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Limits {
    /// The most bytes of one reply, at least 1392
    #[arg(long, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(i64::from(UDP_BYTES_MIN)..))]
    pub(crate) udp_bytes: Option<u32>,
    /// The most datagrams of one reply, 1 to 65535
    #[arg(long, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(hippos_abi::UDP_DATAGRAMS_MAX)))]
    pub(crate) udp_datagrams: Option<u32>,
    /// Reply bytes a second for each source outside private networks; 0 is no limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) udp_rate: Option<u32>,
    /// The same for those within
    #[arg(long, value_name = "BYTES")]
    pub(crate) udp_private_rate: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugAction {
    /// Compares the store's lists and counts with its memory
    #[command(
        after_help = "Only while no client writes: what changes meanwhile looks like a mistake. \
Ends with status 6 when something is wrong, and with 5 when the module is not one for the debug kernel."
    )]
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Xdp {
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
pub(crate) enum Mode {
    /// Native on a card whose driver can, else generic
    Auto,
    /// In the driver, before there is an sk_buff
    Native,
    /// Behind any driver; slower than native
    Generic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SectionName {
    General,
    Settings,
    Items,
    Slabs,
    Conns,
    Reset,
    /// Why datagrams were left to the UDP socket
    Pass,
    /// Sizes of items, as memcached has them: not counted
    Sizes,
    /// Gets, hits, sets and deletes by the keys' prefixes
    Detail,
    /// Commands that each CPU served
    Cpus,
    /// How long requests take and wait, as histograms
    Latency,
}

impl SectionName {
    pub(crate) fn section(self) -> Section {
        match self {
            SectionName::General => Section::General,
            SectionName::Settings => Section::Settings,
            SectionName::Items => Section::Items,
            SectionName::Slabs => Section::Slabs,
            SectionName::Conns => Section::Conns,
            SectionName::Reset => Section::Reset,
            SectionName::Pass => Section::Pass,
            SectionName::Sizes => Section::Sizes,
            SectionName::Detail => Section::Detail,
            SectionName::Cpus => Section::Cpus,
            SectionName::Latency => Section::Latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::line().debug_assert();
    }

    #[test]
    fn help_lists_each_exit_status() {
        let help = Arguments::line().render_help().to_string();
        for (status, _) in Status::ALL {
            assert!(help.contains(&format!("  {}  ", status as u8)), "{help}");
        }
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
            ("latency --watch 0", "1..=86400"),
            ("top --interval 0", "must be from 0.1 to 3600"),
            ("top --interval nan", "must be from 0.1 to 3600"),
            ("conns kill", "required arguments"),
            ("conns kill --idle 0", "1..=4294967295"),
            ("conns kill host", "must be an address"),
            ("admin remote", "[possible values: network, local, off]"),
            (
                "xdp attach --dev eth0 --mode fast",
                "[possible values: auto, native, generic]",
            ),
        ] {
            let error = refused(line);
            assert!(error.contains(range), "{line}: {error}");
        }
    }
}
