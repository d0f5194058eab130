// SPDX-License-Identifier: GPL-2.0-only
//! A network card whose wire is in our hands (`linux/if_tun.h`): frames are
//! put on it and taken from it byte by byte.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    recvfrom, setsockopt, socket, sockopt, AddressFamily, LinkAddr, SockFlag, SockProtocol,
    SockType,
};

use crate::modules;
use crate::system::run;

/// Our own Ethernet address, the far end of the wire.
pub(crate) const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];
/// The card's.
pub(crate) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
/// The card's addresses; the far end is .2 and ::2.
pub(crate) const NEAR_IPV4: [u8; 4] = [10, 9, 200, 1];
pub(crate) const FAR_IPV4: [u8; 4] = [10, 9, 200, 2];
pub(crate) const NEAR_IPV6: [u8; 16] = ipv6(1);
pub(crate) const FAR_IPV6: [u8; 16] = ipv6(2);

const fn ipv6(last: u8) -> [u8; 16] {
    [0xfd, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// Bytes of `struct virtio_net_hdr` before each frame.
const VNET: usize = 10;

/// The card, up, with addresses; removed when dropped.
pub(crate) struct Tap {
    file: File,
}

mod ioctl {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
}

/// How a frame is handed over: `struct virtio_net_hdr`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Offload {
    /// 1: the checksum is still to be filled in.
    pub(crate) flags: u8,
    /// 5: segments of UDP.
    pub(crate) gso_type: u8,
    pub(crate) header: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

impl Tap {
    pub(crate) fn new() -> Result<Self> {
        let tap = Self::unconfigured("wire", NEAR_MAC)?;
        run("ip addr add 10.9.200.1/24 dev wire")?;
        run("ip addr add fd09:200::1/64 dev wire nodad")?;
        run("ip link set wire up")?;
        // Other sources live there as well.
        run("ip route add 8.8.0.0/16 via 10.9.200.2 dev wire")?;
        for address in ["10.9.200.2", "fd09:200::2"] {
            let far = text(FAR_MAC);
            run(&format!("ip neigh add {address} lladdr {far} dev wire"))?;
        }
        Ok(tap)
    }

    /// A card of that name and Ethernet address, down and without addresses.
    pub(crate) fn unconfigured(name: &str, mac: [u8; 6]) -> Result<Self> {
        modules::load("tun")?;
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .context("/dev/net/tun")?;
        // SAFETY: plain numbers, of which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
            *to = *from as libc::c_char;
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the request's own structure, which lives across the call.
        unsafe { ioctl::set_interface(file.as_raw_fd(), &request) }.context("TUNSETIFF")?;
        // SAFETY: takes a number.
        unsafe { ioctl::set_offload(file.as_raw_fd(), 0) }.context("TUNSETOFFLOAD")?;
        run(&format!("ip link set {name} address {}", text(mac)))?;
        Ok(Tap { file })
    }

    /// Has the kernel leave checksums to the card, as most cards are: they are put in when a frame is
    /// taken off the wire.
    pub(crate) fn offload_checksums(&self) -> Result<()> {
        const TUN_F_CSUM: i32 = 1;
        // SAFETY: takes a number.
        unsafe { ioctl::set_offload(self.file.as_raw_fd(), TUN_F_CSUM) }
            .context("TUNSETOFFLOAD")?;
        Ok(())
    }

    /// Puts a frame on the wire towards the card, and leaves the work that
    /// `offload` describes to the receiver.
    pub(crate) fn send_with(&self, offload: Offload, frame: &[u8]) -> Result<()> {
        let mut bytes = vec![offload.flags, offload.gso_type];
        for word in [
            offload.header,
            offload.gso_size,
            offload.csum_start,
            offload.csum_offset,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        let sent = (&self.file).write(&bytes)?;
        anyhow::ensure!(sent == bytes.len(), "{sent} bytes sent");
        Ok(())
    }

    /// The next frame from the card that `wanted` accepts, within `limit`.
    pub(crate) fn receive(
        &self,
        limit: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + limit;
        let mut frame = [0; 70000];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left.as_millis() as i32)?;
            if poll(&mut fds, timeout)? == 0 {
                return Ok(None);
            }
            let length = (&self.file).read(&mut frame)?;
            let Some((header, frame)) = frame
                .get_mut(..length)
                .and_then(|bytes| bytes.split_at_mut_checked(VNET))
            else {
                continue;
            };
            complete_checksum(header, frame);
            if wanted(frame) {
                return Ok(Some(frame.to_vec()));
            }
        }
    }
}

/// Puts in the checksum that a frame's `struct virtio_net_hdr` leaves to the card, if it does.
fn complete_checksum(header: &[u8], frame: &mut [u8]) {
    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (start, at) = (word(6), word(6) + word(8));
    if header[0] & 1 == 0 || at + 2 > frame.len() {
        return;
    }
    let checksum = match !fold(sum(&frame[start..])) {
        0 => 0xffff,
        other => other,
    };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Captures the frames that the card receives, after XDP has passed them.
pub(crate) struct PacketCapture {
    socket: OwnedFd,
    card: usize,
}

impl PacketCapture {
    pub(crate) fn new() -> Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
        let card = nix::net::if_::if_nametoindex("wire")? as usize;
        Ok(PacketCapture { socket, card })
    }

    /// Everything heard so far, each without its outermost tag, which the kernel takes out.
    pub(crate) fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = [0; 70000];
        while let Ok((length, Some(from))) =
            recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame)
        {
            let came_in = i32::from(from.pkttype()) != libc::PACKET_OUTGOING as i32;
            if came_in && from.ifindex() == self.card {
                frames.push(untagged(&frame[..length]));
            }
        }
        frames
    }
}

