// SPDX-License-Identifier: GPL-2.0-only
//! The arguments of every command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use hippos_load::arrival::Arrival;
use hippos_load::output;
use hippos_load::settings::{self, Failure, Password, Protocol, Settings, Tls, Transport};
use hippos_load::trace::{Columns, Format, Options, TimeUnit};
use hippos_load::workload::{Model, Workload};

/// The connections to the servers.
#[derive(Args)]
pub(crate) struct TargetArgs {
    /// Servers as host:port, host:first-last, unix:PATH, or several with commas; keys are spread over them.
    #[arg(short, long, default_value = "127.0.0.1:11211")]
    pub(crate) server: String,
    /// Threads that generate load.
    #[arg(short, long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// UDP sockets (source ports) of each thread for each server.
    #[arg(long, default_value_t = 16)]
    pub(crate) sockets: usize,
    /// TCP connections of each thread to each server.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Transport of GETs; all other requests go over TCP.
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) get: Transport,
    /// Classic commands (get, set), meta commands (mg, ms), or the binary protocol.
    #[arg(long, value_enum, default_value = "classic")]
    pub(crate) protocol: Protocol,
    /// Short for --protocol meta.
    #[arg(long, conflicts_with = "protocol")]
    pub(crate) meta: bool,
    /// The server is a packet mirror: send only GETs over UDP, which must come back unchanged.
    #[arg(long)]
    pub(crate) mirror: bool,
    /// Send requests of the same length that are due together as one (UDP segmentation offload). Not for servers in
    /// containers and guests: they would receive such requests unsegmented, as they never arrive over a wire.
    #[arg(long)]
    pub(crate) gso: bool,
    /// Give up a request after this time.
    #[arg(long, default_value = "1s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// GETs of more value bytes than this go over TCP.
    #[arg(long, default_value_t = 16384)]
    pub(crate) udp_max: u32,
    /// Store the value after a GET that misses, as a client in front of a database does.
    #[arg(long)]
    pub(crate) fill_on_miss: bool,
    /// Seed of the operations and their times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Verify values; off for values that other programs stored.
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) check: Switch,
    /// Other programs write the same keys at the same time: older values are not errors.
    #[arg(long)]
    pub(crate) shared: bool,
    /// Use only the Nth of M parts of the keys; other generators use the other parts.
    #[arg(long, value_name = "N/M", default_value = "1/1")]
    pub(crate) part: String,
    /// Prefix of every key.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Reconnect when a connection breaks, and count the requests lost meanwhile.
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// Encrypt the connections (with --get tcp).
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trust these certificate authorities (PEM); without them any certificate is accepted.
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Name in the server's certificate, if it is not its address.
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(crate) tls_name: Option<String>,
    /// A file whose first line is user:password, for servers that require it (memcached -Y).
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// The output of results.
#[derive(Args)]
pub(crate) struct OutputArgs {
    /// Write the report as JSON; - is standard output, and the table goes to standard error then.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write plots into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// Write all plots and the table as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the percentiles of all requests in the format of HdrHistogram's plotter.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
    /// Overwrite existing plots.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print no progress line and no table, only errors.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// The workload.
#[derive(Args)]
pub(crate) struct WorkloadArgs {
    /// A built-in workload (see `workloads`) or a TOML file, with `:variant` if it has any.
    pub(crate) workload: String,
    /// Number of keys, instead of the workload's.
    #[arg(long, value_parser = count)]
    pub(crate) keys: Option<u64>,
}

/// Filling before the run.
#[derive(Args)]
pub(crate) struct PrepareArgs {
    /// The server already holds the workload's keys (`fill`).
    #[arg(long)]
    pub(crate) no_fill: bool,
}

/// How requests are spread in an open loop.
#[derive(Args)]
pub(crate) struct ArrivalArgs {
    /// poisson, constant, or burst.
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) arrival: ArrivalKind,
    /// Rate within a burst over the mean rate.
    #[arg(long, default_value_t = 2.5)]
    pub(crate) burst_factor: f64,
    /// Length of a burst.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    pub(crate) burst_length: Duration,
    /// From one burst to the next.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) burst_period: Duration,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum ArrivalKind {
    Poisson,
    Constant,
    Burst,
}

