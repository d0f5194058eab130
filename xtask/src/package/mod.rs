// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask package`: Debian packages, from the files in packaging/ and the programs built here.

mod build;
mod deb;
pub(crate) mod install;
mod licences;
mod programs;
pub(crate) mod release;
mod repository;
mod sbom;
pub(crate) mod tracing;
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::root;
use crate::target::{Selection, TESTED};
use crate::workspace::PURE_CRATES;
use crate::{kbuild, progress, shell, workspace};

use build::Build;
use deb::Deb;
use version::Version;

/// Make Debian packages: hippos, hippos-tools, hippos-dkms and hippos-modules-RELEASE.
///
/// The module of hippos-modules-RELEASE is for the selected kernel (--series,
/// --flavour), and for the very version of its package alone; that of hippos-dkms is built where the
/// package is installed. Version and date come from git: the same commit gives the same bytes.
#[derive(clap::Args)]
pub(crate) struct PackageArgs {
    /// Where the packages go [default: target/packages]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build everything a second time, from nothing, and fail unless the packages are the same
    #[arg(long)]
    twice: bool,
    /// Take hippos-ctl and hippos-load from here rather than build them (to try packaging/ quickly)
    #[arg(long, value_name = "DIR", conflicts_with = "twice")]
    programs: Option<PathBuf>,
}

/// The parts of the work tree that are the module's source.
const SOURCES: &[&str] = &["Cargo.lock", "Cargo.toml", "Kbuild", "Makefile", "kmod/"];
/// Folders of crates that are not part of the module.
const UNUSED: &[&str] = &["tests", "benches", "examples", "proptest-regressions"];
/// Documents of hippos-tools, with what they link to: paths in docs/, and in the package's folder of documentation.
const DOCUMENTS: &[&str] = &[
    "arm64.md",
    "bpftrace/README.md",
    "bpftrace/evictions.bt",
    "bpftrace/refused.bt",
    "bpftrace/slowest_keys.bt",
    "comparison.md",
    "fast-path.md",
    "fleet.md",
    "install.md",
    "instructions.svg",
    "kernels.md",
    "operations.md",
    "parameters.md",
    "peak.svg",
    "performance.md",
    "protocol.md",
    "reliability.md",
    "soak.svg",
    "statistics.md",
    "tuning.md",
];

/// Makes the packages and prints their paths.
pub(crate) fn package(args: &PackageArgs, selection: &Selection) -> Result<()> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out)?,
        None => workspace::root().join("target/packages"),
    };
    let version = Version::of_work_tree()?;
    let packages = make(&out, args.programs.as_deref(), selection, &version)?;
    if args.twice {
        let again = workspace::root().join("target/packages-again");
        for dir in [&again, &programs_dir()] {
            if dir.exists() {
                fs::remove_dir_all(dir)?;
            }
        }
        let root = root::ready(selection)?;
        fs::remove_dir_all(kbuild::output_dir(root.kernel())?)?;
        let second = make(&again, None, selection, &version)?;
        same(&packages, &second)?;
        fs::remove_dir_all(&again)?;
    }
    for package in packages {
        println!("{}", package.display());
    }
    Ok(())
}

/// Fails unless two makings came out the same.
fn same(first: &[PathBuf], second: &[PathBuf]) -> Result<()> {
    ensure!(
        first.len() == second.len(),
        "the second time there are other packages"
    );
    for (one, other) in first.iter().zip(second) {
        ensure!(
            one.file_name() == other.file_name() && fs::read(one)? == fs::read(other)?,
            "{} and {} differ",
            one.display(),
            other.display()
        );
    }
    Ok(())
}

/// Where the programs are built.
fn programs_dir() -> PathBuf {
    workspace::root().join("target/package-programs")
}

