// SPDX-License-Identifier: GPL-2.0-only
//! Build, run and test Hippos: `cargo xtask <command>`.
//!
//! Everything but the host's own cargo runs inside a Debian build root that the first command makes automatically (see
//! `root.rs`), so that every machine gets the same results.

mod appliance;
mod bench;
mod cache;
mod chroot;
mod client;
mod clients;
mod cross;
mod debug;
mod dist;
mod fuzz;
mod initramfs;
mod kbuild;
mod kernel;
mod lint;
mod nightly;
mod package;
mod probe;
mod progress;
mod root;
mod run;
mod shell;
mod single_test;
mod soak;
mod tap;
mod target;
mod test;
mod vm;
mod workspace;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use target::Selection;

/// Build, run and test Hippos, memcached inside the Linux kernel.
///
/// Two commands are enough to begin with: `run` boots a stock Debian kernel with the module and forwards memcached's
/// port to this machine; `test` runs every test there is. Both make the files that they need first.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 90)]
struct Cli {
    #[command(flatten)]
    selection: target::Selection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(SetupArgs),
    Kmod(kbuild::KmodArgs),
    Run(run::RunArgs),
    Test(test::TestArgs),
    Lint(lint::LintArgs),
    Bench(bench::BenchArgs),
    Fuzz(fuzz::FuzzArgs),
    Soak(soak::SoakArgs),
    Nightly(nightly::NightlyArgs),
    /// Lay the sources of the module's registry crates into target/vendor (for a build by plain `make`)
    Vendor,
    /// Pack target/hippos-VERSION.tar.xz, which an appliance builds from without a crate registry
    Dist,
    Package(package::PackageArgs),
    Release(package::release::ReleaseArgs),
    Shell(ShellArgs),
    /// Run a program inside a build root; the other commands call this
    #[command(hide = true)]
    Enter(chroot::EnterArgs),
}

/// Make the build root: a Debian tree with the kernel, its sources and all tools.
///
/// Needs cargo, apt and mmdebstrap (which is installed automatically when run as root), about 5 GB of disk and some
/// three minutes; each further kernel (--series, --flavour) takes 2 GB. The result lies in a cache folder outside the
/// work tree ($HIPPOS_CACHE, else $XDG_CACHE_HOME/hippos, else ~/.cache/hippos), so that a fresh clone uses it again. A
/// second run does nothing; after an interruption the next run continues. Every other command calls this automatically.
#[derive(clap::Args)]
struct SetupArgs {
    /// Throw the build root away and make a new one with the newest packages
    #[arg(long)]
    refresh: bool,
}

/// Run a command inside the build root, with this work tree at the same path.
#[derive(clap::Args)]
struct ShellArgs {
    /// The command and its arguments; bash when none is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command, &cli.selection) {
        Ok(code) => std::process::ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, selection: &Selection) -> Result<u8> {
    match command {
        Command::Setup(args) => {
            if args.refresh {
                root::remove()?;
            }
            let root = root::ready(selection)?;
            println!("build root: {}", root.path().display());
            println!("kernel:     {}", root.kernel().release);
        }
        Command::Kmod(args) => {
            let module = kbuild::build(&args, selection)?;
            println!("{}", module.display());
        }
        Command::Run(args) => return run::run(&args, selection),
        Command::Test(args) => return test::test(&args, selection),
        Command::Lint(args) => return lint::lint(&args, selection),
        Command::Bench(args) => return bench::bench(&args, selection),
        Command::Fuzz(args) => return fuzz::fuzz(&args, selection),
        Command::Soak(args) => return soak::soak(&args, selection),
        Command::Nightly(args) => return nightly::nightly(&args, selection),
        Command::Vendor => {
            kbuild::vendor()?;
        }
        Command::Dist => println!("{}", dist::dist()?.display()),
        Command::Package(args) => package::package(&args, selection)?,
        Command::Release(args) => package::release::release(&args, selection)?,
        Command::Shell(args) => {
            let root = root::ready(selection)?;
            let (program, rest) = match args.command.split_first() {
                Some((program, rest)) => (PathBuf::from(program), rest),
                None => (PathBuf::from("/bin/bash"), &[][..]),
            };
            let status = root.command(program).args(rest).status()?;
            return Ok(shell::exit_code(status));
        }
        Command::Enter(args) => chroot::enter(args)?,
    }
    Ok(0)
}
