// SPDX-License-Identifier: GPL-2.0-only
//! Keeps a cache over a restart: `stop` dumps it and `start` loads it, if the configuration names a file (`warm.file`).
//! As with memcached's `-e`, a dump that fails does not fail the command.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::answer::Answer;
use crate::arguments::LoadMode;
use crate::arguments::{Dump, Load, CONNECTIONS};
use crate::configuration::Configuration;
use crate::dump;
use crate::durable;
use crate::keys;
use crate::source::Source;

/// Dumps the cache that is about to be unloaded, if the configuration names a file for it.
///
/// # Errors
///
/// The configuration cannot be read or has errors: whether and where to dump is unknown. A dump that fails is reported
/// only.
pub(crate) fn dump_at_stop(device: &Path, configuration: &Path) -> Result<()> {
    // An administrator who loaded the module without a file stops it without one.
    if !configuration.exists() {
        return Ok(());
    }
    let wanted = Configuration::read(configuration)
        .context("the module stays loaded (--no-dump unloads it, and loses all items)")?;
    if let Err(error) = try_dump(device, &wanted) {
        eprintln!("hippos-ctl: the cache is not kept: {error:#}");
    }
    Ok(())
}

fn try_dump(device: &Path, wanted: &Configuration) -> Result<()> {
    let Some(file) = file(wanted) else {
        return Ok(());
    };
    if let Some(folder) = file.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| folder.display().to_string())?;
    }
    let given = Dump {
        file,
        resume: false,
        connections: CONNECTIONS,
        quiet: false,
    };
    report(&dump::dump(&source(device, wanted)?.target()?, &given)?);
    Ok(())
}

/// Loads the last dump, if the configuration names its file.
pub(crate) fn load_at_start(device: &Path, wanted: &Configuration) {
    if let Err(error) = try_load(device, wanted) {
        eprintln!("hippos-ctl: the cache stays as it is: {error:#}");
    }
}

fn try_load(device: &Path, wanted: &Configuration) -> Result<()> {
    let Some(file) = file(wanted) else {
        return Ok(());
    };
    // Until the server answers, the dump keeps its name, so that the next start finds it.
    let source = source(device, wanted)?;
    if !file.exists() {
        return Ok(());
    }
    source.connect()?;
    let Some(file) = take(&file, durable::rename)? else {
        return Ok(());
    };
    let left = left(&file);
    let given = Load {
        file,
        mode: LoadMode::Add,
        from_block: 0,
        salvage: false,
        connections: CONNECTIONS,
        quiet: false,
    };
    let loaded = dump::load(&source.target()?, &given);
    report(&loaded.context(left)?);
    Ok(())
}

/// The context of an error after which a dump that was renamed is not loaded.
fn left(file: &Path) -> String {
    format!(
        "the dump is left as {}, for hippos-ctl load; the next start does not load it",
        file.display()
    )
}

/// A dump is loaded once: loading it again after a crash would bring back values that clients have replaced since. It
/// is therefore renamed before any of it is loaded.
fn take(
    file: &Path,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<Option<PathBuf>> {
    let mut loaded = OsString::from(file);
    loaded.push(".loaded");
    let loaded = PathBuf::from(loaded);
    match rename(file, &loaded) {
        Ok(()) => Ok(Some(loaded)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Renamed, but after a crash it may have its old name: then the next start would load it again.
        Err(error) if loaded.exists() => Err(error).context(left(&loaded)),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn file(wanted: &Configuration) -> Option<PathBuf> {
    let file = wanted.get(&keys::WARM_FILE);
    (!file.is_empty()).then(|| file.into())
}

fn source(device: &Path, wanted: &Configuration) -> Result<Source> {
    let users = wanted.get(&keys::AUTH_FILE);
    let users = (!users.is_empty()).then_some(Path::new(&users));
    Source::new(device, None, users)
}

/// Standard output is for the command's own answer.
fn report(answer: &Answer) {
    eprint!("hippos-ctl: {}", answer.text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use crate::system::tests::Folder;

    #[test]
    fn a_dump_is_taken_once() {
        let folder = Folder::new("warm", &[("/cache.dump", "x")]);
        let file = folder.system().path("/cache.dump");
        let taken = take(&file, durable::rename).unwrap().unwrap();
        assert!(taken.ends_with("cache.dump.loaded"));
        assert!(taken.exists() && !file.exists());
        assert_eq!(take(&file, durable::rename).unwrap(), None);
    }

    #[test]
    fn error_after_the_rename_names_the_file_that_is_left() {
        let folder = Folder::new("synced", &[("/cache.dump", "x")]);
        let file = folder.system().path("/cache.dump");
        let refused = take(&file, |_, _| Err(io::Error::other("disk"))).unwrap_err();
        assert_eq!(format!("{refused:#}"), format!("{}: disk", file.display()));
        let unsynced = |from: &Path, to: &Path| {
            std::fs::rename(from, to)?;
            Err(io::Error::other("disk"))
        };
        let error = format!("{:#}", take(&file, unsynced).unwrap_err());
        let loaded = format!("the dump is left as {}.loaded, ", file.display());
        assert!(
            error.starts_with(&loaded) && error.ends_with(": disk"),
            "{error}"
        );
    }

    #[test]
    fn stop_is_refused_while_the_configuration_has_errors() {
        let text = "mistake = 1\n[warm]\nfile = '/nonexistent/cache.dump'\n";
        let folder = Folder::new("stop", &[("/h.toml", text)]);
        let file = folder.system().path("/h.toml");
        let device = Path::new("/nonexistent/hippos");
        let error = dump_at_stop(device, &file).unwrap_err();
        assert_eq!(Status::of(&error), Status::Found);
        assert!(format!("{error:#}").contains("mistake"), "{error:#}");
        assert!(dump_at_stop(device, &folder.system().path("/none")).is_ok());
    }

    #[test]
    fn dump_keeps_its_name_while_the_server_does_not_answer() {
        let folder = Folder::new("unloaded", &[("/cache.dump", "x")]);
        let file = folder.system().path("/cache.dump");
        let (wanted, _) = Configuration::parse(&format!("[warm]\nfile = '{}'", file.display()));
        assert!(try_load(Path::new("/nonexistent/hippos"), &wanted).is_err());
        assert!(file.exists());
    }

    #[test]
    fn without_the_key_there_is_no_file() {
        let of = |text| file(&Configuration::parse(text).0);
        assert_eq!(of(""), None);
        let text = "[warm]\nfile = '/var/lib/hippos/cache.dump'";
        assert_eq!(of(text), Some("/var/lib/hippos/cache.dump".into()));
    }
}
