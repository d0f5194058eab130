// SPDX-License-Identifier: GPL-2.0-only
//! The packages on a machine: a fresh Debian, on a disk of its own, in a guest of its kernel.
//!
//! The base system and the packages' dependencies are installed first. From then on apt sees the packages' own
//! repository alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::root::{self, Fresh, Root};
use crate::target::Selection;
use crate::vm::{Disk, Machine, Vm};
use crate::{chroot, client, package, progress, shell, workspace};

use super::programs;
use super::version::Version;

/// Free disk space that the trial needs, in bytes.
const SPACE: u64 = 9 << 30;
/// How large the machine's disk is.
const DISK: &str = "8G";
/// How long apt may take in an emulated guest.
pub(super) const LONG: Duration = Duration::from_secs(900);
/// The base system's packages. The kernel is added by its release.
const MACHINE: &str = "systemd-sysv udev dbus kmod initramfs-tools e2fsprogs";
/// The tools' dependencies.
const TOOLS: &str = "libelf1t64 zlib1g libgcc-s1";
/// Speaks to the host over the second serial port, as the test guests' PID 1 does.
const AGENT: &str = r#"#!/bin/sh
exec < /dev/ttyS1 > /dev/ttyS1
stty raw -echo
echo hello
while read -r verb rest; do
    case $verb in
    off)
        echo ok
        systemctl poweroff
        exit
        ;;
    exec)
        said=$(sh -c "$rest" 2>&1 < /dev/null)
        status=$?
        printf '%s\n' "$said" | sed 's/^/| /'
        [ $status = 0 ] && echo ok || echo "fail $rest: status $status"
        ;;
    esac
done
"#;
const SERVICE: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/root/agent\n\
     [Install]\nWantedBy=default.target\n";
/// Prints the exporter's metrics, once it listens: shortly after systemd reports it as started.
const SCRAPE: &str =
    "bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/9150) 2> /dev/null || [ $((tries += 1)) = 50 ]; \
     do sleep 0.2; done; exec 3<>/dev/tcp/127.0.0.1/9150; \
     printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'";
const NETWORK: &str = "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n";
/// apt with the packages' repository and no other; it leaves the others' lists to the steps that need them.
pub(super) const APT: &str =
    "DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dir::Etc::SourceList=/root/packages.list \
     -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=0";
/// The same with the repository of the version after.
const APT_LATER: &str =
    "DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dir::Etc::SourceList=/root/later.list \
     -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=0";
/// The repositories, as the lists above name them.
const REPOSITORIES: &[&str] = &["packages", "later"];
/// Gets the item that an upgrade has to leave alone.
const KEPT: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/11211; \
     printf \"get kept\\r\\nquit\\r\\n\" >&3; cat <&3'";
/// Sets it.
const KEEP: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/11211; \
     printf \"set kept 0 0 2\\r\\nhi\\r\\nquit\\r\\n\" >&3; cat <&3'";
/// Fails unless the module and its XDP programs are gone.
const UNLOADED: &str =
    "test ! -e /sys/module/hippos -a ! -e /dev/hippos -a ! -e /sys/fs/bpf/hippos";
/// Finds the files of Hippos on the machine, without this trial's own, apt's and the journal's.
const LEFT: &str = "find / -xdev -iname '*hippos*' -not -path '/root/*' -not -path '/var/lib/apt/*' \
     -not -path '/var/cache/*' -not -path '/var/log/*' -not -path '/tmp/*' -not -path '/etc/dpkg/dpkg.cfg.d/*'";

/// Installs the packages made for the selected kernel, with the module built before, and then with the
/// one that DKMS builds; uses and removes them.
pub(crate) fn trial(selection: &Selection) -> Result<()> {
    let machine = Trial::new(selection)?;
    machine.prebuilt()?;
    machine.dkms()
}

/// A machine that is tried on.
pub(super) struct Trial {
    fresh: Fresh,
    log: PathBuf,
    root: Root,
    /// The later version's number.
    later: String,
}

