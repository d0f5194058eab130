// SPDX-License-Identifier: MIT

//! A load generator to compare proxies: a closed or an open loop over TCP, with every reply checked, and the CPU time of
//! each side. `cargo xtask bench fleet` runs it.
//!
//!     cargo run --release -p hippos_proxy --example load -- --to ADDRESS --kind get --clients 63 --pids node=1,proxy=2
//!
//! Several addresses are nodes: each key is requested from the node that the ketama ring gives it. With `--in-turn` they
//! are forwarders, which clients use in turn. One line of JSON on standard output has the results.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use hippos_ring::{Distribution, Hash, Node, Ring};
use rustix::event::epoll;

/// A load generator to compare proxies.
#[derive(Parser)]
struct Args {
    /// Addresses of a proxy, of nodes, or of forwarders
    #[arg(long, value_delimiter = ',', required = true)]
    to: Vec<SocketAddr>,
    /// The addresses are forwarders
    #[arg(long)]
    in_turn: bool,
    /// The requests
    #[arg(long, value_enum)]
    kind: Kind,
    /// Bytes of a value
    #[arg(long, default_value_t = 20)]
    value: usize,
    /// Different keys
    #[arg(long, default_value_t = 2000)]
    keys: usize,
    /// Clients, each with connections of its own
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Requests that a client has in flight in the closed loop
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Requests, after a tenth of them that is not measured
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// An open loop with so many requests a second
    #[arg(long)]
    rate: Option<f64>,
    /// The longest time, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Store all values first
    #[arg(long)]
    fill: bool,
    /// Processes whose CPU time is measured: NAME=PID
    #[arg(long, value_delimiter = ',')]
    pids: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Keys of 20 bytes, each as often
    Get,
    /// The same, stored
    Set,
    /// Facebook's ETC pool, as Atikoglu and others describe it: sizes, popularity, and 30 GETs for each SET
    Etc,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.keys > 0 && args.clients > 0 && args.depth > 0, "zero");
    // Otherwise the kernel adds 50 us to every pause.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let mut load = Load::new(&args)?;
    let limit = Duration::from_secs_f64(args.seconds);
    if args.fill {
        let all: Vec<u32> = (0..args.keys as u32).map(|key| key << 1 | 1).collect();
        load.run(&all, all.len(), None, limit)?;
    }
    let order = order(&args);
    load.run(&order, args.requests / 10, None, limit)?;
    let pids = args
        .pids
        .iter()
        .map(|pair| pair.split_once('=').context("--pids has NAME=PID"))
        .collect::<Result<Vec<_>>>()?;
    let before = pids
        .iter()
        .map(|(_, pid)| cpu_seconds(pid))
        .collect::<Result<Vec<_>>>()?;
    let own = cpu_seconds("self")?;
    let mut run = load.run(&order, args.requests, args.rate, limit)?;
    print!(
        "{{\"requests\":{},\"seconds\":{:.6},\"cpu_client\":{:.6}",
        run.latencies.len(),
        run.time.as_secs_f64(),
        cpu_seconds("self")? - own
    );
    let mut names: Vec<&str> = pids.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut sum = 0.0;
        for ((known, pid), before) in pids.iter().zip(&before) {
            if *known == name {
                sum += cpu_seconds(pid)? - before;
            }
        }
        print!(",\"cpu_{name}\":{sum:.6}");
    }
    run.latencies.sort_unstable();
    let at = |share: f64| {
        let place = (run.latencies.len() as f64 * share) as usize;
        let nanos = run.latencies.get(place).copied().unwrap_or(0);
        nanos as f64 / 1000.0
    };
    println!(",\"p50_us\":{:.1},\"p99_us\":{:.1}}}", at(0.5), at(0.99));
    Ok(())
}

/// CPU time of a process: of its threads by the scheduler's own count, whose unit is a nanosecond.
fn cpu_seconds(pid: &str) -> Result<f64> {
    let mut sum = 0.0;
    let tasks = format!("/proc/{pid}/task");
    for task in std::fs::read_dir(&tasks).context(tasks)? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let time = text.split(' ').next().context("schedstat is empty")?;
        sum += time.parse::<f64>()? / 1e9;
    }
    Ok(sum)
}

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Above 0, below 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }
}

