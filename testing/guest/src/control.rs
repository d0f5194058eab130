// SPDX-License-Identifier: GPL-2.0-only
//! The host's requests to PID 1, over the second serial port.
//!
//! Lines of text. The guest greets with `hello`; then the host sends one
//! command at a time, and the guest answers with any number of lines that begin
//! with `|`, and one that begins with `ok` or `fail`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg};

use crate::{kmsg, leaks, modules, receive_path, system};

/// The variable in which the kernel's command line names the port, for example `ttyS1`.
const PORT: &str = "HIPPOS_CONTROL";

/// Serves the host's requests until it requests the end.
pub(crate) fn serve() -> Result<()> {
    let port = std::env::var(PORT).context(PORT)?;
    let mut out = File::options()
        .read(true)
        .write(true)
        .open(Path::new("/dev").join(port))
        .context("no second serial port")?;
    let mut settings = tcgetattr(&out)?;
    cfmakeraw(&mut settings);
    tcsetattr(&out, SetArg::TCSANOW, &settings)?;
    let input = BufReader::new(out.try_clone()?);
    let mut log = kmsg::Log::open()?;
    writeln!(out, "hello")?;
    for line in input.lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if verb == "off" {
            writeln!(out, "ok")?;
            break;
        }
        match answer(verb, rest, &mut log, &mut out) {
            Ok(()) => writeln!(out, "ok")?,
            Err(error) => writeln!(out, "fail {}", format!("{error:#}").replace('\n', "; "))?,
        }
    }
    Ok(())
}

fn answer(verb: &str, rest: &str, log: &mut kmsg::Log, out: &mut File) -> Result<()> {
    match verb {
        // The module with its parameters.
        "load" => {
            modules::insert(Path::new(modules::HIPPOS), rest)
                .with_context(|| format!("insmod hippos.ko {rest}"))?;
        }
        "unload" => modules::remove("hippos").context("rmmod hippos")?,
        // A shell command line.
        "exec" => {
            let mut command = Command::new("/bin/busybox");
            relay(command.args(["sh", "-c", rest]), out)?;
        }
        // A test with its arguments, and perhaps the receive path that it is to go by.
        "test" => {
            let (rest, path) = rest.split_once(" path=").unwrap_or((rest, ""));
            let mut test = Command::new("/proc/self/exe");
            test.arg("test").args(rest.split(' '));
            test.env(receive_path::VARIABLE, path);
            relay(&mut test, out)?;
        }
        // The kernel's complaints since the last time; with `all`, every line.
        "log" => {
            let lines = log.lines();
            let kernel_warnings = kmsg::kernel_warnings(&lines);
            for line in if rest == "all" || !kernel_warnings.is_empty() {
                &lines
            } else {
                &kernel_warnings
            } {
                writeln!(out, "| {line}")?;
            }
            if !kernel_warnings.is_empty() {
                bail!("the kernel complained: {}", kernel_warnings[0]);
            }
        }
        // Memory to which the kernel has no pointer any more.
        "leaks" => {
            let found = leaks::find()?.unwrap_or_default();
            for line in found.lines() {
                writeln!(out, "| {line}")?;
            }
            if !found.is_empty() {
                bail!("memory leaks");
            }
        }
        "shell" => system::shell(rest)?,
        _ => bail!("no such command: {verb}"),
    }
    Ok(())
}

/// Runs a program with both its outputs going to the host as they come.
fn relay(command: &mut Command, out: &mut File) -> Result<()> {
    let (read, write) = std::os::unix::net::UnixStream::pair()?;
    let error: std::os::fd::OwnedFd = write.try_clone()?.into();
    let output: std::os::fd::OwnedFd = write.into();
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(error)
        .spawn();
    // Our copies of its outputs must go, or the reading below has no end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.context("cannot start the program")?;
    let mut input = BufReader::new(read);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        writeln!(out, "| {}", String::from_utf8_lossy(&line).trim_end())?;
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}
