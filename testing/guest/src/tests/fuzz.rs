// SPDX-License-Identifier: GPL-2.0-only
//! Hostile packets, one after the other, from the card's wire.
//!
//! Each begins as a packet that a client could send; then fields, headers,
//! lengths, sums, fragments and the card's metadata (segmentation, checksum) are
//! changed, and bits flip. Between them datagrams for other sockets are sent: each
//! must reach its socket, in order and to the last byte, and a frame that passes
//! XDP must be as it was sent. A packet from our port must be correct and go to an
//! address that may get replies, and the server must continue to answer.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{framed, Tcp, Udp, PORT};

use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::random::Random;
use crate::receive_path;
use crate::system::run;
use crate::tap::{self, Addresses, Checksum, Datagram, Offload, PacketCapture, Tap};

/// Packets of a run without COUNT.
const PACKETS: u64 = 100_000;
/// Hostile packets between two checks of the server and of the other sockets.
const ROUND: u64 = 64;
/// In one of this many rounds the test captures packets: those that pass must be as they were sent.
const LISTENING: u64 = 16;
/// The port of a socket that is not Hippos's.
const ECHO: u16 = 7777;
/// A host behind this one, where another server has our port.
const BEHIND: [u8; 4] = [10, 9, 201, 2];
const LIMIT: Duration = Duration::from_secs(20);
/// After how many packets the test reports its progress.
const TELL: u64 = 50_000;

/// `TEST [COUNT [SEED]]`
pub(super) fn packets_do_not_stop_the_server(arguments: &[String]) -> Result<()> {
    let number = |at: usize, usual: u64| -> Result<u64> {
        arguments
            .get(at)
            .map_or(Ok(usual), |text| Ok(text.parse()?))
    };
    let (count, seed) = (number(0, PACKETS)?, number(1, 1)?);
    modules::load("8021q")?;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 201)?;
    there.ip(&format!("route add default via {}", link.here_ipv4))?;
    run("sysctl -qw net.ipv4.ip_forward=1")?;
    let mut tap = Tap::new()?;
    // The packets must not change the host's settings.
    for setting in ["accept_ra", "accept_redirects", "autoconf"] {
        run(&format!("sysctl -qw net.ipv6.conf.wire.{setting}=0"))?;
    }
    run("sysctl -qw net.ipv4.conf.wire.accept_redirects=0")?;
    run("ip link add link wire name wire.7 type vlan id 7")?;
    run("ip addr add 10.9.202.1/24 dev wire.7")?;
    run("ip link set wire.7 up")?;
    let hippos = Hippos::load("memory_mb=32")?;

    let mut others = vec![
        Other::new("another port", [10, 9, 200, 1], ECHO, || {
            Ok(UdpSocket::bind(("0.0.0.0", ECHO))?)
        })?,
        Other::new("another host", BEHIND, PORT, || {
            there.enter(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))
        })?,
    ];
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let start = Instant::now();
    let mut native = receive_path::is_xdp();
    for round in 0.. {
        let done = tally.sent + tally.refused;
        if done >= count {
            break;
        }
        // The first half meets XDP in the driver, the other one behind it.
        if native && done >= count / 2 {
            native = false;
            receive_path::detach("wire")?;
            receive_path::attach("wire", "generic")?;
        }
        let mut capture = (round % LISTENING == 0)
            .then(PacketCapture::new)
            .transpose()?;
        let mut sent = HashSet::new();
        for _ in 0..ROUND {
            let (offload, frame) = malformed_packet(&mut random);
            match tap.send_with(offload, &frame) {
                Ok(()) => tally.sent += 1,
                // The card's driver refuses some packets.
                Err(_) => tally.refused += 1,
            }
            if capture.is_some() {
                sent.insert(tap::untagged(&frame));
            }
        }
        let at = format!("after {} packets, seed {seed}", tally.sent + tally.refused);
        if let Some(capture) = &mut capture {
            for frame in capture.heard() {
                ensure!(
                    sent.contains(&frame),
                    "{at}: not sent by this test: {frame:02x?}"
                );
                tally.heard += 1;
            }
        }
        for other in &mut others {
            other.send(&mut tap, 3)?;
        }
        tally.replies += drain(&mut tap).with_context(|| at.clone())?;
        for other in &mut others {
            other.arrived().with_context(|| at.clone())?;
        }
        alive(&mut tap).with_context(|| at.clone())?;
        let done = tally.sent + tally.refused;
        if done / TELL > (done - ROUND) / TELL && done < count {
            println!("{done} packets, {:.0} s", start.elapsed().as_secs_f32());
        }
    }
    let mut tcp = Tcp::connect("127.0.0.1")?;
    tcp.set("last", b"value")?;
    let reply = Udp::connect("127.0.0.1")?.ask(b"get last\r\n")?;
    ensure!(reply == b"VALUE last 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
    println!(
        "{} packets ({} not taken by the card), {} replies, all of {} for others arrived, {} heard \
         as they were sent, {:.0} s; XDP took {}, it and the hook answered {}, the socket {}",
        tally.sent,
        tally.refused,
        tally.replies,
        others.iter().map(|other| other.sent).sum::<u64>(),
        tally.heard,
        start.elapsed().as_secs_f32(),
        tcp.stat("hippos_xdp_served")?,
        tcp.stat("hippos_udp_fast_datagrams")?,
        tcp.stat("hippos_udp_datagrams")?,
    );
    drop(tcp);
    run("sysctl -qw net.ipv4.ip_forward=0")?;
    hippos.verify()?;
    hippos.unload()
}

