// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/hippos`: what `hippos-ctl` asks for.

use core::fmt::Write;

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::uaccess::{UserPtr, UserSlice};

use hippos_abi::{
    Section, ADMIN, ALLOW, ALLOW_ADD, ALLOW_REMOVE, ALLOW_SET, CREDENTIALS, FLUSH, FLUSH_DELAY_MAX,
    INFO, LIMITS, MEMORY, MEMORY_MIN, RANGES, SET_ADMIN, SET_LIMITS, SOURCES, STATS,
    UDP_DATAGRAMS_MAX, VERSION,
};
use hippos_engine::{
    Administration, Change, Malformed, Message, Next, Session, Unchanged, CREDENTIALS_MAX,
};
use hippos_kapi::device::Calls;

use crate::buffer::Buffer;
use crate::config::memory_most;
use crate::server::Server;

/// The longest text of statistics.
const TEXT_MAX: usize = 4 << 20;

/// The longest list of networks.
const TEXT_IN_MAX: usize = 4096;

// What the device's structures promise.
const _: () = {
    assert!(CREDENTIALS_MAX == hippos_abi::CREDENTIALS_MAX as usize);
    assert!(hippos_proto::udp::DATA_MAX == hippos_abi::UDP_BYTES_MIN as usize);
    assert!(hippos_proto::udp::DATAGRAM_MAX == hippos_abi::UDP_RATE_MIN as usize);
};

pub(crate) struct Control {
    server: Arc<Server>,
}

impl Control {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    /// `hippos_abi::Info`.
    fn info(&self, argument: usize) -> Result {
        let config = &self.server.config;
        let memory = self.server.engine.store.snapshot().limit as u64;
        let mut release = [0; 32];
        let version = self.server.engine.settings().version;
        for (to, from) in release.iter_mut().zip(version.bytes()) {
            *to = from;
        }
        let mut out = UserSlice::new(UserPtr::from_addr(argument), 48).writer();
        out.write_slice(&VERSION.to_ne_bytes())?;
        out.write_slice(&config.port.to_ne_bytes())?;
        out.write_slice(&0u16.to_ne_bytes())?;
        out.write_slice(&memory.to_ne_bytes())?;
        out.write_slice(&release)
    }

    /// `hippos_abi::Text`.
    fn stats(&self, argument: usize) -> Result {
        let (section, room, address) = text_argument(argument)?;
        let section = Section::from_number(section).ok_or(EINVAL)?;
        let text = self.text(section)?;
        let text = text.bytes().strip_suffix(b"END\r\n").ok_or(EIO)?;
        give(argument, room, address, text)
    }

    /// `hippos_abi::Text`: who may ask, a network a line. Out of line: the
    /// list takes a third of what a function may have of the stack.
    #[inline(never)]
    fn sources(&self, argument: usize) -> Result {
        let (_, room, address) = text_argument(argument)?;
        let mut text = Text(KVVec::new());
        for network in &self.server.engine.sources() {
            core::writeln!(text, "{network}").map_err(|_| ENOMEM)?;
        }
        give(argument, room, address, &text.0)
    }

    /// `hippos_abi::Input`: changes who may ask.
    fn allow(&self, argument: usize) -> Result {
        let (operation, text) = take(argument, TEXT_IN_MAX)?;
        let change = match operation {
            ALLOW_SET => Change::Set,
            ALLOW_ADD => Change::Add,
            ALLOW_REMOVE => Change::Remove,
            _ => return Err(EINVAL),
        };
        self.server
            .engine
            .change_sources(change, &text)
            .map_err(|why| match why {
                Unchanged::Malformed => EINVAL,
                Unchanged::Busy => EBUSY,
                Unchanged::Full => E2BIG,
                Unchanged::Missing => ENOENT,
                Unchanged::Nobody => ERANGE,
            })
    }

    /// `hippos_abi::Input`: who may log in.
    fn credentials(&self, argument: usize) -> Result {
        let (_, text) = take(argument, CREDENTIALS_MAX)?;
        self.server
            .engine
            .set_credentials(&text)
            .map_err(|why| match why {
                Malformed::Line => EINVAL,
                Malformed::TooLong => E2BIG,
                Malformed::Busy => EBUSY,
            })
    }

    /// `hippos_abi::Limits`, told.
    fn limits(&self, argument: usize) -> Result {
        let engine = &self.server.engine;
        let (bytes, datagrams) = engine.udp_limits();
        let (rate, private_rate) = engine.udp_rates();
        let mut out = UserSlice::new(UserPtr::from_addr(argument), 16).writer();
        for word in [bytes, datagrams, rate, private_rate] {
            out.write_slice(&word.to_ne_bytes())?;
        }
        Ok(())
    }

    /// `hippos_abi::Limits`, set.
    fn set_limits(&self, argument: usize) -> Result {
        let mut input = UserSlice::new(UserPtr::from_addr(argument), 16).reader();
        let mut words = [0u32; 4];
        for word in &mut words {
            let mut bytes = [0; 4];
            input.read_slice(&mut bytes)?;
            *word = u32::from_ne_bytes(bytes);
        }
        let [bytes, datagrams, rate, private_rate] = words;
        let engine = &self.server.engine;
        if datagrams > UDP_DATAGRAMS_MAX || !engine.set_udp_limits(bytes, datagrams) {
            return Err(EINVAL);
        }
        engine.set_udp_rates(rate, private_rate);
        Ok(())
    }