/// Makes the packages in `out`, whose former ones go, and gives their paths.
fn make(
    out: &Path,
    programs: Option<&Path>,
    selection: &Selection,
    version: &Version,
) -> Result<Vec<PathBuf>> {
    let root = root::ready(selection)?;
    let arch = root.kernel().target.arch;
    ensure!(arch.is_native(), "packages for {arch} are not made yet");
    fs::create_dir_all(out)?;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            fs::remove_file(path)?;
        }
    }
    let module = kbuild::build_for(&root, &kbuild::KmodArgs::default())?;
    let dir = match programs {
        Some(dir) => std::path::absolute(dir)?,
        None => progress::step("programs", || programs::build(&root, &programs_dir()))?,
    };
    let programs = ["hippos-ctl", "hippos-load"].map(|name| dir.join(name));
    let kernel = root.kernel();
    let series: Vec<String> = tested().collect();
    let build = Build {
        root: &root,
        version,
        values: vec![
            ("VERSION", version.number.clone()),
            ("RELEASE", kernel.release.clone()),
            ("KERNEL_VERSION", kernel.version.clone()),
            ("LIBRARIES", programs::libraries(&root, &programs)?),
            ("SERIES", series.join(" and ")),
            ("KERNELS", pattern(&series)),
            ("SOURCES", sources(&series)),
        ],
        stage: workspace::root().join("target/package"),
        out: out.to_owned(),
    };
    let packages = progress::step("packages", || {
        Ok(vec![
            meta(&build)?,
            dkms(&build)?,
            modules(&build, &module)?,
            tools(&build, &programs)?,
        ])
    })?;
    fs::remove_dir_all(&build.stage)?;
    repository::index(&root, out, &packages)?;
    Ok(packages)
}

fn meta(build: &Build<'_>) -> Result<PathBuf> {
    // Not for all: it names a kernel of one architecture.
    Deb::new(build, "hippos", "hippos", build.arch())?.finish("")
}

fn tools(build: &Build<'_>, programs: &[PathBuf]) -> Result<PathBuf> {
    let deb = Deb::new(build, "hippos-tools", "hippos-tools", build.arch())?;
    for (program, dir) in programs.iter().zip(["sbin", "bin"]) {
        let name = program.file_name().context("a program has a name")?;
        deb.file(
            program,
            &format!("usr/{dir}/{}", name.to_string_lossy()),
            0o755,
        )?;
    }
    for unit in ["hippos.service", "hippos-exporter.service"] {
        deb.template(
            &format!("packaging/systemd/{unit}"),
            &format!("usr/lib/systemd/system/{unit}"),
            0o644,
        )?;
    }
    for program in ["unload", "report-health", "reload"] {
        deb.template(
            &format!("packaging/libexec/{program}"),
            &format!("usr/libexec/hippos/{program}"),
            0o755,
        )?;
    }
    deb.template("packaging/etc/hippos.toml", "etc/hippos/hippos.toml", 0o644)?;
    deb.template(
        "packaging/etc/hippos-exporter",
        "etc/default/hippos-exporter",
        0o644,
    )?;
    deb.file(
        &workspace::root().join("userspace-ctl/grafana/hippos.json"),
        "usr/share/hippos/grafana/hippos.json",
        0o644,
    )?;
    deb.template(
        "packaging/etc/kernel-postinst",
        "etc/kernel/postinst.d/hippos",
        0o755,
    )?;
    for document in DOCUMENTS {
        deb.file(
            &workspace::root().join("docs").join(document),
            &format!("usr/share/doc/hippos-tools/{document}"),
            0o644,
        )?;
    }
    manuals(build, &deb, programs)?;
    let notices = licences::notices(licences::PROGRAMS)?;
    deb.packed("usr/share/doc/hippos-tools/crates.txt", notices)?;
    deb.finish(
        "Comment: the programs are linked with crates whose licences are in crates.txt.gz,\n \
         beside this file, and with Rust's standard library, which the Rust Project's\n \
         developers have put under the MIT licence or Apache-2.0, at the user's choice.\n",
    )
}

