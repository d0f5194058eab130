// SPDX-License-Identifier: GPL-2.0-only
//! The settings that can be changed in a loaded module, and their keys in the configuration.

/// A call that changes the loaded module, and the keys that it puts into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveChange {
    Users,
    Sources,
    Admin,
    Limits,
    Memory,
    Latency,
    Interfaces,
}

impl LiveChange {
    /// Calls that restrict access come first.
    pub(crate) const ORDER: [Self; 7] = [
        Self::Users,
        Self::Sources,
        Self::Admin,
        Self::Limits,
        Self::Memory,
        Self::Latency,
        Self::Interfaces,
    ];

    /// The call for a key; `None` if the key needs a restart.
    pub(crate) fn of(key: &str) -> Option<Self> {
        match key {
            "auth_file" => Some(Self::Users),
            "allow" => Some(Self::Sources),
            "admin" => Some(Self::Admin),
            "udp_bytes" | "udp_rate" | "limits.udp_datagrams" | "limits.udp_private_rate" => {
                Some(Self::Limits)
            }
            "memory_mb" => Some(Self::Memory),
            "latency" => Some(Self::Latency),
            "xdp.interfaces" => Some(Self::Interfaces),
            _ => None,
        }
    }
}