impl Trial {
    /// Makes the packages for the selected kernel, in this version and a later one, and a machine that has their
    /// repositories.
    pub(super) fn new(selection: &Selection) -> Result<Self> {
        let build_root = root::ready(selection)?;
        let trial = workspace::root().join("target/packages-trial");
        let version = Version::of_work_tree()?;
        let later = version.later();
        let programs = progress::step("programs", || {
            programs::build(&build_root, &package::programs_dir())
        })?;
        package::make(
            &trial.join("packages"),
            Some(&programs),
            selection,
            &version,
        )?;
        package::make(&trial.join("later"), Some(&programs), selection, &later)?;
        root::check_host("a machine's root", SPACE)?;
        let machine = Self {
            fresh: root::fresh("machine")?,
            log: workspace::root().join("target/packages.log"),
            root: build_root,
            later: later.number,
        };
        let _ = fs::remove_file(&machine.log);
        machine.prepare(&trial)?;
        fs::remove_dir_all(&trial)?;
        Ok(machine)
    }

    /// Its files.
    pub(super) fn tree(&self) -> &Path {
        &self.fresh.path
    }

    /// Runs a script in the machine's tree.
    pub(super) fn sh(&self, what: &str, script: &str) -> Result<()> {
        progress::step(what, || {
            let mut shell = chroot::command(&self.fresh.path, Path::new("/bin/sh"), &[]);
            shell.env("DEBIAN_FRONTEND", "noninteractive");
            shell::logged(shell.args(["-exc", script]).current_dir("/"), &self.log)
        })
    }

