// SPDX-License-Identifier: GPL-2.0-only
//! The control device: one method per call of `hippos_abi`.
//!
//! The only unsafe code of the tool is here: each ioctl with the structure
//! that its number was made for.

use anyhow::{bail, Context, Result};
use hippos_abi::{Admin, Flush, Info, Input, Limits, Memory, Ranges, Section, Text};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;

mod call {
    use super::*;

    // `nix` takes the request as the C library's type.
    nix::ioctl_read_bad!(info, hippos_abi::INFO as nix::libc::Ioctl, Info);
    nix::ioctl_readwrite_bad!(stats, hippos_abi::STATS as nix::libc::Ioctl, Text);
    nix::ioctl_write_ptr_bad!(flush, hippos_abi::FLUSH as nix::libc::Ioctl, Flush);
    nix::ioctl_write_ptr_bad!(memory, hippos_abi::MEMORY as nix::libc::Ioctl, Memory);
    nix::ioctl_write_ptr_bad!(allow, hippos_abi::ALLOW as nix::libc::Ioctl, Input);
    nix::ioctl_readwrite_bad!(sources, hippos_abi::SOURCES as nix::libc::Ioctl, Text);
    nix::ioctl_write_ptr_bad!(
        credentials,
        hippos_abi::CREDENTIALS as nix::libc::Ioctl,
        Input
    );
    nix::ioctl_read_bad!(limits, hippos_abi::LIMITS as nix::libc::Ioctl, Limits);
    nix::ioctl_write_ptr_bad!(
        set_limits,
        hippos_abi::SET_LIMITS as nix::libc::Ioctl,
        Limits
    );
    nix::ioctl_read_bad!(admin, hippos_abi::ADMIN as nix::libc::Ioctl, Admin);
    nix::ioctl_write_ptr_bad!(set_admin, hippos_abi::SET_ADMIN as nix::libc::Ioctl, Admin);
    nix::ioctl_read_bad!(ranges, hippos_abi::RANGES as nix::libc::Ioctl, Ranges);
}

/// An open `/dev/hippos` of a module that speaks this tool's version.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    info: Info,
}

