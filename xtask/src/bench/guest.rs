// SPDX-License-Identifier: GPL-2.0-only
//! A guest with one of the servers that are compared, joined to this host.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use super::server::Server;
use super::tools::Tools;
use crate::tap::Tap;
use crate::vm::{Accel, Machine, Meter, Network, Port, Vm, GUEST_PORT};

/// How long a server may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// MiB of cache, the same for all.
const CACHE: u32 = 256;
/// MiB of the guest's memory.
const MEMORY: u32 = 1024;

/// A booted guest with its server.
pub(crate) struct Guest {
    // Dropped in this order: the guest before its network.
    pub(crate) vm: Vm,
    tap: Option<Tap>,
    ports: u16,
}

impl Guest {
    /// Boots a guest with `vcpus` and starts `server` in it; with a meter, instructions are
    /// counted and drive the guest's clock.
    pub(crate) fn boot(
        tools: &Tools,
        server: Server,
        vcpus: u32,
        meter: Option<&Meter>,
    ) -> Result<Self> {
        let tap = match (tools.tap, server.native() || vcpus > 1) {
            (true, true) => Some(Tap::with_queues()?),
            (true, false) => Some(Tap::new()?),
            (false, _) if server.native() => {
                bail!("native XDP asks for a card with a tap behind it")
            }
            (false, _) => None,
        };
        let many = server == Server::MemcachedMultiport && vcpus > 1;
        if many && tap.is_none() {
            bail!("only one port is forwarded: memcached-multiport needs a tap");
        }
        let machine = Machine {
            port: Port::Any,
            vcpus,
            accel: Accel::Auto,
            memory: MEMORY,
            module: match server {
                Server::HipposFresh => tools.fresh.clone(),
                _ => Some(tools.hippos.clone()),
            },
            files: vec![tools.mirror.clone(), tools.mirror_xdp.clone()],
            network: match &tap {
                // A queue for each processor's stack and one for its XDP.
                Some(tap) if server.native() => Network::Xdp(tap.name().to_owned(), 2 * vcpus),
                Some(tap) if vcpus > 1 => Network::Queues(tap.name().to_owned(), vcpus),
                Some(tap) => Network::Tap(tap.name().to_owned()),
                None => Network::User,
            },
            meter: meter.cloned(),
            ..Machine::default()
        };
        let mut guest = Guest {
            vm: Vm::boot(tools.root, &machine)?,
            tap,
            ports: if many { u16::try_from(vcpus)? } else { 1 },
        };
        guest.start(server, vcpus)?;
        Ok(guest)
    }

    fn start(&mut self, server: Server, vcpus: u32) -> Result<()> {
        if let Some(tap) = &self.tap {
            self.vm.ask(&format!(
                "exec ip addr flush dev eth0 && ip addr add {}/30 dev eth0",
                tap.guest()
            ))?;
        }
        let memcached = |port: u16, threads: u32, more: &str| {
            format!(
                "exec memcached -d -u root -l 0.0.0.0 -p {port} -U {port} -t {threads} -m {CACHE} \
                 -c 1024 {more}"
            )
        };
        match server {
            Server::Hippos
            | Server::HipposFresh
            | Server::HipposSocket
            | Server::HipposLatency
            | Server::HipposXdp
            | Server::HipposXdpLatency => {
                let more = server.parameters();
                self.vm
                    .ask(&format!("load port={GUEST_PORT} memory_mb={CACHE} {more}"))?;
                if server.native() {
                    self.vm
                        .ask("exec hippos-ctl xdp attach --dev eth0 --mode native")?;
                }
            }
            Server::MirrorXdp => {
                self.vm.ask(
                    "exec /usr/bin/ip link set dev eth0 xdpdrv object /mirror.bpf.o section xdp",
                )?;
            }
            Server::Memcached => {
                self.vm.ask(&memcached(GUEST_PORT, vcpus, ""))?;
            }
            Server::MemcachedSteady => {
                self.vm.ask(
                    "exec echo 2 > /sys/class/net/eth0/napi_defer_hard_irqs && \
                     echo 200000 > /sys/class/net/eth0/gro_flush_timeout",
                )?;
                let quiet = "-o no_lru_maintainer,no_lru_crawler";
                self.vm.ask(&memcached(GUEST_PORT, vcpus, quiet))?;
            }
            Server::MemcachedMultiport => {
                for port in GUEST_PORT..GUEST_PORT + self.ports {
                    self.vm.ask(&memcached(port, 1, ""))?;
                }
            }
            Server::Mirror | Server::MirrorDirect | Server::MirrorQueued => {
                let way = match server {
                    Server::MirrorQueued => 0,
                    Server::MirrorDirect => 1,
                    _ => 2,
                };
                self.vm.ask(&format!(
                    "exec insmod /mirror.ko port={GUEST_PORT} way={way}"
                ))?;
            }
        }
        self.ready(server)
    }

    fn ready(&mut self, server: Server) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let (address, port) = (self.address(), self.port());
        loop {
            let answer = if server.mirrors() {
                echoed(address, port)
            } else {
                TcpStream::connect((address, port))
                    .map(drop)
                    .map_err(Into::into)
            };
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{} does not answer", server.name())));
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
            self.vm.alive()?;
        }
    }

    fn address(&self) -> Ipv4Addr {
        self.tap.as_ref().map_or(Ipv4Addr::LOCALHOST, Tap::guest)
    }

    fn port(&self) -> u16 {
        if self.tap.is_some() {
            GUEST_PORT
        } else {
            self.vm.port()
        }
    }

    /// The argument of `hippos-load --server`.
    pub(crate) fn server(&self) -> String {
        let (address, first) = (self.address(), self.port());
        match self.ports {
            1 => format!("{address}:{first}"),
            ports => format!("{address}:{first}-{}", first + ports - 1),
        }
    }

    /// The plugin's socket.
    pub(crate) fn meter(&self) -> PathBuf {
        self.vm.meter()
    }

    /// Stops the guest; a complaint of its kernel's is an error.
    pub(crate) fn off(mut self) -> Result<()> {
        self.vm
            .ask("log")
            .context("the guest's kernel log is not clean")?;
        self.vm.off()
    }
}

/// Sends a datagram, which must come back unchanged.
fn echoed(address: Ipv4Addr, port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect((address, port))?;
    socket.send(b"are you there")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    ensure!(&answer[..length] == b"are you there", "another answer");
    Ok(())
}
