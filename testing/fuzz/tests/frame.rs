// SPDX-License-Identifier: GPL-2.0-only
//! The C code that reads a frame's headers and makes those of a reply, `kmod/c/frame.h`: compiled for this machine with
//! the sanitizers for addresses and undefined behaviour, and compared with a description of the valid requests. Frames
//! are cut at each byte, and mutated at random with checksums that are often right.

mod common;

use common::Random;
use hippos_proto::udp::may_answer_port;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

const PORT: u16 = 11999;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OWN_IPV4: [[u8; 4]; 3] = [[192, 0, 2, 1], [203, 0, 113, 0], [10, 9, 9, 9]];
const OWN_IPV6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER_IPV6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The harness, compiled once for all tests.
fn harness() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(compile)
}

fn compile() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernel = here.join("../../kmod/c");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frame");
    // kernel.h replaces the kernel's headers: those that this machine lacks are empty files.
    for file in ["frame.h", "datagram.h", "hippos.h", "pass.h"] {
        let text = fs::read_to_string(kernel.join(file)).expect(file);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("#include <") {
                let header = out.join(name.trim_end_matches('>'));
                fs::create_dir_all(header.parent().unwrap()).unwrap();
                fs::write(header, "").unwrap();
            }
        }
    }
    let program = out.join("program");
    let status = Command::new("cc")
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-fno-strict-aliasing",
            "-funsigned-char",
        ])
        .args(["-fsanitize=address,undefined", "-fno-sanitize=alignment"])
        .args(["-fno-sanitize-recover=all", "-Wall", "-Werror"])
        .args(["-Wno-unused-function", "-Wno-address-of-packed-member"])
        .arg("-I")
        .arg(&kernel)
        .arg("-idirafter")
        .arg(&out)
        .arg("-o")
        .arg(&program)
        .arg(here.join("c/frame.c"))
        .status();
    assert!(
        status.expect("cc").success(),
        "the harness does not compile"
    );
    program
}

/// Whether the device that receives a frame has IPv6.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    On,
    /// `disable_ipv6` of the device.
    Off,
    /// `ipv6.disable=1` of the kernel.
    None,
}

/// Whether the device that receives a frame has lower devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upper {
    No,
    /// A bridge.
    Yes,
    /// The interface of a VLAN.
    Vlan,
}

/// A frame, and the machine that receives it.
#[derive(Clone)]
struct Case {
    has_vlans: bool,
    loopback: bool,
    ipv6: Ipv6,
    upper: Upper,
    /// The reply's length, at most that of the request.
    reply: u16,
    frame: Vec<u8>,
}

/// The result for a frame.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was not touched; the reason, if it is counted.
    Passed(String),
    Served(Request, Vec<u8>),
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    payload: usize,
    headers: usize,
    source: Vec<u8>,
}

/// Gives all cases to the harness.
fn run(cases: &[Case]) -> Vec<Outcome> {
    let mut child = Command::new(harness())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut input = Vec::new();
    for case in cases {
        input.extend(PORT.to_le_bytes());
        let (has_vlans, loopback) = (u8::from(case.has_vlans), u8::from(case.loopback));
        input.extend([has_vlans, loopback, case.ipv6 as u8, case.upper as u8]);
        input.extend(case.reply.to_le_bytes());
        input.extend((case.frame.len() as u16).to_le_bytes());
        input.extend(&case.frame);
    }
    let writer = thread::spawn(move || to.write_all(&input));
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    let status = child.wait().unwrap();
    let mut rest = &output[..];
    let mut outcomes = Vec::new();
    while !rest.is_empty() {
        let mut take = |len: usize| {
            let (taken, behind) = rest.split_at(len);
            rest = behind;
            taken
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        let len = number(take(4));
        let reason = number(take(1));
        let reason = String::from_utf8(take(reason).to_vec()).unwrap();
        if len == 0 {
            outcomes.push(Outcome::Passed(reason));
            continue;
        }
        let (payload, headers) = (number(take(4)), number(take(2)));
        let (ipv4, ipv6) = (take(4).to_vec(), take(16).to_vec());
        let source = if headers == 28 { ipv4 } else { ipv6 };
        let request = Request {
            payload,
            headers,
            source,
        };
        outcomes.push(Outcome::Served(request, take(len).to_vec()));
    }
    // A sanitizer ends it at the frame that it reads beyond.
    if !status.success() || outcomes.len() != cases.len() {
        let at = cases.get(outcomes.len()).map(|case| &case.frame);
        panic!("{status} at or soon behind {at:02x?}");
    }
    let _ = writer.join().unwrap();
    outcomes
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)))
        .sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum over the addresses, the rest of the pseudo-header, and a datagram.
