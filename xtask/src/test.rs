// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask test`: every test there is, on the host and in guests.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use hippos_client::ReceivePath;

use crate::clients::Clients;
use crate::root::Root;
use crate::target::{Selection, Which};
use crate::vm::{Machine, Vm, INTERRUPTED};
use crate::{bench, client, clients, initramfs, kbuild, root, run, shell, workspace};

/// How long one test may take in a guest: emulated, on a loaded machine.
const TEST_LIMIT: Duration = Duration::from_secs(900);
/// How much more for each piece of work of `--size`.
const PIECE_LIMIT: Duration = Duration::from_secs(10);
/// How many times longer a test may take on the debug kernel.
const DEBUG_SLOWNESS: u32 = 3;
/// Tests of this theme plant a fault, and pass when it is detected.
const PLANTED: &str = "planted::";
/// Likewise this theme, whose faults only the debug kernel reports.
const DEFECT: &str = "defect::";
/// How much of the kernel's log a failure shows.
const LOG_LINES: usize = 30;
/// Tests of this theme need a kernel that is booted with options.
const BOOT_OPTIONS: &str = "boot_options::";
/// After the last test a debug guest is checked for leaks.
const LEAKS: &str = "leaks";
/// This theme has a command of its own.
const SOAK: &str = "soak::";
/// The debug guest's memory, MiB.
const DEBUG_MEMORY: u32 = 3072;

/// The store's models, which need atomics of their own.
const MODELS: &str = "loom_models";

/// The store's threads against each other, which a race detector watches.
const STRESS: &str = "stress";

/// The whole `run` command in a guest that crashes.
const CRASH: &str = "planted::crash_ends_run";

/// Run every test: cargo's on this machine, then those that need a guest.
///
/// Guest tests are of three kinds: `guest::` ones run inside the virtual machine,
/// as root (testing/guest/src/tests/); `client::` ones run here, against the
/// forwarded port (xtask/src/client/); `clients::` and `suites::` ones are
/// third-party programs (xtask/src/clients.rs). A test fails also when the kernel
/// logs a warning meanwhile; after a failure the next test gets a fresh
/// guest. `planted::` ones break a guest on purpose and check that it is noticed.
///
/// `--debug-kernel` runs the guest tests on a kernel with KASAN, lockdep and
/// every other checker (xtask/src/debug.config), built first when there is none
/// (some ten minutes). There, one defect for each checker is planted as well.
/// Where the mirror has no kernel series for `--series previous`, there is
/// nothing to test, and a line reports that. The last line is `N passed, N failed`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only those that need no virtual machine
    #[arg(long, conflicts_with = "guest")]
    host: bool,
    /// Only those that need a virtual machine
    #[arg(long)]
    guest: bool,
    /// On the debug kernel, and only the tests that need a kernel
    #[arg(long, conflicts_with = "host")]
    debug_kernel: bool,
    /// Only tests whose name contains this; given several times, one of them
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// The amount of work of the guest tests that take one: packets, connections, histories
    #[arg(long, value_name = "N")]
    size: Option<u32>,
    /// The first random seed of the guest tests that have a size
    #[arg(long, value_name = "N", requires = "size")]
    seed: Option<u64>,
    /// Print the output of guest tests, figures for example
    #[arg(long)]
    show: bool,
    /// The processor to emulate, by QEMU's name [default: one that can do everything]
    #[arg(long, value_name = "NAME")]
    cpu: Option<String>,
    /// The receive path that datagrams meet first in the guest tests [default: prerouting for all, the
    /// other paths for tests that depend on the path]
    #[arg(long, value_enum)]
    path: Option<ReceivePath>,
    /// Print the names of the guest tests and run nothing
    #[arg(long)]
    list: bool,
}

/// The bench's parts together, and the pools' samples against the servers that it compares.
const POOLS: &str = "bench::pools_are_replayed";

/// Tests of this theme attach their programs themselves.
const XDP: &str = "xdp::";

