// SPDX-License-Identifier: GPL-2.0-only
//! The receive paths and their packets: through real cards and namespaces first,
//! then frame by frame.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use hippos_client::{check, framed, Tcp, Udp, PORT};
use nix::mount::{mount, umount, MsFlags};
use nix::sys::socket::{
    setsockopt, socket, sockopt, AddressFamily, SockFlag, SockProtocol, SockType,
};

use crate::modules::{self, Hippos};
use crate::netns::{self, Namespace};
use crate::receive_path;
use crate::system::run;
use crate::tap::{self, Addresses, Checksum, Datagram, Offload, Tap};

/// Counts the datagrams that the hook answered.
const FAST: &str = "hippos_udp_fast_datagrams";
/// Counts those that the socket's worker answered.
const SLOW: &str = "hippos_udp_datagrams";

const LIMIT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

/// How many datagrams each receive path answered.
fn counts(host: &str) -> Result<(u64, u64)> {
    let mut tcp = Tcp::connect(host)?;
    Ok((tcp.stat(FAST)?, tcp.stat(SLOW)?))
}

/// The counts for `count` requests that the fast paths can answer: theirs, or the socket's if there is no path
/// before it.
fn fast(count: u64) -> (u64, u64) {
    if receive_path::is_socket() {
        (0, count)
    } else {
        (count, 0)
    }
}

/// Set over TCP, get over UDP, from another namespace; every answer by the hook.
fn hit_and_miss(host: &str) -> Result<()> {
    let mut tcp = Tcp::connect(host)?;
    tcp.set("key", b"value")?;
    let before = counts(host)?;
    let mut udp = Udp::connect(host)?;
    let hit = udp.ask(b"get key\r\n")?;
    ensure!(hit == b"VALUE key 0 5\r\nvalue\r\nEND\r\n", "{hit:?}");
    let miss = udp.ask(b"get none\r\n")?;
    ensure!(miss == b"END\r\n", "{miss:?}");
    let both = udp.ask(b"get none key none2 key\r\n")?;
    let value = "VALUE key 0 5\r\nvalue\r\n".repeat(2) + "END\r\n";
    ensure!(both == value.as_bytes(), "{both:?}");
    let after = counts(host)?;
    ensure!(
        (after.0 - before.0, after.1 - before.1) == fast(3),
        "answered by hook and socket: {before:?}, then {after:?}"
    );
    Ok(())
}

pub(super) fn requests_over_veth_take_the_fast_path() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    there.enter(|| hit_and_miss(&link.here_ipv4).context("IPv4"))?;
    there.enter(|| hit_and_miss(&link.here_ipv6).context("IPv6"))?;
    hippos.unload()
}

pub(super) fn requests_over_loopback_take_the_fast_path() -> Result<()> {
    let hippos = Hippos::load("")?;
    hit_and_miss("127.0.0.1")?;
    hit_and_miss("::1")?;
    // Another address of this host, which is reached over lo too.
    hit_and_miss(crate::net::ADDRESS)?;
    hippos.unload()
}

/// Packets for other hosts and other ports reach them unchanged.
pub(super) fn packets_for_others_pass_unchanged() -> Result<()> {
    let client = Namespace::new("client")?;
    let server = Namespace::new("server")?;
    let near = netns::join(&client, 1)?;
    let far = netns::join(&server, 2)?;
    for (namespace, link) in [(&client, &near), (&server, &far)] {
        namespace.ip(&format!("route add default via {}", link.here_ipv4))?;
        namespace.ip(&format!("-6 route add default via {}", link.here_ipv6))?;
    }
    run("sysctl -qw net.ipv4.ip_forward=1")?;
    run("sysctl -qw net.ipv6.conf.all.forwarding=1")?;
    let hippos = Hippos::load("")?;
    for (address, family) in [(&far.far_ipv4, "0.0.0.0"), (&far.far_ipv6, "::")] {
        passes(&server, &client, family, address, PORT)
            .with_context(|| format!("to another host, {address}"))?;
    }
    for (address, family) in [(&near.here_ipv4, "0.0.0.0"), (&near.here_ipv6, "::")] {
        let own = UdpSocket::bind((family, 11212))?;
        other_port(&own, &client, address).with_context(|| format!("to {address}"))?;
    }
    hippos.unload()?;
    run("sysctl -qw net.ipv4.ip_forward=0")?;
    run("sysctl -qw net.ipv6.conf.all.forwarding=0")?;
    Ok(())
}

/// A GET from one namespace reaches a socket in another, and its answer comes back.
fn passes(
    server: &Namespace,
    client: &Namespace,
    family: &str,
    address: &str,
    port: u16,
) -> Result<()> {
    let request = framed(7, b"get key\r\n");
    let socket = server.enter(|| Ok(UdpSocket::bind((family, port))?))?;
    socket.set_read_timeout(Some(LIMIT))?;
    let asking = client.enter(|| {
        let asking = UdpSocket::bind((family, 0))?;
        asking.connect((address, port))?;
        asking.send(&request)?;
        Ok(asking)
    })?;
    let mut datagram = [0; 2048];
    let (length, from) = socket.recv_from(&mut datagram).context("not forwarded")?;
    ensure!(datagram[..length] == request, "not as it was sent");
    socket.send_to(b"theirs", from)?;
    asking.set_read_timeout(Some(LIMIT))?;
    let length = asking.recv(&mut datagram).context("no answer")?;
    ensure!(
        &datagram[..length] == b"theirs",
        "not the answer of the server beyond"
    );
    Ok(())
}

