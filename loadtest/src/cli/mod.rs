// SPDX-License-Identifier: GPL-2.0-only
//! The command line: arguments, and what all commands that make load have in common.

pub(crate) mod args;
pub(crate) mod job;
