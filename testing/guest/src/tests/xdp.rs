// SPDX-License-Identifier: GPL-2.0-only
//! The XDP receive path: its program on cards, and the reports of `hippos-ctl`. The `packet` tests cover its
//! handling of frames: `cargo xtask test --guest --path xdp`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use hippos_client::{framed, Tcp, Udp};
use nix::errno::Errno;

use crate::modules::{self, Hippos};
use crate::netns::{self, Link, Namespace};
use crate::receive_path;
use crate::system::run;
use crate::tap::{Addresses, Datagram, PacketCapture, Tap, FAR_IPV6};
use crate::tests::packet::ask;

const ANSWER: Duration = Duration::from_secs(90);
const SILENCE: Duration = Duration::from_millis(300);
/// Counts the frames that it answered.
const SERVED: &str = "hippos_xdp_served";

/// An error's text must hold `words`.
fn refused(line: &str, words: &str) -> Result<()> {
    let Err(error) = run(line) else {
        anyhow::bail!("`{line}` went well");
    };
    let said = format!("{error:#}");
    ensure!(said.contains(words), "no {words:?} in: {said}");
    Ok(())
}

fn served(host: &str) -> Result<u64> {
    Tcp::connect(host)?.stat(SERVED)
}

/// Usual requests, all answered by XDP, or none. Each is longer than its reply, since virtual cards leave
/// little room behind a frame.
fn asks(host: &str, through_xdp: bool) -> Result<()> {
    Tcp::connect(host)?.set("key", b"value")?;
    let mut udp = Udp::connect(host)?;
    let long = format!("get key {}\r\n", "n".repeat(200));
    let meta = format!("mg key v O{}\r\n", "o".repeat(30));
    let opaque = format!("VA 5 O{}\r\nvalue\r\n", "o".repeat(30));
    for (request, right) in [
        ("get none\r\n", "END\r\n"),
        ("mg none v\r\n", "EN\r\n"),
        (&long, "VALUE key 0 5\r\nvalue\r\nEND\r\n"),
        (&meta, &opaque),
    ] {
        let before = served(host)?;
        let reply = udp
            .ask(request.as_bytes())
            .with_context(|| format!("{request:?}"))?;
        ensure!(reply == right.as_bytes(), "{request:?}: {reply:?}");
        let by_xdp = served(host)? - before == 1;
        let room = reply.len() <= request.len();
        ensure!(
            by_xdp == through_xdp || (through_xdp && !room),
            "{request:?}: by XDP: {by_xdp}"
        );
    }
    Ok(())
}

/// Native and generic mode, on a card that supports both.
pub(super) fn native_and_generic_programs_answer() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let hippos = Hippos::load("")?;
    for mode in ["native", "generic"] {
        let said = run(&format!(
            "hippos-ctl xdp attach --dev {} --mode {mode}",
            link.here
        ))?;
        ensure!(said == format!("{} {mode}\n", link.here), "{said}");
        let status = run("hippos-ctl xdp status")?;
        ensure!(status == said, "{status}");
        // veth wakes its peer for a native program's replies only if the peer has a program too; ours
        // passes all frames in a namespace that is not the module's.
        let far = format!("--dev {} --mode {mode}", link.far);
        there.enter(|| run(&format!("hippos-ctl xdp attach {far}")))?;
        for host in [&link.here_ipv4, &link.here_ipv6] {
            there.enter(|| asks(host, true).context(mode))?;
        }
        there.enter(|| run(&format!("hippos-ctl xdp detach --dev {}", link.far)))?;
        run(&format!("hippos-ctl xdp detach --dev {}", link.here))?;
        there.enter(|| asks(&link.here_ipv4, false).context("without"))?;
    }
    hippos.unload_all()
}

