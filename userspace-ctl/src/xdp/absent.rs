// SPDX-License-Identifier: GPL-2.0-only
//! The XDP receive path of a tool that is built without it.

use anyhow::{bail, Result};

use crate::XdpMode;

pub(crate) fn attach(_: &str, _: XdpMode) -> Result<&'static str> {
    missing()
}

pub(crate) fn detach(_: &str) -> Result<()> {
    missing()
}

pub(crate) fn status() -> Result<Vec<(String, &'static str)>> {
    missing()
}

/// Without XDP, no interface has a program to detach.
pub(crate) fn interfaces() -> Result<Vec<String>> {
    Ok(Vec::new())
}

fn missing<T>() -> Result<T> {
    bail!(
        "this hippos-ctl was built without XDP; build it with --features xdp (needs clang, \
         pkg-config and the headers of libelf and zlib)"
    )
}
