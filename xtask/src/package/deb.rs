// SPDX-License-Identifier: GPL-2.0-only
//! A binary package: staged files, then `dpkg-deb`. The same files give the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::{utimensat, UtimensatFlags};
use nix::sys::time::TimeSpec;

use super::build::Build;
use crate::{kbuild, shell, workspace};

/// The packages' maintainer.
const MAINTAINER: &str = "Hippos maintainers <maintainers@hippos.invalid>";
/// The warnings that lintian has for every package, and that are intended.
const COMMON_OVERRIDES: &str =
    "# Not uploaded to Debian.\n@PACKAGE@: initial-upload-closes-no-bugs *\n";
/// The scripts that dpkg calls, and its lists.
const CONTROL: &[(&str, u32)] = &[
    ("preinst", 0o755),
    ("postinst", 0o755),
    ("prerm", 0o755),
    ("postrm", 0o755),
    ("triggers", 0o644),
];

/// A package being staged.
pub(crate) struct Deb<'a> {
    build: &'a Build<'a>,
    name: String,
    /// Its folder in packaging/debian.
    source: PathBuf,
    arch: &'static str,
    tree: PathBuf,
}

impl<'a> Deb<'a> {
    /// Begins a package. `source` is the name of its folder in packaging/debian.
    pub(crate) fn new(
        build: &'a Build<'a>,
        name: &str,
        source: &str,
        arch: &'static str,
    ) -> Result<Self> {
        let tree = build.stage.join(name);
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(tree.join("DEBIAN"))?;
        Ok(Deb {
            build,
            name: name.to_owned(),
            source: workspace::root().join("packaging/debian").join(source),
            arch,
            tree,
        })
    }

    /// Adds a file with these contents.
    pub(crate) fn write(&self, to: &str, text: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let to = self.tree.join(to);
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(fs::set_permissions(&to, fs::Permissions::from_mode(mode))?)
    }

    /// Adds a file from anywhere.
    pub(crate) fn file(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let text = fs::read(from).with_context(|| format!("no {}", from.display()))?;
        self.write(to, text, mode)
    }

    /// Adds a file from packaging/, with the placeholders filled in.
    pub(crate) fn template(&self, from: &str, to: &str, mode: u32) -> Result<()> {
        self.write(to, self.build.fill(&read(from)?)?, mode)
    }

    /// Adds a folder.
    pub(crate) fn folder(&self, from: &Path, to: &str) -> Result<()> {
        kbuild::copy_tree(from, &self.tree.join(to))
    }

    /// Adds a text that is packed as documentation is.
    pub(crate) fn packed(&self, to: &str, text: impl AsRef<[u8]>) -> Result<()> {
        self.write(to, text, 0o644)?;
        let mut gzip = self.build.root.command("/usr/bin/gzip");
        shell::output(gzip.arg("-9nf").arg(self.tree.join(to))).map(drop)
    }

    /// Makes the package and gives its path. Its texts are those that every package has, `copyright` is
    /// added to its own licence.
    pub(crate) fn finish(self, copyright: &str) -> Result<PathBuf> {
        let doc = format!("usr/share/doc/{}", self.name);
        self.write(
            &format!("{doc}/copyright"),
            read("packaging/debian/copyright")? + copyright,
            0o644,
        )?;
        let version = &self.build.version.number;
        let date = self.build.date()?;
        self.packed(
            &format!("{doc}/changelog.Debian"),
            format!(
                "hippos ({version}) trixie; urgency=medium\n\n  * Made from the work tree: see the upstream \
                 changelog.\n\n -- {MAINTAINER}  {date}\n"
            ),
        )?;
        let changes = fs::read(workspace::root().join("CHANGELOG.md"))?;
        self.packed(&format!("{doc}/changelog"), changes)?;
        let own = fs::read_to_string(self.source.join("lintian-overrides")).unwrap_or_default();
        self.write(
            &format!("usr/share/lintian/overrides/{}", self.name),
            (COMMON_OVERRIDES.to_owned() + &own).replace("@PACKAGE@", &self.name),
            0o644,
        )?;
        self.control()?;
        touch(&self.tree, self.build.version.epoch)?;
        let deb = self.build.out.join(format!(
            "{}_{version}_{}.deb",
            self.name.replace(':', "%3a"),
            self.arch
        ));
        let mut pack = self
            .build
            .root
            .command_with("/usr/bin/dpkg-deb", &[&self.build.out]);
        pack.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"])
            .arg(&self.tree)
            .arg(&deb)
            .env("SOURCE_DATE_EPOCH", self.build.version.epoch.to_string());
        shell::output(&mut pack)?;
        Ok(deb)
    }

