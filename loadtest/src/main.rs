// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-load`: generates load for a memcached server, verifies every reply, and reports. See README.md beside it.
//!
//! Exit status: 0 complete; 1 bad input; 2 bad usage; 3 wrong replies; 4 server unreachable, closed or silent; 130
//! interrupted. The report of the work done so far is written in each case.

mod cli;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use hippos_load::echo::{Contents, Echo, Faults};
use hippos_load::merge;
use hippos_load::report::{Pace, Report};
use hippos_load::search::{self, Search};
use hippos_load::session::Load;
use hippos_load::settings::Failure;
use hippos_load::stat;
use hippos_load::trace::Reader;
use hippos_load::workload::{Model, Workload, BUILT_IN};
use hippos_load::{generate, html, output, plot, replay};

use cli::args::*;
use cli::job::{self, Job};

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
    /// Describe a trace: requests, keys, sizes, popularity. Needs no server.
    Stat(StatArgs),
    /// Merge the reports of several generators that ran together (--part).
    Merge(MergeArgs),
    /// Write a trace from a workload.
    Gen(GenArgs),
    /// Answer correctly without a store, to measure the load generator itself.
    Echo(EchoArgs),
    /// Plot reports: latency against load, throughput side by side.
    Plot(PlotArgs),
    /// List the built-in workloads, or show the contents of one.
    Workloads {
        /// Show this one.
        name: Option<String>,
    },
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page of all commands, or of one.
    Man {
        /// Of this command.
        command: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Peak(args) => peak(&args),
        Command::Sweep(args) => sweep(&args),
        Command::Fill(args) => fill(&args),
        Command::Replay(args) => replay(&args),
        Command::Stat(args) => stat_trace(&args),
        Command::Merge(args) => merge_reports(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hippos-load", &mut text);
            output::print(&String::from_utf8_lossy(&text))
        }
        Command::Man { command } => man(command.as_deref()),
        Command::Gen(args) => gen(&args),
        Command::Echo(args) => echo(&args),
        Command::Plot(args) => plot_reports(&args),
        Command::Workloads { name } => workloads(name.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            output::tell(&format!("hippos-load: {e:#}\n"));
            ExitCode::from(e.downcast_ref::<Failure>().map_or(1, Failure::status))
        }
    }
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
    let length = load.duration.map(|duration| load.warmup + duration);
    if let Some(failure) = job.fill(&args.prepare, length) {
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
    if let Some(failure) = job.fill(&args.prepare, None) {
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
    if let Some(failure) = job.fill(&args.prepare, None) {
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
    let names: Vec<String> = args
        .trace
        .trace
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    // The keys of a trace have no numbers, so any model will do.
    let model = model("micro", Some(1))?;
    let how = replay::Replay {
        paths: args.trace.trace.clone(),
        options: args.trace.options(),
        load: Load {
            pace: match (args.rate, args.speed) {
                (Some(rate), _) => Pace::Open {
                    rate,
                    arrival: args.arrival.arrival()?,
                },
                (None, Speed::Times(speed)) => Pace::Recorded { speed },
                (None, Speed::Max) => Pace::Closed {
                    window: args.window,
                },
            },
            warmup: args.warmup,
            duration: args.duration,
            requests: args.requests,
            interval: args.interval,
        },
        skip_bad: args.trace.skip_bad,
        again: args.again,
    };
    let mut job = Job::start(
        "replay",
        &names.join(" "),
        &model,
        &args.target,
        &args.output,
    )?;
    job.line = None;
    let show = !args.output.quiet;
    let (run, trace, failure) = replay::replay(&mut job.session, &how, show)?;
    let nothing = trace.requests == 0 && failure.is_none();
    let failure = match nothing {
        true => Some(Failure::Input("the trace holds no request".into())),
        false => failure,
    };
    job.report.runs.push(run);
    tell(trace.skipped, trace.skipped_why.first(), trace.truncated);
    job.report.trace = Some(trace);
    job.end(failure)
}

/// Prints the number of skipped lines in a trace.
fn tell(skipped: u64, why: Option<&String>, truncated: bool) {
    if skipped > 0 {
        let why = why.map_or(String::new(), |why| format!("; the first: {why}"));
        output::tell(&format!(
            "hippos-load: {skipped} unreadable lines passed over{why}\n"
        ));
    }
    if truncated {
        output::tell("hippos-load: the last line is incomplete, and was passed over\n");
    }
}

fn stat_trace(args: &StatArgs) -> Result<()> {
    let mut reader = Reader::open(&args.trace.trace, &args.trace.options())?;
    let stat = stat::stat(
        &mut reader,
        args.requests.unwrap_or(u64::MAX),
        args.trace.skip_bad,
    )?;
    ensure!(stat.requests > 0, "the trace holds no request");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&stat)? + "\n";
        output::write(path, text.as_bytes())?;
        if output::standard(path) {
            return Ok(());
        }
    }
    output::print(&stat.text())
}

fn merge_reports(args: &MergeArgs) -> Result<()> {
    job::check(&args.output)?;
    let reports = args
        .reports
        .iter()
        .map(|path| Report::read(path))
        .collect::<Result<Vec<_>>>()?;
    let report = merge::merge(&reports)?;
    job::keep(&report, &args.output)?;
    job::show(&report, &args.output)
}

fn man(command: Option<&str>) -> Result<()> {
    let mut all = Cli::command().name("hippos-load");
    all.build();
    let page = match command {
        None => all,
        Some(name) => all
            .find_subcommand(name)
            .with_context(|| format!("there is no command {name}"))?
            .clone(),
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    output::print(&String::from_utf8_lossy(&text))
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
        // The receiver is gone if the server has stopped already.
        let _ = sender.send(());
    })?;
    let server = Echo::start(
        args.listen,
        args.threads,
        args.gso,
        contents,
        Faults::default(),
    )?;
    output::print(&format!("listening on {}\n", server.address()))?;
    match args.duration {
        Some(duration) => drop(stop.recv_timeout(duration)),
        None => drop(stop.recv()),
    }
    output::print(&format!("answered {}\n", server.answered()))
}

fn plot_reports(args: &PlotArgs) -> Result<()> {
    let mut reports = Vec::new();
    for text in &args.reports {
        let (label, path) = match text.split_once('=') {
            Some((label, path)) => (label.to_string(), Path::new(path)),
            None => (
                PathBuf::from(text)
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                Path::new(text),
            ),
        };
        reports.push((label, Report::read(path)?));
    }
    if let Some(path) = &args.html {
        return output::write(path, html::page(&reports)?.as_bytes());
    }
    plot::save(&plot::all(&reports)?, &args.output, args.force)
}

fn workloads(name: Option<&str>) -> Result<()> {
    let Some(name) = name else {
        let mut text = String::new();
        for (name, _) in BUILT_IN {
            let workload = Workload::named(name)?;
            text += &format!("{name:6} {}\n", workload.about);
            let variants: Vec<&str> = workload.variants.keys().map(String::as_str).collect();
            if !variants.is_empty() {
                text += &format!("       variants: {}\n", variants.join(", "));
            }
        }
        return output::print(&text);
    };
    output::print(&Model::new(&Workload::named(name)?)?.describe())
}