fn datagram_sum(addresses: &[u8], datagram: &[u8]) -> u16 {
    folded(sum(addresses) + 17 + datagram.len() as u64 + sum(datagram))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where the network header of a frame is, and its protocol, if the frame is this machine's.
fn network(case: &Case) -> Option<(usize, u16)> {
    let frame = &case.frame;
    if frame.len() < 14 || frame[..6] != OWN || frame[6] & 1 == 1 {
        return None;
    }
    match word(frame, 12) {
        0x8100 => {
            let ours = frame.len() >= 18 && case.has_vlans && word(frame, 14) & 0xfff == 5;
            ours.then(|| (18, word(frame, 16)))
        }
        protocol => Some((14, protocol)),
    }
}

/// The datagram, if its UDP header is that of a request.
fn udp(datagram: &[u8], checked: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let from = word(datagram, 0);
    let valid = word(datagram, 2) == PORT
        && may_answer_port(from, PORT)
        && usize::from(word(datagram, 4)) == datagram.len()
        && datagram.len() > 8
        && checked(datagram);
    valid.then(|| datagram.len() - 8)
}

/// The request that a frame is, by the protocols' rules and those of docs/fast-path.md.
fn expected(case: &Case) -> Option<Request> {
    let (at, protocol) = network(case).filter(|_| case.upper != Upper::Yes)?;
    let packet = &case.frame[at..];
    // The VLAN is none of the loopback device.
    let (loopback_device, version) = (case.loopback && at == 14, packet.first()? >> 4);
    if protocol == 0x0800 && version == 4 && packet.len() >= 28 {
        let total = usize::from(word(packet, 2));
        let plain = packet[0] == 0x45 && packet[9] == 17 && word(packet, 6) & 0x3fff == 0;
        if !plain || !(28..=packet.len()).contains(&total) || folded(sum(&packet[..20])) != 0xffff {
            return None;
        }
        let (from, to) = (&packet[12..16], &packet[16..20]);
        let payload = udp(&packet[20..total], |datagram| {
            word(datagram, 6) == 0 || datagram_sum(&packet[12..20], datagram) == 0xffff
        })?;
        let wide = from[..3] == [192, 0, 2];
        let stands_for_all = wide && [0, 255].contains(&from[3]);
        let is_own = !loopback_device && (from == OWN_IPV4[0] || from == OWN_IPV4[1]);
        let valid = from[0] != 0
            && !(224..240).contains(&from[0])
            && from != [255; 4]
            && (loopback_device || from[0] != 127 && to[0] != 127)
            && !stands_for_all
            && !is_own
            && OWN_IPV4.iter().any(|own| own == to);
        return valid.then(|| Request {
            payload,
            headers: 28,
            source: from.to_vec(),
        });
    }
    if protocol == 0x86dd && version == 6 && packet.len() >= 48 && packet[6] == 17 {
        let len = usize::from(word(packet, 4));
        let datagram = packet[40..]
            .get(..len)
            .filter(|datagram| datagram.len() >= 8)?;
        let (from, to) = (&packet[8..24], &packet[24..40]);
        let payload = udp(datagram, |datagram| {
            word(datagram, 6) != 0 && datagram_sum(&packet[8..40], datagram) == 0xffff
        })?;
        let loopback = [&[0; 15][..], &[1]].concat();
        let mapped = [&[0; 10][..], &[0xff; 2]].concat();
        // The VLAN has it.
        let valid = (case.ipv6 == Ipv6::On || at == 18)
            && from != [0; 16]
            && from[0] != 0xff
            && from[..12] != mapped
            && (loopback_device || from != loopback)
            && to == OWN_IPV6;
        return valid.then(|| Request {
            payload,
            headers: 48,
            source: from.to_vec(),
        });
    }
    None
}

/// Checks a reply against its request.
fn check_reply(case: &Case, request: &Request, reply: &[u8]) {
    let (at, protocol) = network(case).expect("a network header");
    let len = usize::from(case.reply).min(request.payload);
    let (old, new) = (&case.frame[at..], &reply[at..]);
    let ip = request.headers - 8;
    assert_eq!(reply.len(), at + request.headers + len, "length");
    assert_eq!(reply[..12], [PEER, OWN].concat(), "Ethernet addresses");
    assert_eq!(reply[12..14], case.frame[12..14], "type");
    if at == 18 {
        assert_eq!(reply[14..16], [3 << 5, 5], "priority and VLAN");
        assert_eq!(word(reply, 16), protocol);
    }
    if ip == 20 {
        assert_eq!(new[..2], [0x45, 0]);
        assert_eq!(usize::from(word(new, 2)), new.len());
        assert_eq!(new[6..10], [0, 0, 64, 17], "no fragment, TTL, protocol");
        assert_eq!(folded(sum(&new[..20])), 0xffff, "the header's checksum");
        assert_eq!((&new[12..16], &new[16..20]), (&old[16..20], &old[12..16]));
        assert_eq!(datagram_sum(&new[12..20], &new[20..]), 0xffff);
    } else {
        assert_eq!(new[..4], [0x60, 0, 0, 0]);
        assert_eq!(usize::from(word(new, 4)), 8 + len);
        assert_eq!(new[6..8], [17, 64], "protocol and hop limit");
        assert_eq!((&new[8..24], &new[24..40]), (&old[24..40], &old[8..24]));
        assert_eq!(datagram_sum(&new[8..40], &new[40..]), 0xffff);
    }
    let (old, new) = (&old[ip..], &new[ip..]);
    assert_eq!((&new[..2], &new[2..4]), (&old[2..4], &old[..2]), "ports");
    assert_eq!(usize::from(word(new, 4)), 8 + len);
    assert_ne!(word(new, 6), 0, "0 is no checksum");
    assert_eq!(new[8..], old[8..8 + len], "payload");
}

fn check(cases: &[Case]) -> Vec<Outcome> {
    let outcomes = run(cases);
    for (case, outcome) in cases.iter().zip(&outcomes) {
        match (expected(case), outcome) {
            (Some(wanted), Outcome::Served(request, reply)) => {
                assert_eq!(wanted, *request, "{:02x?}", case.frame);
                check_reply(case, request, reply);
            }
            (None, Outcome::Passed(_)) => {}
            (wanted, found) => panic!("{wanted:?}, not {found:?}, of {:02x?}", case.frame),
        }
    }
    outcomes
}

/// Makes the checksums of a frame right, as far as its lengths lead to them.
fn correct(frame: &mut [u8]) {
    let at = if frame.len() >= 18 && word(frame, 12) == 0x8100 {
        18
    } else {
        14
    };
    let packet = frame.get_mut(at..).unwrap_or_default();
    let (ip, addresses) = match packet.first().map(|first| first >> 4) {
        Some(6) => (40, 8..40),
        _ => (20, 12..20),
    };
    if packet.len() < ip + 8 {
        return;
    }
    if ip == 20 {
        packet[10..12].fill(0);
        let check = !folded(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    let end = (ip + usize::from(word(packet, ip + 4))).clamp(ip + 8, packet.len());
    packet[ip + 6..ip + 8].fill(0);
    let check = match !datagram_sum(&packet[addresses], &packet[ip..end]) {
        0 => 0xffff,
        check => check,
    };
    packet[ip + 6..ip + 8].copy_from_slice(&check.to_be_bytes());
}

/// A request of so many bytes in a frame with a tag or none, padded with so many.
fn request(ipv6: bool, tagged: bool, payload: &[u8], padding: usize) -> Case {
    let mut frame = [OWN, PEER].concat();
    if tagged {
        // Priority 5, VLAN 5.
        frame.extend([0x81, 0, 0xa0, 5]);
    }
    let udp_len = (8 + payload.len()) as u16;
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x61, 2, 3, 4]);
        frame.extend(udp_len.to_be_bytes());
        frame.extend([17, 7]);
        frame.extend([PEER_IPV6, OWN_IPV6].concat());
    } else {
        frame.extend([8, 0, 0x45, 0x10]);
        frame.extend((20 + udp_len).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 7, 17, 0, 0]);
        frame.extend([192, 0, 2, 77, 192, 0, 2, 1]);
    }
    frame.extend(40000u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame.resize(frame.len() + padding, 0xee);
    let mut case = Case {
        has_vlans: tagged,
        loopback: false,
        ipv6: Ipv6::On,
        upper: Upper::No,
        reply: payload.len() as u16 / 2,
        frame,
    };
    correct(&mut case.frame);
    case
}