/// The module can't be unloaded before its programs are detached: by hippos-ctl, rmmod and the removal of a
/// card.
pub(super) fn module_outlives_its_attached_programs() -> Result<()> {
    let (there, link) = netns::joined_for_xdp()?;
    let here = &link.here;
    refused(
        &format!("hippos-ctl xdp attach --dev {here} --mode generic"),
        "is not loaded",
    )?;
    let hippos = Hippos::load("")?;
    refused(
        "hippos-ctl xdp attach --dev nothing0",
        "no interface nothing0",
    )?;
    refused(
        &format!("hippos-ctl xdp detach --dev {here}"),
        "no program of ours",
    )?;
    run(&format!(
        "hippos-ctl xdp attach --dev {here} --mode generic"
    ))?;
    refused(
        &format!("hippos-ctl xdp attach --dev {here} --mode generic"),
        "has it already",
    )?;
    let removed = modules::remove("hippos");
    ensure!(
        removed == Err(Errno::EWOULDBLOCK),
        "rmmod while a program is attached: {removed:?}"
    );
    there.enter(|| asks(&link.here_ipv4, true))?;
    hippos.unload_all()?;
    ensure!(
        run("hippos-ctl xdp status")?.is_empty(),
        "a program is left"
    );
    ensure!(!modules::loaded("hippos"), "still loaded");
    refused("hippos-ctl unload", "not loaded")?;

    // Removing a card removes its program.
    let hippos = Hippos::load("")?;
    run(&format!(
        "hippos-ctl xdp attach --dev {here} --mode generic"
    ))?;
    drop(there);
    hippos.unload_all()
}

/// Has the other end send to this machine by VLAN 7, to the MAC of `device`.
fn use_vlan(there: &Namespace, link: &Link, device: &str) -> Result<()> {
    let far = &link.far;
    let mac = fs::read_to_string(format!("/sys/class/net/{device}/address"))?;
    there.ip(&format!("link add link {far} name vlan7 type vlan id 7"))?;
    there.ip("link set vlan7 up")?;
    there.ip(&format!(
        "route add {}/32 dev vlan7 src {}",
        link.here_ipv4, link.far_ipv4
    ))?;
    there.ip(&format!(
        "neigh replace {} lladdr {} dev vlan7 nud permanent",
        link.here_ipv4,
        mac.trim()
    ))?;
    Ok(())
}

/// A card that strips VLAN tags hides a frame's VLAN from XDP, and this machine must not answer a frame of a
/// VLAN for which it has no interface.
pub(super) fn frames_with_hidden_vlan_tags_are_not_answered() -> Result<()> {
    modules::load("8021q")?;
    let (there, link) = netns::joined_for_xdp()?;
    let (here, far) = (&link.here, &link.far);
    run(&format!("/usr/sbin/ethtool -K {here} rxvlan on"))?;
    there.enter(|| run(&format!("/usr/sbin/ethtool -K {far} txvlan on")))?;
    let hippos = Hippos::load("")?;
    Tcp::connect("127.0.0.1")?.set("key", b"value")?;
    // The other end needs this machine's MAC, which it can't resolve by the VLAN.
    there.enter(|| asks(&link.here_ipv4, false).context("before"))?;
    use_vlan(&there, &link, here)?;
    let silent = |how: &str| {
        there.enter(|| {
            let mut udp = Udp::connect(&link.here_ipv4)?;
            udp.silence(b"get key\r\n")
                .with_context(|| format!("{how}: a frame of VLAN 7"))
        })
    };
    silent("no program")?;
    for mode in ["native", "generic"] {
        receive_path::attach(here, mode)?;
        let passes = || Tcp::connect("127.0.0.1")?.stat_of("hippos_pass", "hippos_pass_xdp_vlan");
        let before = passes()?;
        silent(mode)?;
        let passed = passes()? - before;
        ensure!(passed >= 1, "{mode}: not counted as a hidden tag");
        receive_path::detach(here)?;
    }
    hippos.unload_all()
}

/// A tag is taken out at a bridge's port, so that generic XDP of the bridge can't see whose VLAN a
/// frame is: it answers none.
pub(super) fn frames_of_a_bridge_are_not_answered() -> Result<()> {
    modules::load("8021q")?;
    modules::load("bridge")?;
    let (there, link) = netns::joined_for_xdp()?;
    let here = &link.here;
    run("ip link add br0 type bridge")?;
    run("ip link set br0 up")?;
    let hippos = Hippos::load("")?;
    receive_path::attach("br0", "generic")?;
    run(&format!("ip addr flush dev {here}"))?;
    run(&format!("ip link set {here} master br0"))?;
    run(&format!("ip addr add {}/24 dev br0", link.here_ipv4))?;
    run(&format!("ip addr add {}/64 dev br0 nodad", link.here_ipv6))?;
    // A program that was attached before br0 had a port stays; a new one is refused.
    there.enter(|| asks(&link.here_ipv4, false).context("without a tag"))?;
    use_vlan(&there, &link, "br0")?;
    let passes = || Tcp::connect("127.0.0.1")?.stat_of("hippos_pass", "hippos_pass_xdp_device");
    let before = passes()?;
    there.enter(|| {
        let mut udp = Udp::connect(&link.here_ipv4)?;
        udp.silence(b"get key\r\n")
            .context("a frame of VLAN 7, which br0 has not")
    })?;
    let passed = passes()? - before;
    ensure!(passed >= 1, "not counted as a device of others");
    receive_path::detach("br0")?;
    refused(
        "hippos-ctl xdp attach --dev br0 --mode generic",
        "on top of other interfaces",
    )?;
    // A VLAN's own device is no such thing.
    run(&format!("ip link set {here} nomaster"))?;
    run(&format!(
        "ip link add link {here} name vlan8 type vlan id 8"
    ))?;
    run("ip link set vlan8 up")?;
    receive_path::attach("vlan8", "generic")?;
    receive_path::detach("vlan8")?;
    run("ip link del br0")?;
    hippos.unload_all()
}

