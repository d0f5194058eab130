// SPDX-License-Identifier: GPL-2.0-only
//! The virtual machine: Debian's QEMU, Debian's stock kernel, our PID 1.
//!
//! The guest's console goes to a file; the second serial port is the control line for the host's requests to PID 1 (see
//! `guest/src/control.rs`). A guest that dies, by an oops, a panic or a signal, is distinguished from one that was
//! stopped by its last message.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sys::stat::Mode;

use crate::root::Root;
use crate::target::Arch;
use crate::{cache, initramfs, shell, workspace};

/// How long a guest may take from start to PID 1's greeting: emulated, on a loaded machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long a stock kernel may take under KVM to find that it has no root file system.
const PROBE_LIMIT: Duration = Duration::from_secs(6);
/// How long an answer may take that needs no work.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How much of the console a failure shows.
const CONSOLE_LINES: usize = 40;
/// How far back a report of the kernel's is looked for.
const REPORT_LINES: usize = 200;
/// A card with many queues, before its number of interrupts: two a queue and two more.
const QUEUES: &str = "virtio-net-pci,netdev=net,mq=on,vectors=";
/// The plugin's socket in a guest's folder.
const METER: &str = "meter";
/// memcached's port, in the guest always.
pub(crate) const GUEST_PORT: u16 = 11211;

/// Set by Ctrl-C and by a termination signal.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The differences between the machines of architectures.
struct QemuMachine {
    /// QEMU's program.
    qemu: &'static str,
    machine: &'static str,
    /// The emulated processor, unless another is selected.
    cpu: &'static str,
    /// Names of the guest's three serial ports, the console's first.
    ports: [&'static str; 3],
    /// Whether only the first is part of the machine.
    one_port: bool,
    /// More for the kernel's command line.
    append: &'static str,
}

/// The machine of an architecture.
fn qemu_machine(arch: Arch) -> QemuMachine {
    match arch {
        Arch::X86_64 => QemuMachine {
            qemu: "/usr/bin/qemu-system-x86_64",
            machine: "q35",
            cpu: "max",
            ports: ["ttyS0", "ttyS1", "ttyS2"],
            one_port: false,
            // Emulated timers are late on a loaded host: the timer check may not take that for a
            // fault of the guest.
            append: "no_timer_check tsc=reliable",
        },
        Arch::Arm64 => QemuMachine {
            qemu: "/usr/bin/qemu-system-aarch64",
            machine: "virt,gic-version=3",
            cpu: "max",
            ports: ["ttyAMA0", "ttyS0", "ttyS1"],
            one_port: true,
            append: "",
        },
    }
}

/// The accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accel {
    /// KVM where a stock kernel is seen to boot with it, else emulation
    Auto,
    /// The host's processor
    Kvm,
    /// Emulation
    Tcg,
}

/// The host's port for the guest's [`GUEST_PORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// This one or none.
    Exactly(u16),
    /// This one if it is free, else any.
    Rather(u16),
    /// Any free one.
    Any,
}

/// The machine to boot.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) port: Port,
    /// The guest's port behind it.
    pub(crate) guest_port: u16,
    /// MiB.
    pub(crate) memory: u32,
    pub(crate) vcpus: u32,
    pub(crate) accel: Accel,
    /// QEMU's name of the processor to emulate, if not the one with all that there is.
    pub(crate) cpu: Option<String>,
    /// The guest's console goes to standard output as well.
    pub(crate) console: bool,
    /// The third serial port is this process's terminal.
    pub(crate) terminal: bool,
    /// hippos.ko, if the guest is to have it.
    pub(crate) module: Option<PathBuf>,
    /// More of the kernel's command line.
    pub(crate) append: &'static str,
    /// More files for the guest's root folder.
    pub(crate) files: Vec<PathBuf>,
    /// The network of the guest's card.
    pub(crate) network: Network,
    /// Executed instructions are counted by this library (`bench/plugin`), whose socket is then
    /// [`Vm::meter`]; they drive the guest's clock. Emulation only.
    pub(crate) meter: Option<Meter>,
    /// The system on this disk, in our initramfs's place. It speaks to the control line as our PID 1
    /// does.
    pub(crate) disk: Option<Disk>,
}

