//! `hippos-load`: makes load for a memcached server, checks every reply, and
//! reports. See README.md beside it.
//!
//! Exit status: 0 complete; 1 bad input; 2 bad usage; 3 wrong replies; 4 server
//! unreachable, closed or silent; 130 interrupted. The report of what was done
//! until then is kept in each case.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use hippos_load::arrival::Arrival;
use hippos_load::echo::{Contents, Echo, Faults};
use hippos_load::live::Line;
use hippos_load::report::{Pace, Report};
use hippos_load::search::{self, Search};
use hippos_load::session::{Load, Session};
use hippos_load::settings::{self, Failure, Settings, Transport};
use hippos_load::trace::Format;
use hippos_load::workload::{Model, Workload, BUILT_IN};
use hippos_load::{generate, plot, replay};

/// Load generator and trace replay for memcached servers: open loop, every reply checked.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a workload at a given rate, or in a closed loop.
    Run(RunArgs),
    /// Search for the highest throughput under a bound on the mean latency.
    Peak(PeakArgs),
    /// Run a workload at several rates in turn: latency against offered load.
    Sweep(SweepArgs),
    /// Store every key of a workload once.
    Fill(FillArgs),
    /// Replay a trace file.
    Replay(ReplayArgs),
    /// Write a trace from a workload.
    Gen(GenArgs),
    /// Serve right answers without a store, to measure the load generator itself.
    Echo(EchoArgs),
    /// Plot reports: latency against load, throughput side by side.
    Plot(PlotArgs),
    /// List the built-in workloads, or show what one is made of.
    Workloads {
        /// Show this one.
        name: Option<String>,
    },
}