/// The requests in their order: twice the key's number, and one more for a SET.
fn order(args: &Args) -> Vec<u32> {
    let mut random = Random(7);
    // Popularity: Zipf's law, by the sums of the weights.
    let mut sums = Vec::with_capacity(args.keys);
    let mut sum = 0.0;
    for rank in 1..=args.keys {
        sum += match args.kind {
            Kind::Etc => 1.0 / rank as f64,
            _ => 1.0,
        };
        sums.push(sum);
    }
    let mut next = || {
        let at = random.unit() * sum;
        let place = sums.partition_point(|&sum| sum < at);
        let set = match args.kind {
            Kind::Get => false,
            Kind::Set => true,
            Kind::Etc => random.next() % 31 == 0,
        };
        (place.min(args.keys - 1) as u32) << 1 | u32::from(set)
    };
    (0..1 << 16).map(|_| next()).collect()
}

/// A key's requests and replies.
struct Item {
    node: usize,
    get: Vec<u8>,
    value: Vec<u8>,
    set: Vec<u8>,
}

fn items(args: &Args, ring: &Ring) -> Vec<Item> {
    let mut random = Random(11);
    let mut item = |number: usize| {
        // Generalized extreme value and generalized Pareto distributions.
        let (prefix, key_len, len) = if args.kind == Kind::Etc {
            let (location, scale, shape) = (30.7984, 8.20449, 0.078688);
            let key = location + scale * ((-random.unit().ln()).powf(-shape) - 1.0) / shape;
            let (scale, shape) = (214.476, 0.348238);
            let value = scale * (random.unit().powf(-shape) - 1.0) / shape;
            let key = key.clamp(16.0, 100.0) as usize;
            ("etc:".into(), key, value.clamp(1.0, 8192.0) as usize)
        } else {
            (format!("{}:", args.value), 20, args.value)
        };
        let key = format!("{prefix}{number:0>width$}", width = key_len - prefix.len());
        let value: String = key.chars().cycle().take(len).collect();
        Item {
            node: ring.node(key.as_bytes()),
            get: format!("get {key}\r\n").into_bytes(),
            value: format!("VALUE {key} 0 {len}\r\n{value}\r\nEND\r\n").into_bytes(),
            set: format!("set {key} 0 0 {len}\r\n{value}\r\n").into_bytes(),
        }
    };
    (0..args.keys).map(&mut item).collect()
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    /// Requests in flight, and since when.
    waiting: VecDeque<(u32, Instant)>,
    input: Vec<u8>,
}

struct Load<'a> {
    args: &'a Args,
    items: Vec<Item>,
    epoll: std::os::fd::OwnedFd,
    /// Those of a client are neighbours.
    connections: Vec<Connection>,
    /// Connections with output.
    dirty: Vec<usize>,
}

struct Run {
    time: Duration,
    /// In nanoseconds.
    latencies: Vec<u64>,
}

impl<'a> Load<'a> {
    fn new(args: &'a Args) -> Result<Self> {
        let nodes: Vec<Node> = args
            .to
            .iter()
            .map(|node| Node::address(&node.ip().to_string(), node.port(), 1))
            .collect();
        let ring = Ring::new(&nodes, Distribution::KetamaWeighted, Hash::Md5)
            .map_err(|error| anyhow::anyhow!("no ring: {error:?}"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for number in 0..args.clients * args.to.len() {
            let stream = TcpStream::connect(args.to[number % args.to.len()])?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                output: Vec::new(),
                waiting: VecDeque::new(),
                input: Vec::new(),
            });
        }
        Ok(Self {
            args,
            items: items(args, &ring),
            epoll,
            connections,
            dirty: Vec::new(),
        })
    }

