// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask bench fleet`: `hippos-proxy` beside clients that hash, beside forwarders and beside other proxies.
//!
//! Everything runs on this machine, on two of its processors: three nodes of each kind, all proxies, and the load
//! generator, which measures one system at a time. Each repetition measures all systems in turn, so that ratios are of
//! runs that were minutes apart at most.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::report::{table, Spread};
use crate::root::Root;
use crate::vm::INTERRUPTED;
use crate::{clients, shell, workspace};

const NODES: usize = 3;
/// Requests in flight in a closed loop: of one client, or one of each client.
const IN_FLIGHT: usize = 63;
/// The processors that everything shares.
const PROCESSORS: usize = 2;

/// The options of our proxy that are compared.
const PROXIES: [(&str, &str); 8] = [
    ("P0: no batches", "batch = false\n"),
    ("P, W = 0", "window_us = 0\n"),
    (DEFAULT, "window_us = 1\nfixed_window = true\n"),
    ("P, W = 10 us", "window_us = 10\nfixed_window = true\n"),
    ("P, W = 20 us", "window_us = 20\nfixed_window = true\n"),
    ("P, W = 30 us", "window_us = 30\nfixed_window = true\n"),
    ("P, adaptive", "window_us = 30\nfixed_window = false\n"),
    (TWO_WORKERS, "threads = 2\n"),
];
const DEFAULT: &str = "P, W = 1 us";
const TWO_WORKERS: &str = "P, W = 1 us, two workers";
const HASHING: &str = "T: clients hash";
const FORWARDERS: &str = "R: forwarders";
const MEMCACHED_HASHING: &str = "T, memcached";
const MEMCACHED_OURS: &str = "P, memcached";
const MEMCACHED_PROXY: &str = "memcached's proxy";
const NUTCRACKER: &str = "nutcracker";

/// The systems of docs/fleet.md.
const IN_SUMMARY: [&str; 9] = [
    HASHING,
    FORWARDERS,
    PROXIES[0].0,
    PROXIES[1].0,
    DEFAULT,
    TWO_WORKERS,
    MEMCACHED_OURS,
    MEMCACHED_PROXY,
    NUTCRACKER,
];

/// A load: its name, and the load generator's arguments.
struct FleetLoad {
    name: &'static str,
    arguments: &'static [&'static str],
    quick: bool,
}

const LOADS: [FleetLoad; 10] = [
    FleetLoad::new("SET 20 B, many", &["--kind", "set"], true),
    FleetLoad::new("GET 20 B, many", &["--kind", "get"], true),
    FleetLoad::new(
        "GET 100 B, many",
        &["--kind", "get", "--value", "100"],
        false,
    ),
    FleetLoad::new(
        "GET 1 KB, many",
        &["--kind", "get", "--value", "1024"],
        false,
    ),
    FleetLoad::new("ETC, many", &["--kind", "etc"], false),
    FleetLoad::new("SET 20 B, one", &["--kind", "set"], false),
    FleetLoad::new("GET 20 B, one", &["--kind", "get"], true),
    FleetLoad::new(
        "GET 100 B, one",
        &["--kind", "get", "--value", "100"],
        false,
    ),
    FleetLoad::new(
        "GET 1 KB, one",
        &["--kind", "get", "--value", "1024"],
        false,
    ),
    FleetLoad::new("ETC, one", &["--kind", "etc"], false),
];

