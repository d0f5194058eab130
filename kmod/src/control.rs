// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/hippos`: what `hippos-ctl` asks for.

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::uaccess::{UserPtr, UserSlice};

use hippos_abi::{Section, FLUSH, INFO, MEMORY, MEMORY_MIN, STATS, VERSION};
use hippos_engine::{Message, Next, Session, Transport};
use hippos_kapi::device::Calls;

use crate::buffer::Buffer;
use crate::server::Server;

/// The longest text of statistics.
const TEXT_MAX: usize = 4 << 20;

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
        let mut text = [0; 16];
        UserSlice::new(UserPtr::from_addr(argument), text.len())
            .reader()
            .read_slice(&mut text)?;
        let [s0, s1, s2, s3, l0, l1, l2, l3, address @ ..] = text;
        let section = Section::from_number(u32::from_ne_bytes([s0, s1, s2, s3])).ok_or(EINVAL)?;
        let room = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let address = u64::from_ne_bytes(address) as usize;
        let text = self.text(section)?;
        let text = text.bytes().strip_suffix(b"END\r\n").ok_or(EIO)?;
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

    /// What `stats` answers, with its last line.
    fn text(&self, section: Section) -> Result<Buffer> {
        let mut text = Buffer::new(16 << 10)?;
        let mut command = KVVec::new();
        for part in ["stats ", section.argument(), "\r\n"] {
            command.extend_from_slice(part.as_bytes(), GFP_KERNEL)?;
        }
        let mut session = Session::new(&self.server.engine, Transport::Tcp);
        let mut command = &command[..];
        loop {
            let fed = session.feed(command, &mut text);
            command = command.get(fed.consumed..).unwrap_or(&[]);
            match fed.next {
                Next::Write if text.len() > TEXT_MAX => return Err(E2BIG),
                Next::Write => text.grow()?,
                Next::Read | Next::Close => return Ok(text),
            }
        }
    }

    /// `hippos_abi::Flush`.
    fn flush(&self, argument: usize) -> Result {
        let mut delay = [0; 4];
        UserSlice::new(UserPtr::from_addr(argument), delay.len())
            .reader()
            .read_slice(&mut delay)?;
        self.server.engine.store.flush(u32::from_ne_bytes(delay));
        Ok(())
    }

    /// `hippos_abi::Memory`.
    fn memory(&self, argument: usize) -> Result {
        let mut bytes = [0; 8];
        UserSlice::new(UserPtr::from_addr(argument), bytes.len())
            .reader()
            .read_slice(&mut bytes)?;
        let bytes = u64::from_ne_bytes(bytes);
        if bytes < MEMORY_MIN || bytes / 2 < self.server.config.item_max as u64 {
            return Err(EINVAL);
        }
        if self.server.engine.store.resize(bytes as usize) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

impl Calls for Control {
    fn call(&self, number: u32, argument: usize) -> Result<isize> {
        match number {
            INFO => self.info(argument)?,
            STATS => self.stats(argument)?,
            FLUSH => self.flush(argument)?,
            MEMORY => self.memory(argument)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