/// A frame without its outermost VLAN tag.
pub(crate) fn untagged(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x81, 0] | [0x88, 0xa8]) if frame.len() >= 18 => {
            [&frame[..12], &frame[16..]].concat()
        }
        _ => frame.to_vec(),
    }
}

pub(crate) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A UDP datagram on its way from the far end to the card, field by field.
#[derive(Clone)]
pub(crate) struct Datagram {
    pub(crate) to_mac: [u8; 6],
    pub(crate) from_mac: [u8; 6],
    /// A tag's twelve bits.
    pub(crate) vlan: Option<u16>,
    pub(crate) addresses: Addresses,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    pub(crate) ttl: u8,
    /// IPv4: options, a multiple of four bytes. IPv6: a whole extension
    /// header, whose first byte is filled in.
    pub(crate) options: Vec<u8>,
    /// IPv4's flags and offset.
    pub(crate) fragment: u16,
    pub(crate) checksum: Checksum,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(crate) enum Addresses {
    Ipv4([u8; 4], [u8; 4]),
    Ipv6([u8; 16], [u8; 16]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    Good,
    Bad,
    Zero,
    /// The pseudo header's alone: the rest is left to the card.
    Partial,
}

impl Datagram {
    /// From the far end to the card, over IPv4, to memcached's port.
    pub(crate) fn ipv4(payload: &[u8]) -> Self {
        Datagram {
            to_mac: NEAR_MAC,
            from_mac: FAR_MAC,
            vlan: None,
            addresses: Addresses::Ipv4(FAR_IPV4, NEAR_IPV4),
            from_port: 4321,
            to_port: 11211,
            ttl: 64,
            options: Vec::new(),
            fragment: 0,
            checksum: Checksum::Good,
            payload: payload.to_vec(),
        }
    }

    /// The same over IPv6.
    pub(crate) fn ipv6(payload: &[u8]) -> Self {
        Datagram {
            addresses: Addresses::Ipv6(FAR_IPV6, NEAR_IPV6),
            ..Self::ipv4(payload)
        }
    }

    /// Bytes before the UDP header.
    pub(crate) fn before_udp(&self) -> usize {
        let ip = match self.addresses {
            Addresses::Ipv4(..) => 20,
            Addresses::Ipv6(..) => 40,
        };
        14 + self.vlan.map_or(0, |_| 4) + ip + self.options.len()
    }

    /// The frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let udp_len = 8 + self.payload.len();
        let mut udp = Vec::new();
        for word in [self.from_port, self.to_port, udp_len as u16, 0] {
            udp.extend_from_slice(&word.to_be_bytes());
        }
        udp.extend_from_slice(&self.payload);
        let pseudo = match self.addresses {
            Addresses::Ipv4(from, to) => [from, to].concat(),
            Addresses::Ipv6(from, to) => [from, to].concat(),
        };
        let pseudo = sum(&pseudo) + 17 + udp_len as u32;
        let checksum = match (self.checksum, !fold(pseudo + sum(&udp))) {
            (Checksum::Good, 0) => 0xffff,
            (Checksum::Good, good) => good,
            (Checksum::Bad, good) => good ^ 0x0101,
            (Checksum::Zero, _) => 0,
            (Checksum::Partial, _) => fold(pseudo),
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [self.to_mac, self.from_mac].concat();
        if let Some(vlan) = self.vlan {
            frame.extend_from_slice(&[0x81, 0]);
            frame.extend_from_slice(&vlan.to_be_bytes());
        }
        match self.addresses {
            Addresses::Ipv4(from, to) => {
                frame.extend_from_slice(&[8, 0]);
                let header_len = 20 + self.options.len();
                let mut ip = vec![0x40 | (header_len / 4) as u8, 0];
                for word in [(header_len + udp_len) as u16, 0x1234, self.fragment] {
                    ip.extend_from_slice(&word.to_be_bytes());
                }
                ip.extend_from_slice(&[self.ttl, 17, 0, 0]);
                ip.extend_from_slice(&from);
                ip.extend_from_slice(&to);
                ip.extend_from_slice(&self.options);
                let checksum = !fold(sum(&ip));
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend_from_slice(&ip);
            }
            Addresses::Ipv6(from, to) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                let length = (self.options.len() + udp_len) as u16;
                frame.extend_from_slice(&length.to_be_bytes());
                // Destination options (60) may stand between the headers.
                let next = if self.options.is_empty() { 17 } else { 60 };
                frame.extend_from_slice(&[next, self.ttl]);
                frame.extend_from_slice(&from);
                frame.extend_from_slice(&to);
                let mut options = self.options.clone();
                if let Some(next) = options.first_mut() {
                    *next = 17;
                }
                frame.extend_from_slice(&options);
            }
        }
        frame.extend_from_slice(&udp);
        frame
    }

    /// Whether `frame` is an answer to this: everything turned round, and sums
    /// that are right. Its payload.
    pub(crate) fn answered_by(&self, frame: &[u8]) -> Result<Vec<u8>> {
        let wanted = |what: &str, found: &[u8], right: &[u8]| {
            anyhow::ensure!(found == right, "{what}: {found:02x?}, not {right:02x?}");
            Ok(())
        };
        wanted(
            "addresses",
            &frame[..12],
            &[self.from_mac, self.to_mac].concat(),
        )?;
        let (ip, udp, pseudo) = match self.addresses {
            Addresses::Ipv4(from, to) => {
                let ip = &frame[14..34];
                wanted("first bytes", &ip[..2], &[0x45, 0])?;
                wanted("addresses", &ip[12..20], &[to, from].concat())?;
                anyhow::ensure!(fold(sum(ip)) == 0xffff, "IP header checksum");
                let length = u16::from_be_bytes([ip[2], ip[3]]);
                anyhow::ensure!(
                    usize::from(length) == frame.len() - 14,
                    "IP length {length}"
                );
                wanted("time to live", &ip[8..10], &[64, 17])?;
                (ip, &frame[34..], sum(&ip[12..20]))
            }
            Addresses::Ipv6(from, to) => {
                let ip = &frame[14..54];
                wanted("first bytes", &ip[..1], &[0x60])?;
                wanted("addresses", &ip[8..40], &[to, from].concat())?;
                let length = u16::from_be_bytes([ip[4], ip[5]]);
                anyhow::ensure!(
                    usize::from(length) == frame.len() - 54,
                    "IP length {length}"
                );
                wanted("hop limit", &ip[6..8], &[17, 64])?;
                (ip, &frame[54..], sum(&ip[8..40]))
            }
        };
        let _ = ip;
        let ports = [self.to_port.to_be_bytes(), self.from_port.to_be_bytes()];
        wanted("ports", &udp[..4], &ports.concat())?;
        let length = u16::from_be_bytes([udp[4], udp[5]]);
        anyhow::ensure!(usize::from(length) == udp.len(), "UDP length {length}");
        let total = fold(pseudo + 17 + udp.len() as u32 + sum(udp));
        anyhow::ensure!(total == 0xffff, "UDP checksum: {total:#x}");
        Ok(udp[8..].to_vec())
    }
}

pub(crate) fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum()
}

pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A UDP datagram on its way out, whole or a fragment.
pub(crate) struct Reply<'a> {
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    /// Destination address.
    to: &'a [u8],
    /// From the IP header on.
    packet: &'a [u8],
    /// Bytes of the IP header.
    header: usize,
}

impl<'a> Reply<'a> {
    /// Reads a frame; `None` when it is no UDP, or not the first fragment.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = match frame.get(12..14)? {
            [0x81, 0] => frame.get(18..)?,
            _ => frame.get(14..)?,
        };
        let (header, protocol, to, later) = match packet.first()? >> 4 {
            4 => {
                let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
                let header = usize::from(packet.first()? & 15) * 4;
                (
                    header,
                    *packet.get(9)?,
                    packet.get(16..20)?,
                    offset & 0x3fff,
                )
            }
            6 => (40, *packet.get(6)?, packet.get(24..40)?, 0),
            _ => return None,
        };
        let ports = packet.get(header..header + 4)?;
        (protocol == 17 && later == 0).then(|| Reply {
            from_port: u16::from_be_bytes([ports[0], ports[1]]),
            to_port: u16::from_be_bytes([ports[2], ports[3]]),
            to,
            packet,
            header,
        })
    }

    /// Checks that lengths and sums are right, and that the receiver may get replies.
    pub(crate) fn check(&self) -> Result<()> {
        let (ip, udp) = self.packet.split_at(self.header);
        let (length, addresses) = if self.to.len() == 4 {
            anyhow::ensure!(fold(sum(ip)) == 0xffff, "IP header checksum");
            (
                u16::from_be_bytes([ip[2], ip[3]]) as usize - self.header,
                &ip[12..20],
            )
        } else {
            (u16::from_be_bytes([ip[4], ip[5]]).into(), &ip[8..40])
        };
        anyhow::ensure!(length == udp.len(), "IP length {length}, not {}", udp.len());
        let said = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        anyhow::ensure!(said == udp.len(), "UDP length {said}, not {}", udp.len());
        let total = fold(sum(addresses) + 17 + udp.len() as u32 + sum(udp));
        anyhow::ensure!(total == 0xffff, "UDP checksum");
        anyhow::ensure!(
            !matches!(self.to_port, 0 | 11211),
            "a reply to port {}",
            self.to_port
        );
        let everybody = match *self.to {
            [first, .., last] if self.to.len() == 4 => {
                matches!(first, 0 | 224..=255) || last == 255
            }
            [first, ..] => first == 0xff,
            [] => true,
        };
        anyhow::ensure!(!everybody, "a reply to {:?}", self.to);
        Ok(())
    }
}