/// How to talk to the servers.
#[derive(Args)]
struct TargetArgs {
    /// Servers as host:port, host:first-last, or several with commas; keys are spread over them.
    #[arg(short, long, default_value = "127.0.0.1:11211")]
    server: String,
    /// Threads that make load.
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// UDP sockets (source ports) of each thread for each server.
    #[arg(long, default_value_t = 16)]
    sockets: usize,
    /// TCP connections of each thread to each server.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// How GETs travel; everything else goes over TCP.
    #[arg(long, value_enum, default_value = "udp")]
    get: Transport,
    /// Use meta commands.
    #[arg(long)]
    meta: bool,
    /// The server is a packet mirror: only GETs over UDP, which must come back as they went.
    #[arg(long)]
    mirror: bool,
    /// Let requests of one length that are due together leave as one (UDP segmentation offload). Not for
    /// servers in containers and guests: they would get such requests uncut, as no wire brings them.
    #[arg(long)]
    gso: bool,
    /// Give a request up after this time.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// GETs of more value bytes than this go over TCP.
    #[arg(long, default_value_t = 16384)]
    udp_max: u32,
    /// Store what a GET has missed, as a client in front of a database does.
    #[arg(long)]
    fill_on_miss: bool,
    /// Seed of the operations and their times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What to do with the results.
#[derive(Args)]
struct OutputArgs {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write plots into this folder.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// No live line and no table, errors only.
    #[arg(short, long)]
    quiet: bool,
}

/// The workload.
#[derive(Args)]
struct WorkloadArgs {
    /// A built-in workload (see `workloads`) or a TOML file, with `:variant` if it has any.
    workload: String,
    /// Number of keys, instead of the workload's.
    #[arg(long, value_parser = count)]
    keys: Option<u64>,
}

/// Filling before the run.
#[derive(Args)]
struct PrepareArgs {
    /// The server holds the workload's keys already (`fill`).
    #[arg(long)]
    no_fill: bool,
}

/// How requests are spread in an open loop.
#[derive(Args)]
struct ArrivalArgs {
    /// poisson, constant, or burst.
    #[arg(long, value_enum, default_value = "poisson")]
    arrival: ArrivalKind,
    /// Rate within a burst over the mean rate.
    #[arg(long, default_value_t = 2.5)]
    burst_factor: f64,
    /// Length of a burst.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    burst_length: Duration,
    /// From one burst to the next.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    burst_period: Duration,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ArrivalKind {
    Poisson,
    Constant,
    Burst,
}

impl ArrivalArgs {
    fn arrival(&self) -> Result<Arrival, Failure> {
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
struct RunArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Requests a second, all threads together (20k, 1.5M).
    #[arg(short, long, default_value = "1000", value_parser = number)]
    rate: f64,
    /// Closed loop instead: send as replies make room.
    #[arg(long)]
    closed: bool,
    /// Closed loop: requests that wait on each socket or connection.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Time that is measured.
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// End after so many requests instead, warm-up included.
    #[arg(short = 'n', long, value_parser = count, conflicts_with = "duration")]
    requests: Option<u64>,
    /// Time at the start that is not measured: 1s, or 0s with --requests.
    #[arg(long, value_parser = humantime::parse_duration)]
    warmup: Option<Duration>,
    /// Interval of the timeline.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    #[command(flatten)]
    arrival: ArrivalArgs,
    #[command(flatten)]
    prepare: PrepareArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Steps of a search or sweep.
#[derive(Args)]
struct StepArgs {
    /// Length of each step.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    step: Duration,
    /// Warm-up of each step.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    arrival: ArrivalArgs,
}

#[derive(Args)]
struct PeakArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// Bound on the mean latency.
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    bound: Duration,
    /// Bound on the share of requests that are lost or fail.
    #[arg(long, default_value_t = 0.001)]
    loss: f64,
    /// First rate to try.
    #[arg(long, default_value = "1000", value_parser = number)]
    start: f64,
    /// Highest rate to try.
    #[arg(long, default_value = "10M", value_parser = number)]
    max: f64,
    /// Factor from rate to rate until one is too high; small where the first is a good guess.
    #[arg(long, default_value_t = 2.0, value_parser = stride)]
    stride: f64,
    /// How closely the peak is known at the end.
    #[arg(long, default_value_t = 0.03)]
    precision: f64,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    prepare: PrepareArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct SweepArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// The rates, with commas between (1k,5k,20k).
    #[arg(short, long, value_delimiter = ',', value_parser = number, required = true)]
    rates: Vec<f64>,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    prepare: PrepareArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct FillArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct ReplayArgs {
    /// The trace: plain, .gz or .zst.
    trace: PathBuf,
    /// Its format, if it cannot be told from the first line.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Times faster than recorded (0.5, 1, 10), or max for as fast as replies make room.
    #[arg(long, default_value = "1", value_parser = speed)]
    speed: Speed,
    /// With --speed max: requests that wait on each socket or connection.
    #[arg(long, default_value_t = 4)]
    window: usize,
    /// End after so many requests.
    #[arg(short = 'n', long, value_parser = count)]
    requests: Option<u64>,
    /// Pass over so many unreadable lines.
    #[arg(long, default_value_t = 0)]
    skip_bad: u64,
    /// Interval of the timeline.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct GenArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    /// The file; compressed if its name ends in .gz or .zst.
    #[arg(short, long)]
    output: PathBuf,
    /// How many requests.
    #[arg(short = 'n', long, default_value = "100k", value_parser = count)]
    requests: u64,
    /// Requests a second.
    #[arg(short, long, default_value = "1000", value_parser = number)]
    rate: f64,
    /// Seed of the operations and their times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    arrival: ArrivalArgs,
}

#[derive(Args)]
struct EchoArgs {
    /// Where to listen, TCP and UDP.
    #[arg(short, long, default_value = "127.0.0.1:11211")]
    listen: SocketAddr,
    /// Threads that answer UDP.
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Answer the keys of this workload; without one, every key.
    #[arg(long)]
    workload: Option<String>,
    /// Number of keys, instead of the workload's.
    #[arg(long, requires = "workload", value_parser = count)]
    keys: Option<u64>,
    /// Without a workload: length of the values.
    #[arg(long, default_value_t = 20)]
    value_size: usize,
    /// Take and send datagrams of one length as one, for a generator with --gso.
    #[arg(long)]
    gso: bool,
    /// Keep what is stored, slowly, instead of deriving values.
    #[arg(long, conflicts_with = "workload")]
    keep: bool,
    /// Stop after this time.
    #[arg(short, long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Args)]
struct PlotArgs {
    /// Reports, with a label in front if wanted (hippos=a.json).
    #[arg(required = true)]
    reports: Vec<String>,
    /// Write the plots into this folder.
    #[arg(short, long, default_value = ".")]
    output: PathBuf,
}

/// A number with k, M or G behind.
fn number(text: &str) -> Result<f64, String> {
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

/// A factor above 1.
fn stride(text: &str) -> Result<f64, String> {
    match number(text)? {
        x if x > 1.0 => Ok(x),
        _ => Err(format!("{text:?} is not above 1")),
    }
}

/// A whole number, at least 1, with k, M or G behind.
fn count(text: &str) -> Result<u64, String> {
    match number(text)? {
        x if x >= 1.0 && x.fract() == 0.0 => Ok(x as u64),
        _ => Err(format!("{text:?} is no whole number")),
    }
}

#[derive(Clone, Copy)]
enum Speed {
    Times(f64),
    Max,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    number(text.trim_end_matches('x')).map(Speed::Times)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Peak(args) => peak(&args),
        Command::Sweep(args) => sweep(&args),
        Command::Fill(args) => fill(&args),
        Command::Replay(args) => replay(&args),
        Command::Gen(args) => gen(&args),
        Command::Echo(args) => echo(&args),
        Command::Plot(args) => plot_reports(&args),
        Command::Workloads { name } => workloads(name.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hippos-load: {e:#}");
            ExitCode::from(e.downcast_ref::<Failure>().map_or(1, Failure::status))
        }
    }
}

impl TargetArgs {
    fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            servers: settings::servers(&self.server)?,
            threads: self.threads,
            sockets: self.sockets,
            connections: self.connections,
            get: self.get,
            meta: self.meta,
            mirror: self.mirror,
            gso: self.gso,
            timeout: self.timeout.as_nanos() as u64,
            udp_max: self.udp_max,
            fill_on_miss: self.fill_on_miss,
            seed: self.seed,
        })
    }
}

impl WorkloadArgs {
    fn model(&self) -> Result<Model> {
        model(&self.workload, self.keys)
    }
}

fn model(name: &str, keys: Option<u64>) -> Result<Model> {
    let mut workload = Workload::named(name)?;
    workload.keys.count = keys.unwrap_or(workload.keys.count);
    Model::new(&workload)
}

/// A session in the making, with its report.
struct Job<'a> {
    session: Session,
    report: Report,
    output: &'a OutputArgs,
    line: Option<Line>,
}

impl<'a> Job<'a> {
    fn start(
        command: &str,
        name: &str,
        model: &Model,
        target: &TargetArgs,
        output: &'a OutputArgs,
    ) -> Result<Self> {
        let settings = target.settings()?;
        let interrupt = Arc::new(AtomicBool::new(false));
        let flag = interrupt.clone();
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
            .context("cannot watch for Ctrl-C")?;
        let mut report = Report::new(command, name, &settings);
        let session = match Session::connect(&settings, model, interrupt) {
            Ok(session) => session,
            Err(failure) => {
                report.outcome = failure.to_string();
                keep(&report, output)?;
                return Err(failure.into());
            }
        };
        report.servers = session.servers().to_vec();
        let line = (!output.quiet).then(|| Line::new(command));
        Ok(Self {
            session,
            report,
            output,
            line,
        })
    }