fn other_port(own: &UdpSocket, client: &Namespace, address: &str) -> Result<()> {
    own.set_read_timeout(Some(LIMIT))?;
    let request = framed(8, b"get key\r\n");
    client.enter(|| {
        let asking = UdpSocket::bind(if address.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        })?;
        asking.send_to(&request, (address, 11212))?;
        Ok(())
    })?;
    let mut datagram = [0; 2048];
    let length = own
        .recv(&mut datagram)
        .context("another port's datagram is gone")?;
    ensure!(datagram[..length] == request, "not as it was sent");
    Ok(())
}

/// A server in another namespace gets its own packets, and a module that is loaded
/// in a namespace serves that one alone.
pub(super) fn other_namespaces_keep_their_packets() -> Result<()> {
    let one = Namespace::new("one")?;
    let link = netns::join(&one, 1)?;
    let hippos = Hippos::load("")?;
    let theirs = one.enter(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))?;
    theirs.set_read_timeout(Some(LIMIT))?;
    one.enter(|| {
        let asking = UdpSocket::bind("127.0.0.1:0")?;
        asking.send_to(&framed(9, b"get key\r\n"), ("127.0.0.1", PORT))?;
        Ok(())
    })?;
    let mut datagram = [0; 2048];
    theirs
        .recv(&mut datagram)
        .context("taken in a namespace that is not ours")?;
    drop(theirs);
    hippos.unload()?;

    let hippos = one.enter(|| Hippos::load(""))?;
    one.enter(|| hit_and_miss("127.0.0.1").context("inside"))?;
    hit_and_miss(&link.far_ipv4).context("from outside")?;
    ensure!(Tcp::connect("127.0.0.1").is_err(), "served outside as well");
    hippos.unload()
}

/// Several datagrams in one sk_buff.
pub(super) fn each_gso_segment_is_answered() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    for host in [&link.here_ipv4, &link.here_ipv6] {
        there.enter(|| {
            Tcp::connect(host)?.set("key", b"value")?;
            let mut udp = Udp::connect(host)?;
            // All segments but the last are of one length.
            let mut joined = Vec::new();
            for id in 1..=20 {
                joined.extend_from_slice(&framed(id, b"get key\r\n"));
            }
            setsockopt(&udp.socket, sockopt::UdpGsoSegment, &17)?;
            udp.socket.send(&joined)?;
            let mut ids: Vec<u16> = Vec::new();
            for _ in 1..=20 {
                let mut datagram = [0; 2048];
                let length = udp
                    .socket
                    .recv(&mut datagram)
                    .context("a segment's reply")?;
                let id = u16::from_be_bytes([datagram[0], datagram[1]]);
                check(&datagram[..length], id, 0)?;
                let reply = &datagram[8..length];
                ensure!(reply == b"VALUE key 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
                ids.push(id);
            }
            ids.sort_unstable();
            ensure!(ids == (1..=20).collect::<Vec<u16>>(), "{ids:?}");
            let _ = &mut udp;
            Ok(())
        })?;
    }
    hippos.unload()
}

/// A request that is longer than a frame.
pub(super) fn fragmented_requests_are_answered() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    for host in [&link.here_ipv4, &link.here_ipv6] {
        there.enter(|| {
            Tcp::connect(host)?.set("key", b"value")?;
            let mut udp = Udp::connect(host)?;
            let mut request = b"get".to_vec();
            for number in 0..30 {
                request.extend_from_slice(format!(" {:0>100}", number).as_bytes());
            }
            request.extend_from_slice(b" key\r\n");
            let reply = udp.ask(&request)?;
            ensure!(reply == b"VALUE key 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
            Ok(())
        })?;
    }
    hippos.unload()
}

pub(super) fn requests_over_a_vlan_take_the_fast_path() -> Result<()> {
    modules::load("8021q")?;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let (here, far) = (&link.here, &link.far);
    run(&format!(
        "ip link add link {here} name {here}.7 type vlan id 7"
    ))?;
    run(&format!("ip addr add 10.9.77.1/24 dev {here}.7"))?;
    run(&format!("ip addr add fd09:77::1/64 dev {here}.7 nodad"))?;
    run(&format!("ip link set {here}.7 up"))?;
    there.ip(&format!("link add link {far} name {far}.7 type vlan id 7"))?;
    there.ip(&format!("addr add 10.9.77.2/24 dev {far}.7"))?;
    there.ip(&format!("addr add fd09:77::2/64 dev {far}.7 nodad"))?;
    there.ip(&format!("link set {far}.7 up"))?;
    let hippos = Hippos::load("")?;
    there.enter(|| hit_and_miss("10.9.77.1"))?;
    there.enter(|| hit_and_miss("fd09:77::1"))?;
    hippos.unload()
}

