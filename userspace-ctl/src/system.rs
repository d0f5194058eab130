// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's files under /sys and /proc, and the host's under /etc; tests use folders of their own instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hippos_abi::memory_reserve;

use crate::exit::end;

/// The root folder of these files.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
}

impl System {
    /// This host.
    pub(crate) fn host() -> Self {
        Self::at("/")
    }

    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        System { root: root.into() }
    }

    /// Whether it is this host, whose programs can be run.
    pub(crate) fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// An absolute path, under the root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, trimmed, if it can be read.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The number in a file, if there is one.
    pub(crate) fn number<N: FromStr>(&self, path: &str) -> Option<N> {
        self.read(path)?.parse().ok()
    }

    /// The names in a folder, sorted; empty if there is no such folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.flatten().map(name).collect();
        names.sort();
        names
    }

    /// Whether the module is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.path(MODULE).join("refcnt").exists()
    }

    /// A parameter that the module was loaded with.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let value = self.read(&format!("{MODULE}/parameters/{name}"))?;
        // The kernel's text for a string that is not set.
        Some(if value == "(null)" {
            String::new()
        } else {
            value
        })
    }

    /// The machine's memory in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        let text = self.read("/proc/meminfo")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// The most bytes that the module accepts for a cache on this machine.
    pub(crate) fn cache_most(&self) -> Option<u64> {
        let machine = self.memory()?;
        Some(machine.saturating_sub(memory_reserve(machine)))
    }

    /// Whether a limit leaves less than a tenth of the cache's maximum free.
    pub(crate) fn is_nearly_all(&self, limit: u64) -> bool {
        self.cache_most().is_some_and(|most| limit / 9 > most / 10)
    }

    /// The number of online CPUs.
    pub(crate) fn cpus(&self) -> usize {
        let online = self
            .read("/sys/devices/system/cpu/online")
            .unwrap_or_default();
        let count = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let numbers = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            numbers.1.checked_sub(numbers.0)?.checked_add(1)
        };
        online.split(',').filter_map(count).sum()
    }

    /// Waits until all of these interfaces exist.
    pub(crate) fn wait_for(&self, interfaces: &[String], timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let is_missing = |name: &&String| !self.path(INTERFACES).join(name).exists();
            let missing: Vec<_> = interfaces.iter().filter(is_missing).collect();
            let Some(first) = missing.first() else {
                return Ok(());
            };
            if Instant::now() >= end {
                let seconds = timeout.as_secs();
                let there = self.names(INTERFACES).join(", ");
                end!(
                    Failed,
                    "no interface {first} after {seconds} s (load.wait); there are {there}"
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The module's options in modprobe's files: file, line and each `name=value`.
    pub(crate) fn modprobe_options(&self) -> Vec<(PathBuf, usize, String)> {
        let mut found = Vec::new();
        for folder in ["/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d"] {
            for name in self.names(folder) {
                let file = Path::new(folder).join(name);
                let text = self.read(&file.to_string_lossy()).unwrap_or_default();
                for (line, text) in (1..).zip(text.lines()) {
                    let mut words = text.split_whitespace();
                    if words.next() == Some("options") && words.next() == Some("hippos") {
                        found.extend(words.map(|word| (file.clone(), line, word.to_owned())));
                    }
                }
            }
        }
        found
    }
}

const MODULE: &str = "/sys/module/hippos";
/// One folder for each interface.
pub(crate) const INTERFACES: &str = "/sys/class/net";
/// The pinned links that hold the XDP program on an interface, by its name.
pub(crate) const PINS: &str = "/sys/fs/bpf/hippos";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder with these files, removed when dropped.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(test: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("hippos-ctl-{test}-{}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            for (file, text) in files {
                let file = folder.system().path(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            folder
        }

        pub(crate) fn system(&self) -> System {
            System::at(&self.0)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn options_of_modprobe_are_found_with_their_lines() {
        let folder = Folder::new(
            "modprobe",
            &[
                (
                    "/etc/modprobe.d/a.conf",
                    "# options hippos x=1\noptions hippos port=1 memory=2\n",
                ),
                ("/etc/modprobe.d/b.conf", "options other port=1\n"),
            ],
        );
        let found = folder.system().modprobe_options();
        let words: Vec<_> = found
            .iter()
            .map(|(_, line, word)| (*line, &word[..]))
            .collect();
        assert_eq!(words, [(2, "port=1"), (2, "memory=2")]);
    }

    #[test]
    fn an_interface_that_does_not_come_is_named_with_those_that_are_there() {
        let folder = Folder::new("wait", &[("/sys/class/net/lo/mtu", "65536\n")]);
        let system = folder.system();
        assert!(system.wait_for(&["lo".into()], Duration::ZERO).is_ok());
        let names = ["lo".into(), "eth0".into()];
        let error = system
            .wait_for(&names, Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no interface eth0") && error.contains("there are lo"),
            "{error}"
        );
    }
}
