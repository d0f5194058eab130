//! The control device: one method per call of `hippos_abi`.
//!
//! The only unsafe code of the tool is here: each ioctl with the structure
//! that its number was made for.

use anyhow::{bail, Context, Result};
use hippos_abi::{Flush, Info, Memory, Section, Text};
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
        let mut buffer = vec![0u8; 16 << 10];
        // The text may grow between two calls, so a few rounds are normal.
        for _ in 0..8 {
            let mut text = Text {
                section: section as u32,
                len: buffer.len() as u32,
                address: buffer.as_mut_ptr() as u64,
            };
            // SAFETY: the number was made for `Text`; its address and length are those of
            // `buffer`, which lives across the call and is not otherwise used meanwhile.
            match unsafe { call::stats(self.file.as_raw_fd(), &mut text) } {
                Ok(_) => {
                    buffer.truncate(text.len as usize);
                    return String::from_utf8(buffer).context("the module's text is not UTF-8");
                }
                Err(Errno::ENOSPC) => buffer.resize(text.len as usize + (4 << 10), 0),
                Err(e) => return Err(e).context("asking for statistics"),
            }
        }
        bail!("the statistics grow faster than they can be read")
    }

    /// Forgets all items, `delay` seconds from now.
    pub(crate) fn flush(&self, delay: u32) -> Result<()> {
        // SAFETY: the number was made for `Flush`, which the module only reads.
        unsafe { call::flush(self.file.as_raw_fd(), &Flush { delay }) }.context("flushing")?;
        Ok(())
    }

    /// Sets the memory limit, bytes.
    pub(crate) fn set_memory(&self, bytes: u64) -> Result<()> {
        // SAFETY: the number was made for `Memory`, which the module only reads.
        unsafe { call::memory(self.file.as_raw_fd(), &Memory { bytes }) }
            .context("setting the memory limit")?;
        Ok(())
    }
}