impl FleetLoad {
    const fn new(name: &'static str, arguments: &'static [&'static str], quick: bool) -> Self {
        FleetLoad {
            name,
            arguments,
            quick,
        }
    }

    /// The load generator's arguments for a closed loop.
    fn clients(&self) -> [String; 4] {
        let (clients, depth) = match self.name.ends_with("one") {
            true => (1, IN_FLIGHT),
            false => (IN_FLIGHT, 1),
        };
        [
            "--clients".into(),
            clients.to_string(),
            "--depth".into(),
            depth.to_string(),
        ]
    }
}

/// The figures of a system under a load, each with its title.
const METRICS: [(&str, &str); 9] = [
    ("rate", "Requests a CPU second of nodes and proxies"),
    ("nodes", "CPU of the nodes, us a request"),
    ("proxies", "CPU of proxies, us a request"),
    ("client", "CPU of the clients, us a request"),
    (
        "to_r",
        "Requests a CPU second of nodes and proxies, as a multiple of R's",
    ),
    ("to_t", "CPU of nodes and proxies, as a multiple of T's"),
    ("batch", "Keys a datagram"),
    ("p50", "Median latency at half load, us"),
    ("p99", "99th percentile of latency at half load, us"),
];

/// The amount of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    quick: bool,
    requests: u64,
    repetitions: u32,
    limit: Duration,
}

impl Extent {
    pub(super) fn new(quick: bool, repetitions: Option<u32>) -> Self {
        Extent {
            quick,
            requests: if quick { 8_000 } else { 40_000 },
            repetitions: repetitions.unwrap_or(if quick { 2 } else { 5 }),
            limit: Duration::from_secs(if quick { 100 } else { 540 }),
        }
    }
}

/// A process that is killed when this is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a program, and waits until it takes connections at `address`.
    fn start(command: &mut Command, address: SocketAddr, log: &Path) -> Result<Self> {
        let log_file = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("{:?} does not start", command.get_program()))?;
        let mut running = Running { child, address };
        for _ in 0..500 {
            if running.child.try_wait()?.is_some() {
                break;
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(running);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("no server at {address}: {}", shell::tail(log, 10))
    }
}

/// A system to measure.
struct System {
    name: &'static str,
    to: Vec<SocketAddr>,
    in_turn: bool,
    nodes: Vec<u32>,
    proxies: Vec<u32>,
    /// The address of our proxy's metrics.
    http: Option<SocketAddr>,
}

/// All servers.
struct Fleet {
    dir: PathBuf,
    running: Vec<Running>,
    systems: Vec<System>,
}

