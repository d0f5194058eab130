// SPDX-License-Identifier: MIT

//! Watches the configuration file for changes, and resolves names again, because their addresses may have changed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::config::{Config, Lookup};

/// A file and its contents when it was last read.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    text: String,
    nodes: Vec<crate::config::Node>,
    resolve: u64,
    looked_up: Instant,
}

impl Watch {
    /// Reads the file.
    pub fn new(path: PathBuf, lookup: &Lookup<'_>) -> anyhow::Result<(Self, Config)> {
        let mut watch = Self {
            path,
            text: String::new(),
            nodes: Vec::new(),
            resolve: 0,
            looked_up: Instant::now(),
        };
        let config = watch.read(lookup)?;
        Ok((watch, config))
    }

    /// Reads the file again.
    pub fn read(&mut self, lookup: &Lookup<'_>) -> anyhow::Result<Config> {
        let path = || self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path).with_context(path)?;
        // An invalid text is reported once.
        self.text.clone_from(&text);
        let config = Config::parse_with(&text, lookup).with_context(path)?;
        self.took(&config);
        Ok(config)
    }

    fn took(&mut self, config: &Config) {
        self.nodes.clone_from(&config.nodes);
        self.resolve = config.resolve;
        self.looked_up = Instant::now();
    }

    /// The configuration, if the file or an address has changed.
    pub fn look(&mut self, lookup: &Lookup<'_>) -> Option<anyhow::Result<Config>> {
        // A file that is being replaced may be missing briefly.
        let text = std::fs::read_to_string(&self.path).ok()?;
        if text != self.text {
            return Some(self.read(lookup));
        }
        if self.resolve == 0 || self.looked_up.elapsed() < Duration::from_secs(self.resolve) {
            return None;
        }
        self.looked_up = Instant::now();
        // If a name server does not answer, nothing changes.
        let config = Config::parse_with(&text, lookup).ok()?;
        if config.nodes == self.nodes {
            return None;
        }
        self.took(&config);
        Some(Ok(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::net::SocketAddr;

    #[test]
    fn changes_of_the_file_and_of_addresses_are_seen() {
        let path = std::env::temp_dir().join(format!("hippos-watch-{}", std::process::id()));
        let write = |more: &str| {
            let text =
                format!("listen = \"a:1\"\n{more}\n[pools.default]\nnodes = [\"cache:1\"]\n");
            std::fs::write(&path, text).unwrap();
        };
        let last = Cell::new(1);
        let lookup = |_: &str| match last.get() {
            0 => Err(std::io::ErrorKind::NotFound.into()),
            last => Ok(vec![SocketAddr::from(([10, 0, 0, last], 1))]),
        };
        write("resolve_s = 1");
        let (mut watch, _) = Watch::new(path.clone(), &lookup).unwrap();
        assert!(watch.look(&lookup).is_none());
        write("resolve_s = 1\ntimeout_ms = 7");
        assert_eq!(watch.look(&lookup).unwrap().unwrap().timeout, 7000);
        write("nonsense = 1");
        assert!(watch.look(&lookup).unwrap().is_err());
        assert!(watch.look(&lookup).is_none());
        write("resolve_s = 1");
        watch.look(&lookup).unwrap().unwrap();
        for (address, changed) in [(1, false), (2, true), (0, false), (2, false), (3, true)] {
            last.set(address);
            watch.looked_up -= Duration::from_secs(2);
            assert_eq!(watch.look(&lookup).is_some(), changed, "{address}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
