// SPDX-License-Identifier: GPL-2.0-only
//! memcached inside the kernel: ordered start and stop of the receive paths.
#![deny(unsafe_op_in_unsafe_fn)]

use core::fmt;

use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use hippos_abi::log_line::each_part;
use hippos_abi::DEVICE_NAME;
use hippos_kapi::cpu;
use hippos_kapi::device::Device;
use hippos_kapi::fault;
use hippos_kapi::hook::{self, Fast, Hook};
use hippos_kapi::latency::Latency;
use hippos_kapi::log::Caller;
use hippos_kapi::namespace::Namespace;
use hippos_kapi::params::NotDefault;
use hippos_kapi::rcu;
use hippos_kapi::socket::{self, Socket};
use hippos_kapi::thread::Thread;
use hippos_kapi::xdp::Xdp;

mod buffer;
mod config;
mod control;
mod fast_path;
mod maintenance;
mod platform;
mod refusal;
mod selftest;
mod server;
mod steer;
mod tcp;
mod traced;
mod udp;

use config::ServerConfig;
use control::Control;
use fast_path::FastPath;
use server::Server;
use steer::Steering;

module! {
    type: Hippos,
    name: "hippos",
    authors: ["The Hippos authors"],
    description: "memcached inside the kernel",
    license: "GPL",
}

/// The running module. Fields are dropped in their order, which is the order
/// of the stop; the start makes them from the last to the first.
struct Hippos {
    _control: Device<Control>,
    _xdp: Option<Xdp<FastPath>>,
    _hook: Option<Hook<FastPath>>,
    _workers: KVec<Thread>,
    _udp: Option<Thread>,
    _maintenance: Thread,
    _latency: Latency,
    _readers: Readers,
    _server: Arc<Server>,
    _callbacks: Callbacks,
}

/// Waits, when dropped, until all callbacks and read-side sections have ended.
struct Readers;

impl Drop for Readers {
    fn drop(&mut self) {
        rcu::wait();
    }
}

/// Waits, when dropped, until no callback of ours is queued any more.
struct Callbacks;

impl Drop for Callbacks {
    fn drop(&mut self) {
        rcu::barrier();
    }
}

impl kernel::Module for Hippos {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let mut config = ServerConfig::new()?;
        if fault::selftest() {
            // An error code that a failed start does not return.
            return Err(EDOM);
        }
        selftest::run(&config)?;
        let port = config.port;
        let namespace = Namespace::current()?;
        config.find_interface(&namespace)?;

        // A failure drops the parts that exist already, in reverse order.
        let callbacks = Callbacks;
        let server = Server::new(config)?;
        let readers = Readers;
        let latency = Latency::new(server.config.params.latency);
        let maintenance = start_maintenance(&server, &namespace)?;
        let in_use = |error: &Error| {
            if socket::is_in_use(*error) {
                pr_err!("port {port} is in use\n");
            }
        };
        let udp = start_udp(&server, &namespace).inspect_err(in_use)?;
        let workers = start_workers(&server, &namespace).inspect_err(in_use)?;
        let fast_path = start_fast_path(&server)?;
        let hook = fast_path
            .clone()
            .map(|(handler, fast)| Hook::new(namespace.clone(), handler, fast))
            .transpose()?;
        let xdp = fast_path
            .map(|(handler, _)| Xdp::new(namespace.clone(), handler))
            .transpose()?;
        let control = Arc::new(Control::new(server.clone()), GFP_KERNEL)?;
        let control = Device::new(DEVICE_NAME, control)?;

        log_start(&server.config);
        Ok(Self {
            _control: control,
            _xdp: xdp,
            _hook: hook,
            _workers: workers,
            _udp: udp,
            _maintenance: maintenance,
            _latency: latency,
            _readers: readers,
            _server: server,
            _callbacks: callbacks,
        })
    }
}

/// Logs the settings that decide which clients are served, and how.
fn log_start(config: &ServerConfig) {
    let ServerConfig {
        port,
        threads,
        params,
        settings,
        udp_fast,
        ..
    } = config;
    let info = |line: fmt::Arguments<'_>| {
        each_part(&line, |part| pr_info!("{}\n", format_args!("{part}")));
    };
    info(format_args!(
        "serving port {port}, {threads} workers: version {}, memory_mb={}, eviction={}, allow={}, admin={}",
        settings.version,
        params.memory_mb,
        params.eviction,
        config::printable(params.allow.to_bytes()),
        params.admin
    ));
    let caller = Caller::current();
    info(format_args!(
        "loaded {caller}; parameters that are not the defaults:{NotDefault}"
    ));
    match (params.udp, udp_fast) {
        (false, _) => pr_info!("UDP is not served\n"),
        (true, None) => pr_info!("UDP is served by the socket alone\n"),
        (true, Some(_)) => {
            let [ipv4, ipv6] = hook::fast_path_state().hook;
            pr_info!("UDP is served by PRE_ROUTING (IPv4 {ipv4}, IPv6 {ipv6}) and the socket\n");
        }
    }
}

fn start_maintenance(server: &Arc<Server>, namespace: &Arc<Namespace>) -> Result<Thread> {
    let server = server.clone();
    let steering = Steering::new(namespace.clone(), server.config.params.steer)?;
    Thread::spawn(c"hippos/store", None, move |context, started| {
        maintenance::run(server, steering, context, started);
    })
}

/// The socket for datagrams that the hook passes on, if UDP is served.
fn start_udp(server: &Arc<Server>, namespace: &Arc<Namespace>) -> Result<Option<Thread>> {
    if !server.config.params.udp {
        return Ok(None);
    }
    let socket = Socket::bind_datagram(
        namespace,
        server.config.port,
        server.config.interface,
        udp::SEND_MS,
    )?;
    let worker = udp::UdpWorker::new(server.clone(), socket)?;
    let thread = Thread::spawn(c"hippos/udp", None, move |context, started| {
        worker.run(context, started)
    })?;
    Ok(Some(thread))
}

/// The receive paths before the socket, if they are enabled.
fn start_fast_path(server: &Arc<Server>) -> Result<Option<(Arc<FastPath>, Fast)>> {
    match server.config.udp_fast {
        Some(fast) if server.config.params.udp => Ok(Some((
            Arc::new(FastPath::new(server.clone()), GFP_KERNEL)?,
            fast,
        ))),
        _ => Ok(None),
    }
}

/// The TCP workers, spread over the CPUs that are not isolated.
fn start_workers(server: &Arc<Server>, namespace: &Arc<Namespace>) -> Result<KVec<Thread>> {
    let config = &server.config;
    let count = config.threads;
    // SO_REUSEPORT would allow the bind beside another server: first bind the port without it.
    drop(Socket::listen(
        namespace,
        config.port,
        config.interface,
        None,
        1,
    )?);
    let mut workers = KVec::with_capacity(count, GFP_KERNEL)?;
    for (number, cpu) in cpu::usable().cycle().take(count).enumerate() {
        let listener = Socket::listen(
            namespace,
            config.port,
            config.interface,
            Some(cpu),
            config.params.backlog,
        )?;
        let worker = tcp::TcpWorker::new(server.clone(), listener, cpu)?;
        let name = CString::try_from_fmt(fmt!("hippos/{number}"))?;
        let thread = Thread::spawn(&name, Some(cpu), move |context, started| {
            worker.run(context, started)
        })?;
        workers.push(thread, GFP_KERNEL)?;
    }
    Ok(workers)
}
