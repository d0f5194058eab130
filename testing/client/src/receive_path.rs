// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Receive paths, as docs/fast-path.md has them.

use clap::ValueEnum;

/// The receive path that datagrams meet first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReceivePath {
    /// The PRE_ROUTING hook
    #[default]
    Prerouting,
    /// XDP, on every card that has a wire; the hook gets the frames that it passes
    Xdp,
    /// The UDP socket, with nothing before it
    Socket,
}

impl ReceivePath {
    /// Its name, as options have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Xdp => "xdp",
            Self::Socket => "socket",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::value_variants().iter();
        all.find(|path| path.name() == name).copied()
    }

    /// The additional module parameters that select it.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Prerouting | Self::Xdp => "",
            Self::Socket => " udp_fast=0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_option() {
        for path in ReceivePath::value_variants() {
            let option = path.to_possible_value().unwrap();
            assert_eq!(option.get_name(), path.name());
            assert_eq!(ReceivePath::named(path.name()), Some(*path));
        }
        assert_eq!(ReceivePath::named("hook"), None);
    }
}