/// A card of a VRF, which has routes and local addresses of its own: served by the socket, be that
/// bound to the card, to the VRF, or to neither.
pub(super) fn requests_in_a_vrf_are_answered_by_the_socket() -> Result<()> {
    modules::load("vrf")?;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    run("ip link add vrf7 type vrf table 77")?;
    run("ip link set vrf7 up")?;
    run(&format!("ip link set {} master vrf7", link.here))?;
    // The card was down for it, which takes IPv6's addresses.
    run(&format!(
        "ip addr replace {}/64 dev {} nodad",
        link.here_ipv6, link.here
    ))?;
    let accept = |on: u8| -> Result<()> {
        for protocol in ["udp", "tcp"] {
            run(&format!(
                "sysctl -qw net.ipv4.{protocol}_l3mdev_accept={on}"
            ))?;
        }
        Ok(())
    };
    let result = [format!("dev={}", link.here), "dev=vrf7".into(), "".into()]
        .into_iter()
        .try_for_each(|parameter| {
            accept(u8::from(parameter.is_empty()))?;
            let hippos = Hippos::load(&parameter)?;
            for host in [&link.here_ipv4, &link.here_ipv6] {
                let shown = format!("{parameter:?}: {host}");
                there
                    .enter(|| {
                        Tcp::connect(host)?.set("key", b"value")?;
                        let reply = Udp::connect(host)?.ask(b"get key\r\n")?;
                        ensure!(reply.starts_with(b"VALUE key 0 5\r\n"), "{reply:?}");
                        Ok(())
                    })
                    .context(shown)?;
            }
            hippos.unload()
        });
    accept(0)?;
    run("ip link del vrf7")?;
    result
}

/// Cards behind a bridge, and a bridge's netfilter.
pub(super) fn bridged_packets_pass_and_own_are_answered() -> Result<()> {
    modules::load("bridge")?;
    modules::load("br_netfilter")?;
    let one = Namespace::new("one")?;
    let two = Namespace::new("two")?;
    let links = [netns::join(&one, 1)?, netns::join(&two, 2)?];
    run("ip link add joined type bridge")?;
    for (namespace, link, address) in [
        (&one, &links[0], "10.9.88.2"),
        (&two, &links[1], "10.9.88.3"),
    ] {
        run(&format!("ip addr flush dev {}", link.here))?;
        run(&format!("ip link set {} master joined", link.here))?;
        namespace.ip(&format!("addr add {address}/24 dev {}", link.far))?;
    }
    run("ip addr add 10.9.88.1/24 dev joined")?;
    run("ip link set joined up")?;
    let hippos = Hippos::load("")?;
    let result = (|| {
        // Through the bridge to another host: passed.
        passes(&two, &one, "0.0.0.0", "10.9.88.3", PORT).context("bridged")?;
        // To the bridge's own address: served by any receive path.
        one.enter(|| {
            Tcp::connect("10.9.88.1")?.set("key", b"value")?;
            let reply = Udp::connect("10.9.88.1")?.ask(b"get key\r\n")?;
            ensure!(reply == b"VALUE key 0 5\r\nvalue\r\nEND\r\n", "{reply:?}");
            Ok(())
        })
    })();
    run("ip link del joined")?;
    result?;
    hippos.unload()
}

/// No receive path answers a request that an IPsec policy blocks.
pub(super) fn ipsec_policy_blocks_requests() -> Result<()> {
    modules::load("xfrm_user")?;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    let pairs = [
        (&link.here_ipv4, &link.far_ipv4),
        (&link.here_ipv6, &link.far_ipv6),
    ];
    for (here, far) in pairs {
        there.enter(|| hit_and_miss(here))?;
        run(&format!(
            "ip xfrm policy add src {far} dst {here} dir in action block"
        ))?;
        let answer = there.enter(|| {
            let mut udp = Udp::connect(here)?;
            udp.socket.set_read_timeout(Some(SILENCE))?;
            Ok(udp.ask(b"get key\r\n").ok())
        })?;
        run("ip xfrm policy flush")?;
        ensure!(answer.is_none(), "{here} answered {answer:?}");
        there.enter(|| hit_and_miss(here))?;
    }
    hippos.unload()
}

/// Replies of several datagrams, by the hook and by the socket, up to the
/// largest item.
pub(super) fn long_replies_arrive_whole() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    for host in [&link.here_ipv4, &link.here_ipv6] {
        there.enter(|| {
            let mut tcp = Tcp::connect(host)?;
            let mut udp = Udp::connect(host)?;
            setsockopt(&udp.socket, sockopt::RcvBufForce, &(8 << 20))?;
            for (length, expected) in [
                (1300, fast(1)),
                (1392 - 29, fast(1)),
                (1393 - 29, fast(1)),
                (5000, fast(1)),
                (9000, fast(1)),
                (40_000, (0, 1)),
                (1_000_000, (0, 1)),
            ] {
                let value: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
                tcp.set("long", &value)?;
                let before = counts(host)?;
                let reply = udp
                    .ask(b"get long\r\n")
                    .with_context(|| format!("{length} bytes"))?;
                let after = counts(host)?;
                let mut right = format!("VALUE long 0 {length}\r\n").into_bytes();
                right.extend_from_slice(&value);
                right.extend_from_slice(b"\r\nEND\r\n");
                ensure!(reply == right, "{length} bytes came back otherwise");
                ensure!(
                    (after.0 - before.0, after.1 - before.1) == expected,
                    "{length} bytes by the wrong receive path: {before:?}, then {after:?}"
                );
            }
            Ok(())
        })?;
    }
    hippos.unload()
}

