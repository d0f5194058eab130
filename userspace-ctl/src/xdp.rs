// SPDX-License-Identifier: GPL-2.0-only
//! The XDP receive path: the program on an interface, as a link that outlives this command.
//!
//! The link is pinned as `/sys/fs/bpf/hippos/INTERFACE`; removing that file detaches the program.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{anyhow, bail, ensure, Context, Result};
use libbpf_rs::libbpf_sys::{self, bpf_link_create_opts};
use libbpf_rs::{set_print, Link, Object, ObjectBuilder, PrintLevel, Xdp, XdpFlags};
use nix::errno::Errno;

use crate::exit::end;
use crate::system::PINS;
use crate::XdpMode;

/// The program, compiled by build.rs.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hippos.bpf.o"));
/// The parameters that the module was loaded with.
const PARAMETERS: &str = "/sys/module/hippos/parameters";
/// The kernel's description of the module's types.
const BTF: &str = "/sys/kernel/btf/hippos";

/// Attaches the program to `interface`. Returns the mode that it runs in.
pub(crate) fn attach(interface: &str, mode: XdpMode) -> Result<&'static str> {
    let index = index(interface)?;
    let pin = pin(interface)?;
    ensure!(!pin.exists(), "{interface} has it already");
    if !Path::new(PARAMETERS).exists() {
        end!(NotLoaded, "the module is not loaded");
    }
    ensure!(
        Path::new(BTF).exists(),
        "the module has no type information ({BTF} is not there): build it beside the kernel's \
         vmlinux, or have the PRE_ROUTING hook serve"
    );
    for parameter in ["udp", "udp_fast"] {
        let value = fs::read_to_string(Path::new(PARAMETERS).join(parameter)).unwrap_or_default();
        ensure!(
            !matches!(value.trim(), "N" | "n" | "0" | "off"),
            "the module was loaded with {parameter}=0, and answers nothing by XDP"
        );
    }
    ensure!(
        !is_upper(interface),
        "{interface} is on top of other interfaces (a bridge, a bond, macvlan): XDP can't see there to which VLAN a \
         frame belongs, and answers none; the PRE_ROUTING hook serves it"
    );
    fs::create_dir_all(PINS).with_context(|| {
        format!("{PINS} cannot be made: is a BPF file system mounted there? (mount -t bpf bpf /sys/fs/bpf)")
    })?;
    let object = load()?;
    let program = object
        .progs()
        .next()
        .context("the object holds no program")?;
    let modes: &[AttachMode] = match mode {
        // Native mode on virtual interfaces has undocumented conditions (veth loses replies unless its other end has a
        // program too), and is hardly faster.
        XdpMode::Auto if !is_card(interface) => &[GENERIC],
        XdpMode::Auto => &[NATIVE, GENERIC],
        XdpMode::Native => &[NATIVE],
        XdpMode::Generic => &[GENERIC],
    };
    let mut refused = None;
    for tried in modes {
        match link(program.as_fd(), index, tried.flags) {
            Ok(link) => {
                if let Err(error) = pinned(&link, &pin) {
                    bail!("{}: {error}", pin.display());
                }
                return Ok(tried.name);
            }
            Err(Errno::EPERM | Errno::EACCES) => {
                end!(NoPermission, "only root may attach an XDP program")
            }
            Err(Errno::EBUSY | Errno::EEXIST) => {
                end!(
                    Refused,
                    "another XDP program holds {interface} (see ip link show {interface})"
                )
            }
            Err(error) => refused = Some((tried, error)),
        }
    }
    let (tried, error) = refused.context("no mode was tried")?;
    if mode == XdpMode::Native {
        end!(
            Refused,
            "{interface}: its driver takes no native program here ({error}); what it asks for stands \
             in the kernel log. --mode generic works on every interface, for less"
        );
    }
    end!(
        Refused,
        "{interface} takes no {} program: {error}",
        tried.name
    )
}

/// Detaches the program from `interface`; it processes no frame any more.
pub(crate) fn detach(interface: &str) -> Result<()> {
    let pin = pin(interface)?;
    if !pin.exists() {
        bail!("{interface} has no program of ours");
    }
    // If only the pin were removed, the link would end a little later. The link of an interface that was removed is
    // detached already.
    let gone = Link::open(&pin).and_then(|link| link.detach());
    fs::remove_file(&pin).with_context(|| pin.display().to_string())?;
    match gone {
        Err(error) if index(interface).is_ok() => Err(error).context("the link does not detach"),
        _ => Ok(()),
    }
}