    /// Fills, unless told not to: what went wrong.
    fn fill(&mut self, prepare: &PrepareArgs) -> Option<Failure> {
        if prepare.no_fill || self.report.settings.mirror {
            return None;
        }
        let title =
            |line: &Option<Line>, title: &str| line.iter().for_each(|line| line.title(title));
        title(&self.line, "fill");
        let (run, failure) = self.session.fill(&mut self.line);
        title(&self.line, &self.report.command);
        self.report.fill = Some(run);
        failure
    }

    /// Ends the job: table, JSON, plots, and the failure if there was one.
    fn end(mut self, failure: Option<Failure>) -> Result<()> {
        self.line = None;
        if let Some(failure) = &failure {
            self.report.outcome = failure.to_string();
        }
        keep(&self.report, self.output)?;
        if !self.output.quiet {
            print!("{}", self.report.table());
        }
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
}

/// Writes the report and its plots where they are wanted.
fn keep(report: &Report, output: &OutputArgs) -> Result<()> {
    if let Some(path) = &output.json {
        report.write(path)?;
    }
    if let (Some(dir), false) = (&output.svg, report.runs.is_empty()) {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if report.runs.len() == 1 {
            plot::timeline(&report.runs[0], &dir.join("timeline.svg"))?;
        } else {
            plot::latency(
                &[(report.workload.clone(), report.clone())],
                &dir.join("latency.svg"),
            )?;
        }
    }
    Ok(())
}

fn run(args: &RunArgs) -> Result<()> {
    let model = args.workload.model()?;
    let load = Load {
        pace: if args.closed {
            Pace::Closed {
                window: args.window,
            }
        } else {
            Pace::Open {
                rate: args.rate,
                arrival: args.arrival.arrival()?,
            }
        },
        warmup: args
            .warmup
            .unwrap_or(Duration::from_secs(args.requests.is_none().into())),
        duration: args.requests.is_none().then_some(args.duration),
        requests: args.requests,
        interval: args.interval,
    };
    let mut job = Job::start(
        "run",
        &model.workload.name,
        &model,
        &args.target,
        &args.output,
    )?;
    if let Some(failure) = job.fill(&args.prepare) {
        return job.end(Some(failure));
    }
    let (run, failure) = job.session.run(&load, args.target.seed, &mut job.line);
    job.report.runs.push(run);
    job.end(failure)
}

impl StepArgs {
    fn search(&self) -> Result<Search> {
        Ok(Search {
            bound: Duration::from_millis(1),
            loss: 0.001,
            start: 1000.0,
            max: 1e7,
            stride: 2.0,
            precision: 0.03,
            arrival: self.arrival.arrival()?,
            warmup: self.warmup,
            step: self.step,
        })
    }
}

fn peak(args: &PeakArgs) -> Result<()> {
    let model = args.workload.model()?;
    let search = Search {
        bound: args.bound,
        loss: args.loss,
        start: args.start,
        max: args.max,
        stride: args.stride,
        precision: args.precision,
        ..args.step.search()?
    };
    let mut job = Job::start(
        "peak",
        &model.workload.name,
        &model,
        &args.target,
        &args.output,
    )?;
    if let Some(failure) = job.fill(&args.prepare) {
        return job.end(Some(failure));
    }
    let (runs, peak, failure) =
        search::peak(&mut job.session, &search, args.target.seed, &mut job.line);
    job.report.runs = runs;
    job.report.peak = Some(peak);
    job.end(failure)
}

fn sweep(args: &SweepArgs) -> Result<()> {
    let model = args.workload.model()?;
    let search = args.step.search()?;
    let mut job = Job::start(
        "sweep",
        &model.workload.name,
        &model,
        &args.target,
        &args.output,
    )?;
    if let Some(failure) = job.fill(&args.prepare) {
        return job.end(Some(failure));
    }
    let (runs, failure) = search::sweep(
        &mut job.session,
        &search,
        &args.rates,
        args.target.seed,
        &mut job.line,
    );
    job.report.runs = runs;
    job.end(failure)
}

fn fill(args: &FillArgs) -> Result<()> {
    let model = args.workload.model()?;
    let mut job = Job::start(
        "fill",
        &model.workload.name,
        &model,
        &args.target,
        &args.output,
    )?;
    let (run, failure) = job.session.fill(&mut job.line);
    job.report.runs.push(run);
    job.end(failure)
}

fn replay(args: &ReplayArgs) -> Result<()> {
    let name = args
        .trace
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    // A trace's keys have no numbers: any model does.
    let model = model("micro", Some(1))?;
    let how = replay::Replay {
        pace: match args.speed {
            Speed::Times(speed) => Pace::Recorded { speed },
            Speed::Max => Pace::Closed {
                window: args.window,
            },
        },
        requests: args.requests,
        skip_bad: args.skip_bad,
        interval: args.interval,
    };
    let mut job = Job::start("replay", &name, &model, &args.target, &args.output)?;
    job.line = None;
    let show = !args.output.quiet;
    let (run, skipped, failure) =
        replay::replay(&mut job.session, &args.trace, args.format, &how, show)?;
    job.report.runs.push(run);
    if skipped > 0 {
        eprintln!(
            "hippos-load: {skipped} unreadable lines of {} passed over",
            args.trace.display()
        );
    }
    job.end(failure)
}

fn gen(args: &GenArgs) -> Result<()> {
    let model = args.workload.model()?;
    let requests = args.requests;
    let bar = indicatif::ProgressBar::new(requests);
    let arrival = args.arrival.arrival()?;
    generate::generate(
        &model,
        arrival,
        args.rate,
        requests,
        args.seed,
        &args.output,
        |n| bar.set_position(n),
    )?;
    bar.finish_and_clear();
    Ok(())
}

fn echo(args: &EchoArgs) -> Result<()> {
    let contents = match &args.workload {
        Some(name) => Contents::Model(Box::new(model(name, args.keys)?)),
        None if args.keep => Contents::Kept(std::sync::Mutex::default()),
        None => Contents::Any(args.value_size),
    };
    let (sender, stop) = std::sync::mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more when the server has stopped already.
        let _ = sender.send(());
    })?;
    let server = Echo::start(
        args.listen,
        args.threads,
        args.gso,
        contents,
        Faults::default(),
    )?;
    println!("listening on {}", server.address());
    match args.duration {
        Some(duration) => drop(stop.recv_timeout(duration)),
        None => drop(stop.recv()),
    }
    println!("answered {}", server.answered());
    Ok(())
}

fn plot_reports(args: &PlotArgs) -> Result<()> {
    let mut reports = Vec::new();
    for text in &args.reports {
        let (label, path) = match text.split_once('=') {
            Some((label, path)) => (label.to_string(), Path::new(path)),
            None => (
                Path::new(text)
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                Path::new(text),
            ),
        };
        reports.push((label, Report::read(path)?));
    }
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make {}", args.output.display()))?;
    let curves: Vec<_> = reports
        .iter()
        .filter(|(_, report)| report.runs.len() > 1)
        .cloned()
        .collect();
    if !curves.is_empty() {
        plot::latency(&curves, &args.output.join("latency.svg"))?;
    }
    plot::throughput(&reports, &args.output.join("throughput.svg"))
}

fn workloads(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        for (name, _) in BUILT_IN {
            let workload = Workload::named(name)?;
            println!("{name:6} {}", workload.about);
            let variants: Vec<&str> = workload.variants.keys().map(String::as_str).collect();
            if !variants.is_empty() {
                println!("       variants: {}", variants.join(", "));
            }
        }
        return Ok(());
    };
    print!("{}", Model::new(&Workload::named(name)?)?.describe());
    Ok(())
}
