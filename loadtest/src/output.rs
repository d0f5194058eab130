// SPDX-License-Identifier: GPL-2.0-only
//! Output files named by the user: `-` is a standard stream; pipes and devices are written in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

/// The name of standard input and standard output.
pub const STANDARD: &str = "-";

/// Whether a path is `-`.
pub fn standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

/// Reads a file or standard input as text.
pub fn read(path: &Path) -> Result<String> {
    if !standard(path) {
        return fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
}

/// Prints to standard output. A closed reader is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints to standard error. A closed reader is not an error.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether the error is only that the reader of a pipe has closed it.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    })
}

/// Fails if a file cannot be written, so that the results of a long run are not lost because of a missing folder. Pipes
/// and devices are not opened.
pub fn check(path: &Path) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    if standard(path) {
        return Ok(());
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => OpenOptions::new()
            .write(true)
            .open(path)
            .map(drop)
            .with_context(context),
        Ok(meta) if !meta.is_dir() => Ok(()),
        _ => AtomicFile::create(path).map(drop),
    }
}

/// Writes a file atomically: a new one replaces a regular file, at the end of all symbolic links and with the old
/// file's mode. Pipes and devices are written to directly.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).with_context(context)?;
    file.finish().with_context(context)
}

/// A file that becomes visible when it is complete; see [`write`].
#[derive(Debug)]
pub struct AtomicFile {
    out: Out,
}

#[derive(Debug)]
enum Out {
    Standard,
    /// A pipe or a device.
    InPlace(File),
    Renamed {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
    Done,
}

impl AtomicFile {
    /// The file is not visible before [`Self::finish`].
    pub fn create(path: &Path) -> Result<Self> {
        let context = || format!("cannot write {}", path.display());
        if standard(path) {
            return Ok(Self { out: Out::Standard });
        }
        let place = resolve(path).with_context(context)?;
        // For special files under /dev and /proc, users expect them to be opened directly.
        let special = ["/dev", "/proc"].iter().any(|dir| place.starts_with(dir));
        let mode = match fs::metadata(&place) {
            Ok(meta) if meta.is_dir() => bail!("{}: is a folder", context()),
            Ok(meta) if special || !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(&place);
                return Ok(Self {
                    out: Out::InPlace(file.with_context(context)?),
                });
            }
            Ok(meta) => Some(meta.permissions()),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(context),
        };
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let partial = place.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial);
        let file = match (file, &mode) {
            // The file may be written, but no other file can be created in its folder.
            (Err(e), Some(_)) if e.kind() == ErrorKind::PermissionDenied => {
                let file = OpenOptions::new().write(true).truncate(true).open(&place);
                return Ok(Self {
                    out: Out::InPlace(file.with_context(context)?),
                });
            }
            (file, _) => file.with_context(context)?,
        };
        if let Some(mode) = mode {
            file.set_permissions(mode).with_context(context)?;
        }
        Ok(Self {
            out: Out::Renamed {
                file,
                partial,
                path: place,
            },
        })
    }

    /// Moves it to its final name.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        match std::mem::replace(&mut self.out, Out::Done) {
            Out::Renamed { partial, path, .. } => fs::rename(partial, path),
            _ => Ok(()),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::Standard => io::stdout().write(bytes),
            Out::InPlace(file) | Out::Renamed { file, .. } => file.write(bytes),
            Out::Done => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Standard => io::stdout().flush(),
            Out::InPlace(file) | Out::Renamed { file, .. } => file.flush(),
            Out::Done => Ok(()),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Out::Renamed { partial, .. } = &self.out {
            // It was not finished. If the temporary file cannot be removed, that does no harm.
            let _ = fs::remove_file(partial);
        }
    }
}

/// The file at the end of all links, which need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        if path.starts_with("/dev") || path.starts_with("/proc") {
            break;
        }
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new(".")).join(target),
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, FileTypeExt, PermissionsExt};

    #[test]
    fn links_are_kept_and_modes_too() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old, and longer").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("file", &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left"
        );
        let dangling = dir.path().join("dangling");
        symlink("later", &dangling).unwrap();
        write(&dangling, b"x").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("later")).unwrap(), "x");
    }

    #[test]
    fn output_to_a_pipe_is_written_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        write(Path::new("/dev/null"), b"gone").unwrap();
        assert!(fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device());
    }

    #[test]
    fn an_unfinished_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write(&file, b"old").unwrap();
        let mut whole = AtomicFile::create(&file).unwrap();
        whole.write_all(b"half of the n").unwrap();
        drop(whole);
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
