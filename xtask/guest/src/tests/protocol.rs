//! The table of protocol cases against the module, with no emulated network in
//! between: through loopback nothing is lost and nothing is late.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{ensure, Result};
use hippos_conformance::{run, Options, Target};

use crate::client::PORT;
use crate::modules::Hippos;

pub(super) fn table() -> Result<()> {
    let hippos = Hippos::load("")?;
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, PORT));
    let target = Target {
        tcp: address,
        udp: Some(address),
    };
    let options = Options {
        patience: Duration::from_secs(20),
        ..Options::default()
    };
    let report = run(&target, &options)?;
    ensure!(report.passed > 0, "no case was played");
    ensure!(report.failures.is_empty(), "{report}");
    hippos.unload()
}
