// SPDX-License-Identifier: GPL-2.0-only
//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use hippos_abi::{Section, UDP_BYTES_MIN};

use crate::admin::AdminAccess;
use crate::configuration::FILE;
use crate::exit::Status;
use crate::version::VERSION;

/// Connections of a dump or a load: enough to keep a server with a few CPUs busy.
pub(crate) const CONNECTIONS: u8 = 4;

/// Shows and changes the state of a loaded Hippos, through /dev/hippos (root only).
#[derive(Debug, Parser)]
#[command(name = "hippos-ctl", version = VERSION)]
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
    /// Authenticate there with the first user:password line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// The whole command line, with the parts that a derive macro cannot express.
    pub(crate) fn line() -> clap::Command {
        Self::command().after_help(Status::help())
    }

    /// Parses the arguments of this process; ends it if they are wrong.
    pub(crate) fn of_process() -> Self {
        let parsed = Self::line().try_get_matches();
        let parsed = parsed.and_then(|matches| Self::from_arg_matches(&matches));
        parsed.unwrap_or_else(|error| {
            // The help and the version are no errors.
            if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                Status::Usage.print_json(error.to_string().trim_end());
            }
            error.exit()
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Loads the module with the settings of the configuration file, and attaches XDP
    #[command(
        after_help = "Waits for the interfaces that the file names. Until the whole file is in force, no \
client is served that the file does not allow. An error leaves the module unloaded. If the file names a dump \
(warm.file), it is loaded last, while clients are served; a failure is reported, and the module serves \
nevertheless."
    )]
    Start {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Detaches the XDP program from all interfaces, then unloads the module
    #[command(
        visible_alias = "unload",
        after_help = "If the file names a dump (warm.file), all items are dumped first; start \
loads them. If the dump fails, that is reported, and the module is unloaded nevertheless. While the file has \
errors, nothing is unloaded without --no-dump."
    )]
    Stop {
        /// The configuration file
        #[arg(default_value = FILE)]
        file: PathBuf,
        /// Lose all items
        #[arg(long)]
        no_dump: bool,
    },
    /// Puts the configuration file into force, and reports what needs a restart
    #[command(
        after_help = "Settings that the file does not name return to their defaults. The file of users \
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
    /// Prints the differences between a configuration file and the configuration in force
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
not get what they ask for). Refusals count for 60 seconds.\n\nExamples:\n  hippos-ctl status\n  \
hippos-ctl status --interval 0 --json\n\nXDP answers where its program is attached: hippos-ctl xdp status. While a \
receive path is closed the UDP socket serves its requests."
    )]
    Status {
        /// Seconds over which rates are measured, up to 3600; 0 prints the state at once, without rates
        #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval_or_none)]
        interval: f64,
    },
    /// Prints the server's statistics, with the names of memcached's `stats`
    #[command(
        after_help = "Examples:\n  hippos-ctl stats\n  hippos-ctl stats slabs\n  \
hippos-ctl stats --json | jq .get_hits\n  hippos-ctl stats --watch 2 --rates"
    )]
    Stats {
        /// Which statistics; reset sets all counters to 0
        #[arg(value_enum, default_value = "general")]
        section: SectionName,
        /// For detail: start or stop counting by key prefix
        #[arg(value_enum)]
        switch: Option<Switch>,
        /// Print them again every SECONDS seconds
        #[arg(long, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=86400))]
        watch: Option<u32>,
        /// Print the increase per second (with --watch; every second without)
        #[arg(long)]
        rates: bool,
    },
    /// Shows live rates: by receive path, CPU, slab class and connection, with refusals and warnings
    #[command(
        after_help = "Keys: q quits, s changes the order of rows (by rate, by size or idle time, by \
number or address), p pauses, + and - double and halve the interval, k shows the hottest keys.\n\nThe latency of each \
receive path shows while it is measured: hippos-ctl latency on. XDP, PRE_ROUTING and the UDP \
socket count datagrams, TCP commands. The bytes of connections are counted as TCP acknowledges them.\n\n\
Examples:\n  hippos-ctl top --interval 5\n  hippos-ctl top --once --keys\n  hippos-ctl top --json | jq .gets"
    )]
    Top(Top),
    /// Shows how long requests take and wait, by receive path; starts and stops measuring latency
    #[command(
        after_help = "XDP, PRE_ROUTING (prerouting) and the UDP socket (udp) count datagrams, TCP \
commands; commands that were served together each count the time of all. service is the time from the start of the receive path to \
the reply, queue the time that a datagram or a connection waited before, since the kernel's time stamp. A percentile \
is at most a quarter too high. While latency is not measured, it costs the receive paths a no-op; latency = true in the \
configuration file measures from the start.\n\nExamples:\n  hippos-ctl latency on\n  hippos-ctl latency\n  \
hippos-ctl latency --watch 5\n  hippos-ctl latency off"
    )]
    Latency {
        /// Start or stop measuring; the results so far stay
        #[arg(value_enum)]
        switch: Option<Switch>,
        /// Reset the results
        #[arg(long)]
        reset: bool,
        /// Print the results of each interval of SECONDS seconds
        #[arg(long, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=86400))]
        watch: Option<u32>,
    },
    /// Lists the open sockets, the longest idle first, or closes connections
    #[command(
        after_help = "Examples:\n  hippos-ctl conns\n  hippos-ctl conns kill 10.0.0.7\n  \
hippos-ctl conns kill [fd00::1]:40312\n  hippos-ctl conns kill --idle 3600"
    )]
    Conns {
        #[command(subcommand)]
        action: Option<Conns>,
    },
    /// Shows how much memory each item size uses, with a bar for each slab class
    Slabs,
    /// Lists the keys that begin with a prefix
    #[command(
        after_help = "Dumps all items over TCP, from this host (lru_crawler metadump), which \
takes long with many items. With --json, one object per line. If clients have to authenticate, --auth-file is needed.\n\n\
Example:\n  hippos-ctl keys user: --most 10"
    )]
    Keys {
        /// The prefix; without it, all keys are listed
        #[arg(default_value = "")]
        prefix: String,
        /// Print at most COUNT keys; all are counted
        #[arg(long, default_value_t = 1000, value_name = "COUNT")]
        most: u64,
    },
    /// Writes all items into a file, from which load stores them again
    #[command(
        after_help = "Reads over TCP, from this host, while clients are served. The dump is written to \
FILE.partial, which is renamed to FILE when it is complete; until then an earlier FILE stays. An item that is \
changed meanwhile is dumped as it was when it was read, or is missed. With - for FILE the dump goes to standard output. \
If clients have to authenticate, --auth-file is needed.\n\nExamples:\n  \
hippos-ctl dump /var/lib/hippos/cache.dump\n  \
hippos-ctl --server 10.0.0.5:11211 dump - | hippos-ctl load -"
    )]
    Dump(Dump),
    /// Stores the items of a file that dump wrote
    #[command(
        after_help = "The file is read to its end first: a damaged or incomplete file changes \
nothing, unless --salvage is given. Times to live continue from the time of the dump. With - for FILE \
standard input is read, and all items before any damage are stored.\n\nExamples:\n  \
hippos-ctl load /var/lib/hippos/cache.dump\n  \
hippos-ctl --server 10.0.0.5:11211 load cache.dump --mode set"
    )]
    Load(Load),
    /// Removes all items, like memcached's flush_all
    Flush {
        /// Delay in seconds, at most 30 days
        #[arg(long, default_value_t = 0, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(..=i64::from(hippos_abi::FLUSH_DELAY_MAX)))]
        delay: u32,
    },
    /// Shows or changes the allow list: networks like 10.0.0.0/8, any, or default
    #[command(after_help = "Examples:\n  hippos-ctl allow list\n  \