/// The interfaces with the program, and its mode on each.
pub(crate) fn status() -> Result<Vec<(String, &'static str)>> {
    let mut all = Vec::new();
    for interface in interfaces()? {
        let mode = match index(&interface) {
            Ok(index) => running(index)?,
            // The interface was removed together with its link; only the name is left.
            Err(_) => "gone",
        };
        all.push((interface, mode));
    }
    Ok(all)
}

/// The interfaces with the program.
pub(crate) fn interfaces() -> Result<Vec<String>> {
    let entries = match fs::read_dir(PINS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(PINS),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

struct AttachMode {
    name: &'static str,
    flags: u32,
}

const NATIVE: AttachMode = AttachMode {
    name: "native",
    flags: libbpf_sys::XDP_FLAGS_DRV_MODE,
};
const GENERIC: AttachMode = AttachMode {
    name: "generic",
    flags: libbpf_sys::XDP_FLAGS_SKB_MODE,
};

/// The interfaces and what they are.
const INTERFACES: &str = "/sys/class/net";

/// Whether the interface is a hardware device, not only a virtual one.
fn is_card(interface: &str) -> bool {
    Path::new(INTERFACES)
        .join(interface)
        .join("device")
        .exists()
}

/// Whether the interface is on top of others, and no VLAN's: the module passes all of its frames (`is_upper` of
/// kmod/c/frame.h).
fn is_upper(interface: &str) -> bool {
    let folder = Path::new(INTERFACES).join(interface);
    let kind = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let lower = entries
        .map(|entry| entry.file_name())
        .any(|name| name.as_encoded_bytes().starts_with(b"lower_"));
    lower && !kind.lines().any(|line| line == "DEVTYPE=vlan")
}

fn running(index: i32) -> Result<&'static str> {
    let stdin = std::io::stdin();
    let found = Xdp::new(stdin.as_fd()).query(index, XdpFlags::NONE)?;
    Ok(match u32::from(found.attach_mode) {
        libbpf_sys::XDP_ATTACHED_DRV => NATIVE.name,
        libbpf_sys::XDP_ATTACHED_SKB => GENERIC.name,
        libbpf_sys::XDP_ATTACHED_NONE => "not attached",
        _ => "with others",
    })
}

fn index(interface: &str) -> Result<i32> {
    let index = nix::net::if_::if_nametoindex(interface)
        .map_err(|error| anyhow!("no interface {interface}: {error}"))?;
    Ok(i32::try_from(index)?)
}

fn pin(interface: &str) -> Result<PathBuf> {
    ensure!(
        !interface.is_empty() && !interface.contains('/') && !interface.starts_with('.'),
        "{interface:?} is no interface's name"
    );
    Ok(Path::new(PINS).join(interface))
}

fn load() -> Result<Object> {
    static MESSAGES: Mutex<String> = Mutex::new(String::new());
    set_print(Some((PrintLevel::Warn, |_, text| {
        if let Ok(mut messages) = MESSAGES.lock() {
            messages.push_str(&text);
        }
    })));
    let loaded = ObjectBuilder::default()
        .open_memory(PROGRAM)
        .and_then(|open| open.load());
    if matches!(&loaded, Err(error) if error.kind() == libbpf_rs::ErrorKind::PermissionDenied) {
        end!(NoPermission, "only root may attach an XDP program");
    }
    loaded.with_context(|| {
        let messages = MESSAGES
            .lock()
            .map(|messages| messages.clone())
            .unwrap_or_default();
        format!(
            "the kernel does not take the program\n{}",
            messages.trim_end()
        )
    })
}

fn link(program: std::os::fd::BorrowedFd<'_>, index: i32, flags: u32) -> Result<OwnedFd, Errno> {
    let options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..bpf_link_create_opts::default()
    };
    // SAFETY: the options have the size that they state and are valid during the call.
    let link = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), index, libbpf_sys::BPF_XDP, &options)
    };
    if link < 0 {
        return Err(Errno::from_raw(-link));
    }
    // SAFETY: the kernel has just created this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

fn pinned(link: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let path =
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is a C string that is valid during the call.
    match unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) } {
        0 => Ok(()),
        error => Err(Errno::from_raw(-error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(pin("eth0").is_ok());
        for bad in ["", "..", "a/b", "."] {
            assert!(pin(bad).is_err(), "{bad}");
        }
    }
}
