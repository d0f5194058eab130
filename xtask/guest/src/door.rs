//! Which door datagrams come by first: the hook as a rule, or XDP with what that asks for.

use anyhow::{Context, Result};

use crate::system::run;

/// Set for tests that are to go by XDP (`cargo xtask test --door xdp`).
const VARIABLE: &str = "HIPPOS_DOOR";

/// Whether datagrams are to meet XDP first.
pub(crate) fn xdp() -> bool {
    std::env::var(VARIABLE).is_ok_and(|door| door == "xdp")
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
            Some("tun") => "auto",
            _ => continue,
        };
        let name = link["ifname"].as_str().context("a card without a name")?;
        run(&format!("hippos-ctl xdp attach --dev {name} --mode {mode}"))?;
    }
    Ok(())
}

/// Makes a card send frames with whole checksums: XDP leaves others to the hook.
pub(crate) fn prepare(card: &str) -> String {
    format!("/usr/sbin/ethtool -K {card} tx off")
}