impl Disk {
    /// The folders that its files are in.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        [&self.image, &self.kernel, &self.initrd]
            .into_iter()
            .filter_map(|file| file.parent())
    }
}

/// A disk with a system, and the means to boot it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// As it is on the disk, byte for byte.
    pub(crate) image: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// The network of a guest's card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// QEMU's own network, with ports forwarded: asks for no rights.
    User,
    /// A tap device of this host's, by name.
    Tap(String),
    /// One with so many queues.
    Queues(String, u32),
    /// The same with a card that native XDP programs run on: none of its work is left to the
    /// guest, and there are queues of its own for XDP.
    Xdp(String, u32),
}

/// How executed instructions are counted.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// The plugin.
    pub(crate) library: PathBuf,
    /// With a profile by block as well, which is slower.
    pub(crate) profile: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            port: Port::Any,
            guest_port: GUEST_PORT,
            memory: 512,
            vcpus: 2,
            accel: Accel::Auto,
            cpu: None,
            console: false,
            terminal: false,
            module: None,
            append: "",
            files: Vec::new(),
            network: Network::User,
            meter: None,
            disk: None,
        }
    }
}

/// A running guest. Dropped, it is killed.
pub(crate) struct Vm {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    requests: File,
    answers: Receiver<String>,
    arch: Arch,
    /// How much longer than with our own PID 1 boot and end may take.
    system: u32,
}

impl Vm {
    /// Boots the machine and waits for PID 1.
    pub(crate) fn boot(root: &Root, machine: &Machine) -> Result<Vm> {
        let accel = match machine.accel {
            _ if machine.meter.is_some() => Accel::Tcg,
            Accel::Auto if kvm_works(root)? => Accel::Kvm,
            Accel::Auto => Accel::Tcg,
            chosen => chosen,
        };
        for attempt in 0.. {
            let port = free_port(machine.port)?;
            match Self::start(root, machine, accel, port) {
                // Another process took the port after we had found it free.
                Err(error) if attempt < 5 && format!("{error:#}").contains("host forwarding") => {}
                result => return result,
            }
        }
        bail!("no port to be had")
    }

    /// Boots until the kernel has nothing to complain of: emulated ones sometimes do before PID 1,
    /// and checkers then stay silent for the rest of their time.
    pub(crate) fn boot_clean(root: &Root, machine: &Machine) -> Result<Vm> {
        for _ in 0..2 {
            let mut vm = Vm::boot(root, machine)?;
            match vm.ask("log") {
                Ok(_) => return Ok(vm),
                Err(error) => {
                    eprintln!("hippos: a boot to be repeated: {:.200}", error.to_string());
                }
            }
        }
        Vm::boot(root, machine)
    }