    /// Queues a client's request, the one of number `turn`.
    fn ask(&mut self, client: usize, turn: usize, request: u32, since: Instant) {
        let item = &self.items[(request >> 1) as usize];
        let server = match self.args.in_turn {
            true => turn % self.args.to.len(),
            false => item.node,
        };
        let place = client * self.args.to.len() + server;
        let connection = &mut self.connections[place];
        if connection.output.is_empty() {
            self.dirty.push(place);
        }
        let set = request & 1 == 1;
        connection
            .output
            .extend_from_slice(if set { &item.set } else { &item.get });
        connection.waiting.push_back((request, since));
    }

    /// Makes `count` requests of `order`, or fewer if the time is over, and waits for all replies.
    fn run(
        &mut self,
        order: &[u32],
        count: usize,
        rate: Option<f64>,
        limit: Duration,
    ) -> Result<Run> {
        let mut random = Random(13);
        let begin = Instant::now();
        let mut latencies = Vec::with_capacity(count);
        let mut sent = 0;
        let mut events = Vec::with_capacity(256);
        let mut free = VecDeque::new();
        if rate.is_none() {
            for _ in 0..self.args.depth {
                free.extend(0..self.args.clients);
            }
        }
        // When the next request of an open loop is due, in seconds: Poisson arrivals.
        let mut due = 0.0;
        loop {
            let now = Instant::now();
            let open = sent < count && now - begin < limit;
            while let Some(client) = free.pop_front() {
                if open && sent < count {
                    self.ask(client, sent, order[sent % order.len()], now);
                    sent += 1;
                }
            }
            let mut pause = Duration::from_secs(1);
            if let (Some(rate), true) = (rate, open) {
                let past = (now - begin).as_secs_f64();
                while sent < count && due <= past {
                    let since = begin + Duration::from_secs_f64(due);
                    let client = sent % self.args.clients;
                    self.ask(client, sent, order[sent % order.len()], since);
                    sent += 1;
                    due -= random.unit().ln() / rate;
                }
                pause = Duration::from_secs_f64((due - past).clamp(0.0, 1.0));
            }
            for place in std::mem::take(&mut self.dirty) {
                if !self.connections[place].send()? {
                    self.dirty.push(place);
                }
            }
            if latencies.len() == sent && (sent == count || !open) {
                let time = begin.elapsed();
                return Ok(Run { time, latencies });
            }
            ensure!(
                now - begin < limit + Duration::from_secs(10),
                "{} requests have no reply",
                sent - latencies.len()
            );
            if !self.dirty.is_empty() {
                pause = pause.min(Duration::from_micros(50));
            }
            let pause = pause.try_into()?;
            events.clear();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, Some(&pause)) {
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited?,
            };
            for event in &events {
                let place = event.data.u64() as usize;
                let answered = self.connections[place].receive(&self.items, &mut latencies)?;
                if rate.is_none() {
                    let client = place / self.args.to.len();
                    free.extend(std::iter::repeat_n(client, answered));
                }
            }
        }
    }
}

impl Connection {
    /// Whether everything is sent.
    fn send(&mut self) -> Result<bool> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads and checks replies. Returns their number.
    fn receive(&mut self, items: &[Item], latencies: &mut Vec<u64>) -> Result<usize> {
        let mut chunk = [0; 16 << 10];
        let len = match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        self.input.extend_from_slice(&chunk[..len]);
        let now = Instant::now();
        let (mut at, mut answered) = (0, 0);
        while let Some(&(request, since)) = self.waiting.front() {
            let item = &items[(request >> 1) as usize];
            let want = match request & 1 {
                1 => b"STORED\r\n",
                _ => &item.value[..],
            };
            let rest = &self.input[at..];
            if rest.len() < want.len() && want.starts_with(rest) {
                break;
            }
            ensure!(
                rest.starts_with(want),
                "the reply to {:?} is {:?}",
                String::from_utf8_lossy(&item.get),
                String::from_utf8_lossy(&rest[..rest.len().min(100)])
            );
            at += want.len();
            answered += 1;
            latencies.push(now.saturating_duration_since(since).as_nanos() as u64);
            self.waiting.pop_front();
        }
        self.input.drain(..at);
        ensure!(
            self.input.is_empty() || !self.waiting.is_empty(),
            "a reply without a request"
        );
        Ok(answered)
    }
}