/// The tests that also run with other receive paths when none is selected: the path, a prefix of the name, and
/// arguments.
const OTHER_PATHS: &[(ReceivePath, &str, &str)] = &[
    (ReceivePath::Xdp, "guest::smoke::", ""),
    (ReceivePath::Xdp, "guest::packet::", ""),
    (ReceivePath::Xdp, "guest::protocol::recorded_cases", ""),
    (ReceivePath::Xdp, "guest::fuzz::packets", " 30000"),
    (ReceivePath::Xdp, "guest::consistency::replies_", ""),
    (ReceivePath::Socket, "guest::smoke::", ""),
    (ReceivePath::Socket, "guest::protocol::recorded_cases", ""),
    (ReceivePath::Socket, "guest::consistency::replies_", ""),
];

/// The suffix of a guest's `test` request for a receive path.
pub(crate) fn request(path: ReceivePath) -> String {
    match path {
        ReceivePath::Prerouting => String::new(),
        path => format!(" path={}", path.name()),
    }
}

/// The suffix of a test's name in the output, for a receive path.
fn shown(path: ReceivePath) -> String {
    match path {
        ReceivePath::Prerouting => String::new(),
        path => format!(" ({})", path.name()),
    }
}

/// The tests that are to run by a receive path, with their arguments.
fn tests_by(
    path: ReceivePath,
    inside: &[String],
    chosen: Option<ReceivePath>,
) -> Vec<(&str, &'static str)> {
    let arguments = |name: &str| match chosen {
        // Those tests are about the receive paths themselves.
        Some(_) => (path == chosen? && (path == ReceivePath::Prerouting || !name.contains(XDP)))
            .then_some(""),
        None if path == ReceivePath::Prerouting => Some(""),
        None => OTHER_PATHS
            .iter()
            .find(|(other, prefix, _)| *other == path && name.starts_with(prefix))
            .map(|(.., arguments)| *arguments),
    };
    inside
        .iter()
        .filter_map(|name| Some((name.as_str(), arguments(name)?)))
        .collect()
}

/// How many went well, and how many did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    /// Takes one result in, and prints it as cargo's harness does.
    fn note(&mut self, name: &str, start: Instant, result: Result<()>) -> bool {
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
                true
            }
            Err(error) => {
                self.failed += 1;
                println!("test {name} ... FAILED ({seconds:.1} s)\n{error:#}");
                false
            }
        }
    }
}

/// Runs the selected tests; returns our exit status.
pub(crate) fn test(args: &TestArgs, selection: &Selection) -> Result<u8> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let mut count = Count::default();
    if args.list {
        let clients = client::TESTS.iter().map(|test| test.name.to_owned());
        for name in guest_tests()?
            .into_iter()
            .chain(clients)
            .chain(clients::TESTS.iter().map(|test| (*test).to_owned()))
            .chain([CRASH, POOLS].map(str::to_owned))
        {
            println!("{name}");
        }
        return Ok(0);
    }
    if selection.which() == Which::Previous {
        if let Err(reason) = root::target(selection) {
            println!("skipped: {reason:#}");
            return Ok(0);
        }
    }
    let filter = args.filter.as_slice();
    let debug = args.debug_kernel;
    // Fetching packages leaves the processors to the tests before.
    let clients = (!args.host && !debug && clients::TESTS.iter().any(|test| wanted(filter, test)))
        .then(|| thread::spawn(clients::ready));
    if !args.guest && !debug {
        host(filter, &mut count)?;
    }
    if !args.host {
        guests(args, selection, clients, &mut count)?;
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(u8::from(count.failed > 0))
}

/// Cargo's tests of the whole workspace, then the store's models in loom.
fn host(filter: &[String], count: &mut Count) -> Result<()> {
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .arg("--")
        .args(filter);
    // The reference server that some tests compare with; without it they are reported as skipped.
    if let Some(root) = root::made()? {
        cargo.env("HIPPOS_MEMCACHED", root::line(&root, "/usr/bin/memcached"));
    }
    cargo_tests(cargo, count)?;
    let wanted = |what: &str| wanted(filter, what);
    if wanted(STRESS) {
        sanitized(count)?;
    }
    if !wanted(MODELS) {
        return Ok(());
    }
    let mut loom = Command::new(workspace::cargo());
    loom.args(["test", "--locked", "--release", "--package", "hippos_store"])
        .args(["--lib", "--target-dir", "target/loom", MODELS])
        .env("RUSTFLAGS", "--cfg loom");
    cargo_tests(loom, count)
}

