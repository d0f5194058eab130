// SPDX-License-Identifier: GPL-2.0-only
//! Stock clients of memcached, and third-party test suites, against the module.
//!
//! They run on this machine, in a Debian root of their own that has them
//! (`testing/conformance/clients/`), against a guest. It is joined by a tap device
//! where one may be made, since QEMU's own network loses connections at times
//! and clients take that for the server's fault.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::root::Root;
use crate::tap::Tap;
use crate::vm::{Machine, Network, Vm, GUEST_PORT};
use crate::{cache, chroot, progress, root, run, shell, workspace};

/// The available tests: `clients::` ones use the features of a client, `suites::` ones are the tests of the client's
/// authors.
pub(crate) const TESTS: &[&str] = &[
    "clients::memcache_crate",
    "clients::libmemcached",
    "clients::memcached_tool",
    "clients::pymemcache_ops",
    "clients::pylibmc_ops",
    "clients::bmemcached_ops",
    "clients::python_memcached_ops",
    "clients::aiomcache_ops",
    "clients::memcached_ops",
    "clients::memcache_ops",
    "clients::gomemcache_ops",
    "clients::dalli_ops",
    "clients::perl_ops",
    "clients::nutcracker",
    "clients::proxy",
    "suites::memcached",
    "suites::pymemcache",
    "suites::pylibmc",
    "suites::gomemcache",
    "suites::perl_clients",
    "suites::php",
];

/// Free space that making the root asks for, in bytes.
const SPACE: u64 = 3 << 30;

/// The guests with the server, and the root with the clients.
pub(crate) struct Clients<'a> {
    build: &'a Root,
    machine: Machine,
    root: PathBuf,
    guests: Vec<Guest>,
}

/// A guest with the server, and its network.
struct Guest {
    // Dropped in this order: the guest before its device.
    vm: Vm,
    _tap: Option<Tap>,
    address: SocketAddr,
}

impl<'a> Clients<'a> {
    /// Guests like `machine` for the clients in `root`.
    pub(crate) fn new(build: &'a Root, machine: &Machine, root: PathBuf) -> Self {
        Self {
            build,
            machine: machine.clone(),
            root,
            guests: Vec::new(),
        }
    }

    /// Runs one of [`TESTS`]; fails as well when the kernel logged a complaint.
    pub(crate) fn run(&mut self, test: &str) -> Result<()> {
        let result = self.checked(test);
        if result.is_err() {
            // The next one gets a guest that nothing has happened to.
            self.guests.clear();
        }
        result
    }

    fn checked(&mut self, test: &str) -> Result<()> {
        let (kind, name) = test.split_once("::").context("a test has a kind")?;
        // The proxies stand in front of several.
        let servers = match name {
            "nutcracker" => 2,
            "proxy" => 3,
            _ => 1,
        };
        while self.guests.len() < servers {
            self.guests.push(Guest::boot(self.build, &self.machine)?);
        }
        let addresses: Vec<String> = self.guests[..servers]
            .iter()
            .map(|guest| guest.address.to_string())
            .collect();
        let mut command = match (kind, name) {
            (_, "memcache_crate") => {
                let mut cargo = Command::new(workspace::cargo());
                cargo
                    .args(["run", "--quiet", "--locked", "-p", "hippos_conformance"])
                    .args(["--example", "memcache", "--"])
                    .args(&addresses);
                cargo
            }
            (_, "proxy") => {
                let mut cargo = Command::new(workspace::cargo());
                cargo
                    .args(["test", "--quiet", "--locked", "-p", "hippos_proxy"])
                    .args(["--test", "nodes"])
                    .env("HIPPOS_NODES", addresses.join(","));
                cargo
            }
            _ => {
                let mut client = chroot::privileged("sh");
                client
                    .arg(scripts().join("run.sh"))
                    .arg(&self.root)
                    .arg(addresses.join(" "))
                    .arg(if kind == "suites" { "suites" } else { name });
                if kind == "suites" {
                    client.env("SUITES", name);
                }
                client
            }
        };
        command.current_dir(workspace::root()).stdin(Stdio::null());
        let output = command.output().context("cannot start the client")?;
        for guest in &mut self.guests {
            guest.vm.ask("log")?;
        }
        if !output.status.success() {
            bail!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Stops the guests in good order.
    pub(crate) fn off(self) -> Result<()> {
        self.guests.into_iter().try_for_each(|guest| guest.vm.off())
    }
}

impl Guest {
    /// Boots a guest and loads the module.
    fn boot(build: &Root, machine: &Machine) -> Result<Self> {
        let tap = Tap::new().ok();
        let mut machine = machine.clone();
        if let Some(tap) = &tap {
            machine.network = Network::Tap(tap.name().to_owned());
        }
        let mut vm = Vm::boot(build, &machine)?;
        let address = match &tap {
            Some(tap) => {
                vm.ask(&format!(
                    "exec ip addr flush dev eth0 && ip addr add {}/30 dev eth0",
                    tap.guest()
                ))?;
                SocketAddr::new(IpAddr::V4(tap.guest()), GUEST_PORT)
            }
            None => {
                eprintln!("hippos: no tap device may be made: clients use QEMU's own network");
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), vm.port())
            }
        };
        run::load_at(&mut vm, "", address)?;
        Ok(Self {
            vm,
            _tap: tap,
            address,
        })
    }
}