/// The stack drops what comes over IPv6 by a device on which that is off, wherever its address is;
/// XDP meets the frame before.
pub(super) fn datagrams_pass_where_ipv6_is_off() -> Result<()> {
    const ADDRESS: [u8; 16] = [0xfd, 9, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut tap = Tap::new()?;
    run("ip addr add fd09:77::1/128 dev lo nodad")?;
    let hippos = Hippos::load("")?;
    receive_path::attach("wire", "native")?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let datagram = Datagram {
        addresses: Addresses::Ipv6(FAR_IPV6, ADDRESS),
        ..Datagram::ipv6(&framed(7, b"get none\r\n"))
    };
    let frame = ask(&mut tap, &datagram, ANSWER)?.context("no answer before")?;
    datagram.answered_by(&frame)?;
    ensure!(tcp.stat(SERVED)? == 1, "not answered by XDP before");
    run("sysctl -qw net.ipv6.conf.wire.disable_ipv6=1")?;
    let passed = |tcp: &mut Tcp| tcp.stat_of("hippos_pass", "hippos_pass_xdp_addresses");
    let before = passed(&mut tcp)?;
    let answer = ask(&mut tap, &datagram, SILENCE)?;
    ensure!(answer.is_none(), "an answer: {answer:02x?}");
    let counted = passed(&mut tcp)? - before;
    ensure!(counted == 1, "passed for its addresses: {counted}");
    drop(tcp);
    run("ip addr del fd09:77::1/128 dev lo")?;
    hippos.unload_all()
}

/// The interface has another owner's program, or the module can't serve there: each is reported,
/// and nothing changes.
pub(super) fn attach_is_refused_with_a_reason() -> Result<()> {
    let (_there, link) = netns::joined_for_xdp()?;
    let here = &link.here;
    let attach =
        |card: &str, mode: &str| format!("hippos-ctl xdp attach --dev {card} --mode {mode}");
    let hippos = Hippos::load("")?;
    // A program of another owner: ours under a pin that hippos-ctl does not use.
    let foreign = "/sys/fs/bpf/foreign";
    run(&attach(here, "generic"))?;
    fs::rename(format!("/sys/fs/bpf/hippos/{here}"), foreign)?;
    for mode in ["auto", "native", "generic"] {
        refused(&attach(here, mode), "another XDP program holds")?;
    }
    refused(
        &format!("hippos-ctl xdp detach --dev {here}"),
        "no program of ours",
    )?;
    ensure!(run("hippos-ctl xdp status")?.is_empty(), "theirs is listed");
    fs::remove_file(foreign)?;

    // No driver, no native mode.
    refused(&attach("lo", "native"), "--mode generic")?;
    let said = run(&attach("lo", "auto"))?;
    ensure!(said == "lo generic\n", "{said}");
    hippos.unload_all()?;

    for parameter in ["udp=0", "udp_fast=0"] {
        let hippos = Hippos::load(parameter)?;
        refused(&attach(here, "generic"), parameter)?;
        hippos.unload()?;
    }

    // As if built without vmlinux: without type information.
    let module = fs::read(modules::HIPPOS)?;
    let (named, other) = (b"\0.BTF\0", b"\0.btf\0");
    let at = module
        .windows(named.len())
        .position(|window| window == named)
        .context("the module has no type information to begin with")?;
    let bare = [&module[..at], other, &module[at + named.len()..]].concat();
    let file = Path::new("/tmp/hippos-without-btf.ko");
    fs::write(file, bare)?;
    modules::insert(file, "")?;
    let reported = refused(&attach(here, "generic"), "no type information");
    modules::remove("hippos")?;
    fs::remove_file(file)?;
    reported
}

/// The request, the beginning and the end of its reply, and whether the reply fits the frame.
type Case = (Vec<u8>, Vec<u8>, &'static [u8], bool);

/// Several keys, several commands and the binary protocol in one frame, each answered in it when
/// the reply fits; else the whole frame passes unchanged.
pub(super) fn several_commands_in_a_frame_are_answered_or_passed_whole() -> Result<()> {
    let hippos = Hippos::load("")?;
    let mut tap = Tap::new()?;
    let mut tcp = Tcp::connect("127.0.0.1")?;
    let keys: Vec<String> = (10..26).map(|number| format!("k{number}")).collect();
    for key in &keys {
        tcp.set(key, b"v")?;
    }
    // Two datagrams' worth.
    tcp.set("long", &[b'x'; 1392])?;
    // No item has this key, and with it requests are longer than their replies.
    let none = "n".repeat(240);
    let value = |key: &str| format!("VALUE {key} 0 1\r\nv\r\n");
    let all: String = keys.iter().map(|key| value(key)).collect();
    let binary = |opcode: u8, key: &str| {
        let mut packet = vec![0; 24];
        packet[..4].copy_from_slice(&[0x80, opcode, 0, key.len() as u8]);
        packet[11] = key.len() as u8;
        [&packet, key.as_bytes()].concat()
    };
    let quietly = [
        binary(0x0d, "k10"),
        binary(0x0d, &none),
        binary(0x09, "k11"),
        binary(0x0a, ""),
    ]
    .concat();
    let cases: [Case; 7] = [
        (
            format!("get k10 {none} k11 k10\r\n").into(),
            [value("k10"), value("k11"), value("k10")].concat().into(),
            b"END\r\n",
            true,
        ),
        (
            format!("get {} {none}\r\n", keys.join(" ")).into(),
            all.into(),
            b"END\r\n",
            true,
        ),
        (
            format!("gets k10 {none} k11\r\n").into(),
            b"VALUE k10 0 1 ".into(),
            b"\r\nv\r\nEND\r\n",
            true,
        ),
        (
            format!("mg k10 v\r\nmg {none} v\r\nmg k11 v q\r\nmg {none} q\r\nmn\r\n").into(),
            b"VA 1\r\nv\r\nEN\r\nVA 1\r\nv\r\nMN\r\n".into(),
            b"",
            true,
        ),
        (
            format!("get k10\r\nget {none}\r\nget k11\r\n").into(),
            [&value("k10"), "END\r\nEND\r\n", &value("k11"), "END\r\n"]
                .concat()
                .into(),
            b"",
            true,
        ),
        (quietly, b"\x81\x0d".into(), b"v", true),
        (
            format!("get {none} long\r\n").into(),
            b"VALUE long 0 1392\r\n".into(),
            b"x",
            false,
        ),
    ];
    for mode in ["native", "generic"] {
        receive_path::attach("wire", mode)?;
        for (request, begins, ends, fits) in &cases {
            let shown = format!("{mode}: {}", request.escape_ascii());
            let payload = framed(7, request);
            for datagram in [Datagram::ipv4(&payload), Datagram::ipv6(&payload)] {
                while tap.receive(Duration::ZERO, |_| true)?.is_some() {}
                let mut capture = PacketCapture::new()?;
                let before = tcp.stat(SERVED)?;
                let frame = ask(&mut tap, &datagram, ANSWER)?
                    .with_context(|| format!("{shown}: no answer"))?;
                let reply = datagram.answered_by(&frame)?;
                let text = &reply[8..];
                // The binary reply's last packet is the noop's, with nothing behind its head.
                let tail = if text.starts_with(b"\x81") {
                    &text[..text.len().saturating_sub(24)]
                } else {
                    text
                };
                ensure!(
                    text.starts_with(begins) && tail.ends_with(ends),
                    "{shown}: {:?}",
                    String::from_utf8_lossy(text)
                );
                let by_xdp = tcp.stat(SERVED)? - before;
                ensure!(
                    by_xdp == u64::from(*fits),
                    "{shown}: {by_xdp} answered by XDP"
                );
                let heard = capture.heard();
                let passed = heard.iter().filter(|frame| **frame == datagram.frame());
                ensure!(
                    passed.count() == usize::from(!fits),
                    "{shown}: what passed was not what came: {heard:02x?}"
                );
            }
        }
        receive_path::detach("wire")?;
    }
    drop(tcp);
    hippos.unload_all()
}