/// A card with a smaller MTU than usual: the socket's fragments reach the client.
pub(super) fn replies_beyond_the_mtu_leave_by_the_socket() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    run(&format!("ip link set {} mtu 1300", link.here))?;
    there.ip(&format!("link set {} mtu 1300", link.far))?;
    let hippos = Hippos::load("")?;
    for host in [&link.here_ipv4, &link.here_ipv6] {
        there.enter(|| {
            let mut tcp = Tcp::connect(host)?;
            for (length, expected) in [(1200, fast(1)), (1300, (0, 1)), (5000, (0, 1))] {
                tcp.set("long", &vec![b'x'; length])?;
                let before = counts(host)?;
                let reply = Udp::connect(host)?.ask(b"get long\r\n")?;
                let after = counts(host)?;
                ensure!(reply.ends_with(b"x\r\nEND\r\n"), "{} bytes", reply.len());
                ensure!(
                    after.1 - before.1 == expected.1,
                    "{length} bytes by the wrong receive path: {before:?}, then {after:?}"
                );
            }
            Ok(())
        })?;
    }
    hippos.unload()
}

/// A packet socket gets all packets, so that each sk_buff is shared.
pub(super) fn tapped_requests_are_not_overwritten() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let hippos = Hippos::load("")?;
    let capture = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )?;
    there.enter(|| hit_and_miss(&link.here_ipv4))?;
    there.enter(|| hit_and_miss(&link.here_ipv6))?;
    // The captured requests are as they were sent: the reply was not written over them.
    let (mut requests, mut replies) = (0, 0);
    let mut frame = [0; 65536];
    while let Ok(length) = nix::unistd::read(capture.as_raw_fd(), &mut frame) {
        let frame = &frame[..length];
        requests += usize::from(frame.ends_with(b"get none\r\n"));
        replies += usize::from(frame.ends_with(b"\0\x01\0\0END\r\n"));
    }
    // The packet socket does not get what XDP answers: here both requests and their replies, as the
    // requests are longer than the replies.
    let expected = if receive_path::is_xdp() {
        (0, 0)
    } else {
        (2, 2)
    };
    ensure!(
        (requests, replies) == expected,
        "heard {requests} requests, {replies} replies"
    );
    hippos.unload()
}

/// Replies bypass an empty queueing discipline, unless it shapes or delays, or
/// taps, filters or rules see outgoing packets.
pub(super) fn replies_bypass_only_idle_queueing_disciplines() -> Result<()> {
    if receive_path::is_xdp() || receive_path::is_socket() {
        println!("skipped: neither XDP nor the socket sends so");
        return Ok(());
    }
    // busybox has a tc too, so that the full path is needed.
    /// More than one batch.
    const ASKED: u64 = 40;
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    let device = &link.here;
    let hippos = Hippos::load("")?;
    modules::load("sch_netem")?;
    modules::load("nf_tables")?;
    // The number of packets that the discipline saw during so many requests.
    let queued = |host: &str| -> Result<u64> {
        let before = seen(device)?;
        there.enter(|| {
            // Requests are sent without waiting, so that their replies leave together.
            let mut udp = Udp::connect(host)?;
            let ids = (0..ASKED).map(|_| udp.send(b"get none\r\n"));
            let ids = ids.collect::<Result<Vec<_>>>()?;
            for id in ids {
                let reply = udp.reply(id)?;
                ensure!(reply == b"END\r\n", "{reply:?}");
            }
            Ok(())
        })?;
        Ok(seen(device)? - before)
    };
    let both = [&*link.here_ipv4, &*link.here_ipv6];
    for (discipline, through) in [
        ("pfifo limit 100", false),
        ("pfifo_fast", false),
        ("netem delay 1ms", true),
        ("pfifo limit 100", false),
    ] {
        run(&format!(
            "/usr/sbin/tc qdisc replace dev {device} root {discipline}"
        ))?;
        for host in both {
            there.enter(|| hit_and_miss(host).with_context(|| discipline.to_owned()))?;
            let seen = queued(host)?;
            ensure!((seen >= ASKED) == through, "{discipline} saw {seen}");
        }
    }
    // A tap, and Netfilter's egress.
    let capture = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )?;
    for host in both {
        let seen = queued(host)?;
        ensure!(seen >= ASKED, "a tap missed replies: {seen} seen");
    }
    drop(capture);
    run("/usr/sbin/nft add table netdev look")?;
    let chain = run(&format!(
        "/usr/sbin/nft add chain netdev look out {{ type filter hook egress device {device} priority 0 ; }}"
    ));
    // Some kernels lack it.
    if !matches!(&chain, Err(error) if format!("{error:#}").contains("not supported")) {
        chain?;
        run("/usr/sbin/nft add rule netdev look out udp sport 11211 counter")?;
        for host in both {
            queued(host)?;
        }
        let rules = run("/usr/sbin/nft list chain netdev look out")?;
        let counted = format!("counter packets {} ", 2 * ASKED);
        ensure!(rules.contains(&counted), "{rules}");
    }
    run("/usr/sbin/nft delete table netdev look")?;
    let seen = queued(both[0])?;
    ensure!(
        seen < ASKED,
        "{seen} seen though no rule reads them any more"
    );
    // The module is unloaded while a batch of replies waits.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            there.enter(|| {
                let mut udp = Udp::connect(both[0])?;
                while !stop.load(Ordering::Relaxed) {
                    // Once the module is unloaded, sends fail.
                    let _ = udp.send(b"get none\r\n");
                }
                Ok(())
            })
        });
        thread::sleep(SILENCE);
        let gone = hippos.unload();
        stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("panicked"))??;
        gone
    })
}