    fn start(root: &Root, machine: &Machine, accel: Accel, port: u16) -> Result<Vm> {
        let dir = tempfile::Builder::new().prefix("hippos-").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        if machine.disk.is_none() {
            let files = machine.module.iter().chain(&machine.files);
            initramfs::write(root, files, &path("initramfs"))?;
        }
        for end in ["control.in", "control.out"] {
            nix::unistd::mkfifo(&path(end), Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        // Opened both ways, so that neither side waits for the other.
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path(name))
                .context("control line")
        };
        let (requests, replies) = (open("control.in")?, open("control.out")?);

        let binds: Vec<&Path> = machine.disk.iter().flat_map(Disk::dirs).collect();
        let mut qemu = qemu(root, accel, machine, &binds);
        if let Some(meter) = &machine.meter {
            let profile = if meter.profile { "on" } else { "off" };
            qemu.arg("-plugin").arg(format!(
                "{},socket={},profile={profile}",
                meter.library.display(),
                path(METER).display()
            ));
        }
        let forward = |kind| format!("hostfwd={kind}:127.0.0.1:{port}-:{}", machine.guest_port);
        let verbosity = if machine.console { 7 } else { 5 };
        let qemu_machine = qemu_machine(root.kernel().target.arch);
        let mut append = command_line(&qemu_machine, verbosity);
        if !machine.append.is_empty() {
            append = format!("{append} {}", machine.append);
        }
        if let Some(disk) = &machine.disk {
            qemu.arg("-kernel").arg(&disk.kernel);
            qemu.arg("-initrd").arg(&disk.initrd);
            qemu.arg("-drive").arg(format!(
                "file={},format=raw,if=virtio,cache=unsafe",
                disk.image.display()
            ));
            append += " root=/dev/vda rw";
        } else {
            qemu.arg("-kernel")
                .arg(root.kernel().modules.join("vmlinuz"));
            qemu.arg("-initrd").arg(path("initramfs"));
        }
        qemu.args(["-append", &append]);
        qemu.arg("-serial")
            .arg(format!("file:{}", path("console").display()));
        qemu.arg("-chardev").arg(format!(
            "pipe,id=control,path={}",
            path("control").display()
        ));
        serial(&mut qemu, &qemu_machine, "control");
        if machine.terminal {
            qemu.args(["-chardev", "stdio,id=terminal,signal=off"]);
            serial(&mut qemu, &qemu_machine, "terminal");
        } else {
            // Ctrl-C is for us; we stop the guest in good order.
            qemu.stdin(Stdio::null()).process_group(0);
        }
        qemu.arg("-netdev").arg(match &machine.network {
            Network::User => format!("user,id=net,{},{}", forward("tcp"), forward("udp")),
            Network::Tap(name) => format!("tap,id=net,ifname={name},script=no,downscript=no"),
            Network::Queues(name, queues) | Network::Xdp(name, queues) => {
                format!("tap,id=net,ifname={name},script=no,downscript=no,queues={queues}")
            }
        });
        let card = match &machine.network {
            Network::User | Network::Tap(_) => "virtio-net-pci,netdev=net".to_owned(),
            Network::Queues(_, queues) => format!("{QUEUES}{}", 2 * queues + 2),
            Network::Xdp(_, queues) => format!(
                "{QUEUES}{},guest_csum=off,guest_tso4=off,\
                 guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_uso4=off,guest_uso6=off,mrg_rxbuf=off",
                2 * queues + 2
            ),
        };
        qemu.args(["-device", &card, "-device", "virtio-rng-pci"]);
        qemu.stderr(File::create(path("qemu"))?);
        let child = qemu.spawn().context("cannot start QEMU")?;

        if machine.console {
            follow(path("console"));
        }
        let answers = reader(replies);
        let mut vm = Vm {
            child,
            dir,
            port,
            requests,
            answers,
            arch: root.kernel().target.arch,
            system: if machine.disk.is_some() { 3 } else { 1 },
        };
        let hello = vm
            .line(Instant::now() + BOOT_LIMIT * vm.arch.timeout_factor() * vm.system)
            .context("the guest did not come up")?;
        ensure!(hello == "hello", "the guest greets with {hello:?}");
        Ok(vm)
    }

