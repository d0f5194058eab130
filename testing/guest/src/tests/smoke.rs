// SPDX-License-Identifier: GPL-2.0-only
//! The minimum for every kernel: load, a SET, a GET over TCP and UDP, unload.

use anyhow::{ensure, Context, Result};
use hippos_client::{Tcp, Udp};

use crate::modules::Hippos;
use crate::netns::{self, Namespace};
use crate::receive_path;

/// The counters of the receive paths: datagrams answered by XDP, by the hook or XDP, and by the socket.
const COUNTERS: [&str; 3] = [
    "hippos_xdp_served",
    "hippos_udp_fast_datagrams",
    "hippos_udp_datagrams",
];

pub(super) fn serves_tcp_and_udp() -> Result<()> {
    const VALUE: &[u8] = b"VALUE key 0 5\r\nvalue\r\nEND\r\n";
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    for host in [&link.here_ipv4, &link.here_ipv6] {
        let counted = there.enter(|| {
            let mut tcp = Tcp::connect(host)?;
            tcp.set("key", b"value")?;
            tcp.send(b"get key\r\n")?;
            let mut answer = [0; VALUE.len()];
            tcp.read(&mut answer)?;
            ensure!(answer == VALUE, "over TCP {:?}", answer.escape_ascii());
            let mut count =
                || -> Result<Vec<u64>> { COUNTERS.iter().map(|name| tcp.stat(name)).collect() };
            let before = count()?;
            let answer = Udp::connect(host)?.ask(b"get key\r\n")?;
            ensure!(answer == VALUE, "over UDP {:?}", answer.escape_ascii());
            let after = count()?;
            Ok([0, 1, 2].map(|at| after[at] - before[at]))
        });
        let counted = counted.with_context(|| host.clone())?;
        let expected = [
            u64::from(receive_path::is_xdp()),
            u64::from(!receive_path::is_socket()),
            u64::from(receive_path::is_socket()),
        ];
        ensure!(counted == expected, "{COUNTERS:?} {counted:?}");
    }
    hippos.unload()
}
