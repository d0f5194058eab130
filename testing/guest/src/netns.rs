// SPDX-License-Identifier: GPL-2.0-only
//! Network namespaces for tests, and the links between them.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{anyhow, Context, Result};
use nix::sched::{setns, CloneFlags};

use crate::system::run;
use crate::{modules, receive_path};

/// A network namespace with lo up; dropping it removes it with its interfaces.
pub(crate) struct Namespace {
    name: &'static str,
}

impl Namespace {
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        run(&format!("ip netns add {name}"))?;
        let namespace = Namespace { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> Result<String> {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// Runs `work` inside, on a thread of its own. Sockets and threads made
    /// there stay there.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let path = PathBuf::from("/run/netns").join(self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let file = File::open(&path).with_context(|| format!("no {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
                work()
            });
            inside.join().map_err(|_| anyhow!("panicked"))?
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&format!("ip netns del {}", self.name)) {
            eprintln!("{error:#}");
        }
    }
}

/// A new namespace and a link to it, whose two ends can have XDP.
pub(crate) fn joined_for_xdp() -> Result<(Namespace, Link)> {
    let there = Namespace::new("there")?;
    let link = join(&there, 1)?;
    run(&receive_path::prepare(&link.here))?;
    there.enter(|| run(&receive_path::prepare(&link.far)))?;
    Ok((there, link))
}

/// A pair of virtual cards, one end here and one in a namespace, removed when
/// dropped. Both ends get an IPv4 and an IPv6 address, numbered by
/// `net`: 10.9.`net`.1 and fd09:`net`::1 here, .2 and ::2 there.
pub(crate) fn join(there: &Namespace, net: u8) -> Result<Link> {
    modules::load("veth")?;
    let (here, far) = (format!("here{net}"), format!("far{net}"));
    run(&format!(
        "ip link add {here} type veth peer name {far} netns {}",
        there.name
    ))?;
    // `nodad`: an address that waits for duplicates is not there yet.
    run(&format!("ip addr add 10.9.{net}.1/24 dev {here}"))?;
    run(&format!("ip addr add fd09:{net}::1/64 dev {here} nodad"))?;
    run(&format!("ip link set {here} up"))?;
    there.ip(&format!("addr add 10.9.{net}.2/24 dev {far}"))?;
    there.ip(&format!("addr add fd09:{net}::2/64 dev {far} nodad"))?;
    there.ip(&format!("link set {far} up"))?;
    if receive_path::is_xdp() {
        run(&receive_path::prepare(&here))?;
        there.enter(|| run(&receive_path::prepare(&far)))?;
    }
    Ok(Link {
        here,
        far,
        here_ipv4: format!("10.9.{net}.1"),
        here_ipv6: format!("fd09:{net}::1"),
        far_ipv4: format!("10.9.{net}.2"),
        far_ipv6: format!("fd09:{net}::2"),
    })
}

/// Where everyday clients ask from: this host, or, for XDP, which lo has none of, another
/// namespace. Gone when dropped.
pub(crate) struct Client {
    away: Option<(Link, Namespace)>,
}

impl Client {
    pub(crate) fn new() -> Result<Self> {
        if !receive_path::is_xdp() {
            return Ok(Client { away: None });
        }
        let there = Namespace::new("there")?;
        let away = Some((join(&there, 1)?, there));
        Ok(Client { away })
    }

    /// The server's address, as seen from there.
    pub(crate) fn server(&self) -> IpAddr {
        match &self.away {
            Some(_) => Ipv4Addr::new(10, 9, 1, 1).into(),
            None => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Runs `work` there.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        match &self.away {
            Some((_, there)) => there.enter(work),
            None => work(),
        }
    }
}

/// The names and addresses of [`join`], whose cards go when this is dropped:
/// a deleted namespace takes its own along too, but some time later.
pub(crate) struct Link {
    pub(crate) here: String,
    pub(crate) far: String,
    pub(crate) here_ipv4: String,
    pub(crate) here_ipv6: String,
    pub(crate) far_ipv4: String,
    pub(crate) far_ipv6: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        // The test may have been about its removal.
        if Path::new("/sys/class/net").join(&self.here).exists() {
            if let Err(error) = run(&format!("ip link del {}", self.here)) {
                eprintln!("{error:#}");
            }
        }
    }
}
