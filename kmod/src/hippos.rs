// SPDX-License-Identifier: GPL-2.0-only
//! The module: ordered start and stop.

use kernel::prelude::*;

module! {
    type: Hippos,
    name: "hippos",
    authors: ["The Hippos authors"],
    description: "memcached inside the kernel",
    license: "GPL v2",
}

struct Hippos;

impl kernel::Module for Hippos {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded\n");
        Ok(Hippos)
    }
}

impl Drop for Hippos {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}
