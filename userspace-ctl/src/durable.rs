// SPDX-License-Identifier: GPL-2.0-only
//! Files whose names outlast a crash of the machine: the folder is on the disk too.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Renames a file that is on the disk, and puts the new name there too. If only that fails, the error says that the file is
/// in place.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_and(from, to, |folder| File::open(folder)?.sync_all())
}

/// Renames a file, and calls `sync` with the folder that has the new name.
fn rename_and(
    from: &Path,
    to: &Path,
    sync: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    fs::rename(from, to)?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Of no kind, so that it is not taken for an error of the rename.
    sync(folder).map_err(|error| {
        io::Error::other(format!(
            "{} is in place, but a crash of the machine may undo that: {} is not synced: {error}",
            to.display(),
            folder.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::Folder;

    #[test]
    fn the_folder_is_synced_once_it_has_the_new_name() {
        let folder = Folder::new("durable", &[("/d/partial", "text")]);
        let path = |name: &str| folder.system().path(name);
        let mut synced = None;
        rename_and(&path("/d/partial"), &path("/d/whole"), |folder| {
            synced = Some((folder.to_owned(), folder.join("whole").exists()));
            Ok(())
        })
        .unwrap();
        assert_eq!(synced, Some((path("/d"), true)));
        let error = rename_and(&path("/d/whole"), &path("/d/x"), |_| {
            Err(io::Error::new(io::ErrorKind::NotFound, "disk"))
        });
        let error = error.unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::NotFound);
        let error = error.to_string();
        let start = format!("{} is in place, but ", path("/d/x").display());
        assert!(
            error.starts_with(&start) && error.ends_with(": disk"),
            "{error}"
        );
    }

    #[test]
    fn a_name_without_a_folder_is_in_the_current_one() {
        let mut synced = None;
        let renamed = rename_and(Path::new("Cargo.toml"), Path::new("Cargo.toml"), |folder| {
            synced = Some(folder.to_owned());
            Ok(())
        });
        renamed.unwrap();
        assert_eq!(synced.as_deref(), Some(Path::new(".")));
    }
}