    /// The guest's name of its third serial port, which is this process's terminal.
    pub(crate) fn terminal(&self) -> &'static str {
        qemu_machine(self.arch).ports[2]
    }

    /// The host's port, TCP and UDP.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The socket of the plugin that counts instructions.
    pub(crate) fn meter(&self) -> PathBuf {
        self.dir.path().join(METER)
    }

    /// Asks PID 1 for something that takes no time.
    pub(crate) fn ask(&mut self, request: &str) -> Result<Vec<String>> {
        self.ask_within(request, ANSWER_LIMIT * self.arch.timeout_factor())
    }

    /// Asks PID 1 for something; gives the lines that came of it.
    ///
    /// # Errors
    ///
    /// When it failed (the lines are in the error), and when the guest died or kept silent for
    /// longer than `limit`.
    pub(crate) fn ask_within(&mut self, request: &str, limit: Duration) -> Result<Vec<String>> {
        self.request_streaming(request, limit, |_| ())
    }

    /// The same, but calls `hear` with each line as it arrives.
    pub(crate) fn request_streaming(
        &mut self,
        request: &str,
        limit: Duration,
        mut hear: impl FnMut(&str),
    ) -> Result<Vec<String>> {
        writeln!(self.requests, "{request}")?;
        let deadline = Instant::now() + limit;
        let mut lines = Vec::new();
        loop {
            let line = self
                .line(deadline)
                .with_context(|| format!("after `{request}`"))?;
            if let Some(text) = line.strip_prefix('|') {
                let text = text.strip_prefix(' ').unwrap_or(text);
                hear(text);
                lines.push(text.to_owned());
            } else if line == "ok" {
                return Ok(lines);
            } else {
                let reason = line.strip_prefix("fail ").unwrap_or(&line);
                lines.push(reason.to_owned());
                bail!("{}", lines.join("\n"));
            }
        }
    }

    /// Whether the guest still runs; the error describes its end.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(self.dir.path().join("qemu")).unwrap_or_default();
            bail!(
                "the guest died ({status}) {}\n--- console:\n{}",
                said.trim(),
                self.console_tail()
            );
        }
        Ok(())
    }

    /// Stops the guest in good order.
    pub(crate) fn off(mut self) -> Result<()> {
        self.ask("off")?;
        let deadline = Instant::now() + ANSWER_LIMIT * self.arch.timeout_factor() * self.system;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the guest does not power off");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of the guest's console, from where its kernel began to complain if it did.
    pub(crate) fn console_tail(&self) -> String {
        let text = shell::tail(&self.dir.path().join("console"), REPORT_LINES);
        kernel_report(&text).to_owned()
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            match self.answers.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!("the control line broke off"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.alive()?;
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
            if Instant::now() >= deadline {
                bail!(
                    "the guest keeps silent\n--- console:\n{}",
                    self.console_tail()
                );
            }
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Neither can fail in a way that leaves something to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the first line of a kernel's report on; without one the last [`CONSOLE_LINES`].
fn kernel_report(console: &str) -> &str {
    const REPORTS: [&str; 4] = ["BUG:", "Oops", "Kernel panic", "WARNING:"];
    let start = REPORTS
        .iter()
        .filter_map(|report| console.find(report))
        .min();
    let from = start.and_then(|at| console.get(..at)).unwrap_or_else(|| {
        let lines = console
            .trim_end()
            .rmatch_indices('\n')
            .nth(CONSOLE_LINES - 1);
        lines.map_or("", |(at, _)| &console[..=at])
    });
    // The whole line.
    let line = from.rfind('\n').map_or(0, |at| at + 1);
    &console[line..]
}

/// QEMU with no device except those that are added.
fn qemu(root: &Root, accel: Accel, machine: &Machine, binds: &[&Path]) -> Command {
    let qemu_machine = qemu_machine(root.kernel().target.arch);
    let cpu = machine.cpu.as_deref().unwrap_or(qemu_machine.cpu);
    let mut qemu = root.command_with(qemu_machine.qemu, binds);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.args(["-machine", qemu_machine.machine]);
    match accel {
        Accel::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        // The clock that counts instructions needs all vCPUs in one thread, and with several of
        // them the kernel finds its stack corrupted within a second.
        _ if machine.meter.is_some() && machine.vcpus == 1 => qemu.args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=on",
            "-cpu",
            cpu,
        ]),
        _ => qemu.args(["-accel", "tcg,thread=multi", "-cpu", cpu]),
    };
    qemu.arg("-smp")
        .arg(machine.vcpus.to_string())
        .arg("-m")
        .arg(format!("{}M", machine.memory));
    qemu
}

/// The kernel's command line. With `-no-reboot`, any panic ends QEMU.
fn command_line(qemu_machine: &QemuMachine, verbosity: u8) -> String {
    let [console, control, _] = qemu_machine.ports;
    // Emulated CPUs are late on a loaded host: the watchdogs may not take that for a fault of the
    // guest. PID 1 finds its port in its environment.
    format!(
        "console={console} loglevel={verbosity} panic=-1 oops=panic {} \
         watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 random.trust_cpu=on \
         HIPPOS_CONTROL={control}",
        qemu_machine.append
    )
}

/// Joins the guest's next serial port to a character device.
fn serial(qemu: &mut Command, qemu_machine: &QemuMachine, chardev: &str) {
    if qemu_machine.one_port {
        qemu.arg("-device")
            .arg(format!("pci-serial,chardev={chardev}"));
    } else {
        qemu.arg("-serial").arg(format!("chardev:{chardev}"));
    }
}

/// Whether a stock kernel boots with KVM here. The device may be there and the kernel still hang, so
/// it is tried, once for each boot of this machine.
fn kvm_works(root: &Root) -> Result<bool> {
    let kvm = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    let arch = root.kernel().target.arch;
    if !arch.is_native() || !kvm() {
        return Ok(false);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = workspace::digest([boot.as_str(), &root.kernel().release]);
    let known = cache::dir()?.join(format!("kvm-{key}"));
    if let Ok(answer) = fs::read_to_string(&known) {
        return Ok(answer == "yes");
    }
    let dir = tempfile::Builder::new().prefix("hippos-").tempdir()?;
    let console = dir.path().join("console");
    let machine = Machine {
        vcpus: 1,
        memory: 256,
        ..Machine::default()
    };
    let mut qemu = qemu(root, Accel::Kvm, &machine, &[]);
    qemu.arg("-kernel")
        .arg(root.kernel().modules.join("vmlinuz"));
    qemu.args(["-append", &command_line(&qemu_machine(arch), 5)]);
    qemu.arg("-serial")
        .arg(format!("file:{}", console.display()));
    qemu.stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = qemu.spawn().context("cannot start QEMU")?;
    let deadline = Instant::now() + PROBE_LIMIT;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    child.wait()?;
    // Without an initramfs a kernel that boots far enough reports that it finds no root.
    let works = shell::tail(&console, 1000).contains("Unable to mount root");
    eprintln!(
        "hippos: KVM {} here",
        if works {
            "works"
        } else {
            "runs no stock kernel"
        }
    );
    fs::write(known, if works { "yes" } else { "no" })?;
    Ok(works)
}

/// A port that is free now for TCP and for UDP.
fn free_port(wanted: Port) -> Result<u16> {
    let free = |port: u16| -> std::io::Result<u16> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = tcp.local_addr()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        Ok(port)
    };
    match wanted {
        Port::Exactly(port) => {
            free(port).with_context(|| format!("port {port} of 127.0.0.1 is taken"))
        }
        Port::Rather(port) => free(port).or_else(|_| free_port(Port::Any)),
        Port::Any => (0..20)
            .find_map(|_| free(0).ok())
            .context("no port is free for TCP and UDP"),
    }
}

/// Sends each arriving line to the returned receiver, from a thread.
fn reader(replies: File) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(replies).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

/// Copies a file's growing content to standard output, for as long as this process lives.
fn follow(path: PathBuf) {
    thread::spawn(move || -> std::io::Result<()> {
        let mut file = wait_for(&path)?;
        let mut at = 0;
        loop {
            file.seek(SeekFrom::Start(at))?;
            let mut text = Vec::new();
            at += file.read_to_end(&mut text)? as u64;
            let mut out = std::io::stdout().lock();
            out.write_all(&text)?;
            out.flush()?;
            drop(out);
            thread::sleep(Duration::from_millis(50));
        }
    });
}

fn wait_for(path: &Path) -> std::io::Result<File> {
    loop {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_shown_from_its_beginning() {
        let chatter: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(kernel_report(&chatter).lines().count(), CONSOLE_LINES);
        assert!(kernel_report(&chatter).ends_with("line 99\n"));
        let panic = format!("{chatter}[ 1.0] Kernel panic - not syncing\n{chatter}");
        assert!(kernel_report(&panic).starts_with("[ 1.0] Kernel panic"));
        assert_eq!(kernel_report(""), "");
    }

    #[test]
    fn a_taken_port_is_refused_or_replaced() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(free_port(Port::Exactly(port)).is_err());
        assert_ne!(free_port(Port::Rather(port)).unwrap(), port);
    }
}
