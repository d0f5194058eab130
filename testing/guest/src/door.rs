// SPDX-License-Identifier: GPL-2.0-only
//! Which receive path datagrams come by first: the hook as a rule, XDP with what that asks for, or the
//! socket with nothing before it.

use anyhow::{Context, Result};

use crate::system::run;

/// Set for tests that are to go by another receive path (`cargo xtask test --door xdp`).
pub(crate) const VARIABLE: &str = "HIPPOS_DOOR";

fn is(wanted: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|door| door == wanted)
}

/// Whether datagrams are to meet XDP first.
pub(crate) fn xdp() -> bool {
    is("xdp")
}

/// Whether they are to meet the socket alone.
pub(crate) fn socket() -> bool {
    is("socket")
}

/// What the module is told besides its other parameters.
pub(crate) fn parameter() -> &'static str {
    if socket() {
        " udp_fast=0"
    } else {
        ""
    }
}

/// Puts the XDP program on every card of this namespace that has a wire.
pub(crate) fn open() -> Result<()> {
    let links: Vec<serde_json::Value> =
        serde_json::from_str(&run("ip -j -d link show")?).context("ip -j")?;
    for link in links {
        // Of virtual devices only these have a wire; frames on top of others have passed one of
        // these already.
        let mode = match link["linkinfo"]["info_kind"].as_str() {
            // Native programs on veth ask for one at the far end as well.
            Some("veth") => "generic",
            Some("tun") => "native",
            _ => continue,
        };
        let name = link["ifname"].as_str().context("a card without a name")?;
        attach(name, mode)?;
    }
    Ok(())
}

pub(crate) fn attach(card: &str, mode: &str) -> Result<()> {
    run(&format!("hippos-ctl xdp attach --dev {card} --mode {mode}")).map(drop)
}

pub(crate) fn detach(card: &str) -> Result<()> {
    run(&format!("hippos-ctl xdp detach --dev {card}")).map(drop)
}

/// Makes a card send frames with whole checksums: XDP leaves others to the hook.
pub(crate) fn prepare(card: &str) -> String {
    format!("/usr/sbin/ethtool -K {card} tx off")
}