/// The clients' root, made now if need be.
pub(crate) fn ready() -> Result<PathBuf> {
    let setup = scripts().join("setup.sh");
    let path = place()?;
    if path.exists() {
        return Ok(path);
    }
    let _lock = cache::lock(&path.with_extension("lock"), "making the clients' root")?;
    // Another process may have been faster.
    if !path.exists() {
        root::check_host("the clients' root", SPACE)?;
        progress::step("stock clients (mmdebstrap, apt)", || {
            let mut make = chroot::privileged("unshare");
            make.args(["--mount", "sh"]).arg(setup).arg(&path);
            shell::logged(&mut make, &path.with_extension("log"))
        })?;
    }
    Ok(path)
}

/// A program of the clients' root, if that was made.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = place().ok()?.join("usr/sbin").join(name);
    path.is_file().then_some(path)
}

/// The path of the clients' root.
fn place() -> Result<PathBuf> {
    let key = workspace::digest([fs::read(scripts().join("setup.sh"))?]);
    Ok(cache::dir()?.join(format!("clients-{key}")))
}

/// The folder of the scripts that make the root and run the tests in it.
fn scripts() -> PathBuf {
    workspace::root().join(Path::new("testing/conformance/clients"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a script that runs test files by suite.sh succeeds, and its output.
    fn suite(lines: &str) -> (bool, String) {
        let script = format!("set -u\n. \"$0\"\n{lines}\nreport\n");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(scripts().join("suite.sh"))
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    }

    #[test]
    fn a_failed_test_file_is_shown_at_the_end_with_its_output() {
        let (well, said) = suite(
            "suite 'x one.t' echo not shown\n\
             suite 'x two.t' sh -c 'echo not ok 2; exit 3'\n\
             suite 'x three.t' sh -c 'echo not ok 7 - early; seq 1000; exit 1'\n\
             suite 'x four.t' true",
        );
        assert!(!well, "{said}");
        let (files, end) = said.split_once("----").expect("a part at the end");
        assert_eq!(
            files,
            "x one.t: passed\nx two.t FAILED (3)\nx three.t FAILED (1)\nx four.t: passed\n"
        );
        let (two, three) = end.split_once("---- ").expect("two that failed");
        assert_eq!(two, " x two.t FAILED (3)\n    not ok 2\n");
        assert!(three.starts_with("x three.t FAILED (1)\n    1:not ok 7 - early\n"));
        assert!(three.ends_with("    1000\nsuites: 2 passed, 2 failed\n"));
        assert!(three.lines().count() <= 102, "{three}");
    }

    #[test]
    fn suites_that_all_pass_show_no_output() {
        let (well, said) = suite("suite 'x one.t' echo not shown");
        assert!(well, "{said}");
        assert_eq!(said, "x one.t: passed\nsuites: 1 passed, 0 failed\n");
    }

    #[test]
    fn the_file_that_runs_when_time_is_up_is_shown_too() {
        let (well, said) =
            suite("suite 'x one.t' sh -c \"echo begun; kill -TERM $$; exec sleep 10\"");
        assert!(!well, "{said}");
        let end =
            "---- x one.t was not done when time was up\n    begun\nsuites: 0 passed, 1 failed\n";
        assert_eq!(said, end);
    }
}
