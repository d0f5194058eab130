// SPDX-License-Identifier: GPL-2.0-only
//! Three TAP devices, and the frames that leave by them in answer to a request.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{framed, ReceivePath, Tcp};

use crate::firewall::{iptables, ipvs};
use crate::modules::{self, Hippos};
use crate::receive_path;
use crate::system::run;
use crate::tap::{Addresses, Datagram, Tap};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The cards' own addresses.
pub(crate) const NEAR: [[u8; 6]; 3] = [[2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 8, 1], [2, 0, 0, 0, 7, 1]];
/// The asker, on the first card.
pub(crate) const ASKER: [u8; 6] = [2, 0, 0, 0, 9, 2];
/// Another station there.
pub(crate) const OTHER: [u8; 6] = [2, 0, 0, 0, 9, 3];
/// A station on the second card.
pub(crate) const BEHIND: [u8; 6] = [2, 0, 0, 0, 8, 2];
/// The station on the third card: its reply shows that all requests before were served.
pub(crate) const MARKER: [u8; 6] = [2, 0, 0, 0, 7, 2];
/// The port of VXLAN.
pub(crate) const VXLAN: u16 = 4789;
/// The kernel's modules for nftables rules.
pub(crate) const NAT: [&str; 4] = ["nft_chain_nat", "nft_nat", "nft_masq", "nft_ct"];
pub(crate) const NAMES: [&str; 3] = ["e0", "e1", "mark"];

/// The cards' addresses and neighbours in every topology.
const USUAL: &str = "\
addr add 10.9.200.1/24 dev e0
addr add fd09:200::1/64 dev e0 nodad
addr add 10.9.201.1/24 dev e1
addr add fd09:201::1/64 dev e1 nodad
addr add 10.9.250.1/24 dev mark
neigh replace 10.9.200.2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace fd09:200::2 lladdr 02:00:00:00:09:02 dev e0 nud permanent
neigh replace 10.9.200.3 lladdr 02:00:00:00:09:03 dev e0 nud permanent
neigh replace fd09:200::3 lladdr 02:00:00:00:09:03 dev e0 nud permanent
neigh replace 10.9.201.2 lladdr 02:00:00:00:08:02 dev e1 nud permanent
neigh replace fd09:201::2 lladdr 02:00:00:00:08:02 dev e1 nud permanent
neigh replace 10.9.250.2 lladdr 02:00:00:00:07:02 dev mark nud permanent
";

/// Three TAP devices, removed when dropped.
pub(crate) struct Topology {
    pub(crate) taps: Vec<Tap>,
    number: u16,
}

/// A frame that left, without the fields that differ between replies: IPv4's identification and with it the
/// checksum, the flag that forbids fragments, and IPv6's flow label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) card: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.card, self.bytes.escape_ascii())
    }
}

impl Sent {
    /// `None` for a frame without a UDP datagram of ours.
    fn new(card: &'static str, frame: &[u8]) -> Option<Self> {
        let mut bytes = frame.to_vec();
        match frame.get(12..14)? {
            [8, 0] if frame.get(23) == Some(&17) => {
                bytes.get_mut(18..20)?.fill(0);
                bytes[20] &= !0x40;
                bytes.get_mut(24..26)?.fill(0);
                // A tunnel's source port is a hash; its payload is a frame as well.
                if bytes.get(36..38) == Some(&VXLAN.to_be_bytes()) {
                    bytes.get_mut(34..36)?.fill(0);
                    let inner = Sent::new(card, bytes.get(50..)?)?;
                    bytes.truncate(50);
                    bytes.extend_from_slice(&inner.bytes);
                }
            }
            [0x86, 0xdd] if matches!(frame.get(20), Some(17 | 44)) => {
                bytes.get_mut(15..18)?.fill(0);
                // A fragment's identification.
                if frame.get(20) == Some(&44) {
                    bytes.get_mut(58..62)?.fill(0);
                }
            }
            // Without the VLAN tag it is an untagged frame.
            [0x81, 0] => {
                let inner = Sent::new(card, &[&frame[..12], frame.get(16..)?].concat())?;
                bytes.truncate(16);
                bytes.extend_from_slice(&inner.bytes[12..]);
            }
            _ => return None,
        }
        Some(Sent { card, bytes })
    }
}

impl Topology {
    pub(crate) fn new() -> Result<Self> {
        let mut taps = Vec::new();
        for (name, mac) in NAMES.iter().zip(NEAR) {
            let tap = Tap::unconfigured(name, mac)?;
            tap.offload_checksums()?;
            taps.push(tap);
            // The host sends no packets that no test causes.
            for knob in ["accept_ra=0", "router_solicitations=0", "addr_gen_mode=1"] {
                run(&format!("sysctl -qw net.ipv6.conf.{name}.{knob}"))?;
            }
        }
        Ok(Topology { taps, number: 0 })
    }

    /// Puts the usual addresses on the cards, and nothing else.
    pub(crate) fn reset(&mut self) -> Result<()> {
        let mut lines = String::new();
        // All at once, or routes by two of them would stay.
        for state in ["down", "up"] {
            for name in NAMES {
                lines += &format!("link set {name} {state}\naddr flush dev {name}\n");
            }
        }
        ip(&(lines + USUAL))
    }