hippos-ctl allow set default,192.0.2.0/24\n  hippos-ctl allow remove 169.254.0.0/16\n\n\
`default` is loopback, private and link-local networks. Open connections stay open.")]
    Allow {
        #[command(subcommand)]
        change: Allow,
    },
    /// Shows or sets which clients may use administration commands
    #[command(
        after_help = "Examples:\n  hippos-ctl admin\n  hippos-ctl admin local\n\nThese are \
flush_all, cache_memlimit, slabs, lru, lru_crawler, verbosity, stats reset, stats detail, stats \
cachedump, watch and the like, in the text and the binary protocol. hippos-ctl itself is never refused."
    )]
    Admin {
        /// Which clients; without it, the setting is shown
        #[arg(value_enum)]
        who: Option<AdminAccess>,
    },
    /// Requires clients to authenticate over TCP with memcached's text authentication; refuses UDP meanwhile
    #[command(
        after_help = "Examples:\n  hippos-ctl auth set /etc/hippos/users\n  hippos-ctl auth off\n\n\
The file has lines like user:password, as for memcached's -Y. Open connections stay open."
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
        /// MiB, at least 8; without it, the limit is shown
        #[arg(value_name = "MIB")]
        mib: Option<u64>,
    },
    /// Checks for conditions that make the cache slow or faulty, and names a remedy for each
    #[command(
        after_help = "Checks the module's version and refusals, memory, closed receive \
paths of UDP, each card's queues, interrupts and XDP, bridges, rp_filter, conntrack, and the CPUs' frequency and idle \
states. Ends with status 6 when something is broken or slow."
    )]
    Doctor,
    /// Looks for bugs in the module itself, with a module for the debug kernel
    Debug {
        #[command(subcommand)]
        action: DebugAction,
    },
    /// Serves the statistics to Prometheus at /metrics, and the figures of top to a browser at /
    #[command(
        after_help = "The metrics have memcached_exporter's names (memcached_*), and Hippos's own \
(hippos_*). With --server it is an exporter for any memcached.\n\nExample:\n  \
hippos-ctl exporter --listen 10.0.0.5:9150"
    )]
    Exporter {
        /// The address and port to listen on
        #[arg(long, default_value = "127.0.0.1:9150", value_name = "ADDRESS:PORT")]
        listen: String,
    },
    /// Shows, reloads or drains a running hippos-proxy
    #[command(
        after_help = "Asks the HTTP address of the proxy's configuration (http = ...); all but status must be \
on the proxy's own host. A reload that finds an error in the file ends with status 6.\n\nExamples:\n  hippos-ctl proxy \
status\n  hippos-ctl proxy --http 127.0.0.1:9152 reload\n  hippos-ctl proxy drain --wait"
    )]
    Proxy {
        /// The proxy's HTTP address
        #[arg(long, default_value = "127.0.0.1:9151", value_name = "HOST:PORT")]
        http: String,
        #[command(subcommand)]
        action: crate::proxy::Action,
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
        /// The folder; created if it does not exist
        folder: PathBuf,
    },
    /// Answers GETs before the kernel makes packets from frames (XDP)
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
    /// Show the hottest keys: gets are watched for 0.2 s of each interval; then gets of one key are still answered in
    /// place, each logged, and other UDP requests go to the socket. `admin` must not be off
    #[arg(long)]
    pub(crate) keys: bool,
}