/// The store's stress test under ThreadSanitizer, if the machine has a toolchain for it.
fn sanitized(count: &mut Count) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["+nightly", "test", "--locked", "--release"])
        .args(["--package", "hippos_store", "--test", STRESS])
        // With a target of its own, so that build scripts are left as they are.
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--target-dir", "target/tsan"])
        .env(
            "RUSTFLAGS",
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        )
        .env("HIPPOS_FENCED", "1")
        .env(
            "TSAN_OPTIONS",
            format!(
                "suppressions={}",
                workspace::root()
                    .join("kmod/store/tests/tsan.supp")
                    .display()
            ),
        )
        .current_dir(workspace::root());
    let mut probe = Command::new("cargo");
    probe
        .args(cargo.get_args())
        .arg("--no-run")
        .envs(
            cargo
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(workspace::root());
    let reason = match probe.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => String::from_utf8_lossy(&output.stderr)
            .lines()
            .find(|line| line.starts_with("error"))
            .map(str::to_owned)
            .or(Some("it does not build".into())),
        Err(error) => Some(error.to_string()),
    };
    if let Some(reason) = reason {
        println!("skipped: the stress test under ThreadSanitizer: {reason}");
        return Ok(());
    }
    // The skipped test makes a race on purpose, to check that the sanitizer reports it.
    cargo.args(["--", "--test-threads=1", "--skip", "reuse_without"]);
    cargo_tests(cargo, count)
}

/// Runs cargo's tests and counts them.
fn cargo_tests(mut cargo: Command, count: &mut Count) -> Result<()> {
    cargo
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut found = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(part) = summary(&line) {
            found.passed += part.passed;
            found.failed += part.failed;
        }
        // A line for each passed test would be too long an output.
        if !line.ends_with("... ok") && !line.is_empty() && !line.starts_with("running ") {
            println!("{line}");
        }
    }
    // A crate that does not build has no summary, but a status.
    if !child.wait()?.success() && found.failed == 0 {
        found.failed = 1;
    }
    count.passed += found.passed;
    count.failed += found.failed;
    Ok(())
}

