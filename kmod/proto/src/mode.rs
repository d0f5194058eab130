// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! How a value is stored, in every protocol.

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever is there.
    Set,
    /// When nothing is there.
    Add,
    /// When something is there.
    Replace,
    /// Behind the value that is there.
    Append,
    /// Before the value that is there.
    Prepend,
}
