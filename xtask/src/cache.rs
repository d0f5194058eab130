// SPDX-License-Identifier: GPL-2.0-only
//! The cache folder: where the build root lives, outside any work tree.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// `$HIPPOS_CACHE`, else `$XDG_CACHE_HOME/hippos`, else `~/.cache/hippos`; made when missing.
pub(crate) fn dir() -> Result<PathBuf> {
    let dir = if let Some(dir) = non_empty("HIPPOS_CACHE") {
        dir
    } else if let Some(dir) = non_empty("XDG_CACHE_HOME") {
        dir.join("hippos")
    } else if let Some(home) = non_empty("HOME") {
        home.join(".cache/hippos")
    } else {
        bail!("no cache folder: set HIPPOS_CACHE to a folder with 6 GB to spare");
    };
    fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot make {}: set HIPPOS_CACHE to a folder that you may write",
            dir.display()
        )
    })?;
    Ok(fs::canonicalize(dir)?)
}

fn non_empty(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Holds `path` as a lock file until dropped; waits, with a message, while another process has it.
pub(crate) fn lock(path: &Path, what: &str) -> Result<Flock<File>> {
    let open = || File::create(path).with_context(|| format!("cannot open {}", path.display()));
    match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {}
        Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
    }
    eprintln!(
        "hippos: waiting for another process that is {what} ({})",
        path.display()
    );
    Flock::lock(open()?, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow::anyhow!("cannot lock {}: {error}", path.display()))
}
