// SPDX-License-Identifier: GPL-2.0-only
//! The control device and the calls of `hippos_abi`.
//!
//! The only unsafe code of the tool is here: `ioctl(2)`.

use anyhow::{bail, Context, Result};
use hippos_abi::{
    Address, ChangeLimits, ChangeSources, GetInfo, Info, Input, LimitsChange, ReadSources,
    ReadStats, ReadVerify, Request, Section, SetCredentials, Structure, Text, ARGUMENT_MAX,
};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::exit::end;

/// Makes a call; returns what the module wrote, even if the call failed.
///
/// # Safety
///
/// The input's address and length, if it has them, are those of a buffer that is valid during the call, is not used
/// otherwise meanwhile, and may be written if the output is a [`Text`].
unsafe fn ioctl<R: Request>(file: &File, input: &R::In) -> (nix::Result<()>, R::Out) {
    let mut argument = [0u8; ARGUMENT_MAX];
    argument[..R::In::SIZE].copy_from_slice(input.encode().as_ref());
    // SAFETY: the module reads and writes as many bytes there as the size in the number, which is at most
    // `ARGUMENT_MAX`; the caller promises the rest.
    let result = unsafe {
        // The C library's type of the number.
        let number = R::NUMBER as nix::libc::Ioctl;
        nix::libc::ioctl(file.as_raw_fd(), number, argument.as_mut_ptr())
    };
    let output = R::Out::decode(&argument[..R::Out::SIZE]).expect("as many bytes as it has");
    (Errno::result(result).map(drop), output)
}

/// Makes a call without a buffer.
fn call<R: Request>(file: &File, input: &R::In) -> nix::Result<R::Out> {
    const { assert!(!R::In::HAS_ADDRESS && !R::Out::HAS_ADDRESS) };
    // SAFETY: the input has no address.
    let (result, output) = unsafe { ioctl::<R>(file, input) };
    result.map(|()| output)
}

/// An open `/dev/hippos` of a module with this tool's version of the interface.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    info: Info,
}

impl Device {
    /// Opens the device and checks that both sides have the same version of the interface.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => end!(
                NotLoaded,
                "{} is not there: is the module loaded? (hippos-ctl start, or insmod hippos.ko)",
                path.display()
            ),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                end!(
                    NoPermission,
                    "{}: only root may use it: {e}",
                    path.display()
                )
            }
            Err(e) => return Err(e).with_context(|| format!("can't open {}", path.display())),
        };
        let info = match call::<GetInfo>(&file, &()) {
            Ok(info) => info,
            Err(Errno::ENOTTY) => bail!("{} is not a Hippos control device", path.display()),
            Err(e) => {
                return Err(e).with_context(|| format!("{}: no answer", path.display()));
            }
        };
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

    /// The module's description, read when the device was opened.
    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Makes a call without a buffer.
    pub(crate) fn call<R: Request>(&self, input: &R::In) -> Result<R::Out> {
        call::<R>(&self.file, input).context(R::TITLE)
    }

    /// One of the `stats` texts.
    pub(crate) fn stats(&self, section: Section) -> Result<String> {
        self.read::<ReadStats>(section as u32)
    }

    /// The allow list, one network per line.
    pub(crate) fn sources(&self) -> Result<String> {
        self.read::<ReadSources>(0)
    }

    /// The result of comparing the store with its memory, from a module for the debug kernel.
    pub(crate) fn verify(&self) -> Result<String> {
        self.read::<ReadVerify>(0)
    }

    /// Reads a text that the module writes.
    fn read<R: Request<In = Text, Out = Text>>(&self, section: u32) -> Result<String> {
        let mut buffer = vec![0u8; 16 << 10];
        // The text may grow between two calls, so a few rounds are normal.
        for _ in 0..8 {
            let input = Text {
                section,
                len: u32::try_from(buffer.len()).context("too long")?,
                address: Address(buffer.as_mut_ptr() as u64),
            };
            // SAFETY: the address and the length are those of `buffer`.
            let (result, text) = unsafe { ioctl::<R>(&self.file, &input) };
            match result {
                Ok(()) => {
                    buffer.truncate(text.len as usize);
                    // Prefixes of keys may be any bytes.
                    return Ok(String::from_utf8_lossy(&buffer).into_owned());
                }
                Err(Errno::ENOSPC) => buffer.resize(text.len as usize + (4 << 10), 0),
                Err(e) => return Err(e).context(R::TITLE),
            }
        }
        bail!("the text grows faster than it can be read")
    }

    /// Sends a text to the module.
    fn write<R: Request<In = Input, Out = ()>>(
        &self,
        operation: u32,
        text: &[u8],
    ) -> Result<nix::Result<()>> {
        let input = Input {
            operation,
            len: u32::try_from(text.len()).context("too long")?,
            address: Address(text.as_ptr() as u64),
        };
        // SAFETY: the address and the length are those of `text`, which the module only reads.
        let (result, ()) = unsafe { ioctl::<R>(&self.file, &input) };
        Ok(result)
    }

    /// Changes the allow list: `operation` is one of `hippos_abi`'s.
    pub(crate) fn allow(&self, operation: u32, networks: &str) -> Result<()> {
        match self.write::<ChangeSources>(operation, networks.as_bytes())? {
            Ok(()) => Ok(()),
            Err(Errno::EINVAL) => {
                end!(Refused, "{networks}: must be any, default, or networks like 10.0.0.0/8,fd00::/8")
            }
            Err(Errno::ERANGE) => end!(Refused, "{networks}: no network would be left, and only this host would be served; add others first, or replace all with `allow set`"
            ),
            Err(Errno::E2BIG) => end!(Refused, "that would be more networks than the list can hold"),
            Err(Errno::ENOENT) => end!(Refused, "{networks}: not all of that is in the list"),
            Err(e) => Err(e).context(ChangeSources::TITLE),
        }
    }

    /// Sets the users: lines like `user:password`, or none.
    pub(crate) fn set_credentials(&self, lines: &[u8]) -> Result<()> {
        match self.write::<SetCredentials>(0, lines)? {
            Ok(()) => Ok(()),
            Err(Errno::EINVAL) => end!(Refused, "each line must be like user:password"),
            Err(Errno::E2BIG) => end!(Refused, "more than the module can hold (2048 bytes)"),
            Err(e) => Err(e).context(SetCredentials::TITLE),
        }
    }

    /// Sets some limits of UDP sources.
    pub(crate) fn change_limits(&self, change: &LimitsChange) -> Result<()> {
        match call::<ChangeLimits>(&self.file, change) {
            Ok(()) => Ok(()),
            Err(Errno::EINVAL) => end!(
                Refused,
                "a reply has 1392 bytes at least, one datagram, and at most the bytes that the \
                 module was loaded with (udp_bytes=)"
            ),
            Err(e) => Err(e).context(ChangeLimits::TITLE),
        }
    }
}