/// Reads `test result: ok. 3 passed; 1 failed; ...`.
fn summary(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let words: Vec<&str> = rest
            .split([' ', ';', '.'])
            .filter(|word| !word.is_empty())
            .collect();
        let at = words.iter().position(|word| *word == what)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

/// The names of the tests inside the guest, `guest::` before each.
fn guest_tests() -> Result<Vec<String>> {
    let program = initramfs::guest_program()?;
    let list = crate::shell::output(Command::new(program).arg("list"))?;
    let names = list.lines().filter(|name| !name.starts_with(SOAK));
    let names: Vec<_> = names.map(|name| format!("guest::{name}")).collect();
    // A renamed test would otherwise run by one path only, unnoticed.
    for (_, prefix, _) in OTHER_PATHS {
        let is_there = names.iter().any(|name| name.starts_with(prefix));
        ensure!(is_there, "OTHER_PATHS: no guest test begins with {prefix}");
    }
    Ok(names)
}

/// A guest's memory, MiB: checkers take much.
pub(crate) fn memory(debug: bool) -> u32 {
    if debug {
        DEBUG_MEMORY
    } else {
        Machine::default().memory
    }
}

/// Whether the filter selects a test of that name.
fn wanted(filter: &[String], name: &str) -> bool {
    filter.is_empty() || filter.iter().any(|text| name.contains(text.as_str()))
}

/// A root in the making.
type Making = JoinHandle<Result<PathBuf>>;

fn guests(
    args: &TestArgs,
    selection: &Selection,
    clients_root: Option<Making>,
    count: &mut Count,
) -> Result<()> {
    let debug = args.debug_kernel;
    let start = Instant::now();
    let wanted = |name: &str| wanted(&args.filter, name);
    let (planted, inside): (Vec<String>, Vec<String>) = guest_tests()?
        .into_iter()
        .filter(|name| wanted(name) && (debug || !name.contains(DEFECT)))
        .partition(|name| name.contains(PLANTED) || name.contains(DEFECT));
    let (boot_options, inside): (Vec<String>, Vec<String>) = inside
        .into_iter()
        .partition(|name| name.contains(BOOT_OPTIONS));
    let clients: Vec<_> = client::TESTS
        .iter()
        .filter(|test| wanted(test.name))
        .collect();
    let foreign: Vec<_> = clients::TESTS
        .iter()
        .filter(|test| wanted(test) && !debug)
        .collect();
    if planted.is_empty()
        && inside.is_empty()
        && boot_options.is_empty()
        && clients.is_empty()
        && foreign.is_empty()
        && ![CRASH, POOLS].into_iter().any(wanted)
    {
        return Ok(());
    }
    let root = match root::ready(selection)? {
        root if debug => root.debug()?,
        root => root,
    };
    let module = match kbuild::build_for(&root, &Default::default()) {
        Ok(module) => module,
        Err(error) => {
            count.note("module builds", start, Err(error));
            return Ok(());
        }
    };
    let machine = Machine {
        module: Some(module),
        memory: memory(debug),
        cpu: args.cpu.clone(),
        ..Machine::default()
    };
    let mut guest = Bench {
        root: &root,
        machine,
        vm: None,
    };
    let mut runs = Vec::new();
    let size = args.size.map(|size| match args.seed {
        Some(seed) => format!(" {size} {seed}"),
        None => format!(" {size}"),
    });
    let limit = TEST_LIMIT + PIECE_LIMIT * args.size.unwrap_or(0);
    let limit = limit * selection.arch().timeout_factor() * if debug { DEBUG_SLOWNESS } else { 1 };
    for path in ReceivePath::value_variants() {
        for (name, arguments) in tests_by(*path, &inside, args.path) {
            let arguments = size.as_deref().unwrap_or(arguments);
            let request = name.replacen("guest::", "test ", 1) + arguments + &request(*path);
            runs.push((request, format!("{name}{}", shown(*path))));
        }
    }
    for (request, shown) in runs {
        let start = Instant::now();
        let result = guest.checked(|vm| {
            let lines = vm.ask_within(&request, limit)?;
            if args.show {
                println!("{}", lines.join("\n"));
            }
            Ok(())
        });
        if !count.note(&shown, start, result) {
            guest.vm = None;
        }
        std::io::stdout().flush()?;
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    }
    for test in clients {
        let start = Instant::now();
        let result = guest.checked(|vm| {
            run::load(vm, test.parameters)?;
            (test.run)(vm.port())?;
            vm.ask("unload").map(drop)
        });
        if !count.note(test.name, start, result) {
            guest.vm = None;
        }
        std::io::stdout().flush()?;
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    }
    if debug && guest.vm.is_some() {
        let start = Instant::now();
        let result = guest.checked(|vm| vm.ask_within("leaks", TEST_LIMIT).map(drop));
        if !count.note(LEAKS, start, result) {
            guest.vm = None;
        }
    }
    let clients_root = clients_root.map(|root| match root.join() {
        Ok(root) => root,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    match clients_root {
        Some(Ok(clients)) => {
            // They have guests of their own.
            if let Some(vm) = guest.vm.take() {
                vm.off()?;
            }
            let clients = Clients::new(&root, &guest.machine, clients);
            stock(clients, &foreign, count)?;
        }
        Some(Err(error)) => {
            count.note("clients are there", start, Err(error));
        }
        None => {}
    }
    if !boot_options.is_empty() {
        if let Some(vm) = guest.vm.take() {
            vm.off()?;
        }
        guest.machine.append = "ipv6.disable=1 isolcpus=1";
        for name in &boot_options {
            let request = name.replacen("guest::", "test ", 1);
            let start = Instant::now();
            let result = guest.checked(|vm| vm.ask_within(&request, limit).map(drop));
            if !count.note(name, start, result) {
                guest.vm = None;
            }
        }
        if let Some(vm) = guest.vm.take() {
            vm.off()?;
        }
        guest.machine.append = "";
    }
    for name in &planted {
        let request = name.replacen("guest::", "test ", 1);
        let start = Instant::now();
        let result = guest.checked(|vm| vm.ask_within(&request, TEST_LIMIT).map(drop));
        let dead = guest.vm.as_mut().is_none_or(|vm| vm.alive().is_err());
        count.note(name, start, expect_fault(name, result, dead));
        guest.vm = None;
    }
    if wanted(CRASH) && !debug {
        count.note(CRASH, Instant::now(), crash_ends_run(selection));
    }
    if wanted(POOLS) && !debug {
        count.note(POOLS, Instant::now(), bench::replay_pools(&root));
    }
    if let Some(vm) = guest.vm.take() {
        vm.off()?;
    }
    Ok(())
}

/// Stock clients and their suites, which have guests of their own.
fn stock(mut clients: Clients<'_>, tests: &[&&str], count: &mut Count) -> Result<()> {
    for test in tests {
        let start = Instant::now();
        let result = clients.run(test);
        count.note(test, start, result);
        std::io::stdout().flush()?;
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    }
    clients.off()
}

/// `cargo xtask run` must end with an error, and say why, when the kernel crashes.
fn crash_ends_run(selection: &Selection) -> Result<()> {
    let mut run = Command::new(std::env::current_exe()?);
    run.args(selection.arguments())
        .args(["run", "--port", "0", "--crash"]);
    let output = run.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "run was content:\n{said}");
    ensure!(
        said.contains("the guest died") && said.contains("Kernel panic"),
        "run said only:\n{said}"
    );
    Ok(())
}

/// Checks that a planted fault was detected, and with the right message.
fn expect_fault(name: &str, result: Result<()>, dead: bool) -> Result<()> {
    let Err(error) = result else {
        bail!("the planted fault was not noticed")
    };
    let said = format!("{error:#}");
    let (expected, deadly) = match name.rsplit("::").next() {
        Some("crash") => ("Kernel panic", true),
        Some("warning") => ("the kernel complained", false),
        Some("failure") => ("planted", false),
        Some("use_after_free") => ("KASAN: slab-use-after-free in", false),
        Some("freed_pages") => ("KASAN: use-after-free in", false),
        Some("sleep_in_softirq" | "sleep_under_rcu") => {
            ("sleeping function called from invalid context", false)
        }
        Some("unguarded") => ("suspicious RCU usage", false),
        Some("unsafe_lock") => ("inconsistent lock state", false),
        Some("lock_order") => ("possible circular locking dependency", false),
        Some("freed_timer") => ("ODEBUG: free active", false),
        Some("leak") => ("unreferenced object", false),
        _ => bail!("what to expect of {name}? say so in xtask/src/test.rs"),
    };
    ensure!(said.contains(expected), "expected {expected:?} of\n{said}");
    ensure!(
        dead == deadly,
        "the guest should {}have died",
        if deadly { "" } else { "not " }
    );
    Ok(())
}

/// A guest for one test after the other; a new one when there is none.
struct Bench<'a> {
    root: &'a Root,
    machine: Machine,
    vm: Option<Vm>,
}

impl Bench<'_> {
    /// Does `work` in the guest, then looks into its kernel's log.
    fn checked(&mut self, work: impl FnOnce(&mut Vm) -> Result<()>) -> Result<()> {
        let vm = match &mut self.vm {
            Some(vm) => vm,
            none => none.insert(Vm::boot_clean(self.root, &self.machine)?),
        };
        if let Err(error) = work(vm) {
            if vm.alive().is_err() {
                return Err(error);
            }
            let log = match vm.ask("log all") {
                Ok(lines) => lines.join("\n"),
                Err(complaint) => format!("{complaint:#}"),
            };
            let tail = shell::last(&log, LOG_LINES);
            bail!("{error:#}\n--- the kernel's log:\n{tail}");
        }
        vm.ask("log").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_test_run_is_parsed() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            summary(line),
            Some(Count {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(summary("test result::x ... ok"), None);
    }

    #[test]
    fn a_planted_fault_must_be_noticed_as_what_it_is() {
        let died = || {
            Err(anyhow::anyhow!(
                "the guest died: Kernel panic - not syncing"
            ))
        };
        assert!(expect_fault("guest::planted::crash", died(), true).is_ok());
        assert!(expect_fault("guest::planted::crash", died(), false).is_err());
        assert!(expect_fault("guest::planted::crash", Ok(()), true).is_err());
        assert!(expect_fault("guest::planted::warning", died(), false).is_err());
    }
}