/// A port that neither TCP nor UDP use.
fn free_address() -> Result<SocketAddr> {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = udp.local_addr()?;
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

impl Fleet {
    fn start(root: &Root, programs: &Path, nutcracker: Option<&Path>, dir: &Path) -> Result<Self> {
        let mut fleet = Fleet {
            dir: dir.to_owned(),
            running: Vec::new(),
            systems: Vec::new(),
        };
        let (mut engines, mut memcacheds) = (Vec::new(), Vec::new());
        let memcached = |address: SocketAddr| {
            let mut memcached = root.command("/usr/bin/memcached");
            memcached
                .args(["-l", "127.0.0.1", "-u", "root", "-t", "1", "-m", "256"])
                .args(["-U", "0", "-p", &address.port().to_string()]);
            memcached
        };
        for _ in 0..NODES {
            let address = free_address()?;
            let mut engine = Command::new(programs.join("examples/server"));
            engine
                .args(["--threads", "1", "--memory-mb", "256"])
                .args(["--port", &address.port().to_string()]);
            engines.push(fleet.run(engine, address)?);
            let address = free_address()?;
            memcacheds.push(fleet.run(memcached(address), address)?);
        }
        fleet.add(HASHING, &engines, &[], None);
        let mut forwarders = Vec::new();
        for _ in 0..NODES {
            let (forwarder, _) = fleet.proxy(programs, PROXIES[0].1, &engines, true)?;
            forwarders.push(forwarder);
        }
        fleet.add(FORWARDERS, &engines, &forwarders, None);
        for (name, options) in PROXIES {
            let (proxy, http) = fleet.proxy(programs, options, &engines, true)?;
            fleet.add(name, &engines, &[proxy], Some(http));
        }
        fleet.add(MEMCACHED_HASHING, &memcacheds, &[], None);
        let (proxy, _) = fleet.proxy(programs, "", &memcacheds, false)?;
        fleet.add(MEMCACHED_OURS, &memcacheds, &[proxy], None);
        let help = shell::output(root.command("/usr/bin/memcached").arg("-h"))?;
        if help.contains("proxy_config") {
            let file = dir.join("memcached.lua");
            let nodes = fleet.list(&memcacheds, |node| format!("\"{node}\""));
            let pools = format!("pools{{ main = {{ backends = {{ {nodes} }} }} }}\n");
            let routes = "routes{ default = route_direct{ child = \"main\" } }\n";
            fs::write(&file, pools + routes)?;
            let address = free_address()?;
            let mut proxy = memcached(address);
            let option = format!("proxy_config=routelib,proxy_arg={}", file.display());
            let proxy = fleet.run(
                {
                    proxy.args(["-o", &option]);
                    proxy
                },
                address,
            )?;
            fleet.add(MEMCACHED_PROXY, &memcacheds, &[proxy], None);
        } else {
            println!("skipped: memcached's own proxy, which this memcached is built without");
        }
        if let Some(program) = nutcracker {
            let file = dir.join("nutcracker.yml");
            // It takes lists in lines of their own only.
            let nodes = fleet.list(&memcacheds, |node| format!("\n   - {node}:1"));
            let nodes = nodes.replace(", ", "");
            let address = free_address()?;
            let pool = format!("pool:\n  listen: {address}\n  hash: md5\n  distribution: ketama\n");
            fs::write(&file, format!("{pool}  servers:{nodes}\n"))?;
            let mut proxy = Command::new(program);
            let statistics = free_address()?.port().to_string();
            proxy
                .args(["-a", "127.0.0.1", "-s", &statistics, "-c"])
                .arg(&file)
                .arg("-o")
                .arg(dir.join("nutcracker.log"));
            let proxy = fleet.run(proxy, address)?;
            fleet.add(NUTCRACKER, &memcacheds, &[proxy], None);
        } else {
            println!(
                "skipped: nutcracker, which is not on the PATH nor in the stock clients' root"
            );
        }
        Ok(fleet)
    }

    /// Starts a server. Returns its place.
    fn run(&mut self, mut command: Command, address: SocketAddr) -> Result<usize> {
        let log = self.dir.join(format!("{}.log", self.running.len()));
        self.running
            .push(Running::start(&mut command, address, &log)?);
        Ok(self.running.len() - 1)
    }

    /// Starts one of our proxies. Returns its place and the address of its metrics.
    fn proxy(
        &mut self,
        programs: &Path,
        options: &str,
        nodes: &[usize],
        udp: bool,
    ) -> Result<(usize, SocketAddr)> {
        let (listen, http) = (free_address()?, free_address()?);
        let file = self.dir.join(format!("{}.toml", self.running.len()));
        let threads = match options.starts_with("threads") {
            true => "",
            false => "threads = 1\n",
        };
        let nodes = self.list(nodes, |node| {
            format!("{{ address = \"{node}\", udp = {udp} }}")
        });
        let text = format!(
            "listen = \"{listen}\"\nhttp = \"{http}\"\n{threads}{options}[pools.default]\nnodes = [{nodes}]\n"
        );
        fs::write(&file, text)?;
        let mut proxy = Command::new(programs.join("hippos-proxy"));
        proxy.arg(&file);
        Ok((self.run(proxy, listen)?, http))
    }

    fn list(&self, nodes: &[usize], format: impl Fn(SocketAddr) -> String) -> String {
        let nodes = nodes.iter().map(|&node| format(self.running[node].address));
        nodes.collect::<Vec<_>>().join(", ")
    }

    fn add(
        &mut self,
        name: &'static str,
        nodes: &[usize],
        proxies: &[usize],
        http: Option<SocketAddr>,
    ) {
        let front = if proxies.is_empty() { nodes } else { proxies };
        let pids = |places: &[usize]| {
            let pids = places.iter().map(|&place| self.running[place].child.id());
            pids.collect()
        };
        let system = System {
            name,
            to: front
                .iter()
                .map(|&place| self.running[place].address)
                .collect(),
            in_turn: proxies.len() > 1,
            nodes: pids(nodes),
            proxies: pids(proxies),
            http,
        };
        self.systems.push(system);
    }
}

impl System {
    /// Runs the load generator with more arguments. Returns its report.
    fn load(&self, program: &Path, load: &FleetLoad, more: &[String]) -> Result<Value> {
        let list = |items: Vec<String>| items.join(",");
        let named = |name: &str, pids: &[u32]| {
            let pairs = pids.iter().map(|pid| format!("{name}={pid}"));
            pairs.collect::<Vec<_>>()
        };
        let mut pids = named("nodes", &self.nodes);
        pids.extend(named("proxies", &self.proxies));
        let mut command = Command::new(program);
        command
            .args([
                "--to",
                &list(self.to.iter().map(SocketAddr::to_string).collect()),
            ])
            .args(["--pids", &list(pids)])
            .args(load.arguments)
            .args(load.clients())
            .args(more);
        if self.in_turn {
            command.arg("--in-turn");
        }
        let text =
            shell::output(&mut command).with_context(|| format!("{}, {}", self.name, load.name))?;
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        serde_json::from_str(&text).with_context(|| format!("not a report: {text}"))
    }

    /// How many datagrams had at most so many keys, and the sum of their keys, of a proxy of ours.
    fn batches(&self) -> Result<Batches> {
        let Some(http) = self.http else {
            return Ok(Batches::default());
        };
        let mut stream = TcpStream::connect(http)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(Batches::of(&page))
    }
}

/// The sizes of batches: how many datagrams had at most 1, 2, 4, 8 and 16 keys, and the sum of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Batches {
    at_most: [f64; SIZES.len()],
    keys: f64,
}

