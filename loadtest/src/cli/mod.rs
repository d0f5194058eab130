// SPDX-License-Identifier: GPL-2.0-only
//! The command line: arguments, and code that is common to all commands that generate load.

pub(crate) mod args;
pub(crate) mod job;
