//! The XDP door: its program on cards, and what `hippos-ctl` says of it. What it does with
//! frames is tested by the `packet` tests: `cargo xtask test --guest --door xdp`.

use anyhow::{ensure, Context, Result};

use crate::client::{Tcp, Udp};
use crate::door;
use crate::modules::{self, Hippos};
use crate::netns::{self, Link, Namespace};
use crate::system::run;

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

fn joined() -> Result<(Namespace, Link)> {
    let there = Namespace::new("there")?;
    let link = netns::join(&there, 1)?;
    run(&door::prepare(&link.here))?;
    there.enter(|| run(&door::prepare(&link.far)))?;
    Ok((there, link))
}

fn served(host: &str) -> Result<u64> {
    Tcp::connect(host)?.stat(SERVED)
}

/// Everyday requests, each answered by XDP, or none. Their replies are shorter than they are,
/// since virtual cards leave little room behind a frame.
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

/// In the driver and behind it, on a card that has both.
pub(super) fn modes() -> Result<()> {
    let (there, link) = joined()?;
    let hippos = Hippos::load("")?;
    for mode in ["native", "generic"] {
        let said = run(&format!(
            "hippos-ctl xdp attach --dev {} --mode {mode}",
            link.here
        ))?;
        ensure!(said == format!("{} {mode}\n", link.here), "{said}");
        let status = run("hippos-ctl xdp status")?;
        ensure!(status == said, "{status}");
        // veth wakes its peer for a native program's replies only if that has a program too; ours
        // lets all pass in a namespace that is not the module's.
        let far = format!("--dev {} --mode {mode}", link.far);
        there.enter(|| run(&format!("hippos-ctl xdp attach {far}")))?;
        for host in [&link.here_ipv4, &link.here_ipv6] {
            there.enter(|| asks(host, true).context(mode))?;
        }
        there.enter(|| run(&format!("hippos-ctl xdp detach --dev {}", link.far)))?;
        run(&format!("hippos-ctl xdp detach --dev {}", link.here))?;
        there.enter(|| asks(&link.here_ipv4, false).context("without"))?;
    }
    hippos.unload()
}

/// The order in which things are taken apart, whoever asks for it.
pub(super) fn life() -> Result<()> {
    let (there, link) = joined()?;
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
    ensure!(
        modules::remove("hippos").is_err(),
        "unloaded from under its program"
    );
    there.enter(|| asks(&link.here_ipv4, true))?;
    run("hippos-ctl unload")?;
    std::mem::forget(hippos);
    ensure!(
        run("hippos-ctl xdp status")?.is_empty(),
        "a program is left"
    );
    ensure!(!modules::loaded("hippos"), "still loaded");
    refused("hippos-ctl unload", "not loaded")?;

    // A card that goes takes its link along.
    let hippos = Hippos::load("")?;
    run(&format!(
        "hippos-ctl xdp attach --dev {here} --mode generic"
    ))?;
    drop(there);
    run("hippos-ctl unload")?;
    std::mem::forget(hippos);
    Ok(())
}