const SIZES: [u32; 5] = [1, 2, 4, 8, 16];

impl Batches {
    /// From a page of metrics, of all nodes.
    fn of(page: &str) -> Self {
        let mut batches = Batches::default();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix("hippos_proxy_batch_keys_") else {
                continue;
            };
            let value = rest.rsplit(' ').next().and_then(|value| value.parse().ok());
            let value: f64 = value.unwrap_or(0.0);
            if rest.starts_with("sum") {
                batches.keys += value;
            }
            let bound = rest
                .split("le=\"")
                .nth(1)
                .and_then(|le| le.split('"').next());
            let bound: Option<f64> = bound.and_then(|bound| bound.parse().ok());
            let place = SIZES
                .iter()
                .position(|&size| Some(f64::from(size)) == bound);
            if let Some(place) = place {
                batches.at_most[place] += value;
            }
        }
        batches
    }

    fn since(self, before: Self) -> Self {
        Batches {
            at_most: std::array::from_fn(|place| self.at_most[place] - before.at_most[place]),
            keys: self.keys - before.keys,
        }
    }

    /// The mean number of keys, if there was a datagram.
    fn mean(&self) -> Option<f64> {
        let count = self.at_most[SIZES.len() - 1];
        (count > 0.0).then(|| self.keys / count)
    }
}

/// All figures: by metric, load and system, one of each repetition.
#[derive(Default)]
struct FleetFigures {
    values: BTreeMap<(&'static str, &'static str, &'static str), Vec<f64>>,
    batches: BTreeMap<(&'static str, &'static str), Batches>,
    systems: Vec<&'static str>,
    loads: Vec<&'static str>,
}

impl FleetFigures {
    fn add(&mut self, metric: &'static str, load: &'static str, system: &'static str, value: f64) {
        let values = self.values.entry((metric, load, system)).or_default();
        values.push(value);
    }

    /// The last figure.
    fn last(&self, metric: &'static str, load: &'static str, system: &'static str) -> Option<f64> {
        self.values.get(&(metric, load, system))?.last().copied()
    }

