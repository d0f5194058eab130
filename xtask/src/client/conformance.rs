//! The table of protocol cases, played against the guest.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{ensure, Result};
use hippos_conformance::{run, Options, Target};

pub(super) fn table(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let target = Target {
        tcp: address,
        udp: Some(address),
    };
    // An emulated guest on a loaded machine takes its time.
    let options = Options {
        patience: Duration::from_secs(20),
        ..Options::default()
    };
    let report = run(&target, &options)?;
    ensure!(report.passed > 0, "no case was played");
    ensure!(report.failures.is_empty(), "{report}");
    Ok(())
}
