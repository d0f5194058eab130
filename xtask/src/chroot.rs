// SPDX-License-Identifier: GPL-2.0-only
//! Programs that run inside a build root, or with root's rights.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};

use crate::workspace;

/// The environment variables that a program in the root may inherit. All others are removed.
const ENVIRONMENT: &[&str] = &[
    "TERM",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SOURCE_DATE_EPOCH",
];

/// A program in a root that may be not complete.
pub(crate) fn program(path: &Path, name: &str) -> Command {
    command(path, Path::new(name), &[])
}

/// apt-get in the root.
pub(crate) fn apt(path: &Path, args: &[&str]) -> Command {
    let mut command = command(path, Path::new("/usr/bin/env"), &[]);
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"])
        .args(["-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"])
        .args(args)
        .current_dir("/");
    command
}

/// A command with root's rights: our own, or those of a user namespace.
pub(crate) fn privileged(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--", program]);
    command
}

/// A program that runs in any root, in the work tree's folder.
pub(crate) fn command(root: &Path, program: &Path, binds: &[&Path]) -> Command {
    // Falls back to the name that the shell would find; `current_exe` fails only in a deleted work tree.
    let this = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = privileged(&this.to_string_lossy());
    command.arg("enter").arg("--root").arg(root);
    command.arg("--bind").arg(workspace::root());
    command.arg("--bind").arg(std::env::temp_dir());
    for bind in binds {
        command.arg("--bind").arg(bind);
    }
    command.arg("--").arg(program);
    command.current_dir(workspace::root());
    command.env_clear().env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a program inside a build root; the other commands call this.
#[derive(clap::Args)]
pub(crate) struct EnterArgs {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    bind: Vec<PathBuf>,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
}

/// Turns this process into the program inside the root; returns only with an error.
pub(crate) fn enter(args: EnterArgs) -> Result<()> {
    // A signal that ends xtask also ends its children.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    let none: Option<&Path> = None;
    let cwd = std::env::current_dir()?;
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace of our own")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for dir in ["/proc", "/sys", "/dev"]
        .map(PathBuf::from)
        .iter()
        .chain(&args.bind)
    {
        let relative = dir
            .strip_prefix("/")
            .context("only absolute paths can be bound")?;
        let target = args.root.join(relative);
        fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
        mount(
            Some(dir),
            &target,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .with_context(|| format!("cannot mount {} in the root", dir.display()))?;
    }
    nix::unistd::chroot(&args.root)?;
    std::env::set_current_dir(&cwd).or_else(|_| std::env::set_current_dir("/"))?;
    let (program, rest) = args.command.split_first().context("no program")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot start {} in the root", program.to_string_lossy()))
}
