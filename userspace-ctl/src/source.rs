// SPDX-License-Identifier: GPL-2.0-only
//! Where statistics come from: the loaded module, or a server over TCP.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hippos_abi::Section;

use crate::device::Device;
use crate::dump::Target;
use crate::server::Server;
use crate::stats::Stats;

/// Where to ask.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Device { path: PathBuf, users: Vec<u8> },
    Server { address: String, users: Vec<u8> },
}

impl Source {
    /// The server of that address, or else the device.
    pub(crate) fn new(device: &Path, server: Option<&str>, users: Option<&Path>) -> Result<Self> {
        let users = match users {
            Some(file) => {
                std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?
            }
            None => Vec::new(),
        };
        Ok(match server {
            Some(address) => Source::Server {
                address: address.to_owned(),
                users,
            },
            None => Source::Device {
                path: device.to_owned(),
                users,
            },
        })
    }

    /// Some of its statistics, asked anew.
    pub(crate) fn stats(&self, section: Section) -> Result<Stats> {
        let text = match self {
            Source::Device { path, .. } => Device::open(path)?.stats(section)?,
            Source::Server { address, users } => {
                Server::connect(address, users)?.stats(section.argument())?
            }
        };
        Stats::parse(&text)
    }

    /// The server itself: the module's own port, from this host.
    pub(crate) fn target(&self) -> Result<Target> {
        let (address, users) = match self {
            Source::Device { path, users } => {
                let port = Device::open(path)?.info().port;
                (format!("127.0.0.1:{port}"), users)
            }
            Source::Server { address, users } => (address.clone(), users),
        };
        Ok(Target {
            address,
            users: users.clone(),
        })
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Result<Server> {
        let Target { address, users } = self.target()?;
        Server::connect(&address, &users)
    }

    /// Whether this is a module on this host.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Source::Device { .. })
    }
}