    /// Measures one system under one load.
    fn measure(
        &mut self,
        program: &Path,
        system: &System,
        load: &FleetLoad,
        extent: Extent,
        fill: bool,
    ) -> Result<()> {
        let before = system.batches()?;
        let mut more = vec!["--requests".to_owned(), extent.requests.to_string()];
        more.extend(["--seconds".to_owned(), "3".to_owned()]);
        if fill {
            more.push("--fill".into());
        }
        let report = system.load(program, load, &more)?;
        let batches = system.batches()?.since(before);
        let get = |name: &str| report[name].as_f64().unwrap_or(0.0);
        let requests = get("requests");
        ensure!(requests > 0.0, "{}, {}: no reply", system.name, load.name);
        let servers = get("cpu_nodes") + get("cpu_proxies");
        let rate = requests / servers.max(1e-9);
        let mut add = |metric, value| self.add(metric, load.name, system.name, value);
        add("rate", rate);
        add("nodes", get("cpu_nodes") / requests * 1e6);
        add("proxies", get("cpu_proxies") / requests * 1e6);
        add("client", get("cpu_client") / requests * 1e6);
        if let Some(mean) = batches.mean() {
            add("batch", mean);
            let sum = self.batches.entry((load.name, system.name)).or_default();
            *sum = sum.since(Batches::default().since(batches));
        }
        let half = requests / get("seconds").max(1e-9) / 2.0;
        let mut more = vec!["--rate".to_owned(), format!("{half:.0}")];
        more.extend(["--requests".to_owned(), (extent.requests / 2).to_string()]);
        more.extend(["--seconds".to_owned(), "3".to_owned()]);
        let report = system.load(program, load, &more)?;
        for (metric, name) in [("p50", "p50_us"), ("p99", "p99_us")] {
            let value = report[name].as_f64().unwrap_or(0.0);
            self.add(metric, load.name, system.name, value);
        }
        Ok(())
    }

    /// Adds the ratios of a load's systems, all of which were measured in this repetition.
    fn compare(&mut self, load: &'static str, systems: &[&'static str]) {
        for system in systems {
            let hashing = match *system {
                MEMCACHED_OURS | MEMCACHED_PROXY | NUTCRACKER => MEMCACHED_HASHING,
                _ => HASHING,
            };
            let rate = |system| self.last("rate", load, system);
            let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
            let to_r = ratio(rate(system), rate(FORWARDERS));
            let to_t = ratio(rate(hashing), rate(system));
            for (metric, value) in [("to_r", to_r), ("to_t", to_t)] {
                if let Some(value) = value {
                    self.add(metric, load, system, value);
                }
            }
        }
    }