/// The number of packets that a device's queueing discipline got.
fn seen(device: &str) -> Result<u64> {
    let text = run(&format!("/usr/sbin/tc -s qdisc show dev {device} root"))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let count = words.windows(5).find_map(|words| match words {
        ["Sent", _, "bytes", count, "pkt"] => count.parse().ok(),
        _ => None,
    });
    count.with_context(|| format!("no count: {text}"))
}

/// Sends one datagram and waits for a reply to its port.
pub(super) fn ask(tap: &mut Tap, datagram: &Datagram, limit: Duration) -> Result<Option<Vec<u8>>> {
    ask_with(tap, Offload::default(), datagram, limit)
}

fn ask_with(
    tap: &mut Tap,
    offload: Offload,
    datagram: &Datagram,
    limit: Duration,
) -> Result<Option<Vec<u8>>> {
    tap.send_with(offload, &datagram.frame())?;
    let ports = [
        datagram.to_port.to_be_bytes(),
        datagram.from_port.to_be_bytes(),
    ]
    .concat();
    tap.receive(limit, |frame| {
        let udp = match (frame.get(12..14), datagram.addresses) {
            (Some([8, 0]), Addresses::Ipv4(..)) => 34,
            (Some([0x86, 0xdd]), Addresses::Ipv6(..)) => 54,
            _ => return false,
        };
        frame.get(udp..udp + 4) == Some(&ports[..])
    })
}

/// Both families' datagrams with one payload.
fn both(payload: &[u8]) -> [Datagram; 2] {
    [Datagram::ipv4(payload), Datagram::ipv6(payload)]
}

fn answered(tap: &mut Tap, datagram: &Datagram) -> Result<()> {
    let frame = ask(tap, datagram, LIMIT)?.context("no answer")?;
    let reply = datagram.answered_by(&frame)?;
    ensure!(reply.ends_with(b"END\r\n"), "{reply:?}");
    Ok(())
}

fn silent(tap: &mut Tap, datagram: &Datagram) -> Result<()> {
    match ask(tap, datagram, SILENCE)? {
        None => Ok(()),
        Some(frame) => bail!("an answer where none may be: {frame:02x?}"),
    }
}

/// Requests with valid headers of each kind are answered, and the reply's headers are exact.
pub(super) fn reply_headers_are_exact() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    for get in ["get key\r\n", "get none\r\n", "get key none key key\r\n"] {
        let payload = framed(0x1234, get.as_bytes());
        for plain in both(&payload) {
            answered(&mut tap, &plain).context(get)?;
            let last_hop = Datagram {
                ttl: 1,
                ..plain.clone()
            };
            answered(&mut tap, &last_hop).context("time to live 1")?;
            let low = Datagram {
                from_port: 1,
                ..plain.clone()
            };
            answered(&mut tap, &low).context("port 1")?;
        }
        let unsummed = Datagram {
            checksum: Checksum::Zero,
            ..Datagram::ipv4(&payload)
        };
        answered(&mut tap, &unsummed).context("IPv4 without checksum")?;
    }
    hippos.unload()
}

/// Packets that no receive path may answer.
pub(super) fn malformed_and_foreign_packets_are_not_answered() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    let payload = framed(1, b"get key\r\n");
    for plain in both(&payload) {
        for port in [0, 11211] {
            let loops = Datagram {
                from_port: port,
                ..plain.clone()
            };
            silent(&mut tap, &loops).with_context(|| format!("from port {port}"))?;
        }
        let elsewhere = Datagram {
            to_mac: [2, 0, 0, 0, 9, 9],
            ..plain.clone()
        };
        silent(&mut tap, &elsewhere).context("for another card")?;
        let broken = Datagram {
            checksum: Checksum::Bad,
            ..plain.clone()
        };
        silent(&mut tap, &broken).context("bad checksum")?;
        answered(&mut tap, &plain).context("the plain one")?;
    }
    let unsummed = Datagram {
        checksum: Checksum::Zero,
        ..Datagram::ipv6(&payload)
    };
    silent(&mut tap, &unsummed).context("IPv6 without checksum")?;
    let near = |from| Datagram {
        addresses: Addresses::Ipv4(from, tap::NEAR_IPV4),
        ..Datagram::ipv4(&payload)
    };
    for from in [
        [8, 8, 8, 8],
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
        // The network's broadcast addresses, and our own.
        [10, 9, 200, 255],
        [10, 9, 200, 0],
        [10, 9, 200, 1],
    ] {
        silent(&mut tap, &near(from)).with_context(|| format!("from {from:?}"))?;
    }
    for to in [[255; 4], [224, 0, 0, 1], [10, 9, 200, 255], [127, 0, 0, 1]] {
        let cast = Datagram {
            addresses: Addresses::Ipv4(tap::FAR_IPV4, to),
            to_mac: if to[0] == 10 || to[0] == 255 {
                [0xff; 6]
            } else {
                tap::NEAR_MAC
            },
            ..Datagram::ipv4(&payload)
        };
        silent(&mut tap, &cast).with_context(|| format!("to {to:?}"))?;
    }
    let mut foreign = tap::FAR_IPV6;
    foreign[..2].copy_from_slice(&[0x20, 0x01]);
    let mut group = [0; 16];
    (group[0], group[1], group[15]) = (0xff, 2, 1);
    for from in [foreign, [0; 16], group] {
        let from = Datagram {
            addresses: Addresses::Ipv6(from, tap::NEAR_IPV6),
            ..Datagram::ipv6(&payload)
        };
        silent(&mut tap, &from).context("IPv6 source")?;
    }
    let to_group = Datagram {
        to_mac: [0x33, 0x33, 0, 0, 0, 1],
        addresses: Addresses::Ipv6(tap::FAR_IPV6, group),
        ..Datagram::ipv6(&payload)
    };
    silent(&mut tap, &to_group).context("to all nodes")?;
    // Invalid frames and commands.
    for payload in [
        &b""[..],
        b"1234567",
        b"\x12\x34\0\0\0\x01\0\0",
        b"\x12\x34\0\0\0\x02\0\0get key\r\n",
        b"\x12\x34\0\0\0\0\0\0get key\r\n",
        b"\x12\x34\0\0\0\x01\0\0get key",
        b"\x12\x34\0\0\0\x01\0\0ERROR\r\n",
        b"\x12\x34\0\0\0\x01\0\0END\r\n",
        b"\x12\x34\0\0\0\x01\0\0VALUE key 0 5\r\nvalue\r\nEND\r\n",
    ] {
        for none in both(payload) {
            silent(&mut tap, &none)
                .with_context(|| String::from_utf8_lossy(payload).into_owned())?;
        }
    }
    for plain in both(&payload) {
        answered(&mut tap, &plain).context("the plain one, at last")?;
    }
    hippos.unload()
}

