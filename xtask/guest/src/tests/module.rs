//! Loading and unloading the module.

use anyhow::{ensure, Result};

use crate::modules::{self, Hippos};

pub(super) fn loads_and_unloads() -> Result<()> {
    let hippos = Hippos::load("")?;
    ensure!(modules::loaded("hippos"), "loaded, but not in /sys/module");
    hippos.unload()?;
    ensure!(
        !modules::loaded("hippos"),
        "unloaded, but still in /sys/module"
    );
    Ok(())
}
