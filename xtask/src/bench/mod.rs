// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask bench`: Hippos beside memcached and beside a packet mirror.
//!
//! Each server runs in a guest of its own, booted anew for each round, under
//! the same load. Two kinds of figures: instructions that the guest executes
//! for a request, which repeat, and wall-clock rates and latencies, which under
//! emulation are meaningful only as ratios within one run.

mod fleet;
mod guest;
mod load;
mod meter;
mod mirror;
mod overload;
mod report;
mod server;
mod tools;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use self::guest::Guest;
use self::load::{Load, Workload, WORKLOADS};
use self::meter::{Meter, Symbols};
use self::report::{Figures, Metric};
use self::server::{Server, Wire};
use self::tools::Tools;
use crate::root::Root;
use crate::target::Selection;
use crate::vm::INTERRUPTED;
use crate::{root, shell, vm, workspace};

/// Measure Hippos beside Debian's memcached and a packet mirror, or the store alone.
///
/// Boots one guest for each server and round, puts the same load on each, and
/// prints instructions per request, peak throughput, latency and CPU time with
/// the spread over the rounds. The report lies in target/bench: report.json,
/// report.md and plots. `bench store` runs the store's own benchmarks on this
/// machine instead. `bench fleet` compares the fleet's proxy with clients that
/// hash and with other proxies, on this machine, in ten minutes at most (two
/// with --quick); its report lies in target/bench/fleet.
///
///   cargo xtask bench --quick
///   cargo xtask bench --only instructions --workload get-hit --server hippos,mirror
///   cargo xtask bench --profile get-hit --server hippos
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchArgs {
    /// The kind of measurement
    #[arg(value_enum, default_value = "servers")]
    subject: Subject,
    /// Few workloads, one boot, short steps: under five minutes
    #[arg(long)]
    quick: bool,
    /// Boots of each server [default: 3, or 1 with --quick]; repetitions of `fleet` [default: 5, or 2 with --quick]
    #[arg(long)]
    boots: Option<u32>,
    /// Processors of each guest
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    server: Vec<Server>,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    workload: Vec<String>,
    /// Only this kind of figures
    #[arg(long, value_enum)]
    only: Option<Measurand>,
    /// Instead of figures, print where a workload's instructions go, by the kernel's symbols
    #[arg(long, value_name = "WORKLOAD")]
    profile: Option<String>,
    /// Instead of figures, offer twice the peak, with SETs over TCP beside it
    #[arg(long, conflicts_with = "profile")]
    overload: bool,
    /// Print the report of `fleet` as JSON
    #[arg(long)]
    json: bool,
    /// nutcracker's program for `fleet` [default: the one on the PATH, or in the stock clients' root if that was made]
    #[arg(long, value_name = "PROGRAM")]
    nutcracker: Option<PathBuf>,
    /// How guests are joined to this machine
    #[arg(long, value_enum, default_value = "auto")]
    wire: Wire,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Hippos, memcached and the mirror in guests
    Servers,
    /// The store alone, beside other caches' data structures
    Store,
    /// The fleet's proxy, beside clients that hash and other proxies
    Fleet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measurand {
    /// Instructions per request
    Instructions,
    /// Peak throughput, latency and CPU time
    Wallclock,
}

/// How much is measured.
struct Plan {
    boots: u32,
    vcpus: u32,
    servers: Vec<Server>,
    workloads: Vec<&'static Workload>,
    keys: u64,
    /// Measured under the instruction counter.
    requests: u64,
    /// Each step of a search for the peak.
    step: Duration,
    /// For reports.
    dir: PathBuf,
}

/// How long the guest may take to list its symbols: it is slow when they are counted.
const SYMBOLS_LIMIT: Duration = Duration::from_secs(600);

/// Facebook's pools.
const POOLS: [&str; 5] = ["usr", "app", "etc", "var", "sys"];

/// The workloads of `--quick`.
const QUICK: &[&str] = &["get-hit", "get-miss", "set", "usr", "etc"];

/// Measures and reports; gives our exit status.
pub(crate) fn bench(args: &BenchArgs, selection: &Selection) -> Result<u8> {
    if args.subject == Subject::Store {
        return store(args);
    }
    // A signal ends it between two measurements, so that guests and taps go too.
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    if args.subject == Subject::Fleet {
        let root = root::ready(selection)?;
        let extent = fleet::Extent::new(args.quick, args.boots);
        fleet::measure(&root, extent, args.nutcracker.as_deref(), args.json)?;
        return Ok(0);
    }
    let plan = plan(args)?;
    ensure!(
        selection.arch().is_native(),
        "the bench counts instructions of amd64 alone"
    );
    let root = root::ready(selection)?;
    let tools = Tools::build(&root, args.wire, load::Build::Release, &plan.servers)?;
    let meter = vm::Meter {
        library: meter::library()?,
        profile: args.profile.is_some(),
    };
    println!(
        "wire: {}",
        if tools.tap {
            "tap"
        } else {
            "QEMU's own network"
        }
    );
    fs::create_dir_all(&plan.dir)?;
    if args.profile.is_some() {
        for server in &plan.servers {
            profile(&tools, &meter, &plan, *server)?;
        }
        return Ok(0);
    }
    if args.overload {
        for server in &plan.servers {
            overload::measure(&tools, &meter, &plan, *server)?;
        }
        return Ok(0);
    }
    let mut figures = Figures::default();
    let start = Instant::now();
    let head = head(args, &tools)?;
    for boot in 1..=plan.boots {
        for &server in &plan.servers {
            eprintln!(
                "hippos: boot {boot} of {}, {} ({:.0} s so far)",
                plan.boots,
                server.name(),
                start.elapsed().as_secs_f32()
            );
            if args.only != Some(Measurand::Wallclock) && server.counted(plan.vcpus) {
                instructions(&tools, &meter, &plan, server, &mut figures)?;
            }
            if args.only != Some(Measurand::Instructions) && server.clocked() {
                wallclock(&tools, &plan, server, &mut figures)?;
            }
            // The figures measured so far are kept, even if a later step fails.
            figures.write(&plan.dir, &head)?;
        }
    }
    println!("{head}\n\n{}", figures.markdown());
    println!("report: {}", plan.dir.join("report.md").display());
    Ok(0)
}

fn plan(args: &BenchArgs) -> Result<Plan> {
    let wanted: Vec<&str> = match &args.profile {
        Some(name) => vec![name],
        None if !args.workload.is_empty() => args.workload.iter().map(String::as_str).collect(),
        None if args.quick => QUICK.to_vec(),
        None => WORKLOADS.iter().map(|workload| workload.name).collect(),
    };
    let workloads = wanted
        .into_iter()
        .map(|name| {
            let known = || WORKLOADS.iter().map(|w| w.name).collect::<Vec<_>>();
            WORKLOADS
                .iter()
                .find(|workload| workload.name == name)
                .with_context(|| format!("no workload {name}: there are {}", known().join(", ")))
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(args.vcpus > 0, "a guest has at least one processor");
    let servers = if args.server.is_empty() {
        Server::ALL
            .into_iter()
            .filter(|server| !args.quick || server.quick())
            .filter(|server| args.wire != Wire::User || !server.native())
            .collect()
    } else {
        args.server.clone()
    };
    Ok(Plan {
        vcpus: args.vcpus,
        dir: workspace::root().join("target/bench"),
        boots: args.boots.unwrap_or(if args.quick { 1 } else { 3 }),
        servers,
        workloads,
        keys: 2_000,
        requests: 10_000,
        step: Duration::from_millis(if args.quick { 400 } else { 500 }),
    })
}

fn load<'a>(tools: &'a Tools, plan: &'a Plan, guest: &Guest, server: Server) -> Load<'a> {
    Load {
        program: &tools.load,
        server,
        address: guest.server(),
        keys: plan.keys,
        dir: &plan.dir,
    }
}

/// The workloads that are meaningful for `server`.
fn answerable<'a>(plan: &'a Plan, server: Server) -> impl Iterator<Item = &'static Workload> + 'a {
    let all = plan.workloads.iter().copied();
    // A workload without replies to datagrams does not show the cost of newly allocated ones.
    let datagrams = server.mirrors() || server == Server::HipposFresh;
    all.filter(move |workload| !datagrams || workload.mirrored)
}

fn instructions(
    tools: &Tools,
    meter: &vm::Meter,
    plan: &Plan,
    server: Server,
    figures: &mut Figures,
) -> Result<()> {
    let guest = Guest::boot(tools, server, plan.vcpus, Some(meter))?;
    let mut meter = Meter::connect(&guest.meter())?;
    meter.settle()?;
    let load = load(tools, plan, &guest, server);
    for workload in answerable(plan, server) {
        let requests = plan.requests / workload.weight;
        load.prepare(workload)?;
        let before = meter.count()?;
        let run = load.closed(workload, requests)?;
        let spent = meter.count()? - before;
        let each = spent as f64 / run.answered as f64;
        eprintln!(
            "hippos:   {}: {each:.0} instructions a request",
            workload.name
        );
        figures.add(server.name(), workload.name, Metric::Instructions, each);
    }
    guest.off()
}

fn wallclock(tools: &Tools, plan: &Plan, server: Server, figures: &mut Figures) -> Result<()> {
    let guest = Guest::boot(tools, server, plan.vcpus, None)?;
    let load = load(tools, plan, &guest, server);
    for workload in answerable(plan, server).filter(|workload| workload.clocked) {
        let busy = load.prepare(workload)?;
        let Some(peak) = load.peak(workload, 0.8 * busy.per_second, plan.step)? else {
            eprintln!(
                "hippos:   {}: no rate keeps under 1 ms; is this machine busy with other work?",
                workload.name
            );
            continue;
        };
        eprintln!(
            "hippos:   {}: {peak:.0} requests a second at most",
            workload.name
        );
        figures.add(server.name(), workload.name, Metric::Peak, peak);
        let over = load.open(workload, 2.0 * peak, plan.step * 2)?;
        figures.add(
            server.name(),
            workload.name,
            Metric::Overload,
            over.per_second,
        );
        let reference = Server::Memcached.name();
        let Some(reference) = figures.median(reference, workload.name, Metric::Peak) else {
            continue;
        };
        for (share, metric) in [
            (0.25, Metric::Latency25),
            (0.5, Metric::Latency50),
            (0.75, Metric::Latency75),
        ] {
            let cpu = cpu_seconds(guest.vm.pid())?;
            let run = load.open(workload, reference * share, plan.step * 2)?;
            let cpu = cpu_seconds(guest.vm.pid())? - cpu;
            figures.add(server.name(), workload.name, metric, run.mean_us);
            if share == 0.5 {
                // The warm-up is not in the count of answers, but in the CPU's time.
                let measured = run.answered as f64 + load::WARMUP.as_secs_f64() * run.per_second;
                let each = cpu / measured * 1e6;
                figures.add(server.name(), workload.name, Metric::Cpu, each);
            }
        }
    }
    guest.off()
}

/// Replays the sample of each pool, and one in each trace format, against Hippos and memcached in guests of their own,
/// with each reply checked and the hits of an infinite cache, and a datagram against the mirror: a test of the bench
/// itself.
pub(crate) fn replay_pools(root: &Root) -> Result<()> {
    let samples = workspace::root().join("traces/samples");
    let formats = fs::read_dir(samples.join("formats"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    let servers = [
        Server::Memcached,
        Server::Hippos,
        Server::Mirror,
        Server::HipposXdp,
        Server::MirrorXdp,
    ];
    let tools = Tools::build(root, Wire::Auto, load::Build::Debug, &servers)?;
    for server in servers {
        if server.native() && !tools.tap {
            println!("skipped: {}, which asks for a tap", server.name());
            continue;
        }
        // Several processors with a queue each, and queues for XDP besides.
        let vcpus = if server.native() { 2 } else { 1 };
        let mut guest = Guest::boot(&tools, server, vcpus, None)?;
        if !server.mirrors() {
            let pools = POOLS
                .iter()
                .map(|pool| samples.join(format!("{pool}.csv.zst")));
            for sample in pools.chain(formats.iter().cloned()) {
                load::replay(&tools.load, &sample, &guest.server())
                    .with_context(|| format!("{}, {}", server.name(), sample.display()))?;
            }
        }
        if server == Server::HipposXdp {
            let stats = guest.vm.ask("exec hippos-ctl stats")?;
            ensure!(
                served_by_xdp(&stats) > 0,
                "the card's driver answered nothing: {stats:?}"
            );
        }
        guest.off()?;
    }
    Ok(())
}

fn served_by_xdp(stats: &[String]) -> u64 {
    stat(stats, "hippos_xdp_served")
}

/// A number among the lines of `hippos-ctl stats`; 0 if it is not there.
fn stat(stats: &[String], name: &str) -> u64 {
    let number = |line: &String| {
        let rest = line.trim().strip_prefix(name)?;
        rest.starts_with(char::is_whitespace)
            .then(|| rest.trim().parse().ok())?
    };
    stats.iter().find_map(number).unwrap_or(0)
}

/// CPU time of a process so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; user and system time are the 14th and 15th.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    let (Some(user), Some(system)) = (next(), next()) else {
        bail!("/proc/{pid}/stat is odd: {stat}");
    };
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok((user + system) / ticks as f64)
}

fn profile(tools: &Tools, meter: &vm::Meter, plan: &Plan, server: Server) -> Result<()> {
    let mut guest = Guest::boot(tools, server, plan.vcpus, Some(meter))?;
    let names = guest
        .vm
        .ask_within("exec cat /proc/kallsyms", SYMBOLS_LIMIT)?;
    let symbols = Symbols::parse(names.iter().map(String::as_str));
    let mut meter = Meter::connect(&guest.meter())?;
    meter.settle()?;
    let load = load(tools, plan, &guest, server);
    for workload in answerable(plan, server) {
        load.prepare(workload)?;
        let before = meter.blocks()?;
        let run = load.closed(workload, plan.requests)?;
        let after = meter.blocks()?;
        let rows = symbols.profile(&before, &after);
        let total: u64 = rows.iter().map(|(_, count)| count).sum();
        println!(
            "{}, {}: {:.0} instructions a request\n",
            server.name(),
            workload.name,
            total as f64 / run.answered as f64
        );
        for (name, count) in rows.iter().take(400) {
            println!("{:8.1}  {name}", *count as f64 / run.answered as f64);
        }
        let mut whole = String::new();
        for (name, count) in &rows {
            let each = *count as f64 / run.answered as f64;
            writeln!(whole, "{each:8.1}  {name}")?;
        }
        for (name, offset, count) in symbols.places(&before, &after) {
            let each = count as f64 / run.answered as f64;
            writeln!(whole, "{each:8.2}  {name}+{offset:#x}")?;
        }
        let file = plan
            .dir
            .join(format!("profile-{}-{}.txt", server.name(), workload.name));
        fs::write(&file, whole)?;
        println!("\nall of it, by block too: {}\n", file.display());
    }
    guest.off()
}

/// The environment of the measurements: versions, options, machine.
fn head(args: &BenchArgs, tools: &Tools) -> Result<String> {
    let root = tools.root;
    let memcached = shell::output(root.command("/usr/bin/memcached").arg("--version"))?;
    let qemu = shell::output(root.command("/usr/bin/qemu-system-x86_64").arg("--version"))?;
    Ok(format!(
        "{}; {}; kernel {}; {}; guest with {} vCPU; wire: {}",
        origin()?,
        qemu.lines().next().unwrap_or_default(),
        root.kernel().release,
        memcached.trim(),
        args.vcpus,
        if tools.tap {
            "tap"
        } else {
            "QEMU's own network"
        }
    ))
}

/// The command, its date, the commit and this machine.
fn origin() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        shell::output(command.args(arguments).current_dir(workspace::root()))
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| "unknown".into())
    };
    let dirty = if git(&["status", "--porcelain"]).is_empty() {
        ""
    } else {
        " with changes"
    };
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let date = shell::output(Command::new("date").arg("+%Y-%m-%d"))?;
    let command: Vec<String> = std::env::args().skip(1).collect();
    Ok(format!(
        "`cargo xtask {}`, {}, commit {}{dirty}; host {processor}, {} processors",
        command.join(" "),
        date.trim(),
        git(&["rev-parse", "--short", "HEAD"]),
        std::thread::available_parallelism().map_or(1, usize::from),
    ))
}

/// The store's own benchmarks, by criterion.
fn store(args: &BenchArgs) -> Result<u8> {
    let mut bench = Command::new(workspace::cargo());
    bench
        .args([
            "bench",
            "--locked",
            "--package",
            "hippos_store",
            "--bench",
            "peers",
        ])
        .current_dir(workspace::root());
    if args.quick {
        bench.args(["--", "--quick"]);
    }
    shell::run(&mut bench)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_cpu_time_grows() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let start = Instant::now();
        // Ticks are 10 ms; a busy loop sees one.
        while cpu_seconds(std::process::id()).unwrap() == before {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "no tick in a minute"
            );
        }
    }
}