impl Device {
    /// Opens the device and checks that both sides speak the same version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => bail!(
                "{} is not there: is the module loaded? (insmod hippos.ko)",
                path.display()
            ),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                bail!("{}: only root may use it: {e}", path.display())
            }
            Err(e) => return Err(e).with_context(|| format!("can't open {}", path.display())),
        };
        let mut info = Info::default();
        // SAFETY: the number was made for `Info`, and `info` is one that lives across the call.
        match unsafe { call::info(file.as_raw_fd(), &mut info) } {
            Ok(_) => {}
            Err(Errno::ENOTTY) => bail!("{} is not a Hippos control device", path.display()),
            Err(e) => {
                return Err(e).with_context(|| format!("{}: no answer", path.display()));
            }
        }
        if info.version != hippos_abi::VERSION {
            bail!(
                "the loaded module speaks version {} of the control interface, this tool {}: \
                 use the hippos-ctl that was built with the module",
                info.version,
                hippos_abi::VERSION
            );
        }
        Ok(Self { file, info })
    }

    /// What the module said of itself when the device was opened.
    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// One of the `stats` texts.
    pub(crate) fn stats(&self, section: Section) -> Result<String> {
        self.text(|text| {
            text.section = section as u32;
            // SAFETY: the number was made for `Text`; its address and length are those of a
            // buffer that lives across the call and is not otherwise used meanwhile.
            unsafe { call::stats(self.file.as_raw_fd(), text) }
        })
        .context("asking for statistics")
    }

    /// Who may ask, a network a line.
    pub(crate) fn sources(&self) -> Result<String> {
        // SAFETY: as above.
        self.text(|text| unsafe { call::sources(self.file.as_raw_fd(), text) })
            .context("asking who may ask")
    }

    /// What `call` writes into the buffer that it gets.
    fn text(&self, call: impl Fn(&mut Text) -> nix::Result<i32>) -> Result<String> {
        let mut buffer = vec![0u8; 16 << 10];
        // The text may grow between two calls, so a few rounds are normal.
        for _ in 0..8 {
            let mut text = Text {
                section: 0,
                len: buffer.len() as u32,
                address: buffer.as_mut_ptr() as u64,
            };
            match call(&mut text) {
                Ok(_) => {
                    buffer.truncate(text.len as usize);
                    return String::from_utf8(buffer).context("the module's text is not UTF-8");
                }
                Err(Errno::ENOSPC) => buffer.resize(text.len as usize + (4 << 10), 0),
                Err(e) => return Err(e.into()),
            }
        }
        bail!("the text grows faster than it can be read")
    }

    /// Forgets all items, `delay` seconds from now.
    pub(crate) fn flush(&self, delay: u32) -> Result<()> {
        // SAFETY: the number was made for `Flush`, which the module only reads.
        unsafe { call::flush(self.file.as_raw_fd(), &Flush { delay }) }.context("flushing")?;
        Ok(())
    }

    /// Changes who may ask: `operation` is one of `hippos_abi`'s.
    pub(crate) fn allow(&self, operation: u32, networks: &str) -> Result<()> {
        let input = input(operation, networks.as_bytes())?;
        // SAFETY: the number was made for `Input`; its address and length are those of a text
        // that lives across the call, and the module only reads.
        match unsafe { call::allow(self.file.as_raw_fd(), &input) } {
            Ok(_) => Ok(()),
            Err(Errno::EINVAL) => {
                bail!("{networks}: must be any, default, or networks like 10.0.0.0/8,fd00::/8")
            }
            Err(Errno::ERANGE) => bail!(
                "{networks}: no network would be left, and nobody but this host could ask; add those \
                 that may first, or replace all with `allow set`"
            ),
            Err(Errno::E2BIG) => bail!("that would be more networks than the list has room for"),
            Err(Errno::ENOENT) => bail!("{networks}: not all of that is in the list"),
            Err(e) => Err(e).context("changing who may ask"),
        }
    }

    /// Sets who may log in: lines like `user:password`, or nothing.
    pub(crate) fn set_credentials(&self, lines: &[u8]) -> Result<()> {
        let input = input(0, lines)?;
        // SAFETY: as above.
        match unsafe { call::credentials(self.file.as_raw_fd(), &input) } {
            Ok(_) => Ok(()),
            Err(Errno::EINVAL) => bail!("each line must be like user:password"),
            Err(Errno::E2BIG) => bail!("more than the module has room for (2048 bytes)"),
            Err(e) => Err(e).context("setting who may log in"),
        }
    }

    /// What UDP sources get.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        // SAFETY: the number was made for `Limits`, and `limits` is one that lives across the call.
        unsafe { call::limits(self.file.as_raw_fd(), &mut limits) }.context("asking for limits")?;
        Ok(limits)
    }

    /// Sets what UDP sources get.
    pub(crate) fn set_limits(&self, limits: &Limits) -> Result<()> {
        // SAFETY: the number was made for `Limits`, which the module only reads.
        match unsafe { call::set_limits(self.file.as_raw_fd(), limits) } {
            Ok(_) => Ok(()),
            Err(Errno::EINVAL) => bail!(
                "a reply has 1392 bytes at least, one datagram, and at most the bytes that the \
                 module was loaded with (udp_bytes=)"
            ),
            Err(e) => Err(e).context("setting limits"),
        }
    }

    /// Which clients may use administration commands: one of `hippos_abi`'s numbers.
    pub(crate) fn admin(&self) -> Result<u32> {
        let mut admin = Admin::default();
        // SAFETY: the number was made for `Admin`, and `admin` is one that lives across the call.
        unsafe { call::admin(self.file.as_raw_fd(), &mut admin) }
            .context("asking who may use administration commands")?;
        Ok(admin.who)
    }

    /// Sets it.
    pub(crate) fn set_admin(&self, who: u32) -> Result<()> {
        // SAFETY: the number was made for `Admin`, which the module only reads.
        unsafe { call::set_admin(self.file.as_raw_fd(), &Admin { who }) }
            .context("setting who may use administration commands")?;
        Ok(())
    }

    /// What may be set.
    pub(crate) fn ranges(&self) -> Result<Ranges> {
        let mut ranges = Ranges::default();
        // SAFETY: the number was made for `Ranges`, and `ranges` is one that lives across the call.
        unsafe { call::ranges(self.file.as_raw_fd(), &mut ranges) }
            .context("asking what may be set")?;
        Ok(ranges)
    }

    /// Sets the memory limit, bytes.
    pub(crate) fn set_memory(&self, bytes: u64) -> Result<()> {
        // SAFETY: the number was made for `Memory`, which the module only reads.
        unsafe { call::memory(self.file.as_raw_fd(), &Memory { bytes }) }
            .context("setting the memory limit")?;
        Ok(())
    }
}

/// A text for the module. The text must live until the module has read it.
fn input(operation: u32, text: &[u8]) -> Result<Input> {
    Ok(Input {
        operation,
        len: u32::try_from(text.len()).context("too long")?,
        address: text.as_ptr() as u64,
    })
}