/// The range of the interval of `top`, in seconds.
pub(crate) const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

fn interval(text: &str) -> Result<f64, String> {
    let range = INTERVALS;
    match text.parse::<f64>() {
        Ok(seconds) if range.contains(&seconds) => Ok(seconds),
        _ => Err(format!("must be from {} to {}", range.start(), range.end())),
    }
}

fn interval_or_none(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(0.0),
        _ => interval(text).map_err(|error| format!("{error}, or 0")),
    }
}

/// Which value to keep if the cache already has the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadMode {
    /// The cache's
    #[default]
    Add,
    /// The dump's
    Set,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conns {
    /// Closes the TCP connections that meet all given conditions, and prints their number
    #[command(
        after_help = "The client receives the bytes already sent, then the end of the connection. It can \
connect again, unless hippos-ctl allow excludes it."
    )]
    Kill(Kill),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Kill {
    /// Only connections of this client: an address, or an address and a port
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = peer)]
    pub(crate) peer: Option<(IpAddr, u16)>,
    /// Only connections without a command for SECONDS seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle: Option<u32>,
}

/// Parses a client on the command line: its address, and its port or 0.
///
/// # Errors
///
/// The text is neither an address nor an address with a port.
pub(crate) fn peer(text: &str) -> Result<(IpAddr, u16), String> {
    if let Ok(peer) = text.parse::<SocketAddr>() {
        return Ok((peer.ip(), peer.port()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    address
        .map(|address| (address, 0))
        .map_err(|_| "must be an address like 10.0.0.7, 10.0.0.7:40312 or [fd00::1]:40312".into())
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
    /// Continue FILE.partial of an interrupted dump; the items in it are not read again
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
    /// Which value to keep if the cache already has the key
    #[arg(long, value_enum, default_value = "add")]
    pub(crate) mode: LoadMode,
    /// Start with this block: the one that an interrupted load reported
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) from_block: u64,
    /// Load the complete blocks of a damaged or incomplete file, up to the damage
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
    /// Writes it; the previous file is kept with .old appended to its name
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
    /// Replaces the list
    Set { networks: String },
    /// Adds to the list
    Add { networks: String },
    /// Removes from the list
    Remove { networks: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Shows whether clients have to authenticate
    Status,
    /// Only users in the file may authenticate
    Set { file: PathBuf },
    /// Authentication is not required
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
    /// The same for sources inside private networks
    #[arg(long, value_name = "BYTES")]
    pub(crate) udp_private_rate: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugAction {
    /// Compares the store's lists and counts with its memory
    #[command(
        after_help = "Only while no client writes: a concurrent change looks like a bug. \
Ends with status 6 if an inconsistency is found, and with 5 if the module is not one for the debug kernel."
    )]
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Xdp {
    /// Attaches the program to an interface
    Attach {
        /// The interface, for example eth0
        #[arg(long, value_name = "INTERFACE")]
        dev: String,
        /// In the driver, after it, or in the driver if possible
        #[arg(long, value_enum, default_value = "auto")]
        mode: XdpMode,
    },
    /// Detaches the program from an interface
    Detach {
        /// The interface
        #[arg(long, value_name = "INTERFACE")]
        dev: String,
    },
    /// Lists the interfaces with the program, and its mode on each
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum XdpMode {
    /// Native on a network card whose driver supports it, otherwise generic
    Auto,
    /// In the driver, before there is an sk_buff
    Native,
    /// After any driver; slower than native
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
    /// Why datagrams passed to the UDP socket
    Pass,
    /// Sizes of items, as in memcached: not counted
    Sizes,
    /// Gets, hits, sets and deletes by key prefix
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

    /// The commands without further subcommands, as words.
    fn all_commands(of: &clap::Command, before: &str) -> Vec<String> {
        let mut all = Vec::new();
        for command in of.get_subcommands() {
            let words = format!("{before}{}", command.get_name());
            if !command.has_subcommands() || !command.is_subcommand_required_set() {
                all.push(words.clone());
            }
            all.extend(all_commands(command, &format!("{words} ")));
        }
        all
    }

    /// Files of Rust in a folder of the repository, one after the other.
    fn sources(folder: &str) -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = std::fs::read_dir(&folder).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        let files = files.filter(|file| file.extension().is_some_and(|end| end == "rs"));
        files
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    }

    /// The functions and macros of the guest tests to which a command is given.
    const RUNS: [&str; 12] = [
        "run", "ctl", "ends", "said", "json", "show", "shown", "reports", "remedy", "start", "arg",
        "format!",
    ];

    /// Whether a guest test gives one of [`RUNS`] a text that begins with the command, with or without the program's name.
    fn is_run(tests: &str, command: &str) -> bool {
        [format!("(\"{command}"), format!("(\"hippos-ctl {command}")]
            .iter()
            .flat_map(|text| tests.match_indices(text.as_str()))
            .any(|(at, text)| {
                let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '!';
                let name = tests[..at].rsplit(|c| !is_of_name(c)).next();
                let rest = &tests[at + text.len()..];
                name.is_some_and(|name| RUNS.contains(&name)) && rest.starts_with(['"', ' '])
            })
    }

    /// A new command needs a guest test that reads its output; hippos-proxy is a program of the host.
    #[test]
    fn each_command_is_run_by_a_test() {
        let in_guest = sources("../testing/guest/src/tests") + &sources("../testing/guest/src");
        let on_host = sources("tests");
        let commands = all_commands(&Arguments::line(), "");
        assert!(commands.len() > 30, "{commands:?}");
        for command in commands {
            let is_tested = match command.strip_prefix("proxy ") {
                Some(action) => on_host.contains(&format!("\"{action}\"")),
                None => is_run(&in_guest, &command),
            };
            assert!(is_tested, "no test runs `hippos-ctl {command}`");
        }
        assert!(!is_run("tcp.stat_of(\"slabs\", x)", "slabs"));
        assert!(!is_run("run(\"hippos-ctl confs\")", "conf"));
    }

    #[test]
    fn help_lists_each_exit_status() {
        let help = Arguments::line().render_help().to_string();
        for (status, _) in Status::ALL {
            assert!(help.contains(&format!("  {}  ", status as u8)), "{help}");
        }
    }

    /// The error message for an invalid command line.
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