    /// What `stats` answers, with its last line.
    fn text(&self, section: Section) -> Result<Buffer> {
        let mut text = Buffer::new(16 << 10)?;
        let mut command = KVVec::new();
        for part in ["stats ", section.argument(), "\r\n"] {
            command.extend_from_slice(part.as_bytes(), GFP_KERNEL)?;
        }
        let mut session = Session::trusted(&self.server.engine);
        let mut command = &command[..];
        loop {
            let fed = session.feed(command, &mut text);
            command = command.get(fed.consumed..).unwrap_or(&[]);
            match fed.next {
                Next::Write if text.len() > TEXT_MAX => return Err(E2BIG),
                Next::Write => text.grow()?,
                Next::Read | Next::Later | Next::Close => return Ok(text),
            }
        }
    }

    /// `hippos_abi::Flush`.
    fn flush(&self, argument: usize) -> Result {
        let delay = word(argument)?;
        if delay > FLUSH_DELAY_MAX {
            return Err(EINVAL);
        }
        self.server.engine.store.flush(delay);
        Ok(())
    }

    /// `hippos_abi::Admin`, told.
    fn admin(&self, argument: usize) -> Result {
        let who = self.server.engine.administration() as u32;
        UserSlice::new(UserPtr::from_addr(argument), 4)
            .writer()
            .write_slice(&who.to_ne_bytes())
    }

    /// `hippos_abi::Admin`, set.
    fn set_admin(&self, argument: usize) -> Result {
        let who = Administration::from_number(word(argument)?).ok_or(EINVAL)?;
        self.server.engine.set_administration(who);
        Ok(())
    }

    /// `hippos_abi::Ranges`.
    fn ranges(&self, argument: usize) -> Result {
        let items = (self.server.config.store.item_max as u64).saturating_mul(2);
        let least = MEMORY_MIN.max(items);
        let most = memory_most().min(self.server.engine.store.memory_most() as u64);
        let mut out = UserSlice::new(UserPtr::from_addr(argument), 24).writer();
        out.write_slice(&least.to_ne_bytes())?;
        out.write_slice(&most.to_ne_bytes())?;
        out.write_slice(&self.server.config.params.udp_bytes.to_ne_bytes())?;
        out.write_slice(&0u32.to_ne_bytes())
    }

    /// `hippos_abi::Memory`.
    fn memory(&self, argument: usize) -> Result {
        let mut bytes = [0; 8];
        UserSlice::new(UserPtr::from_addr(argument), bytes.len())
            .reader()
            .read_slice(&mut bytes)?;
        let bytes = u64::from_ne_bytes(bytes);
        if bytes < MEMORY_MIN || bytes / 2 < self.server.config.store.item_max as u64 {
            return Err(EINVAL);
        }
        let most = memory_most();
        if bytes > most {
            pr_warn!(
                "a memory limit of {} MiB was asked for: at most {} on this machine\n",
                bytes >> 20,
                most >> 20
            );
            return Err(EINVAL);
        }
        if self.server.engine.set_memory(bytes as usize) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

/// A text that grows.
struct Text(KVVec<u8>);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> core::fmt::Result {
        self.0
            .extend_from_slice(part.as_bytes(), GFP_KERNEL)
            .map_err(|_| core::fmt::Error)
    }
}

/// A number.
fn word(argument: usize) -> Result<u32> {
    let mut word = [0; 4];
    UserSlice::new(UserPtr::from_addr(argument), word.len())
        .reader()
        .read_slice(&mut word)?;
    Ok(u32::from_ne_bytes(word))
}

/// Three words of an argument: two numbers and an address.
fn text_argument(argument: usize) -> Result<(u32, usize, usize)> {
    let mut text = [0; 16];
    UserSlice::new(UserPtr::from_addr(argument), text.len())
        .reader()
        .read_slice(&mut text)?;
    let [s0, s1, s2, s3, l0, l1, l2, l3, address @ ..] = text;
    let first = u32::from_ne_bytes([s0, s1, s2, s3]);
    let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    Ok((first, len, u64::from_ne_bytes(address) as usize))
}

/// Gives a text to whoever left `room` bytes at `address`.
fn give(argument: usize, room: usize, address: usize, text: &[u8]) -> Result {
    // The length alone lies four bytes into the structure.
    let at = argument.checked_add(4).ok_or(EFAULT)?;
    UserSlice::new(UserPtr::from_addr(at), 4)
        .writer()
        .write_slice(&(text.len() as u32).to_ne_bytes())?;
    if text.len() > room {
        return Err(ENOSPC);
    }
    UserSlice::new(UserPtr::from_addr(address), text.len())
        .writer()
        .write_slice(text)
}

/// Takes a number and a text of at most `most` bytes.
fn take(argument: usize, most: usize) -> Result<(u32, KVVec<u8>)> {
    let (number, len, address) = text_argument(argument)?;
    if len > most {
        return Err(E2BIG);
    }
    let mut text = KVVec::from_elem(0, len, GFP_KERNEL)?;
    UserSlice::new(UserPtr::from_addr(address), len)
        .reader()
        .read_slice(&mut text)?;
    Ok((number, text))
}

impl Calls for Control {
    fn call(&self, number: u32, argument: usize) -> Result<isize> {
        match number {
            INFO => self.info(argument)?,
            STATS => self.stats(argument)?,
            FLUSH => self.flush(argument)?,
            MEMORY => self.memory(argument)?,
            ALLOW => self.allow(argument)?,
            SOURCES => self.sources(argument)?,
            CREDENTIALS => self.credentials(argument)?,
            LIMITS => self.limits(argument)?,
            SET_LIMITS => self.set_limits(argument)?,
            ADMIN => self.admin(argument)?,
            SET_ADMIN => self.set_admin(argument)?,
            RANGES => self.ranges(argument)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