    /// The tables of docs/fleet.md: for clients of one request each, and for one with many.
    fn summary(&self) -> String {
        let mut out = String::new();
        let spread = |metric, load, system| {
            let values = self.values.get(&(metric, load, system))?;
            Spread::of(values.clone())
        };
        for shape in ["many", "one"] {
            let loads: Vec<_> = self
                .loads
                .iter()
                .filter(|name| name.ends_with(shape))
                .collect();
            if loads.is_empty() {
                continue;
            }
            let _ = write!(out, "| {shape} |");
            for load in &loads {
                let _ = write!(out, " {} |", load.split(',').next().unwrap_or(load));
            }
            let _ = writeln!(out, "\n|---|{}", "---:|".repeat(loads.len()));
            let measured = |system: &&&'static str| {
                let known =
                    |load: &&&'static str| self.values.contains_key(&("rate", **load, **system));
                IN_SUMMARY.contains(system) && loads.iter().any(known)
            };
            for &system in self.systems.iter().filter(measured) {
                let _ = write!(out, "| {system} |");
                for &&load in &loads {
                    let spreads =
                        ["nodes", "proxies", "rate"].map(|name| spread(name, load, system));
                    if let [Some(nodes), Some(proxies), Some(rate)] = spreads {
                        let (least, most) = (1e6 / rate.max, 1e6 / rate.min);
                        let (nodes, proxies) = (nodes.median, proxies.median);
                        let _ = write!(out, " {nodes:.1} + {proxies:.1} ({least:.1} to {most:.1})");
                    }
                    out.push_str(" |");
                }
                out.push('\n');
            }
            out.push('\n');
        }
        out
    }

    fn markdown(&self) -> String {
        let title = "CPU of nodes + proxies, us a request (least to most of the sum)";
        let mut out = format!("### {title}\n\n{}", self.summary());
        for (metric, title) in METRICS {
            let known = |load: &&&'static str| {
                self.values
                    .keys()
                    .any(|key| key.0 == metric && key.1 == **load)
            };
            let loads: Vec<_> = self.loads.iter().filter(known).copied().collect();
            let rows = |name: &&'static str| {
                self.values
                    .keys()
                    .any(|key| key.0 == metric && key.2 == *name)
            };
            let systems: Vec<_> = self
                .systems
                .iter()
                .filter(|name| rows(name))
                .copied()
                .collect();
            if systems.is_empty() {
                continue;
            }
            let _ = writeln!(out, "### {title}\n");
            table(&mut out, "system", &systems, &loads, |load, system| {
                self.values.get(&(metric, load, system)).cloned()
            });
        }
        if !self.batches.is_empty() {
            let _ = writeln!(out, "### Sizes of datagrams, percent\n");
            let _ = writeln!(out, "| load | system | 1 | 2 | 3, 4 | 5 to 8 | 9 to 16 |");
            let _ = writeln!(out, "|---|---|---:|---:|---:|---:|---:|");
            for ((load, system), batches) in &self.batches {
                let _ = write!(out, "| {load} | {system} |");
                let all = batches.at_most[SIZES.len() - 1];
                let mut below = 0.0;
                for at_most in batches.at_most {
                    let _ = write!(out, " {:.1} |", (at_most - below) / all * 100.0);
                    below = at_most;
                }
                out.push('\n');
            }
        }
        out
    }

    fn json(&self, head: &str) -> Value {
        let rows = self
            .values
            .iter()
            .filter_map(|((metric, load, system), values)| {
                let spread = Spread::of(values.clone())?;
                Some(json!({
                    "metric": metric, "load": load, "system": system, "runs": values,
                    "min": spread.min, "median": spread.median, "max": spread.max,
                }))
            });
        let sizes = self.batches.iter().map(|((load, system), batches)| {
            json!({ "load": load, "system": system, "at_most": batches.at_most, "keys": batches.keys })
        });
        json!({ "head": head, "rows": rows.collect::<Vec<_>>(), "batches": sizes.collect::<Vec<_>>() })
    }
}

