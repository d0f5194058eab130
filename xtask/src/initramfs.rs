// SPDX-License-Identifier: GPL-2.0-only
//! The guest's file system: Debian's programs and modules, our PID 1 and hippos.ko.
//!
//! Two archives that the kernel unpacks one after the other: a base that only changes with the build root, kept beside
//! it, and the files of each run. Both are uncompressed: unpacking costs more than reading under emulation.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use cpio::newc::{trailer, Builder};

use crate::root::Root;
use crate::{cache, cross, kernel, progress, shell, workspace};

/// Programs of the build root that the guest has, with the libraries that they need.
const PROGRAMS: &[&str] = &[
    "/usr/bin/busybox",
    "/usr/bin/ip",
    "/usr/bin/memcached",
    "/usr/sbin/ethtool",
    "/usr/sbin/nft",
    "/usr/sbin/tc",
    "/usr/sbin/bridge",
    "/usr/bin/ss",
];
/// hippos-ctl's library; the other libraries that it needs are ip's as well.
const LIBRARY: &str = "libgcc_s.so.1";
/// Modules of the stock kernel that the guest may load, with their dependencies.
const MODULES: &[&str] = &[
    "virtio_net",
    "virtio_rng",
    "veth",
    "8021q",
    "udp_diag",
    "bridge",
    "br_netfilter",
    "vrf",
    "dummy",
    "ifb",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "nf_conntrack",
    "sch_fq",
    "sch_netem",
    "sch_ingress",
    "cls_bpf",
    "cls_matchall",
    "act_mirred",
    "act_bpf",
    "configfs",
    "tun",
    "xfrm_user",
    "bonding",
    "macvlan",
    "vxlan",
    "ipip",
    "nft_tproxy",
    "ip_vs",
    "ip_vs_rr",
    "iptable_filter",
    "iptable_nat",
    "sch_htb",
    "sch_tbf",
];
/// Where Debian's programs look for one another.
const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
];
const DIRS: &[&str] = &[
    "dev", "proc", "sys", "tmp", "run", "etc", "usr", "usr/bin", "usr/sbin",
];

/// Writes the whole of it to `target`, with `files` in the guest's root folder.
pub(crate) fn write<'a>(
    root: &Root,
    files: impl Iterator<Item = &'a PathBuf>,
    target: &Path,
) -> Result<()> {
    let base = base(root)?;
    let guest = match root.kernel().target.arch.is_native() {
        true => guest_program()?,
        false => foreign_guest_program(root)?,
    };
    let ctl = ctl(root)?;
    fs::copy(base, target).with_context(|| format!("cannot write {}", target.display()))?;
    let mut archive = Archive::new(File::options().append(true).open(target)?);
    archive.file("init", 0o755, &fs::read(guest)?)?;
    archive.file("usr/bin/hippos-ctl", 0o755, &fs::read(ctl)?)?;
    for file in files {
        let text = fs::read(file).with_context(|| format!("no {}", file.display()))?;
        let name = file.file_name().context("a file without a name")?;
        archive.file(&name.to_string_lossy(), 0o755, &text)?;
    }
    archive.finish()
}

/// Builds the guest's PID 1: static, so that it needs no library in the guest.
pub(crate) fn guest_program() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target_dir = workspace::root().join("target/guest");
    let mut build = Command::new(workspace::cargo());
    build
        .args(["build", "--quiet", "--locked", "--package", "hippos_guest"])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        // Under emulation every instruction counts.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols")
        .current_dir(workspace::root());
    shell::run(&mut build).context("the guest's program does not build")?;
    Ok(target_dir.join(TARGET).join("debug/hippos-guest"))
}

/// The same for another architecture, by the build root's cargo.
fn foreign_guest_program(root: &Root) -> Result<PathBuf> {
    let arch = root.kernel().target.arch;
    let target_dir = workspace::root().join("target/guest");
    let mut build = root.cargo_for_target("-Ctarget-feature=+crt-static -Cstrip=symbols")?;
    build
        .args(["build", "--quiet", "--locked", "--offline"])
        .args(["--package", "hippos_guest"])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    shell::run(&mut build).context("the guest's program does not build")?;
    Ok(target_dir.join(arch.rust()).join("debug/hippos-guest"))
}

