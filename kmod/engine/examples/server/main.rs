// SPDX-License-Identifier: GPL-2.0-only
//! A memcached over host sockets: the test double of the whole protocol.
//!
//! `cargo run -p hippos_engine --example server -- --port 11211` serves TCP and UDP on one port like the module, but
//! without loading a kernel module: the UDP fast path first, then in process context the datagrams that it passes, and
//! TCP sessions. It prints one line when it is ready.

mod host;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use hippos_engine::{Administration, Engine, Settings, ENGINE_COUNTERS};
use hippos_store::host::Host;
use hippos_store::{Config, Eviction, Store};

use host::Server;

/// memcached's protocols over host sockets, served by Hippos's engine.
#[derive(Parser)]
struct Args {
    /// Port for TCP and UDP; 0 takes a free one
    #[arg(long, short, default_value_t = Settings::default().tcp_port)]
    port: u16,
    /// Port for UDP; the TCP port if not given, 0 for no UDP
    #[arg(long, short = 'U')]
    udp_port: Option<u16>,
    /// Address to listen on
    #[arg(long, short, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Memory limit in MiB
    #[arg(long, short, default_value_t = Config::default().memory >> 20)]
    memory_mb: usize,
    /// Largest item in bytes, its header included
    #[arg(long, short = 'I', default_value_t = Config::default().item_max)]
    item_max: usize,
    /// Most connections
    #[arg(long, short = 'c', default_value_t = Settings::default().max_connections)]
    max_connections: u32,
    /// Worker threads for TCP
    #[arg(long, short, default_value_t = 2)]
    threads: usize,
    /// Eviction policy
    #[arg(long, default_value = Eviction::default().name(), value_parser = Eviction::ALL.map(Eviction::name))]
    eviction: String,
    /// Most bytes of a reply of the UDP fast path
    #[arg(long, default_value_t = Settings::default().fast_bytes)]
    fast_bytes: u32,
    /// Most bytes of a reply over UDP
    #[arg(long, default_value_t = Settings::default().udp_bytes)]
    udp_bytes: u32,
    /// Have clients log in: a file with lines of user:password
    #[arg(long, short = 'Y')]
    authfile: Option<PathBuf>,
    /// Which clients may use administration commands
    #[arg(long, default_value = Administration::default().name(), value_parser = Administration::ALL.map(Administration::name))]
    admin: String,
    /// Feed sessions one byte at a time
    #[arg(long)]
    bytewise: bool,
    /// Overwrite memory when it becomes free, to show readers that come too late
    #[arg(long)]
    poison: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind((args.listen, args.port)).context("TCP port")?;
    let address = listener.local_addr()?;
    let udp_port = args.udp_port.unwrap_or(address.port());
    let socket = match udp_port {
        0 => None,
        port => Some(UdpSocket::bind((args.listen, port)).context("UDP port")?),
    };

    let eviction = Eviction::parse(args.eviction.as_bytes()).context("no such policy")?;
    let config = Config {
        memory: args.memory_mb << 20,
        item_max: args.item_max,
        seed: seed(),
        eviction,
        tallies: ENGINE_COUNTERS,
        ..Config::default()
    };
    let mut host = Host::new();
    if args.poison {
        host = host.poison();
    }
    let store = Store::new(config, host).map_err(|why| anyhow::anyhow!("no store: {why:?}"))?;
    let administration =
        Administration::parse(args.admin.as_bytes()).context("no such administration setting")?;
    let settings = Settings {
        administration,
        tcp_port: address.port(),
        udp_port,
        max_connections: args.max_connections,
        threads: args.threads as u32,
        fast_bytes: args.fast_bytes,
        udp_bytes: args.udp_bytes,
        ..Settings::default()
    };
    let host_stats: &'static host::Process =
        Box::leak(Box::new(host::Process::new(address, socket.is_some())));
    let engine: &'static Server = Box::leak(Box::new(Engine::new(store, settings, host_stats)));

    if let Some(file) = args.authfile {
        let lines = std::fs::read(&file).context("the authentication file")?;
        engine
            .set_credentials(&lines)
            .map_err(|why| anyhow::anyhow!("{}: {why:?}", file.display()))?;
    }

    let start = Instant::now();
    tick(engine, start);
    std::thread::spawn(move || maintain(engine, start));
    if let Some(socket) = socket {
        engine.set_udp_number(host::UDP_NUMBER);
        std::thread::spawn(move || udp::serve(engine, &socket));
    }
    for _ in 1..args.threads.max(1) {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || tcp::serve(engine, host_stats, listener, args.bytewise));
    }
    host_stats.accepting.store(true, Relaxed);
    println!("hippos: ready on {} (tcp, udp {udp_port})", ready(address));
    tcp::serve(engine, host_stats, listener, args.bytewise)
}

fn ready(address: SocketAddr) -> String {
    address.to_string()
}

/// Updates the clock and maintains the store, like the module's maintenance thread.
fn maintain(engine: &Server, start: Instant) {
    loop {
        tick(engine, start);
        let next = engine.store.maintain().next_ms;
        std::thread::sleep(Duration::from_millis(u64::from(next.clamp(1, 100))));
    }
}

fn tick(engine: &Server, start: Instant) {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let uptime = start.elapsed().as_millis() as u64;
    engine.store.tick_ms(uptime, unix);
}

/// Secrets of this process.
fn seed() -> [u64; 4] {
    use std::hash::{BuildHasher, RandomState};
    std::array::from_fn(|i| RandomState::new().hash_one(i))
}