#[derive(Default)]
struct Tally {
    sent: u64,
    refused: u64,
    replies: u64,
    heard: u64,
}

/// A socket that is not Hippos's, and how many datagrams it should have seen.
struct Other {
    name: &'static str,
    address: [u8; 4],
    port: u16,
    socket: UdpSocket,
    sent: u64,
    seen: u64,
}

/// The beginning of the datagrams for other sockets, behind a frame like ours: it looks like a GET.
const MARK: &[u8] = b"get not-for-hippos-";

impl Other {
    fn new(
        name: &'static str,
        address: [u8; 4],
        port: u16,
        bind: impl FnOnce() -> Result<UdpSocket>,
    ) -> Result<Self> {
        let socket = bind()?;
        socket.set_nonblocking(true)?;
        Ok(Other {
            name,
            address,
            port,
            socket,
            sent: 0,
            seen: 0,
        })
    }

    fn payload(number: u64) -> Vec<u8> {
        let request = [MARK, format!("{number:016x}\r\n").as_bytes()].concat();
        framed(number as u16, &request)
    }

    fn send(&mut self, tap: &mut Tap, count: u64) -> Result<()> {
        for _ in 0..count {
            let datagram = Datagram {
                addresses: Addresses::Ipv4(tap::FAR_IPV4, self.address),
                to_port: self.port,
                ..Datagram::ipv4(&Self::payload(self.sent))
            };
            tap.send_with(Offload::default(), &datagram.frame())?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Checks that all of them arrived. A hostile packet may have come here as well.
    fn arrived(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut datagram = [0; 65536];
        while self.seen < self.sent {
            match self.socket.recv(&mut datagram) {
                Ok(length) if datagram[..length] == Self::payload(self.seen) => self.seen += 1,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(
                        start.elapsed() < LIMIT,
                        "{}: {} of {} arrived",
                        self.name,
                        self.seen,
                        self.sent
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
                // A hostile packet's ICMP error.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Reads the frames from the wire, and checks each packet from our port. Returns their number.
fn drain(tap: &mut Tap) -> Result<u64> {
    let mut count = 0;
    while let Some(frame) = tap.receive(Duration::ZERO, |_| true)? {
        if let Some(reply) = tap::Reply::parse(&frame) {
            if reply.from_port == PORT {
                reply.check().with_context(|| format!("{frame:02x?}"))?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// One request in good order, and its answer.
fn alive(tap: &mut Tap) -> Result<()> {
    let request = Datagram {
        from_port: 4999,
        ..Datagram::ipv4(&framed(0x4242, b"get none-of-these\r\n"))
    };
    tap.send_with(Offload::default(), &request.frame())?;
    let reply = tap
        .receive(LIMIT, |frame| {
            tap::Reply::parse(frame)
                .is_some_and(|reply| (reply.from_port, reply.to_port) == (PORT, 4999))
        })?
        .context("no answer any more")?;
    let reply = request.answered_by(&reply)?;
    ensure!(reply.ends_with(b"END\r\n"), "{reply:?}");
    Ok(())
}

/// One packet, and the card's metadata for it.
fn malformed_packet(random: &mut Random) -> (Offload, Vec<u8>) {
    let payload = payload(random);
    let mut datagram = if random.one_in(2) {
        Datagram::ipv4(&payload)
    } else {
        Datagram::ipv6(&payload)
    };
    datagram.from_port = 5000 + random.below(1000) as u16;
    if random.one_in(8) {
        headers(random, &mut datagram);
    }
    if random.one_in(8) {
        datagram.options = options(random, &datagram);
    }
    if random.one_in(12) {
        datagram.fragment = *random.pick(&[0x2000, 0x4000, 0x8000, 1, 2, 0x2001, 0x1fff, 0x3fff]);
    }
    if random.one_in(8) {
        datagram.checksum = *random.pick(&[Checksum::Bad, Checksum::Zero, Checksum::Partial]);
    }
    let mut offload = Offload::default();
    if random.one_in(6) {
        random_offload(random, &mut datagram, &mut offload);
    }
    let mut frame = datagram.frame();
    if random.one_in(2) {
        for _ in 0..=random.below(4) {
            mutate(random, &mut frame);
        }
    }
    (offload, frame)
}

/// Addresses, ports, tags.
fn headers(random: &mut Random, datagram: &mut Datagram) {
    match random.below(6) {
        0 => datagram.from_port = *random.pick(&[0, 1, 53, PORT, 65535]),
        1 => datagram.to_port = *random.pick(&[0, 1, 11210, 11212, ECHO, 65535]),
        2 => datagram.ttl = *random.pick(&[0, 1, 2, 255]),
        3 => datagram.vlan = Some(*random.pick(&[0, 1, 7, 4095, 0xe007])),
        4 => {
            datagram.to_mac = *random.pick(&[[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 9, 9]]);
        }
        _ => {
            datagram.addresses = match datagram.addresses {
                Addresses::Ipv4(from, to) => {
                    let odd = [
                        [0; 4],
                        [255; 4],
                        [127, 0, 0, 1],
                        [224, 0, 0, 1],
                        [10, 9, 200, 1],
                        [10, 9, 200, 255],
                        [10, 9, 202, 1],
                        BEHIND,
                        [8, 8, 8, 8],
                    ];
                    if random.one_in(2) {
                        Addresses::Ipv4(*random.pick(&odd), to)
                    } else {
                        Addresses::Ipv4(from, *random.pick(&odd))
                    }
                }
                Addresses::Ipv6(from, to) => {
                    let mut group = [0; 16];
                    (group[0], group[1], group[15]) = (0xff, 2, 1);
                    let mut mapped = [0; 16];
                    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 9, 200, 2]);
                    let mut own = [0; 16];
                    own[15] = 1;
                    let odd = [group, mapped, own, [0; 16], tap::NEAR_IPV6, tap::FAR_IPV6];
                    if random.one_in(2) {
                        Addresses::Ipv6(*random.pick(&odd), to)
                    } else {
                        Addresses::Ipv6(from, *random.pick(&odd))
                    }
                }
            }
        }
    }
}

/// IPv4 options, or one IPv6 extension header.
fn options(random: &mut Random, datagram: &Datagram) -> Vec<u8> {
    match datagram.addresses {
        Addresses::Ipv4(..) => {
            let words = 1 + random.below(10);
            let mut options = vec![1; words * 4];
            match random.below(4) {
                0 => options = random.bytes(words * 4),
                // Record route, time stamps, router alert, source routes.
                1 => options[0] = *random.pick(&[7, 68, 148, 131, 137, 130]),
                _ => {}
            }
            if let (true, Some(length)) = (random.one_in(2), options.get_mut(1)) {
                *length = random.below(45) as u8;
            }
            options
        }
        Addresses::Ipv6(..) => {
            let words = random.below(4);
            let mut header = random.bytes(8 + words * 8);
            header[1] = if random.one_in(8) {
                random.next() as u8
            } else {
                words as u8
            };
            if random.one_in(2) {
                // Valid: only padding.
                let length = header.len();
                header[2] = 1;
                header[3] = (length - 4) as u8;
                header[4..].fill(0);
            }
            header
        }
    }
}

/// The card's metadata for a packet: a checksum to fill in, segments to cut.
fn random_offload(random: &mut Random, datagram: &mut Datagram, offload: &mut Offload) {
    datagram.checksum = Checksum::Partial;
    let udp = datagram.before_udp() as u16;
    offload.flags = 1;
    offload.csum_start = udp;
    offload.csum_offset = 6;
    if random.one_in(2) {
        let one = datagram.payload.clone();
        let times = 1 + random.below(20);
        datagram.payload = one.repeat(times);
        datagram.payload.truncate(40_000);
        offload.gso_type = *random.pick(&[5, 5, 5, 3, 1, 4, 0x81]);
        offload.gso_size = one.len() as u16;
        offload.header = udp + 8;
    }
    if random.one_in(4) {
        let odd = random.below(200) as u16;
        match random.below(5) {
            0 => offload.flags = odd as u8,
            1 => offload.csum_start = odd,
            2 => offload.csum_offset = odd,
            3 => offload.gso_size = odd,
            _ => offload.header = odd,
        }
    }
}

/// A frame and a command, most of them nearly right.
fn payload(random: &mut Random) -> Vec<u8> {
    let mut command = Vec::new();
    for _ in 0..1 + random.below(3) / 2 {
        command.extend_from_slice(&request(random));
    }
    let mut payload = framed(random.next() as u16, &command);
    if random.one_in(10) {
        // Number and count of datagrams, and the reserved field.
        let at = 2 + random.below(6);
        payload[at] = random.next() as u8;
    }
    payload
}

fn request(random: &mut Random) -> Vec<u8> {
    let key = |random: &mut Random| -> String {
        match random.below(12) {
            0 => "k".repeat(249 + random.below(4)),
            1 => String::new(),
            _ => format!("key{}", random.below(40)),
        }
    };
    let keys = |random: &mut Random| -> String {
        let count = *random.pick(&[1, 1, 1, 2, 3, 8, 60]);
        (0..count).map(|_| " ".to_owned() + &key(random)).collect()
    };
    let value = |random: &mut Random| -> Vec<u8> {
        let length = *random.pick(&[0, 1, 5, 100, 1000, 1300, 1392]);
        random.bytes(length)
    };
    let data = |random: &mut Random, head: String, tail: &str| -> Vec<u8> {
        let value = value(random);
        let said = if random.one_in(10) {
            random.below(100_000)
        } else {
            value.len()
        };
        let mut command = format!("{head} {said}{tail}\r\n").into_bytes();
        command.extend_from_slice(&value);
        command.extend_from_slice(b"\r\n");
        command
    };
    let one = key(random);
    match random.below(20) {
        0..=5 => format!("get{}\r\n", keys(random)).into_bytes(),
        6 => format!("gets{}\r\n", keys(random)).into_bytes(),
        7 => format!("gat {}{}\r\n", random.below(100), keys(random)).into_bytes(),
        8 => {
            let flags = *random.pick(&[
                "v",
                "v t f c s k O123 q",
                "",
                "t",
                "N30 v",
                "E5 I T90",
                "b v",
            ]);
            format!("mg {one} {flags}\r\n").into_bytes()
        }
        9..=11 => {
            let verb = *random.pick(&["set", "add", "replace", "append", "prepend"]);
            let noreply = *random.pick(&["", " noreply"]);
            data(random, format!("{verb} {one} 7 0"), noreply)
        }
        12 => data(random, format!("ms {one}"), " T60 c"),
        13 => format!("incr {one} {}\r\n", random.next()).into_bytes(),
        14 => format!("delete {one}\r\n").into_bytes(),
        15 => format!("touch {one} {}\r\n", random.below(100)).into_bytes(),
        16 => random
            .pick(&[
                "stats\r\n",
                "stats items\r\n",
                "version\r\n",
                "mn\r\n",
                "verbosity 1\r\n",
                "flush_all\r\n",
                "flush_all noreply\r\n",
                "quit\r\n",
                "END\r\n",
                "ERROR\r\n",
                "VALUE x 0 1\r\n",
            ])
            .as_bytes()
            .to_vec(),
        17 => {
            // The binary protocol.
            let length = 24 + random.below(60);
            let mut binary = random.bytes(length);
            binary[0] = 0x80;
            binary[1] = random.below(0x30) as u8;
            binary
        }
        18 => {
            let length = random.below(1400);
            random.bytes(length)
        }
        _ => vec![*random.pick(&[b' ', b'\r', b'\n', 0, b'g', 0xff]); random.below(1400)],
    }
}

/// Changes a frame as a bad wire would.
fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    let length = frame.len();
    match random.below(8) {
        0 => frame.truncate(random.below(length + 1)),
        1 => {
            let more = random.below(64);
            frame.extend(random.bytes(more));
        }
        // Anywhere in the headers.
        2..=4 => {
            let at = random.below(length.clamp(1, 70));
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        5 => {
            let at = random.below(length.clamp(1, 70));
            if let Some(byte) = frame.get_mut(at) {
                *byte = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]);
            }
        }
        6 => {
            let at = random.below(length.max(1));
            if let Some(byte) = frame.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        _ => {
            let at = random.below(length + 1);
            let count = random.below(9).min(length - at);
            frame.drain(at..at + count);
        }
    }
}

/// Hostile clients of the TCP receive path: requests cut off, floods of nonsense, connections that end
/// in the middle of anything.
pub(super) fn streams_do_not_stop_the_server(arguments: &[String]) -> Result<()> {
    let count: u64 = arguments
        .first()
        .map_or(Ok(1500), |text| text.parse().context("how many?"))?;
    let hippos = Hippos::load("memory_mb=32")?;
    let mut random = Random::new(7);
    for number in 0..count {
        let stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.set_nonblocking(true)?;
        for _ in 0..random.below(8) {
            let mut bytes: Vec<u8> = (0..random.below(20))
                .flat_map(|_| request(&mut random))
                .collect();
            if random.one_in(2) && !bytes.is_empty() {
                mutate(&mut random, &mut bytes);
            }
            match (&stream).write(&bytes) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        match random.below(3) {
            // A reset instead of an end, with answers unread.
            0 => {
                let linger = nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)?;
            }
            1 => drop(stream.shutdown(std::net::Shutdown::Write)),
            _ => {}
        }
        drop(stream);
        if number % 100 == 0 {
            let mut tcp = Tcp::connect("127.0.0.1")?;
            tcp.set("alive", b"yes")
                .with_context(|| format!("after {number} connections"))?;
        }
    }
    let start = Instant::now();
    while Tcp::connect("127.0.0.1")?.stat("curr_connections")? > 5 {
        if start.elapsed() > LIMIT {
            bail!("connections are left over");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    hippos.verify()?;
    hippos.unload()
}
