// SPDX-License-Identifier: GPL-2.0-only
//! The source of statistics: the loaded module, or a server over TCP.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hippos_abi::Section;

use crate::device::Device;
use crate::dump::Target;
use crate::exit::Status;
use crate::server::Server;
use crate::stats::Stats;

/// A source of statistics.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Device {
        path: PathBuf,
        users: Vec<u8>,
    },
    Server {
        address: String,
        users: Vec<u8>,
        /// How long a connection may take for all its replies.
        time: Option<Duration>,
    },
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
                time: None,
            },
            None => Source::Device {
                path: device.to_owned(),
                users,
            },
        })
    }

    /// The same source, whose server has that time for all replies over a connection. The module never waits.
    pub(crate) fn limited(mut self, most: Duration) -> Self {
        if let Source::Server { time, .. } = &mut self {
            *time = Some(most);
        }
        self
    }

    /// Reads a part of its statistics.
    pub(crate) fn stats(&self, section: Section) -> Result<Stats> {
        self.open()?.stats(section)
    }

    /// Opens the device, or connects to the server.
    pub(crate) fn open(&self) -> Result<Open> {
        Ok(match self {
            Source::Device { path, .. } => Open::Device(Device::open(path)?),
            Source::Server {
                address,
                users,
                time,
            } => Open::Server(Server::connect_for(address, users, *time)?),
        })
    }

    /// The server itself: the module's own port, from this host.
    pub(crate) fn target(&self) -> Result<Target> {
        let (address, users) = match self {
            Source::Device { path, users } => {
                let port = Device::open(path)?.info().port;
                (format!("127.0.0.1:{port}"), users)
            }
            Source::Server { address, users, .. } => (address.clone(), users),
        };
        Ok(Target {
            address,
            users: users.clone(),
        })
    }

    /// Connects to it.
    pub(crate) fn connect(&self) -> Result<Server> {
        let Target { address, users } = self.target()?;
        Server::connect(&address, &users)
    }

    /// Whether it is a module on this host.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Source::Device { .. })
    }
}

/// An open source.
#[derive(Debug)]
pub(crate) enum Open {
    Device(Device),
    Server(Server),
}

impl Open {
    /// The lines of a part of its statistics.
    pub(crate) fn text(&mut self, section: Section) -> Result<String> {
        match self {
            Open::Device(device) => device.stats(section),
            Open::Server(server) => server.stats(section.argument()),
        }
    }

    /// A part of its statistics.
    pub(crate) fn stats(&mut self, section: Section) -> Result<Stats> {
        Stats::parse(&self.text(section)?)
    }

    /// Like `stats`; empty for a server that refuses them.
    pub(crate) fn stats_if_served(&mut self, section: Section) -> Result<Stats> {
        match self.stats(section) {
            Err(error) if Status::of(&error) == Status::Refused => Ok(Stats::default()),
            other => other,
        }
    }
}