    /// Writes the control files for dpkg.
    fn control(&self) -> Result<()> {
        let mut files = Vec::new();
        walk(&self.tree, &mut |path, is_dir| {
            if !is_dir && !path.starts_with(self.tree.join("DEBIAN")) {
                files.push(path.to_owned());
            }
            Ok(())
        })?;
        files.sort();
        let inside = |path: &Path| -> Result<String> {
            Ok(path
                .strip_prefix(&self.tree)?
                .to_str()
                .context("a name that is no text")?
                .to_owned())
        };
        let mut bytes = 0;
        let mut conffiles = String::new();
        for file in &files {
            bytes += fs::symlink_metadata(file)?.len();
            let name = inside(file)?;
            if name.starts_with("etc/") {
                conffiles += &format!("/{name}\n");
            }
        }
        let mut sums = self.build.root.command("/usr/bin/md5sum");
        for file in &files {
            if !inside(file)?.starts_with("etc/") && !file.is_symlink() {
                sums.arg(inside(file)?);
            }
        }
        let sums = shell::output(sums.current_dir(&self.tree))?;
        self.write("DEBIAN/md5sums", sums, 0o644)?;
        if !conffiles.is_empty() {
            self.write("DEBIAN/conffiles", conffiles, 0o644)?;
        }
        for (name, mode) in CONTROL {
            if let Ok(text) = fs::read_to_string(self.source.join(name)) {
                self.write(&format!("DEBIAN/{name}"), self.build.fill(&text)?, *mode)?;
            }
        }
        let own = fs::read_to_string(self.source.join("control"))
            .with_context(|| format!("{} has no control file", self.name))?;
        let control = format!(
            "Package: {}\nSource: hippos\nVersion: {}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {}\nPriority: optional\n{}",
            self.name,
            self.build.version.number,
            self.arch,
            bytes.div_ceil(1024),
            self.build.fill(&own)?
        );
        self.write("DEBIAN/control", control, 0o644)
    }
}

/// A text of packaging/.
fn read(name: &str) -> Result<String> {
    fs::read_to_string(workspace::root().join(name)).with_context(|| format!("no {name}"))
}

/// Calls `each` with every path below a folder, the contents of a folder before itself.
fn walk(dir: &Path, each: &mut dyn FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        if is_dir {
            walk(&entry.path(), each)?;
        }
        each(&entry.path(), is_dir)?;
    }
    Ok(())
}

/// Gives all that is packed one time and the modes that do not depend on a umask.
fn touch(tree: &Path, epoch: u64) -> Result<()> {
    let time = TimeSpec::new(i64::try_from(epoch)?, 0);
    let set = |path: &Path, is_dir: bool| -> Result<()> {
        if !path.is_symlink() {
            let executable = is_dir || fs::metadata(path)?.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        let flags = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(None, path, &time, &time, flags)?)
    };
    walk(tree, &mut |path, is_dir| set(path, is_dir))?;
    set(tree, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_files_have_one_time_and_plain_modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        touch(dir.path(), 1_000_000).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o644);
        let since = meta
            .modified()
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH);
        assert_eq!(since.unwrap().as_secs(), 1_000_000);
    }
}