/// Unusual but valid packets: the fast paths pass them, and the socket answers.
pub(super) fn unusual_packets_are_left_to_the_socket() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    let payload = framed(1, b"get key\r\n");
    for (what, odd) in [
        (
            "IPv4 options",
            Datagram {
                options: vec![1, 1, 1, 0],
                ..Datagram::ipv4(&payload)
            },
        ),
        (
            "IPv6 destination options",
            Datagram {
                options: vec![17, 0, 1, 4, 0, 0, 0, 0],
                ..Datagram::ipv6(&payload)
            },
        ),
    ] {
        let before = counts("127.0.0.1")?;
        let frame = ask(&mut tap, &odd, LIMIT)?.with_context(|| format!("{what}: no answer"))?;
        odd.answered_by(&frame).context(what)?;
        let after = counts("127.0.0.1")?;
        ensure!(
            (after.0 - before.0, after.1 - before.1) == (0, 1),
            "{what}: {before:?}, then {after:?}"
        );
    }
    // One frame with three segments.
    let segment = payload.len();
    for plain in both(&payload.repeat(3)) {
        let plain = Datagram {
            checksum: Checksum::Partial,
            ..plain
        };
        let udp = plain.before_udp() as u16;
        let offload = Offload {
            flags: 1,
            gso_type: 5,
            header: udp + 8,
            gso_size: segment as u16,
            csum_start: udp,
            csum_offset: 6,
        };
        tap.send_with(offload, &plain.frame())?;
        let ports = [plain.to_port.to_be_bytes(), plain.from_port.to_be_bytes()].concat();
        for number in 1..=3 {
            let frame = tap
                .receive(LIMIT, |frame| {
                    frame.get(udp as usize..udp as usize + 4) == Some(&ports[..])
                })?
                .with_context(|| format!("no answer to segment {number}"))?;
            plain.answered_by(&frame)?;
        }
    }
    hippos.unload()
}

/// How often PRE_ROUTING and XDP passed a datagram for a reason.
fn passed(reason: &str) -> Result<u64> {
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let hook = tcp.stat_of("hippos_pass", &format!("hippos_pass_{reason}"))?;
    let xdp = tcp.stat_of("hippos_pass", &format!("hippos_pass_xdp_{reason}"))?;
    Ok(hook + xdp)
}