fn requests() -> Vec<Case> {
    let payload: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(5)).collect();
    let mut all = Vec::new();
    for (ipv6, tagged) in [(false, false), (true, false), (false, true), (true, true)] {
        for (len, padding) in [(21, 0), (22, 0), (64, 0), (30, 5)] {
            all.push(request(ipv6, tagged, &payload[..len], padding));
        }
    }
    all
}

#[test]
fn requests_are_answered_and_their_beginnings_are_not() {
    let served = check(&requests());
    assert!(served.iter().all(|one| matches!(one, Outcome::Served(..))));
    let mut cut = Vec::new();
    for whole in requests() {
        for len in 0..whole.frame.len() {
            let mut case = whole.clone();
            case.frame.truncate(len);
            cut.push(case);
        }
    }
    check(&cut);
}

#[test]
fn odd_headers_are_passed_with_their_reason() {
    let odd = |at: usize, bytes: &[u8], ipv6: bool, fix: bool| {
        let mut case = request(ipv6, false, b"0123456789get key\r\n", 0);
        case.frame[at..at + bytes.len()].copy_from_slice(bytes);
        if fix {
            correct(&mut case.frame);
        }
        case
    };
    let cases = [
        ("", odd(36, &[0, 1], false, true)),
        ("", odd(23, &[6], false, true)),
        ("", odd(12, &[8, 6], false, true)),
        ("", odd(20, &[6], true, true)),
        ("broadcast", odd(0, &[0xff; 6], false, true)),
        ("broadcast", odd(6, &[1], false, true)),
        ("options", odd(14, &[0x46], false, true)),
        ("options", odd(14, &[0x40], false, true)),
        ("options", odd(20, &[44], true, true)),
        ("fragment", odd(20, &[0x20, 0], false, true)),
        ("fragment", odd(20, &[0, 1], false, true)),
        ("length", odd(16, &[0xff, 0xff], false, true)),
        ("length", odd(16, &[0, 27], false, true)),
        ("length", odd(16, &[0, 28], false, true)),
        ("length", odd(38, &[0, 8], false, true)),
        ("length", odd(38, &[0xff, 0xff], false, true)),
        ("length", odd(18, &[0xff, 0xff], true, true)),
        ("length", odd(18, &[0, 0], true, true)),
        ("source_port", odd(34, &[0, 0], false, true)),
        ("source_port", odd(34, &11211u16.to_be_bytes(), false, true)),
        ("source_port", odd(54, &PORT.to_be_bytes(), true, true)),
        ("checksum", odd(22, &[9], false, false)),
        ("checksum", odd(45, &[0x99], false, false)),
        ("checksum", odd(60, &[0, 0], true, false)),
        ("addresses", odd(26, &[192, 0, 2, 255], false, true)),
        ("addresses", odd(26, &[192, 0, 2, 0], false, true)),
        ("addresses", odd(26, &[192, 0, 2, 1], false, true)),
        ("addresses", odd(26, &[224, 0, 0, 1], false, true)),
        ("addresses", odd(26, &[127, 0, 0, 1], false, true)),
        ("addresses", odd(30, &[192, 0, 2, 2], false, true)),
        ("addresses", odd(22, &[0xff], true, true)),
        ("addresses", odd(38, &[0x21], true, true)),
    ];
    let without = |ipv6| Case {
        ipv6,
        ..odd(0, &[], true, false)
    };
    let stacked = |upper| Case {
        upper,
        ..odd(0, &[], false, false)
    };
    let cases = [
        &cases[..],
        &[("device", stacked(Upper::Yes))],
        &[Ipv6::Off, Ipv6::None].map(|ipv6| ("addresses", without(ipv6))),
    ]
    .concat();
    let tested: Vec<Case> = cases.iter().map(|(_, case)| case.clone()).collect();
    let outcomes = check(&tested);
    for ((reason, case), outcome) in cases.iter().zip(outcomes) {
        assert_eq!(
            outcome,
            Outcome::Passed((*reason).to_owned()),
            "{:02x?}",
            case.frame
        );
    }
    // In a network of two addresses, and without a checksum, which IPv4 allows.
    let two = odd(26, &[203, 0, 113, 1, 203, 0, 113, 0], false, true);
    let unchecked = odd(40, &[0, 0], false, false);
    for outcome in check(&[two, unchecked, stacked(Upper::Vlan)]) {
        assert!(matches!(outcome, Outcome::Served(..)));
    }
}

