// SPDX-License-Identifier: GPL-2.0-only
//! Workloads by their names on the command line: built-in ones, their own files, and YCSB's.

use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::workload::{Workload, BUILT_IN};
use crate::ycsb;

impl Workload {
    /// A built-in workload or a file, with an optional variant: `etc`, `micro:get-hit`, `./mine.toml:large`.
    pub fn named(name: &str) -> Result<Self> {
        let (base, variant) = match name.rsplit_once(':') {
            Some((base, variant)) if !Path::new(name).exists() => (base, Some(variant)),
            _ => (name, None),
        };
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == base);
        let (text, origin) = if let Some((name, text)) = built_in {
            ((*text).to_string(), format!("traces/{name}.toml"))
        } else if base.ends_with(".toml") || Path::new(base).exists() {
            let text = std::fs::read_to_string(base)
                .with_context(|| format!("cannot read workload {base}"))?;
            if ycsb::properties(&text) {
                let name = Path::new(base).file_name().unwrap_or_default();
                let workload = ycsb::workload(&text, &name.to_string_lossy());
                let workload = workload.with_context(|| base.to_string())?;
                workload.check().with_context(|| base.to_string())?;
                return Ok(workload);
            }
            (text, base.to_string())
        } else {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!(
                "no workload is called {base}: there are {} and files ending in .toml",
                names.join(", ")
            );
        };
        let workload = Self::parse(&text, &origin)?;
        match variant {
            None => Ok(workload),
            Some(variant) => workload.variant(variant, &text, &origin),
        }
    }
}