impl ArrivalArgs {
    pub(crate) fn arrival(&self) -> Result<Arrival, Failure> {
        let arrival = match self.arrival {
            ArrivalKind::Poisson => Arrival::Poisson,
            ArrivalKind::Constant => Arrival::Constant,
            ArrivalKind::Burst => Arrival::Burst {
                factor: self.burst_factor,
                length: self.burst_length.as_secs_f64(),
                period: self.burst_period.as_secs_f64(),
            },
        };
        arrival.check().map_err(Failure::Input)?;
        Ok(arrival)
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// Requests a second, all threads together (20k, 1.5M).
    #[arg(short, long, default_value = "1000", value_parser = number, conflicts_with = "closed")]
    pub(crate) rate: f64,
    /// Closed loop instead: send as fast as replies arrive.
    #[arg(long)]
    pub(crate) closed: bool,
    /// Closed loop: requests that wait on each socket or connection.
    #[arg(long, default_value = "1", value_parser = window)]
    pub(crate) window: usize,
    /// Time that is measured.
    #[arg(short, long, default_value = "10s", value_parser = span)]
    pub(crate) duration: Duration,
    /// End after this many requests instead, warm-up included.
    #[arg(short = 'n', long, value_parser = count, conflicts_with = "duration")]
    pub(crate) requests: Option<u64>,
    /// Time at the start that is not measured: 1s, or 0s with --requests.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) warmup: Option<Duration>,
    /// Interval of the timeline.
    #[arg(long, default_value = "1s", value_parser = span)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) arrival: ArrivalArgs,
    #[command(flatten)]
    pub(crate) prepare: PrepareArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Steps of a search or sweep.
#[derive(Args)]
pub(crate) struct StepArgs {
    /// Length of each step.
    #[arg(long, default_value = "2s", value_parser = span)]
    pub(crate) step: Duration,
    /// Warm-up of each step.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    #[command(flatten)]
    pub(crate) arrival: ArrivalArgs,
}

#[derive(Args)]
pub(crate) struct PeakArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// Bound on the mean latency.
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    pub(crate) bound: Duration,
    /// Bound on the share of requests that are lost or fail.
    #[arg(long, default_value_t = 0.001)]
    pub(crate) loss: f64,
    /// First rate to try.
    #[arg(long, default_value = "1000", value_parser = number)]
    pub(crate) start: f64,
    /// Highest rate to try.
    #[arg(long, default_value = "10M", value_parser = number)]
    pub(crate) max: f64,
    /// Factor from rate to rate until one is too high; small where the first is a good guess.
    #[arg(long, default_value_t = 2.0, value_parser = stride)]
    pub(crate) stride: f64,
    /// The precision of the peak that is found.
    #[arg(long, default_value_t = 0.03)]
    pub(crate) precision: f64,
    #[command(flatten)]
    pub(crate) step: StepArgs,
    #[command(flatten)]
    pub(crate) prepare: PrepareArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// The rates, with commas between (1k,5k,20k).
    #[arg(short, long, value_delimiter = ',', value_parser = number, required = true)]
    pub(crate) rates: Vec<f64>,
    #[command(flatten)]
    pub(crate) step: StepArgs,
    #[command(flatten)]
    pub(crate) prepare: PrepareArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct FillArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The trace and how to read it.
#[derive(Args)]
pub(crate) struct TraceArgs {
    /// The trace's files, one after another: plain, .gz, .zst, .xz or .lz4; - is standard input.
    #[arg(required = true)]
    pub(crate) trace: Vec<PathBuf>,
    /// Its format, if it cannot be detected from the first line.
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The meaning of each column, counted from 1: time, key, op, size, ttl, count, key-size.
    #[arg(long, value_name = "key=2,op=3,...", conflicts_with = "format")]
    pub(crate) columns: Option<Columns>,
    /// The delimiter between fields, with \t for a tab; detected from the first line if not given.
    #[arg(long, value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// The first line is a header, not a request.
    #[arg(long)]
    pub(crate) header: bool,
    /// Unit of the times, if it is not the format's.
    #[arg(long, value_enum)]
    pub(crate) time_unit: Option<TimeUnit>,
    /// Accept zstd's long windows, which need up to 2 GB of memory.
    #[arg(long)]
    pub(crate) long: bool,
    /// Skip up to this many unreadable lines.
    #[arg(long, default_value_t = 0)]
    pub(crate) skip_bad: u64,
}

impl TraceArgs {
    pub(crate) fn options(&self) -> Options {
        Options {
            format: self.format,
            columns: self.columns,
            delimiter: self.delimiter,
            header: self.header,
            time_unit: self.time_unit,
            long: self.long,
            prefix: String::new(),
        }
    }
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Times faster than recorded (0.5, 1, 10), or max for as fast as replies arrive.
    #[arg(long, default_value = "1", value_parser = speed, conflicts_with = "rate")]
    pub(crate) speed: Speed,
    /// Requests a second instead of the recorded times (20k, 1.5M).
    #[arg(short, long, value_parser = number)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) arrival: ArrivalArgs,
    /// With --speed max: requests in flight on each socket or connection.
    #[arg(long, default_value = "4", value_parser = window)]
    pub(crate) window: usize,
    /// End after this many requests.
    #[arg(short = 'n', long, value_parser = count)]
    pub(crate) requests: Option<u64>,
    /// End after this time.
    #[arg(short, long, value_parser = span)]
    pub(crate) duration: Option<Duration>,
    /// Time at the start that is not measured.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    /// Start again at the end of the trace.
    #[arg(long = "loop")]
    pub(crate) again: bool,
    /// Interval of the timeline.
    #[arg(long, default_value = "1s", value_parser = span)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// End after this many requests.
    #[arg(short = 'n', long, value_parser = count)]
    pub(crate) requests: Option<u64>,
    /// Write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct MergeArgs {
    /// Reports of generators that ran together, on one machine or several.
    #[arg(required = true)]
    pub(crate) reports: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct GenArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// The file; compressed if its name ends in .gz, .zst, .xz or .lz4; - is standard output.
    #[arg(short, long)]
    pub(crate) output: PathBuf,
    /// How many requests.
    #[arg(short = 'n', long, default_value = "100k", value_parser = count)]
    pub(crate) requests: u64,
    /// Requests a second.
    #[arg(short, long, default_value = "1000", value_parser = number)]
    pub(crate) rate: f64,
    /// Seed of the operations and their times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) arrival: ArrivalArgs,
}

#[derive(Args)]
pub(crate) struct EchoArgs {
    /// The address to listen on, TCP and UDP.
    #[arg(short, long, default_value = "127.0.0.1:11211")]
    pub(crate) listen: SocketAddr,
    /// Threads that answer UDP.
    #[arg(short, long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Answer only the keys of this workload; without one, every key.
    #[arg(long)]
    pub(crate) workload: Option<String>,
    /// Number of keys, instead of the workload's.
    #[arg(long, requires = "workload", value_parser = count)]
    pub(crate) keys: Option<u64>,
    /// Without a workload: length of the values.
    #[arg(long, default_value_t = 20)]
    pub(crate) value_size: usize,
    /// Receive and send datagrams of the same length as one, for a generator with --gso.
    #[arg(long)]
    pub(crate) gso: bool,
    /// Store values, slowly, instead of deriving them.
    #[arg(long, conflicts_with = "workload")]
    pub(crate) keep: bool,
    /// Stop after this time.
    #[arg(short, long, value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct PlotArgs {
    /// Reports, optionally with a label in front (hippos=a.json).
    #[arg(required = true)]
    pub(crate) reports: Vec<String>,
    /// Write the plots into this folder.
    #[arg(short, long, default_value = ".")]
    pub(crate) output: PathBuf,
    /// Write all plots of all reports as one HTML file instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Overwrite existing plots.
    #[arg(long)]
    pub(crate) force: bool,
}

/// A number with an optional suffix k, M or G.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x * unit),
        _ => Err(format!("{text:?} is no positive number")),
    }
}