    /// Sends a frame on a wire and gives everything that leaves by any card because of it.
    pub(crate) fn ask(&mut self, card: usize, frame: &[u8]) -> Result<Vec<Sent>> {
        while self.next(Duration::ZERO)?.is_some() {}
        self.taps[card].send_with(Default::default(), frame)?;
        // The socket's worker serves datagrams one after the other, and all writes: once it has
        // answered this one, it has served those before.
        self.number = self.number.wrapping_add(1);
        let request = format!("set mark 0 0 5\r\n{:05}\r\n", self.number);
        let marker = Datagram {
            to_mac: NEAR[2],
            from_mac: MARKER,
            addresses: Addresses::Ipv4([10, 9, 250, 2], [10, 9, 250, 1]),
            from_port: 4999,
            ..Datagram::ipv4(&framed(self.number, request.as_bytes()))
        };
        self.taps[2].send_with(Default::default(), &marker.frame())?;
        let number = self.number.to_be_bytes();
        let end = self.taps[2].receive(LIMIT, |frame| {
            frame.get(36..38) == Some(&4999u16.to_be_bytes()) && frame.get(42..44) == Some(&number)
        })?;
        ensure!(end.is_some(), "the socket's worker does not answer");
        let mut sent = Vec::new();
        while let Some(frame) = self.next(Duration::ZERO)? {
            sent.extend(frame);
        }
        sent.sort();
        Ok(sent)
    }

    /// The next frame that leaves by one card, and how it looks on the wire.
    pub(crate) fn next_by(&mut self, card: usize) -> Result<Option<(Option<Sent>, Vec<u8>)>> {
        let frame = self.taps[card].receive(LIMIT, |_| true)?;
        Ok(frame.map(|frame| (Sent::new(NAMES[card], &frame), frame)))
    }

    /// The next frame that left by any card but the marker's.
    fn next(&mut self, limit: Duration) -> Result<Option<Option<Sent>>> {
        for (name, tap) in NAMES.iter().zip(&mut self.taps).take(2) {
            if let Some(frame) = tap.receive(limit, |_| true)? {
                return Ok(Some(Sent::new(name, &frame)));
            }
        }
        Ok(None)
    }
}

/// A number of `ip`'s commands, a line each.
pub(crate) fn ip(lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let file = "/tmp/ip-batch";
    fs::write(file, lines)?;
    run(&format!("ip -batch {file}"))
        .map(drop)
        .with_context(|| lines.to_owned())
}

/// Lines of `ip`, also behind `-6`, of nft behind `nft`, of tc behind `tc` and of sysctl behind `sysctl`; `in
/// NAMESPACE` and a line of `ip`; `ipvs SERVICE SERVER` and `ipvs flush`; `iptables TABLE`, which
/// makes it with no rule; `rmmod MODULE`. One after the other.
pub(crate) fn set_up(lines: &str) -> Result<()> {
    let mut batch = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !matches!(
            word,
            "-6" | "nft" | "tc" | "sysctl" | "in" | "ipvs" | "iptables" | "rmmod"
        ) {
            batch += line;
            batch += "\n";
            continue;
        }
        ip(&std::mem::take(&mut batch))?;
        match word {
            "-6" => run(&format!("ip -6 {rest}")).map(drop)?,
            "sysctl" => run(&format!("sysctl -qw {rest}")).map(drop)?,
            "in" => run(&format!("ip -n {rest}")).map(drop)?,
            "ipvs" => virtual_service(rest)?,
            "iptables" => legacy_table(rest)?,
            "rmmod" => modules::remove(rest)?,
            program => run(&format!("/usr/sbin/{program} {rest}")).map(drop)?,
        }
    }
    ip(&batch)
}

fn virtual_service(line: &str) -> Result<()> {
    let Some((service, server)) = line.split_once(' ') else {
        return ipvs::flush();
    };
    modules::load("ip_vs_rr")?;
    ipvs::add(service.parse()?, server.parse()?)
}

fn legacy_table(table: &str) -> Result<()> {
    modules::load(&format!("iptable_{table}"))?;
    iptables::ensure_table(table)
}

/// The module by one receive path, on both cards.
pub(crate) struct Served {
    hippos: Hippos,
    by: ReceivePath,
}

impl Served {
    pub(crate) fn load(by: ReceivePath, parameters: &str) -> Result<Self> {
        let hippos = Hippos::load(&format!("allow=any {parameters}{}", by.parameter()))?;
        if by == ReceivePath::Xdp {
            for name in &NAMES[..2] {
                receive_path::attach(name, "native")?;
            }
        }
        let mut tcp = Tcp::connect("127.0.0.1")?;
        tcp.set("key", b"value")?;
        tcp.set("long", &[b'x'; 1345])?;
        Ok(Served { hippos, by })
    }

    pub(crate) fn unload(self) -> Result<()> {
        if self.by == ReceivePath::Xdp {
            return self.hippos.unload_all();
        }
        self.hippos.unload()
    }
}