#[test]
fn mutated_frames_are_served_or_passed_as_described() {
    const CASES: usize = 60_000;
    let (mut random, requests) = (Random(1), requests());
    let mut cases = Vec::new();
    while cases.len() < CASES {
        let mut case = requests[random.below(requests.len())].clone();
        let frame = &mut case.frame;
        for _ in 0..random.below(4) {
            // Mostly in the headers.
            let at = random.below(frame.len().min(62));
            match random.below(7) {
                0 => frame.truncate(at + 1),
                1 => frame.resize(frame.len() + at, 0),
                2 => frame[at] ^= 1 << random.below(8),
                3 => frame[at] = [0, 1, 0x7f, 0xff][random.below(4)],
                4 => frame[at] = random.below(256) as u8,
                5 if at + 1 < frame.len() => {
                    let odd = [0, 8, 28, 11211, PORT, 0xffff][random.below(6)];
                    frame[at..at + 2].copy_from_slice(&odd.to_be_bytes());
                }
                _ => frame[at..].rotate_left(1),
            }
        }
        // The addresses of IPv4, whose sum has carries.
        if random.below(4) == 0 && frame.len() > 34 && word(frame, 12) == 0x0800 {
            frame[26..30].fill_with(|| random.below(256) as u8);
        }
        if random.below(2) == 0 {
            correct(frame);
        }
        case.has_vlans ^= random.below(8) == 0;
        case.loopback = random.below(4) == 0;
        if random.below(16) == 0 {
            case.ipv6 = [Ipv6::Off, Ipv6::None][random.below(2)];
        }
        if random.below(16) == 0 {
            case.upper = [Upper::Yes, Upper::Vlan][random.below(2)];
        }
        case.reply = random.below(80) as u16;
        cases.push(case);
    }
    let outcomes = check(&cases);
    let served = outcomes
        .iter()
        .filter(|one| matches!(one, Outcome::Served(..)));
    assert!(served.count() > CASES / 10, "too few are requests");
    let reasons: BTreeSet<_> = outcomes
        .iter()
        .filter_map(|one| match one {
            Outcome::Passed(reason) => Some(reason.as_str()),
            Outcome::Served(..) => None,
        })
        .collect();
    for reason in [
        "",
        "addresses",
        "broadcast",
        "checksum",
        "device",
        "fragment",
        "length",
        "options",
        "source_port",
        "vlan",
    ] {
        assert!(
            reasons.contains(reason),
            "no frame was passed for {reason:?}"
        );
    }
}
