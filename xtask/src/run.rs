// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask run`: a guest that serves memcached's port on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use crate::target::Selection;
use crate::vm::{Accel, Machine, Port, Vm, GUEST_PORT, INTERRUPTED};
use crate::{kbuild, probe, root, shell};

/// How long the module may take from insmod to its first answer.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a shell may be open.
const SHELL_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Boot a stock Debian kernel with Hippos in QEMU and forward memcached's port to it.
///
/// Builds the missing parts, loads the module and prints
/// `hippos: ready on 127.0.0.1:PORT (tcp, udp)` once it answers over both; then
/// stays until Ctrl-C. A guest that oopses, panics or does not get ready ends the
/// command with an error and the console's last lines. Any number of these may
/// run at once.
///
///   cargo xtask run
///   cargo xtask run --exec 'printf "version\r\n" | nc -N $HIPPOS_HOST $HIPPOS_PORT'
///   cargo xtask run --memory 2048 -- memory_mb=1024
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RunArgs {
    /// The port on this machine; 0 takes any free one [default: 11211 if it is free, else another]
    #[arg(long)]
    port: Option<u16>,
    /// The guest's memory in MB
    #[arg(long, value_name = "MB", default_value_t = 512)]
    memory: u32,
    /// The guest's processors
    #[arg(long, default_value_t = 2)]
    vcpus: u32,
    /// The accelerator for the guest
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// The processor to emulate, by QEMU's name [default: one that can do everything]
    #[arg(long, value_name = "NAME")]
    cpu: Option<String>,
    /// Run CMD on this machine once ready, with HIPPOS_HOST and HIPPOS_PORT set, then end with its status
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// Show the guest's console
    #[arg(long)]
    console: bool,
    /// Open a shell in the guest; its end is the guest's
    #[arg(long, conflicts_with = "exec")]
    shell: bool,
    /// Crash the guest once it serves, to see that this ends with an error
    #[arg(long, hide = true)]
    crash: bool,
    /// Run Debian's memcached in the guest in the module's place, to compare
    #[arg(long)]
    reference: bool,
    /// Parameters of the module, for example memory_mb=256 (`modinfo` lists them)
    #[arg(last = true, value_name = "PARAMETER=VALUE")]
    parameters: Vec<String>,
}

/// Runs the guest until its end; gives our exit status.
pub(crate) fn run(args: &RunArgs, selection: &Selection) -> Result<u8> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let root = root::ready(selection)?;
    let module = if args.reference {
        None
    } else {
        Some(kbuild::build_for(&root, &Default::default())?)
    };
    let machine = Machine {
        port: match args.port {
            None => Port::Rather(GUEST_PORT),
            Some(0) => Port::Any,
            Some(port) => Port::Exactly(port),
        },
        guest_port: guest_port(&args.parameters)?,
        memory: args.memory,
        vcpus: args.vcpus,
        accel: args.accel,
        cpu: args.cpu.clone(),
        console: args.console,
        terminal: args.shell,
        module,
        ..Machine::default()
    };
    let mut vm = Vm::boot(&root, &machine)?;
    match serve(args, &mut vm) {
        Ok(code) => {
            vm.off()?;
            Ok(code)
        }
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            eprintln!("hippos: interrupted");
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn serve(args: &RunArgs, vm: &mut Vm) -> Result<u8> {
    if args.reference {
        load_reference(vm, guest_port(&args.parameters)?)?;
    } else {
        load(vm, &args.parameters.join(" "))?;
    }
    println!("hippos: ready on 127.0.0.1:{} (tcp, udp)", vm.port());
    if args.crash {
        vm.ask("test planted::crash")?;
    }
    let code = if args.shell {
        let shell = format!("shell {}", vm.terminal());
        vm.ask_within(&shell, SHELL_LIMIT).map(|_| 0)?
    } else if let Some(line) = &args.exec {
        exec(line, vm)?
    } else {
        wait(vm)?;
        0
    };
    vm.ask("log")
        .context("the guest's kernel log is not clean")?;
    Ok(code)
}

/// Loads the module and waits until it answers.
pub(crate) fn load(vm: &mut Vm, parameters: &str) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, vm.port()));
    load_at(vm, parameters, address)
}

/// The same with a guest that this host reaches at `address`.
pub(crate) fn load_at(vm: &mut Vm, parameters: &str, address: SocketAddr) -> Result<()> {
    vm.ask(&format!("load {parameters}"))
        .or_else(|error| with_console_tail(vm, error))?;
    wait_for_answers(vm, address)
}

/// Starts Debian's memcached in the module's place.
pub(crate) fn load_reference(vm: &mut Vm, port: u16) -> Result<()> {
    vm.ask(&format!(
        "exec memcached -d -t 1 -u root -l 0.0.0.0 -p {port} -U {port}"
    ))?;
    wait_for_answers(vm, SocketAddr::from((Ipv4Addr::LOCALHOST, vm.port())))
}

fn wait_for_answers(vm: &mut Vm, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        vm.alive()?;
        match probe::answers(address) {
            Ok(()) => return Ok(()),
            Err(_) if INTERRUPTED.load(Ordering::Relaxed) => bail!("interrupted"),
            Err(error) if Instant::now() > deadline => {
                return with_console_tail(
                    vm,
                    error.context("the server is there but does not answer"),
                );
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Adds the kernel's last words to an error.
fn with_console_tail<T>(vm: &mut Vm, error: anyhow::Error) -> Result<T> {
    let lines = vm
        .ask("log all")
        .unwrap_or_else(|error| vec![format!("{error:#}")]);
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(anyhow!("{error:#}\n--- kernel log:\n{tail}"))
}

/// Until Ctrl-C or the guest's end.
fn wait(vm: &mut Vm) -> Result<()> {
    while !INTERRUPTED.load(Ordering::Relaxed) {
        vm.alive()?;
        thread::sleep(Duration::from_millis(100));
    }
    INTERRUPTED.store(false, Ordering::Relaxed);
    Ok(())
}

/// Runs a command of the host's against the guest.
fn exec(line: &str, vm: &mut Vm) -> Result<u8> {
    let mut child = Command::new("sh")
        .args(["-c", line])
        .env("HIPPOS_HOST", "127.0.0.1")
        .env("HIPPOS_PORT", vm.port().to_string())
        .process_group(0)
        .spawn()
        .context("cannot start a shell")?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(shell::exit_code(status));
        }
        let died = vm.alive();
        if died.is_err() || INTERRUPTED.load(Ordering::Relaxed) {
            let group = Pid::from_raw(i32::try_from(child.id())?);
            killpg(group, Signal::SIGTERM)?;
            child.wait()?;
            died?;
            bail!("interrupted");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The port that the module's parameters name.
fn guest_port(parameters: &[String]) -> Result<u16> {
    let port = parameters
        .iter()
        .filter_map(|parameter| parameter.strip_prefix("port="))
        .next_back();
    port.map_or(Ok(GUEST_PORT), |port| {
        port.parse().with_context(|| format!("port={port}"))
    })
}
