// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! How a value is stored, in every protocol.

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unconditionally.
    Set,
    /// Only if the key does not exist.
    Add,
    /// Only if the key exists.
    Replace,
    /// After the existing value.
    Append,
    /// Before the existing value.
    Prepend,
}