/// Builds hippos-ctl with all features, in the build root: it has clang for the XDP program and the loader's libraries,
/// in the same versions as the guest.
fn ctl(root: &Root) -> Result<PathBuf> {
    let arch = root.kernel().target.arch;
    let target_dir = workspace::root().join("target/ctl");
    let mut build = root.cargo_for_target("-Cstrip=symbols")?;
    build
        .args(["build", "--quiet", "--locked", "--offline"])
        .args(["--package", "hippos-ctl", "--features", "xdp"])
        .arg("--target-dir")
        .arg(&target_dir);
    shell::run(&mut build).context("hippos-ctl does not build")?;
    let built = match arch.is_native() {
        true => target_dir,
        false => target_dir.join(arch.rust()),
    };
    Ok(built.join("debug/hippos-ctl"))
}

/// The base archive, made once for each build root and each version of the lists above.
fn base(root: &Root) -> Result<PathBuf> {
    let wanted = format!(
        "{PROGRAMS:?} {LIBRARY} {MODULES:?} {LINKS:?} {DIRS:?} {} {}",
        root.kernel().release,
        root.kernel().modules.display()
    );
    let key = workspace::digest([wanted]);
    let base = root.path().with_extension(format!("guest-{key}.cpio"));
    if base.exists() {
        return Ok(base);
    }
    let _lock = cache::lock(
        &root.path().with_extension("guest.lock"),
        "making the guest's files",
    )?;
    if !base.exists() {
        progress::step("the guest's programs and modules", || {
            let partial = base.with_extension("partial");
            let mut archive = Archive::new(File::create(&partial)?);
            for dir in DIRS {
                archive.dir(dir)?;
            }
            for (name, target) in LINKS {
                archive.link(name, target)?;
            }
            programs(root, &mut archive)?;
            modules(root, &mut archive)?;
            archive.finish()?;
            fs::rename(&partial, &base)?;
            Ok(())
        })?;
    }
    Ok(base)
}

fn programs(root: &Root, archive: &mut Archive) -> Result<()> {
    let arch = root.kernel().target.arch;
    let top = cross::top(arch);
    let folder = format!("/usr/lib/{}", arch.triplet());
    let mut todo: Vec<String> = PROGRAMS.iter().map(|&program| program.to_owned()).collect();
    todo.push(format!("{folder}/{LIBRARY}"));
    let mut files = BTreeSet::new();
    while let Some(file) = todo.pop() {
        // /lib is a link to /usr/lib, in the guest as well.
        let file = match file.starts_with("/usr") {
            true => file,
            false => format!("/usr{file}"),
        };
        if !files.insert(file.clone()) {
            continue;
        }
        let inside = top.join(&file[1..]);
        let mut readelf = root.command("/usr/bin/readelf");
        let list = shell::output(readelf.args(["-dlW"]).arg(&inside))?;
        for needed in needed(&list) {
            todo.push(match needed.starts_with('/') {
                true => needed.to_owned(),
                false => format!("{folder}/{needed}"),
            });
        }
        let text = fs::read(kernel::outside(root.path(), &inside))
            .with_context(|| format!("no {file}"))?;
        archive.file(&file[1..], 0o755, &text)?;
    }
    archive.link("usr/bin/sh", "busybox")?;
    // The root's own has the same ones.
    let applets = shell::output(root.command("/usr/bin/busybox").arg("--list"))?;
    for applet in applets
        .lines()
        .filter(|applet| !matches!(*applet, "ip" | "sh" | "busybox"))
    {
        archive.link(&format!("usr/bin/{applet}"), "busybox")?;
    }
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\n")
}

/// The interpreter and the libraries in the output of `readelf -dlW`.
fn needed(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| {
        let (_, name) = line
            .split_once("Requesting program interpreter: ")
            .or_else(|| line.split_once("Shared library: ["))?;
        name.strip_suffix(']')
    })
}

