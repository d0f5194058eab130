// SPDX-License-Identifier: GPL-2.0-only
//! The protocol against the module, without an emulated network in between: no
//! datagram is lost or late.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp, PORT};
use hippos_conformance::run::run_cases;
use hippos_conformance::{case, counters, Options, Target};

use crate::modules::Hippos;
use crate::netns::Client;
use crate::receive_path;
use crate::system::run as sh;

/// Cases played at once.
const PARALLEL: usize = 8;

/// The module's addresses for a client.
fn target(client: &Client) -> Target {
    let address = SocketAddr::new(client.server(), PORT);
    Target {
        tcp: address,
        udp: Some(address),
    }
}

/// The table of cases; by other receive paths than the usual one, those over UDP.
pub(super) fn recorded_cases_get_memcacheds_replies() -> Result<()> {
    let client = Client::new()?;
    // Some cases are played a byte at a time: the debug kernel takes a millisecond for each, and a value
    // would come more slowly than the timeout allows.
    let hippos = Hippos::load("upload_timeout=0")?;
    let target = target(&client);
    let options = Options {
        timeout: Duration::from_secs(20),
        parallel: PARALLEL,
        ..Options::default()
    };
    let mut cases = case::all()?;
    cases.retain(|case| case.udp || !(receive_path::is_xdp() || receive_path::is_socket()));
    let report = client.enter(|| Ok(run_cases(&cases, &target, &options)))?;
    ensure!(report.passed > 0, "no case was played");
    ensure!(report.failures.is_empty(), "{report}");
    // The cases do not check which receive path served them.
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let xdp = tcp.stat("hippos_xdp_served")?;
    let fast = tcp.stat("hippos_udp_fast_datagrams")?;
    println!("{report}; by XDP {xdp}");
    ensure!((xdp > 0) == receive_path::is_xdp(), "{xdp} answered by XDP");
    ensure!(
        fast == 0 || !receive_path::is_socket(),
        "{fast} answered before the socket"
    );
    drop(tcp);
    hippos.unload()
}

/// The matrix of counters, recorded from memcached.
pub(super) fn counters_match_memcacheds() -> Result<()> {
    let client = Client::new()?;
    let hippos = Hippos::load("")?;
    let target = target(&client);
    let report = client.enter(|| counters::compare(&target, "", counters::Server::Module))?;
    println!("{report}");
    ensure!(report.failures.is_empty(), "{report}");
    hippos.unload()
}

/// Counters distinguish the UDP requests that were served in softirq from the worker's.
pub(super) fn fast_and_worker_commands_are_counted_apart() -> Result<()> {
    if receive_path::is_socket() {
        println!("skipped: the worker has them all");
        return Ok(());
    }
    let hippos = Hippos::load("")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    for key in ["a", "b", "c"] {
        tcp.set(key, b"value")?;
    }
    let binary = |opcode: u8, key: &[u8], extras: &[u8]| {
        let mut packet = vec![0; 24];
        packet[..5].copy_from_slice(&[0x80, opcode, 0, key.len() as u8, extras.len() as u8]);
        packet[11] = (key.len() + extras.len()) as u8;
        [&packet, extras, key].concat()
    };
    let several = [
        binary(0x0d, b"a", b""),
        binary(0x0d, b"none", b""),
        binary(0x09, b"b", b""),
        binary(0x0a, b"", b""),
    ];
    // The request, how its reply begins, and commands served in softirq and by the worker.
    let cases: [(&[u8], &[u8], u64, u64); 21] = [
        (b"get a\r\n", b"VALUE a 0 5\r\nvalue\r\nEND", 1, 0),
        (b"get none\r\n", b"END", 1, 0),
        (b"get a none b c\r\n", b"VALUE a", 1, 0),
        (b"gets a b\r\n", b"VALUE a", 1, 0),
        (b"mg a v\r\n", b"VA 5\r\nvalue", 1, 0),
        (b"mg none\r\n", b"EN", 1, 0),
        (b"mg a k v\r\nmg b k v q\r\nmn\r\n", b"VA 5 ka", 3, 0),
        (&binary(0x00, b"a", b""), b"\x81\x00", 1, 0),
        (&binary(0x0c, b"none", b""), b"\x81\x0c", 1, 0),
        (&several.concat(), b"\x81\x0d", 4, 0),
        (b"version\r\n", b"VERSION", 0, 1),
        (b"set d 0 0 1\r\n1\r\n", b"STORED", 0, 1),
        (b"incr d 1\r\n", b"2", 0, 1),
        (b"touch d 0\r\n", b"TOUCHED", 0, 1),
        (b"gat 0 d\r\n", b"VALUE d", 0, 1),
        (b"ms e 1\r\nx\r\n", b"HD", 0, 1),
        (b"mg e T30 v\r\n", b"VA 1", 0, 1),
        (b"md e\r\n", b"HD", 0, 1),
        (b"delete d\r\n", b"DELETED", 0, 1),
        (b"get a\r\nversion\r\n", b"VALUE a", 0, 2),
        (&binary(0x01, b"f", &[0; 8]), b"\x81\x01", 0, 1),
    ];
    let (mut fast, mut slow) = (0, 0);
    for host in ["127.0.0.1", "::1"] {
        let mut udp = Udp::connect(host)?;
        for (request, begins, in_softirq, by_worker) in cases {
            let shown = request.escape_ascii();
            let reply = udp.ask(request).with_context(|| shown.to_string())?;
            ensure!(
                reply.starts_with(begins),
                "{shown}: {:?}",
                String::from_utf8_lossy(&reply)
            );
            fast += in_softirq;
            slow += by_worker;
            let counted = (
                tcp.stat("hippos_udp_fast_commands")?,
                tcp.stat("hippos_udp_commands")?,
            );
            ensure!(
                counted == (fast, slow),
                "after {shown} {counted:?} were served, not {:?}",
                (fast, slow)
            );
        }
    }
    let datagrams = tcp.stat("hippos_udp_fast_datagrams")?;
    ensure!(datagrams == 20, "{datagrams} datagrams served in softirq");
    let shown = sh("hippos-ctl stats")?;
    let line = format!("hippos_udp_fast_commands {fast}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        shown.lines().any(|shown| words(shown) == line),
        "hippos-ctl: {shown}"
    );
    hippos.unload()
}