/// Each passed datagram is counted by its reason, and an answered one by none.
pub(super) fn each_pass_is_counted_by_its_reason() -> Result<()> {
    if receive_path::is_socket() {
        return Ok(());
    }
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    run("ip route add blackhole 10.77.0.0/16")?;
    run("ip route add 10.78.0.0/16 via 10.9.200.9 onlink dev wire")?;
    let filter = |on: u8| fs::write("/proc/sys/net/ipv4/conf/wire/rp_filter", [b'0' + on]);
    filter(0)?;
    let payload = framed(1, b"get key\r\n");
    let near = |from| Datagram {
        addresses: Addresses::Ipv4(from, tap::NEAR_IPV4),
        ..Datagram::ipv4(&payload)
    };
    let text = |payload: &[u8]| Datagram::ipv6(&framed(1, payload));
    let cases = [
        (
            "options",
            Datagram {
                options: vec![1, 1, 1, 0],
                ..Datagram::ipv4(&payload)
            },
        ),
        (
            "options",
            Datagram {
                options: vec![17, 0, 1, 4, 0, 0, 0, 0],
                ..Datagram::ipv6(&payload)
            },
        ),
        (
            "fragment",
            Datagram {
                fragment: 0x2000,
                ..Datagram::ipv4(&payload)
            },
        ),
        ("length", Datagram::ipv6(b"")),
        ("length", Datagram::ipv4(b"")),
        (
            "source_port",
            Datagram {
                from_port: 11211,
                ..Datagram::ipv6(&payload)
            },
        ),
        (
            "checksum",
            Datagram {
                checksum: Checksum::Bad,
                ..Datagram::ipv4(&payload)
            },
        ),
        (
            "checksum",
            Datagram {
                checksum: Checksum::Zero,
                ..Datagram::ipv6(&payload)
            },
        ),
        (
            "broadcast",
            Datagram {
                to_mac: [0xff; 6],
                ..Datagram::ipv4(&payload)
            },
        ),
        ("source", near([8, 8, 8, 8])),
        ("addresses", near([10, 9, 200, 255])),
        (
            "addresses",
            Datagram {
                addresses: Addresses::Ipv4(tap::FAR_IPV4, [10, 9, 200, 77]),
                ..Datagram::ipv4(&payload)
            },
        ),
        ("route_out", near([10, 77, 0, 5])),
        ("neighbour", near([10, 78, 0, 5])),
        ("invalid", text(b"get key")),
        ("unserved", text(b"stats\r\n")),
    ];
    for (reason, datagram) in &cases {
        let before = passed(reason)?;
        ask(&mut tap, datagram, SILENCE)?;
        ensure!(passed(reason)? > before, "{reason} is not counted");
    }
    // The cached entry of these addresses has the reason, which is counted again.
    let before = passed("route_out")?;
    for _ in 0..3 {
        ask(&mut tap, &near([10, 77, 0, 5]), Duration::from_millis(20))?;
    }
    ensure!(passed("route_out")? >= before + 3, "counted once only");
    filter(1)?;
    let before = passed("route_in")?;
    ask(&mut tap, &near([10, 77, 0, 6]), SILENCE)?;
    ensure!(passed("route_in")? > before, "route_in is not counted");
    filter(0)?;

    answered(&mut tap, &Datagram::ipv4(&payload))?;
    let all = || run("hippos-ctl stats pass");
    let before = all()?;
    for _ in 0..3 {
        answered(&mut tap, &Datagram::ipv4(&payload))?;
    }
    if !receive_path::is_xdp() {
        ensure!(all()? == before, "an answer is counted as left: {before}");
    }
    let traced = trace_pass(&mut tap, &cases[0].1)?;
    ensure!(traced.contains("reason=options"), "not traced: {traced}");
    drop(tap);
    run("ip route del blackhole 10.77.0.0/16")?;
    hippos.unload()
}

/// The socket resolves a neighbour that is not known; the client's next requests are answered in
/// place, and not only once the entry is old.
pub(super) fn clients_of_a_resolved_neighbour_are_answered_in_place() -> Result<()> {
    const CLIENT: [u8; 4] = [10, 9, 200, 9];
    // Some ticks, but less than an entry's age.
    const TICKS: Duration = Duration::from_millis(40);
    if receive_path::is_socket() {
        return Ok(());
    }
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    let datagram = Datagram {
        addresses: Addresses::Ipv4(CLIENT, tap::NEAR_IPV4),
        ..Datagram::ipv4(&framed(1, b"get none\r\n"))
    };
    let before = passed("neighbour")?;
    tap.send_with(Offload::default(), &datagram.frame())?;
    let asked = tap.receive(LIMIT, |frame| {
        frame.get(12..14) == Some(&[8, 6]) && frame.get(38..42) == Some(&CLIENT[..])
    })?;
    let asked = asked.context("no request for the client's MAC was sent")?;
    ensure!(passed("neighbour")? > before, "its neighbour was known");
    // The answer: both ends turned round.
    let mut answer = [&asked[6..12], &tap::FAR_MAC[..], &asked[12..20], &[0, 2]].concat();
    answer.extend([&tap::FAR_MAC[..], &CLIENT, &asked[22..32]].concat());
    tap.send_with(Offload::default(), &answer)?;
    let sent = tap.receive(LIMIT, |frame| {
        frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&CLIENT[..])
    })?;
    datagram.answered_by(&sent.context("no reply of the socket")?)?;
    thread::sleep(TICKS);
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let stats =
        |tcp: &mut Tcp| -> Result<(u64, u64)> { Ok((passed("neighbour")?, tcp.stat(FAST)?)) };
    let before = stats(&mut tcp)?;
    answered(&mut tap, &datagram)?;
    let after = stats(&mut tcp)?;
    ensure!(
        after == (before.0, before.1 + 1),
        "left to the socket again: {before:?}, then {after:?}"
    );
    drop(tcp);
    hippos.unload()
}

/// The events of `hippos:pass` while a datagram is sent.
fn trace_pass(tap: &mut Tap, datagram: &Datagram) -> Result<String> {
    const TRACEFS: &str = "/sys/kernel/tracing";
    let none = None::<&str>;
    mount(none, TRACEFS, Some("tracefs"), MsFlags::empty(), none)?;
    let enable = |on| fs::write(format!("{TRACEFS}/events/hippos/pass/enable"), on);
    enable("1")?;
    ask(tap, datagram, SILENCE)?;
    enable("0")?;
    let text = fs::read_to_string(format!("{TRACEFS}/trace"))?;
    umount(TRACEFS)?;
    Ok(text)
}

/// Checksums that the sender's card would have filled in: the packet never was
/// on a wire.
pub(super) fn partial_checksums_are_accepted() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    let payload = framed(1, b"get key\r\n");
    for plain in both(&payload) {
        let plain = Datagram {
            checksum: Checksum::Partial,
            ..plain
        };
        let offload = Offload {
            flags: 1,
            csum_start: plain.before_udp() as u16,
            csum_offset: 6,
            ..Offload::default()
        };
        let frame = ask_with(&mut tap, offload, &plain, LIMIT)?.context("no answer")?;
        plain.answered_by(&frame)?;
    }
    hippos.unload()
}