fn modules(root: &Root, archive: &mut Archive) -> Result<()> {
    let inside = &root.kernel().modules;
    let outside = kernel::outside(root.path(), inside);
    let depends = fs::read_to_string(outside.join("modules.dep"))?;
    let builtin = fs::read_to_string(outside.join("modules.builtin"))?;
    let mut kept = Vec::new();
    let mut files = BTreeSet::new();
    let mut todo: Vec<String> = Vec::new();
    for module in MODULES {
        match depends
            .lines()
            .find(|line| line.split(':').next().map(name_of) == Some(name_of(module)))
        {
            Some(line) => todo.push(line.split(':').next().unwrap_or(line).to_owned()),
            None if builtin.lines().any(|line| name_of(line) == name_of(module)) => {}
            None => bail!("kernel {} has no module {module}", root.kernel().release),
        }
    }
    while let Some(file) = todo.pop() {
        if !files.insert(file.clone()) {
            continue;
        }
        let Some((line, needs)) = depends.lines().find_map(|line| {
            line.split_once(':')
                .filter(|(path, _)| *path == file)
                .map(|(_, needs)| (line, needs))
        }) else {
            bail!("modules.dep does not know {file}");
        };
        kept.push(line.to_owned());
        todo.extend(needs.split_whitespace().map(str::to_owned));
    }
    let dir = format!("usr/lib/modules/{}", root.kernel().release);
    for file in files {
        archive.file(
            &format!("{dir}/{file}"),
            0o644,
            &fs::read(outside.join(&file))?,
        )?;
    }
    archive.file(
        &format!("{dir}/modules.dep"),
        0o644,
        (kept.join("\n") + "\n").as_bytes(),
    )?;
    archive.file(&format!("{dir}/modules.builtin"), 0o644, builtin.as_bytes())
}

/// `kernel/net/foo-bar.ko.xz` is the module `foo_bar`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// A cpio archive in the kernel's format; adds the parent folders of each file.
struct Archive {
    out: Option<BufWriter<File>>,
    dirs: BTreeSet<PathBuf>,
    inode: u32,
}

impl Archive {
    fn new(file: File) -> Self {
        Archive {
            out: Some(BufWriter::new(file)),
            dirs: BTreeSet::new(),
            inode: 0,
        }
    }

    fn dir(&mut self, name: &str) -> Result<()> {
        if self.dirs.insert(name.into()) {
            self.entry(name, 0o040_755, &[])?;
        }
        Ok(())
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, 0o120_777, target.as_bytes())
    }

    fn file(&mut self, name: &str, mode: u32, text: &[u8]) -> Result<()> {
        let mut parents: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            self.dir(&parent.to_string_lossy())?;
        }
        self.entry(name, 0o100_000 | mode, text)
    }

    fn entry(&mut self, name: &str, mode: u32, text: &[u8]) -> Result<()> {
        self.inode += 1;
        let out = self.out.take().context("the archive broke off")?;
        let length = u32::try_from(text.len()).with_context(|| format!("{name} is too large"))?;
        let mut writer = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .write(out, length);
        writer.write_all(text)?;
        self.out = Some(writer.finish()?);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let out = self.out.take().context("the archive broke off")?;
        trailer(out)?.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_one_name() {
        assert_eq!(
            name_of("kernel/drivers/char/hw_random/virtio-rng.ko.xz"),
            "virtio_rng"
        );
        assert_eq!(name_of("virtio_rng"), "virtio_rng");
    }

    #[test]
    fn libraries_and_interpreter_are_needed() {
        let list = "  INTERP         0x000238 0x0000000000000238 0x000238 0x00001b R   0x1\n\
                    \x20     [Requesting program interpreter: /lib/ld-linux-aarch64.so.1]\n\
                    \x20 0x0000000000000001 (NEEDED)             Shared library: [libelf.so.1]\n";
        let needed: Vec<&str> = needed(list).collect();
        assert_eq!(needed, ["/lib/ld-linux-aarch64.so.1", "libelf.so.1"]);
    }
}