/// A time above 0.
fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("must be above 0".into()),
        Ok(time) => Ok(time),
        Err(e) => Err(e.to_string()),
    }
}

/// A number of requests in flight.
fn window(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=65_536) => Ok(n),
        _ => Err(format!("{text:?} is no number from 1 to 65536")),
    }
}

/// One character, or `\\t`.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err(format!("{text:?} is not one character")),
    }
}

/// A factor above 1.
pub(crate) fn stride(text: &str) -> Result<f64, String> {
    match number(text)? {
        x if x > 1.0 => Ok(x),
        _ => Err(format!("{text:?} is not above 1")),
    }
}

/// An integer, at least 1, with an optional suffix k, M or G.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    match number(text)? {
        x if x >= 1.0 && x.fract() == 0.0 => Ok(x as u64),
        _ => Err(format!("{text:?} is no whole number")),
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Speed {
    Times(f64),
    Max,
}

pub(crate) fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    number(text.trim_end_matches('x')).map(Speed::Times)
}

impl TargetArgs {
    pub(crate) fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            servers: settings::servers(&self.server)?,
            threads: self.threads,
            sockets: self.sockets,
            connections: self.connections,
            get: self.get,
            protocol: match self.meta {
                true => Protocol::Meta,
                false => self.protocol,
            },
            mirror: self.mirror,
            gso: self.gso,
            timeout: self.timeout.as_nanos() as u64,
            udp_max: self.udp_max,
            fill_on_miss: self.fill_on_miss,
            seed: self.seed,
            check: self.check == Switch::On,
            shared: self.shared,
            part: self.part.parse().map_err(Failure::Input)?,
            prefix: self.prefix.clone(),
            reconnect: self.reconnect,
            tls: self.tls.then(|| Tls {
                ca: self.tls_ca.clone(),
                name: self.tls_name.clone(),
            }),
            password: match &self.password_file {
                None => None,
                Some(path) => {
                    let text = output::read(path)?;
                    Some(Password::new(text.lines().next().unwrap_or_default()))
                }
            },
        })
    }
}

impl WorkloadArgs {
    pub(crate) fn model(&self) -> Result<Model> {
        model(&self.workload, self.keys)
    }
}

pub(crate) fn model(name: &str, keys: Option<u64>) -> Result<Model> {
    let mut workload = Workload::named(name)?;
    workload.keys.count = keys.unwrap_or(workload.keys.count);
    Model::new(&workload)
}
