// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask fuzz`: properties that hold for any input, on the host and in a guest.
//!
//! The host's targets (`testing/fuzz`) run under libFuzzer, which is compiled from
//! a crate and needs a C++ compiler; coverage comes from rustc's own LLVM, so
//! that a stable toolchain does. Without a C++ compiler the same targets still
//! run in `cargo test`, fed by chance.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use hippos_client::ReceivePath;

use crate::target::Selection;
use crate::{shell, single_test, test, workspace};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// libFuzzer's instrumentation, and the checks of a debug build.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Cdebug-assertions=yes -Coverflow-checks=yes -Ccodegen-units=1";
/// The longest input, in bytes.
const LONGEST: u32 = 4096;
/// How long the guest may take for a packet, at the worst.
const PER_PACKET: Duration = Duration::from_millis(40);

/// Feed a target with inputs that may break it: on the host with libFuzzer, or packets to a live module.
///
///   cargo xtask fuzz stream --seconds 600
///   cargo xtask fuzz packets --packets 1000000 --debug-kernel --path xdp
///
/// Findings are written to target/fuzz/found; inputs that reach new code are kept
/// in target/fuzz/corpus, and begin with the repository's (testing/fuzz/corpus).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct FuzzArgs {
    #[arg(value_enum)]
    target: Target,
    /// How long, for each target of the host
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many packets
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send the packets to the debug kernel
    #[arg(long)]
    debug_kernel: bool,
    /// The receive path that the packets meet first
    #[arg(long, value_enum, default_value_t)]
    path: ReceivePath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// A TCP stream: cut anywhere, it gives the same replies, and they can be read
    Stream,
    /// A UDP datagram: both receive paths answer alike, and no two servers could go on for ever
    Datagram,
    /// Lines, words, numbers and meta commands
    Meta,
    /// Sequences of commands against a model
    Model,
    /// A client's bytes to the proxy: cut anywhere, they give the same commands, each one request to a node
    Front,
    /// A node's bytes to the proxy: cut anywhere, they give the same replies
    Backend,
    /// These six, one after the other
    All,
    /// Frames to the module in a guest
    Packets,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Stream => "stream",
            Target::Datagram => "datagram",
            Target::Meta => "meta",
            Target::Model => "model",
            Target::Front => "front",
            Target::Backend => "backend",
            Target::All => "all",
            Target::Packets => "packets",
        }
    }
}

/// Runs the selected target; returns our exit status.
pub(crate) fn fuzz(args: &FuzzArgs, selection: &Selection) -> Result<u8> {
    match args.target {
        Target::Packets => packets(args, selection),
        Target::All => {
            let program = build()?;
            for target in [
                Target::Stream,
                Target::Datagram,
                Target::Meta,
                Target::Model,
                Target::Front,
                Target::Backend,
            ] {
                host(&program, target, args)?;
            }
            Ok(0)
        }
        target => host(&build()?, target, args).map(|()| 0),
    }
}

/// Builds libFuzzer's process.
fn build() -> Result<PathBuf> {
    ensure!(
        shell::has("c++") || shell::has("g++") || shell::has("clang++"),
        "libFuzzer needs a C++ compiler: apt install g++ (`cargo test -p hippos_fuzz` runs the \
         targets without)"
    );
    let target_dir = workspace::root().join("target/fuzz/build");
    let mut build = Command::new(workspace::cargo());
    build
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "hippos_fuzz",
        ])
        .args([
            "--features",
            "libfuzzer",
            "--target",
            TRIPLE,
            "--target-dir",
        ])
        .arg(&target_dir)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", FLAGS)
        .current_dir(workspace::root());
    shell::run(&mut build).context("the fuzzer does not build")?;
    Ok(target_dir.join(TRIPLE).join("release/hippos-fuzz"))
}

fn host(program: &PathBuf, target: Target, args: &FuzzArgs) -> Result<()> {
    let name = target.name();
    let home = workspace::root().join("target/fuzz");
    let (corpus, found) = (home.join("corpus").join(name), home.join("found"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let log = home.join(format!("{name}.log"));
    let mut fuzzer = Command::new(program);
    fuzzer
        .env("HIPPOS_FUZZ_TARGET", name)
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-seed={}", args.seed))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .args(["-print_final_stats=1", "-timeout=30"])
        .arg(&corpus);
    let kept = workspace::root().join("testing/fuzz/corpus").join(name);
    if kept.exists() {
        fuzzer.arg(kept);
    }
    let start = Instant::now();
    let status = fuzzer
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .status()
        .context("cannot start the fuzzer")?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    if !status.success() {
        println!("{}", shell::tail(&log, 40));
        bail!("{name}: a finding, in {}", found.display());
    }
    let figure = |what: &str| {
        let line = text.lines().find(|line| line.starts_with(what));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("?")
            .to_owned()
    };
    println!(
        "fuzz {name}: {} inputs in {:.0} s, nothing found",
        figure("stat::number_of_executed_units"),
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// The packet fuzzer with a given number of packets.
fn packets(args: &FuzzArgs, selection: &Selection) -> Result<u8> {
    let packets = u32::try_from(args.packets).context("too many")?;
    let limit = Duration::from_secs(900) + PER_PACKET * packets;
    let seed = args.seed;
    let test = format!(
        "fuzz::packets_do_not_stop_the_server {packets} {seed}{}",
        test::request(args.path)
    );
    single_test::run(selection, args.debug_kernel, &test, limit, |line| {
        println!("{line}");
    })?;
    Ok(0)
}