/// `allow=` instead of the usual ranges.
pub(super) fn only_allowed_sources_are_answered() -> Result<()> {
    let payload = framed(1, b"get key\r\n");
    let from = |from| Datagram {
        addresses: Addresses::Ipv4(from, tap::NEAR_IPV4),
        ..Datagram::ipv4(&payload)
    };
    let mut tap = Tap::new()?;
    let hippos = Hippos::load("allow=8.8.8.0/24,2001:db8::/32")?;
    answered(&mut tap, &from([8, 8, 8, 8]))?;
    silent(&mut tap, &from([8, 8, 9, 8]))?;
    silent(&mut tap, &from(tap::FAR_IPV4))?;
    silent(&mut tap, &Datagram::ipv6(&payload))?;
    hippos.unload()?;
    let hippos = Hippos::load("allow=any")?;
    answered(&mut tap, &from([8, 8, 9, 8]))?;
    answered(&mut tap, &Datagram::ipv6(&payload))?;
    // Changes while it is loaded.
    let list = run("hippos-ctl allow list")?;
    ensure!(list == "any\n", "{list:?}");
    run("hippos-ctl allow set 8.8.8.0/24")?;
    answered(&mut tap, &from([8, 8, 8, 8]))?;
    silent(&mut tap, &from([8, 8, 9, 8]))?;
    silent(&mut tap, &Datagram::ipv6(&payload))?;
    run("hippos-ctl allow add 8.8.9.8,2001:db8::/32")?;
    answered(&mut tap, &from([8, 8, 9, 8]))?;
    run("hippos-ctl allow remove 8.8.8.0/24")?;
    silent(&mut tap, &from([8, 8, 8, 8]))?;
    let list = run("hippos-ctl allow list")?;
    ensure!(list == "8.8.9.8/32\n2001:db8::/32\n", "{list:?}");
    for wrong in ["set 8.8.8.8/33", "set x", "remove 1.1.1.1"] {
        ensure!(
            run(&format!("hippos-ctl allow {wrong}")).is_err(),
            "{wrong} was taken"
        );
    }
    // This host itself is always allowed.
    let refused = Tcp::connect("127.0.0.1")?.stat("hippos_udp_refused")?;
    ensure!(refused >= 3, "{refused} datagrams refused");
    run("hippos-ctl allow set default")?;
    silent(&mut tap, &from([8, 8, 9, 8]))?;
    answered(&mut tap, &from(tap::FAR_IPV4))?;
    hippos.unload()
}

/// The reply bytes of a source are limited: a public one's by `udp_rate`, a private one's by its own rate.
pub(super) fn sources_beyond_their_rate_get_no_reply() -> Result<()> {
    let payload = framed(1, b"get key\r\n");
    let from = |from| Datagram {
        addresses: Addresses::Ipv4(from, tap::NEAR_IPV4),
        ..Datagram::ipv4(&payload)
    };
    let mut tap = Tap::new()?;
    // One reply that finds nothing is 13 bytes with its frame.
    let hippos = Hippos::load("allow=any udp_rate=12")?;
    silent(&mut tap, &from([8, 8, 8, 8]))?;
    answered(&mut tap, &from(tap::FAR_IPV4))?;
    let limited = Tcp::connect("127.0.0.1")?.stat("hippos_udp_limited")?;
    ensure!(limited == 1, "{limited} replies not sent");
    run("hippos-ctl limits --udp-rate 0 --udp-private-rate 12")?;
    answered(&mut tap, &from([8, 8, 8, 8]))?;
    silent(&mut tap, &from(tap::FAR_IPV4))?;
    hippos.unload()
}

/// With `dev=` one of two interfaces is served.
pub(super) fn dev_serves_one_interface_only() -> Result<()> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    ensure!(
        Hippos::load("dev=nosuch").is_err(),
        "there is no such interface"
    );
    let hippos = Hippos::load(&format!("dev={}", link.here))?;
    there.enter(|| -> Result<()> {
        for host in [&link.here_ipv4, &link.here_ipv6] {
            Tcp::connect(host)?.set("key", b"value")?;
            let reply = Udp::connect(host)?.ask(b"get key\r\n")?;
            ensure!(reply.starts_with(b"VALUE key"), "{reply:?}");
            let reply = Udp::connect(host)?.ask(b"set key 0 0 1\r\n1\r\n")?;
            ensure!(reply == b"STORED\r\n", "{reply:?}");
        }
        Ok(())
    })?;
    ensure!(
        Tcp::connect("127.0.0.1").is_err(),
        "served over another one"
    );
    Udp::connect("127.0.0.1")?.silence(b"get key\r\n")?;
    // After an operator's abort the socket is bound to the interface again before the next answer.
    modules::load("udp_diag")?;
    let aborted = run("ss -K -H -u -a sport = :11211")?;
    ensure!(!aborted.is_empty(), "ss aborted no socket");
    Udp::connect("127.0.0.1")?.silence(b"get key\r\n")?;
    there.enter(|| -> Result<()> {
        let reply = Udp::connect(&link.here_ipv4)?.ask(b"set key 0 0 1\r\n1\r\n")?;
        ensure!(reply == b"STORED\r\n", "{reply:?}");
        Ok(())
    })?;
    hippos.unload()
}