/// The manual pages and the completions, which the programs write themselves.
fn manuals(build: &Build<'_>, deb: &Deb<'_>, programs: &[PathBuf]) -> Result<()> {
    let [ctl, load] = programs else {
        bail!("two programs have manuals");
    };
    let run = |program: &Path, args: &[&str]| {
        let mut command = build.root.command(program);
        shell::output(command.args(args))
    };
    deb.packed("usr/share/man/man1/hippos-load.1", run(load, &["man"])?)?;
    let file = fs::read_to_string(workspace::root().join("packaging/man/hippos.toml.5"))?;
    deb.packed("usr/share/man/man5/hippos.toml.5", build.fill(&file)?)?;
    let pages = build.stage.join("manuals");
    run(ctl, &["man", &pages.to_string_lossy()])?;
    for entry in fs::read_dir(&pages)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        deb.packed(
            &format!("usr/share/man/man1/{name}"),
            fs::read(entry.path())?,
        )?;
    }
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        let name = name.to_string_lossy();
        for (shell, to) in [
            ("bash", format!("bash-completion/completions/{name}")),
            ("zsh", format!("zsh/vendor-completions/_{name}")),
            ("fish", format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            let text = run(program, &["completions", shell])?;
            deb.write(&format!("usr/share/{to}"), text, 0o644)?;
        }
    }
    Ok(())
}

fn modules(build: &Build<'_>, module: &Path) -> Result<PathBuf> {
    let release = &build.root.kernel().release;
    let name = format!("hippos-modules-{release}");
    let deb = Deb::new(build, &name, "hippos-modules", build.arch())?;
    let to = format!("usr/lib/modules/{release}/extra/hippos.ko");
    deb.file(module, &to, 0o644)?;
    // Only the builder needs DWARF; BTF stays.
    let mut strip = build.root.tool("strip");
    shell::output(
        strip
            .arg("--strip-debug")
            .arg(build.stage.join(&name).join(to)),
    )?;
    let notices = licences::notices(PURE_CRATES)?;
    deb.packed(&format!("usr/share/doc/{name}/crates.txt"), notices)?;
    deb.finish(
        "Comment: the module is linked with crates whose licences are in crates.txt.gz,\n \
         beside this file.\n",
    )
}

fn dkms(build: &Build<'_>) -> Result<PathBuf> {
    let deb = Deb::new(build, "hippos-dkms", "hippos-dkms", "all")?;
    let source = format!("usr/src/hippos-{}", build.version.number);
    for file in module_sources()? {
        deb.file(
            &workspace::root().join(&file),
            &format!("{source}/{file}"),
            0o644,
        )?;
    }
    kbuild::vendor()?;
    let vendor = workspace::root().join("target/vendor");
    deb.file(
        &vendor.join("Cargo.lock"),
        &format!("{source}/target/vendor/Cargo.lock"),
        0o644,
    )?;
    for (name, krate) in workspace::kernel_crates()? {
        if !krate.foreign {
            continue;
        }
        let to = format!("{source}/target/vendor/{name}");
        deb.folder(&vendor.join(&name).join("src"), &format!("{to}/src"))?;
        for entry in fs::read_dir(vendor.join(&name))? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && !file.starts_with('.') {
                deb.file(&entry.path(), &format!("{to}/{file}"), 0o644)?;
            }
        }
    }
    deb.template(
        "packaging/dkms/dkms.conf",
        &format!("{source}/dkms.conf"),
        0o644,
    )?;
    deb.template(
        "packaging/dkms/kernel-tree",
        &format!("{source}/kernel-tree"),
        0o755,
    )?;
    deb.template(
        "packaging/etc/kernel-postrm",
        "etc/kernel/postrm.d/hippos-dkms",
        0o755,
    )?;
    deb.finish(
        "Comment: the crates in target/vendor have licences of their own, which are compatible\n \
         and lie beside their sources.\n",
    )
}

/// The files of the work tree that the module is built from.
fn module_sources() -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--"]).args(SOURCES);
    let list = shell::output(list.current_dir(workspace::root()))?;
    let is_used = |file: &&str| {
        let mut parts = Path::new(file).components();
        !parts.any(|part| UNUSED.iter().any(|unused| part.as_os_str() == *unused))
    };
    Ok(list.lines().filter(is_used).map(str::to_owned).collect())
}