    /// Makes a machine with the kernel, the repository and the way for the host to ask.
    fn prepare(&self, packages: &Path) -> Result<()> {
        let path = &self.fresh.path;
        let kernel = self.root.kernel();
        fs::write(
            path.join("etc/apt/sources.list.d/backports.list"),
            root::backports_line(path)?,
        )?;
        self.sh(
            "a machine's packages and kernel (apt)",
            &format!(
                "apt-get update
                 apt-get install -y --no-install-recommends {MACHINE} {TOOLS}
                 apt-get install -y --no-install-recommends -t {} linux-image-{}={}
                 apt-get clean",
                root::BACKPORTS,
                kernel.release,
                kernel.version
            ),
        )?;
        for name in REPOSITORIES {
            let to = path.join("root").join(name);
            fs::create_dir_all(&to)?;
            for entry in fs::read_dir(packages.join(name))? {
                let entry = entry?;
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
            fs::write(
                path.join(format!("root/{name}.list")),
                format!("deb [trusted=yes] file:/root/{name} ./\n"),
            )?;
        }
        fs::write(path.join("root/agent"), AGENT)?;
        fs::set_permissions(path.join("root/agent"), fs::Permissions::from_mode(0o755))?;
        fs::write(path.join("etc/systemd/system/trial.service"), SERVICE)?;
        fs::write(path.join("etc/systemd/network/all.network"), NETWORK)?;
        fs::write(path.join("etc/fstab"), "/dev/vda / ext4 defaults 0 1\n")?;
        // apt's own user cannot read root's home.
        self.sh(
            "a machine's services",
            // An empty one is made at boot; without one, a first boot enables all services.
            "chmod 755 /root; systemctl enable trial.service systemd-networkd.service; : > /etc/machine-id",
        )
    }

    /// Makes a disk of the machine's tree.
    pub(super) fn disk(&self, dir: &Path) -> Result<Disk> {
        let image = dir.join("disk");
        let tree = &self.fresh.path;
        // With the work tree's mke2fs, from outside: run from inside, it would be part of its own input.
        let mut make = chroot::privileged("sh");
        make.args([
            "-ec",
            "truncate -s \"$3\" \"$1\"
             \"$2\"/usr/lib64/ld-linux-x86-64.so.2 --library-path \"$2\"/usr/lib/x86_64-linux-gnu \
                 \"$2\"/usr/sbin/mke2fs -q -t ext4 -d \"$2\" \"$1\"",
            "sh",
        ]);
        make.arg(&image).arg(tree).arg(DISK);
        progress::step("a disk of it", || shell::logged(&mut make, &self.log))?;
        let release = &self.root.kernel().release;
        Ok(Disk {
            image,
            kernel: tree.join(format!("boot/vmlinuz-{release}")),
            initrd: tree.join(format!("boot/initrd.img-{release}")),
        })
    }

    pub(super) fn boot(&self, disk: &Disk) -> Result<Vm> {
        let machine = Machine {
            memory: 1024,
            disk: Some(disk.clone()),
            ..Machine::default()
        };
        progress::step("boot", || Vm::boot(&self.root, &machine))
    }

    /// The module that was built before: installed, served after a reboot, failing visibly, purged.
    fn prebuilt(&self) -> Result<()> {
        let dir = tempfile::Builder::new().prefix("hippos-").tempdir()?;
        let disk = self.disk(dir.path())?;
        let mut vm = self.boot(&disk)?;
        let start = Instant::now();
        progress::step("apt install hippos", || {
            vm.ask_within(&format!("exec {APT} update"), LONG)?;
            vm.ask_within(&format!("exec {APT} install hippos"), LONG)
        })?;
        served(&mut vm)?;
        println!(
            "packages: the first answer {:.0} s after `apt install`, emulated",
            start.elapsed().as_secs_f32()
        );
        progress::step("the module is the tools' own", || {
            ask(
                &mut vm,
                "test \"hippos-ctl $(cat /sys/module/hippos/version)\" = \"$(hippos-ctl --version)\"",
            )
        })?;
        progress::step("systemctl status shows the health", || {
            ask(
                &mut vm,
                "systemctl status hippos.service | grep 'Status: \"at the start: .* on port 11211;'",
            )
        })?;
        progress::step(
            "a change that needs a restart leaves the health shown",
            || {
                ask(
                &mut vm,
                "echo port = 11300 > /etc/hippos/hippos.toml && ! systemctl reload hippos.service && \
                 systemctl status hippos.service | grep 'Status: \"at the reload: .* on port 11211;'",
            )
            },
        )?;
        progress::step("a setting, reloaded", || {
            ask(
                &mut vm,
                "echo memory_mb = 48 > /etc/hippos/hippos.toml && systemctl reload hippos.service && \
                 hippos-ctl info | grep -w 48",
            )
        })?;
        vm.off()?;
        let mut vm = self.boot(&disk)?;
        progress::step("the service and the setting after a reboot", || {
            let up = vm.ask_within(
                "exec systemctl is-active --wait hippos.service || systemctl status hippos.service",
                LONG,
            )?;
            ensure!(up == ["active"], "{up:?}");
            ask(&mut vm, "hippos-ctl info | grep -w 48")?;
            served(&mut vm)?;
            ask(&mut vm, "systemctl restart hippos.service")?;
            served(&mut vm)
        })?;
        progress::step("apt upgrade keeps the cache and the settings", || {
            ask(&mut vm, &format!("{KEEP} | grep ^STORED"))?;
            ask(
                &mut vm,
                &format!("{APT_LATER} update && {APT_LATER} upgrade"),
            )?;
            ask(&mut vm, &self.all_are_later("hippos 'hippos-*'"))?;
            ask(&mut vm, &format!("{KEPT} | grep '^VALUE kept'"))?;
            ask(
                &mut vm,
                "systemctl restart hippos.service && hippos-ctl info | grep -w 48",
            )?;
            ask(&mut vm, &format!("! {KEPT} | grep '^VALUE kept'"))?;
            served(&mut vm)
        })?;
        progress::step("a failure is a failed unit", || {
            ask(
                &mut vm,
                "systemctl stop hippos.service && test ! -e /sys/module/hippos",
            )?;
            ask(
                &mut vm,
                "cp -a /etc/hippos/hippos.toml /root/ && echo memory_mb = 1 > /etc/hippos/hippos.toml",
            )?;
            ask(
                &mut vm,
                "! systemctl start hippos.service && systemctl is-failed hippos.service",
            )?;
            ask(
                &mut vm,
                "cp -a /root/hippos.toml /etc/hippos/ && systemctl start hippos.service",
            )?;
            served(&mut vm)
        })?;
        progress::step("a stop by hand; the exporter", || {
            ask(
                &mut vm,
                "hippos-ctl stop && systemctl stop hippos.service && systemctl start hippos.service",
            )?;
            served(&mut vm)?;
            ask(
                &mut vm,
                "! systemctl is-enabled hippos-exporter.service && systemctl start hippos-exporter.service",
            )?;
            ask(&mut vm, &format!("{SCRAPE} | grep -x 'memcached_up 1'"))?;
            ask(
                &mut vm,
                "systemctl stop hippos.service && test ! -e /sys/module/hippos",
            )?;
            ask(&mut vm, &format!("{SCRAPE} | grep -x 'memcached_up 0'"))?;
            ask(&mut vm, "systemctl start hippos.service").map(drop)
        })?;
        progress::step("purge leaves nothing, also after a failed stop", || {
            ask(
                &mut vm,
                "for card in /sys/class/net/en* /sys/class/net/eth*; do \
                     test ! -e $card || hippos-ctl xdp attach --dev ${card##*/}; done; \
                 test -n \"$(ls /sys/fs/bpf/hippos)\" && echo mistake = 1 >> /etc/hippos/hippos.toml",
            )?;
            ask(
                &mut vm,
                &format!(
                    "{APT} purge 'hippos*' > /tmp/said 2>&1 || {{ cat /tmp/said; exit 1; }}; \
                     grep '^hippos: stop failed: .*the configuration has errors' /tmp/said"
                ),
            )?;
            ask(&mut vm, UNLOADED)?;
            let left = ask(&mut vm, &self.left())?;
            ensure!(left == [""], "left: {left:?}");
            ask(&mut vm, "! dmesg | grep -e BUG: -e WARNING: -e Oops").map(drop)
        })?;
        vm.off()
    }

    /// The module that DKMS builds, in the tree; then served by a guest.
    fn dkms(&self) -> Result<()> {
        let (release, version) = (&self.root.kernel().release, &self.root.kernel().version);
        let tree = "/usr/src/hippos-*/kernel-tree";
        self.sh(
            "what the build needs, without the kernel's source (apt)",
            &format!(
                "apt-get update
                 needs=$(sed -n '/^Package: hippos-dkms$/,/^$/ s/^Depends: //p' /root/packages/Packages |
                     tr -d ',' | sed 's/([^)]*)//g')
                 apt-get install -y --no-install-recommends -t {} libelf-dev libdw-dev linux-headers-{release}={version}
                 apt-get install -y --no-install-recommends $needs
                 apt-get clean",
                root::BACKPORTS
            ),
        )?;
        self.sh(
            "hippos-dkms without it: says what is missing",
            &format!(
                "{APT} update
                 {APT} install hippos-tools hippos-dkms > /tmp/said 2>&1 || {{ cat /tmp/said; exit 1; }}
                 grep -F 'hippos:   its source: apt install linux-source-' /tmp/said
                 test -z \"$(find /usr/lib/modules -name 'hippos.ko*')\"
                 if {tree} check 9.9.1+deb13-amd64 2> /tmp/said; then exit 1; fi
                 grep 'series is not supported' /tmp/said"
            ),
        )?;
        let source = release.split('.').take(2).collect::<Vec<_>>().join(".");
        let start = Instant::now();
        self.sh(
            "the kernel's source: its trigger has DKMS build",
            &format!(
                "apt-get install -y --no-install-recommends linux-source-{source}={version}
                 modinfo -k {release} -F vermagic hippos
                 test \"hippos-ctl $(modinfo -k {release} -F version hippos)\" = \"$(hippos-ctl --version)\"
                 find /usr/lib/modules/{release}/updates/dkms -name 'hippos.ko*' | grep .
                 du -sm /var/lib/hippos-dkms
                 test ! -e /var/lib/hippos-dkms/{release}.partial"
            ),
        )?;
        println!(
            "packages: built by DKMS in {:.0} s",
            start.elapsed().as_secs_f32()
        );
        self.sh(
            "the module again: the tree is still there",
            &format!(
                "made=$(stat -c %Y /var/lib/hippos-dkms/{release}/.hippos)
                 dkms remove hippos/$(dkms status -m hippos | sed 's/hippos.\\([^,]*\\),.*/\\1/') -k {release}
                 dpkg-trigger --by-package=hippos-dkms /usr/src && dpkg --triggers-only -a
                 find /usr/lib/modules/{release}/updates/dkms -name 'hippos.ko*' | grep .
                 test \"$made\" = \"$(stat -c %Y /var/lib/hippos-dkms/{release}/.hippos)\""
            ),
        )?;
        self.sh(
            "a kernel's own hooks have DKMS build, while its package is being configured",
            &format!(
                "apt-get install -y --reinstall linux-image-{release}={version} \
                     > /tmp/said 2>&1 || {{ cat /tmp/said; exit 1; }}
                 grep 'Autoinstall on {release} succeeded for module(s) hippos' /tmp/said
                 find /usr/lib/modules/{release}/updates/dkms -name 'hippos.ko*' | grep ."
            ),
        )?;
        self.sh(
            "the module built before takes its place, and gives it back",
            &format!(
                "{APT} install hippos-modules-{release}
                 test -e /usr/lib/modules/{release}/extra/hippos.ko
                 test -z \"$(find /usr/lib/modules/{release}/updates -name 'hippos.ko*')\"
                 modinfo -k {release} -n hippos | grep /extra/
                 {APT} purge hippos-modules-{release}
                 test ! -e /usr/lib/modules/{release}/extra
                 modinfo -k {release} -n hippos | grep /updates/dkms/"
            ),
        )?;
        // The Makefile that every build reads.
        self.sh(
            "a later version that does not build leaves the module that works",
            &format!(
                "cd /var/lib/hippos-dkms/{release}
                 sum=$(cat /usr/lib/modules/{release}/updates/dkms/hippos.ko* | sha256sum)
                 mv Makefile Makefile.away
                 {APT_LATER} update
                 if {APT_LATER} upgrade > /tmp/said 2>&1; then cat /tmp/said; exit 1; fi
                 grep 'the module did not build for {release}' /tmp/said
                 test \"$sum\" = \"$(cat /usr/lib/modules/{release}/updates/dkms/hippos.ko* | sha256sum)\"
                 modinfo -k {release} -n hippos | grep /updates/dkms/"
            ),
        )?;
        self.on_disk("the service with the module that was left", served)?;
        self.sh(
            "the later version, once it builds",
            &format!(
                "mv /var/lib/hippos-dkms/{release}/Makefile.away /var/lib/hippos-dkms/{release}/Makefile
                 dpkg --configure -a
                 {}
                 dkms status -m hippos -v '{later}' -k {release} | grep ': installed'
                 test \"$(echo /var/lib/dkms/hippos/[0-9]*)\" = '/var/lib/dkms/hippos/{later}'",
                self.all_are_later("'hippos-*'"),
                later = self.later
            ),
        )?;
        self.on_disk(
            "the service with the later version's module, which goes with its package",
            |vm| {
                served(vm)?;
                ask(vm, &format!("{APT_LATER} purge hippos-dkms"))?;
                ask(vm, UNLOADED).map(drop)
            },
        )?;
        self.sh(
            "purge leaves nothing",
            &format!(
                "{APT} purge 'hippos*'; left=$({}); test -z \"$left\"",
                self.left()
            ),
        )
    }

    /// Boots from a disk, and does `work` there.
    fn on_disk(&self, what: &str, work: impl FnOnce(&mut Vm) -> Result<()>) -> Result<()> {
        let dir = tempfile::Builder::new().prefix("hippos-").tempdir()?;
        let disk = self.disk(dir.path())?;
        let mut vm = self.boot(&disk)?;
        progress::step(what, || work(&mut vm))?;
        vm.off()
    }

    /// Fails unless these packages are installed in their later version.
    fn all_are_later(&self, names: &str) -> String {
        format!(
            "dpkg-query -W -f '${{db:Status-Status}} ${{Version}} ${{Package}}\\n' {names} | grep '^installed' && \
             test -z \"$(dpkg-query -W -f '${{db:Status-Status}} ${{Version}}\\n' {names} | grep -v '^[nc]' | grep -vxF 'installed {}')\"",
            self.later
        )
    }

    /// Lists the files of Hippos on the machine; this work tree is, or was, mounted in its tree.
    fn left(&self) -> String {
        let top = workspace::root().display();
        format!("{LEFT} -not -path '{top}' -not -path '{top}/*'")
    }
}

/// A line for the machine's shell.
pub(super) fn ask(vm: &mut Vm, line: &str) -> Result<Vec<String>> {
    vm.ask_within(&format!("exec {line}"), LONG)
}

/// Has a stock client use the machine, over the network.
fn served(vm: &mut Vm) -> Result<()> {
    ask(vm, "systemctl is-active hippos.service && hippos-ctl flush")?;
    for test in client::TESTS {
        (test.run)(vm.port()).with_context(|| format!("a stock client: {}", test.name))?;
        ask(vm, "hippos-ctl flush")?;
    }
    Ok(())
}
