// SPDX-License-Identifier: GPL-2.0-only
//! The receive path that datagrams meet first, and the settings that XDP needs.

use anyhow::{Context, Result};
use hippos_client::ReceivePath;

use crate::system::run;

/// Set for tests that are to go by another receive path (`cargo xtask test --path xdp`).
pub(crate) const VARIABLE: &str = "HIPPOS_RECEIVE_PATH";

/// The one that this test is to go by.
pub(crate) fn chosen() -> ReceivePath {
    match std::env::var(VARIABLE).unwrap_or_default().as_str() {
        "" => ReceivePath::default(),
        name => ReceivePath::named(name).expect("the name of a receive path"),
    }
}

/// Whether datagrams are to meet XDP first.
pub(crate) fn is_xdp() -> bool {
    chosen() == ReceivePath::Xdp
}

/// Whether they are to meet the socket alone.
pub(crate) fn is_socket() -> bool {
    chosen() == ReceivePath::Socket
}

/// Puts the XDP program on every card of this namespace that has a wire.
pub(crate) fn attach_all() -> Result<()> {
    let links: Vec<serde_json::Value> =
        serde_json::from_str(&run("ip -j -d link show")?).context("ip -j")?;
    for link in links {
        // Of virtual devices only these have a wire; frames of a device on top of another have
        // passed XDP there.
        let mode = match link["linkinfo"]["info_kind"].as_str() {
            // A native program on veth needs one at the far end as well.
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

/// The command that makes a card send frames with whole checksums, and send and deliver them with
/// their VLAN tags inside: XDP passes other frames to the hook.
pub(crate) fn prepare(card: &str) -> String {
    format!("/usr/sbin/ethtool -K {card} tx off rxvlan off txvlan off rx-vlan-stag-hw-parse off")
}