/// The tested series, oldest first.
fn tested() -> impl Iterator<Item = String> {
    TESTED
        .start()
        .through(*TESTED.end())
        .map(|series| series.to_string())
}

/// The regular expression, as grep and bash read it, for releases of these series.
fn pattern(series: &[String]) -> String {
    format!("^({})[.]", series.join("|").replace('.', "[.]"))
}

/// The kernels' sources, newest first.
fn sources(series: &[String]) -> String {
    let names: Vec<String> = series
        .iter()
        .rev()
        .map(|series| format!("linux-source-{series}"))
        .collect();
    names.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::linked;

    #[test]
    fn dkms_takes_the_tested_series_alone() {
        let series = ["7.2".to_owned(), "7.10".to_owned()];
        assert_eq!(pattern(&series), "^(7[.]2|7[.]10)[.]");
        assert_eq!(sources(&series), "linux-source-7.10 | linux-source-7.2");
    }

    /// The package has no other folder of the work tree: files there are mentioned, not linked to.
    #[test]
    fn each_link_of_a_packaged_document_leads_to_a_packaged_document() {
        for document in DOCUMENTS {
            let file = format!("docs/{document}");
            let text = fs::read_to_string(workspace::root().join(&file)).expect(&file);
            if !document.ends_with(".md") {
                continue;
            }
            for target in text.lines().flat_map(|line| linked(&file, line)) {
                let name = target.strip_prefix("docs/").unwrap_or(&target);
                assert!(
                    name != target && DOCUMENTS.contains(&name),
                    "{file} links to {target}"
                );
            }
        }
    }

    /// With programs of its own in place of hippos-ctl and systemd-notify.
    #[test]
    fn reload_shows_the_health_and_keeps_its_status() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let said = dir.path().join("said");
        program(
            "systemd-notify",
            &format!("echo \"$1\" > {}", said.display()),
        );
        let path = format!(
            "{}:{}",
            dir.path().display(),
            std::env::var("PATH").unwrap()
        );
        for status in [0, 6] {
            let health = format!("serving: hippos {status} on port 11211, up 5 s");
            program(
                "hippos-ctl",
                &format!("test \"$1\" != reload || exit {status}\necho '{health}'"),
            );
            let reload = workspace::root().join("packaging/libexec/reload");
            let ended = Command::new(reload).env("PATH", &path).status().unwrap();
            assert_eq!(ended.code(), Some(status));
            assert_eq!(
                fs::read_to_string(&said).unwrap(),
                format!(
                    "--status=at the reload: serving: hippos {status} on port 11211; now: hippos-ctl status\n"
                )
            );
        }
    }

    /// hippos-ctl, built in the work tree, expects that version of the module that DKMS builds.
    #[test]
    fn dkms_sources_have_the_version_of_the_work_tree_until_one_changes() {
        let dir = tempfile::tempdir().unwrap();
        for file in module_sources().unwrap() {
            let to = dir.path().join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(workspace::root().join(&file), to).unwrap();
        }
        let version = |top: &Path| {
            let mut script = Command::new("sh");
            shell::output(script.arg(top.join("kmod/version.sh"))).unwrap()
        };
        let released = version(dir.path());
        assert!(
            released.starts_with(concat!(env!("CARGO_PKG_VERSION"), "+")),
            "{released}"
        );
        assert_eq!(released, version(workspace::root()));
        for file in ["kmod/c/hippos.h", "kmod/store/src/item.rs", "Kbuild"] {
            let before = version(dir.path());
            let path = dir.path().join(file);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text + "\n").unwrap();
            assert_ne!(before, version(dir.path()), "{file}");
        }
    }

    #[test]
    fn packages_that_differ_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |place: &str| dir.path().join(place).join("a.deb");
        for (place, text) in [("one", "x"), ("two", "x"), ("three", "y")] {
            fs::create_dir(dir.path().join(place)).unwrap();
            fs::write(path(place), text).unwrap();
        }
        assert!(same(&[path("one")], &[path("two")]).is_ok());
        assert!(same(&[path("one")], &[path("three")]).is_err());
        assert!(same(&[path("one")], &[]).is_err());
    }
}