/// The processes that are started, and the load generator: built for measurements.
fn build() -> Result<PathBuf> {
    for arguments in [
        ["hippos_proxy", "--bin", "hippos-proxy", "--example", "load"].as_slice(),
        ["hippos_engine", "--example", "server"].as_slice(),
    ] {
        let mut build = Command::new(workspace::cargo());
        build
            .args(["build", "--quiet", "--locked", "--release", "--package"])
            .args(arguments)
            .current_dir(workspace::root());
        shell::run(&mut build)?;
    }
    Ok(workspace::root().join("target/release"))
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Measures and reports.
pub(super) fn measure(
    root: &Root,
    extent: Extent,
    nutcracker: Option<&Path>,
    print_json: bool,
) -> Result<()> {
    let programs = build()?;
    let dir = workspace::root().join("target/bench/fleet");
    fs::create_dir_all(&dir)?;
    // All processes that are started from here share them.
    let mut processors = nix::sched::CpuSet::new();
    for processor in 0..PROCESSORS {
        processors.set(processor)?;
    }
    if let Err(error) = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &processors) {
        println!("not bound to {PROCESSORS} processors: {error}");
    }
    let found = || shell::find("nutcracker").or_else(|| clients::program("nutcracker"));
    let nutcracker = nutcracker.map(Path::to_owned).or_else(found);
    let (before, start) = (load_average(), Instant::now());
    let fleet = Fleet::start(root, &programs, nutcracker.as_deref(), &dir)?;
    let loads: Vec<_> = LOADS
        .iter()
        .filter(|load| load.quick || !extent.quick)
        .collect();
    let mut figures = FleetFigures {
        systems: fleet.systems.iter().map(|system| system.name).collect(),
        loads: loads.iter().map(|load| load.name).collect(),
        ..FleetFigures::default()
    };
    let program = programs.join("examples/load");
    let mut repetitions = 0;
    'all: for repetition in 0..extent.repetitions {
        for load in &loads {
            for system in &fleet.systems {
                if start.elapsed() > extent.limit {
                    eprintln!("hippos: the time is over in repetition {}", repetition + 1);
                    break 'all;
                }
                figures.measure(&program, system, load, extent, repetition == 0)?;
            }
            let systems = figures.systems.clone();
            figures.compare(load.name, &systems);
        }
        repetitions += 1;
        eprintln!(
            "hippos: repetition {repetitions} of {} ({:.0} s so far)",
            extent.repetitions,
            start.elapsed().as_secs_f32()
        );
    }
    let head = format!(
        "{}; load average {before} before and {} after; {repetitions} whole repetitions; {NODES} nodes, {} requests a \
         run, {IN_FLIGHT} in flight",
        super::origin()?,
        load_average(),
        extent.requests
    );
    let json = serde_json::to_string_pretty(&figures.json(&head))?;
    let markdown = format!(
        "{head}\n\nMedians (least to most).\n\n{}",
        figures.markdown()
    );
    fs::write(dir.join("report.json"), json.clone() + "\n")?;
    fs::write(dir.join("report.md"), &markdown)?;
    println!("{}", if print_json { json } else { markdown });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_batches_are_summed_over_nodes() {
        let page = "hippos_proxy_batch_keys_sum{node=\"a\"} 30.0\n\
                    hippos_proxy_batch_keys_sum{node=\"b\"} 6.0\n\
                    hippos_proxy_batch_keys_bucket{le=\"1.0\",node=\"a\"} 2\n\
                    hippos_proxy_batch_keys_bucket{le=\"16.0\",node=\"a\"} 4\n\
                    hippos_proxy_batch_keys_bucket{le=\"16.0\",node=\"b\"} 2\n\
                    hippos_proxy_batch_keys_bucket{le=\"+Inf\",node=\"b\"} 2\n";
        let batches = Batches::of(page);
        assert_eq!(batches.at_most, [2.0, 0.0, 0.0, 0.0, 6.0]);
        assert_eq!(batches.mean(), Some(6.0));
        assert_eq!(batches.since(batches).mean(), None);
    }

    #[test]
    fn a_table_has_a_line_for_each_measured_system() {
        let mut figures = FleetFigures {
            systems: vec![HASHING, FORWARDERS, NUTCRACKER],
            loads: vec!["GET 20 B, one"],
            ..FleetFigures::default()
        };
        for (system, rate) in [(HASHING, 300.0), (FORWARDERS, 100.0), (FORWARDERS, 120.0)] {
            figures.add("rate", "GET 20 B, one", system, rate);
        }
        let text = figures.markdown();
        assert!(
            text.contains("| R: forwarders | 110 (100 to 120) |"),
            "{text}"
        );
        assert!(!text.contains(NUTCRACKER), "{text}");
        for (metric, value) in [
            ("nodes", 3.0),
            ("proxies", 6.04),
            ("nodes", 4.0),
            ("nodes", 5.0),
        ] {
            figures.add(metric, "GET 20 B, one", FORWARDERS, value);
        }
        let summary = figures.summary();
        assert!(
            summary.contains("| one | GET 20 B |\n|---|---:|\n| T: clients hash | |\n"),
            "{summary}"
        );
        assert!(
            summary.contains("| R: forwarders | 4.0 + 6.0 (8333.3 to 10000.0) |"),
            "{summary}"
        );
        let json = figures.json("head");
        assert_eq!(json["rows"].as_array().unwrap().len(), 4);
    }
}
