// SPDX-License-Identifier: GPL-2.0-only
//! The guest's network: the card to the host, and namespaces joined by veth for tests.

use anyhow::Result;

use crate::system::run;

/// The guest's own address in QEMU's user network; the host is [`GATEWAY`].
pub(crate) const ADDRESS: &str = "10.0.2.15";
/// Where forwarded packets come from.
pub(crate) const GATEWAY: &str = "10.0.2.2";

/// Brings up lo and the card, if there is one.
pub(crate) fn up() -> Result<()> {
    run("ip link set lo up")?;
    if std::path::Path::new("/sys/class/net/eth0").exists() {
        run(&format!("ip addr add {ADDRESS}/24 dev eth0"))?;
        run("ip link set eth0 up")?;
        run(&format!("ip route add default via {GATEWAY}"))?;
    }
    Ok(())
}
