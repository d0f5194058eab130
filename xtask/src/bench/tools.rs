// SPDX-License-Identifier: GPL-2.0-only
//! The files that every guest of a benchmark needs.

use std::path::PathBuf;

use anyhow::Result;

use super::server::{Server, Wire};
use super::{load, mirror};
use crate::kbuild;
use crate::root::Root;
use crate::tap::Tap;

/// The files that every guest needs.
pub(crate) struct Tools<'a> {
    pub(super) root: &'a Root,
    pub(super) hippos: PathBuf,
    /// The module that allocates each reply anew, if it is among the servers.
    pub(super) fresh: Option<PathBuf>,
    pub(super) mirror: PathBuf,
    pub(super) mirror_xdp: PathBuf,
    pub(super) load: PathBuf,
    /// Guests are joined by tap devices.
    pub(super) tap: bool,
}

impl<'a> Tools<'a> {
    pub(super) fn build(
        root: &'a Root,
        wire: Wire,
        load: load::Build,
        servers: &[Server],
    ) -> Result<Self> {
        let tap = match wire {
            Wire::Auto => Tap::new().is_ok(),
            Wire::Tap => Tap::new().map(|_| true)?,
            Wire::User => false,
        };
        Ok(Tools {
            root,
            hippos: kbuild::build_for(root, &Default::default())?,
            fresh: servers
                .contains(&Server::HipposFresh)
                .then(|| {
                    kbuild::build_for(
                        root,
                        &kbuild::KmodArgs {
                            fresh_replies: true,
                            ..Default::default()
                        },
                    )
                })
                .transpose()?,
            mirror: mirror::build(root)?,
            mirror_xdp: mirror::build_xdp(root)?,
            load: load::build(load)?,
            tap,
        })
    }
}
