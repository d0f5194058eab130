// SPDX-License-Identifier: GPL-2.0-only
//! `/dev/hippos`: the calls of `hippos-ctl`.

use core::fmt::Write;

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::uaccess::{UserPtr, UserSlice};

use hippos_abi::{
    Admin, ChangeLimits, ChangeSources, CloseConnections, Connections, Flush, GetAdmin, GetInfo,
    GetLimits, GetRanges, Info, Input, InputError, Latency, Limits, LimitsChange, Memory, Ranges,
    ReadSources, ReadStats, ReadVerify, Request, Reserved, Section, SetAdmin, SetCredentials,
    SetFlush, SetLatency, SetMemory, Structure, Text, ALLOW_ADD, ALLOW_REMOVE, ALLOW_SET,
    LATENCY_OFF, LATENCY_ON, LATENCY_RESET, LIMITS_BYTES, LIMITS_DATAGRAMS, LIMITS_PRIVATE_RATE,
    LIMITS_RATE, MEMORY_MIN, VERSION,
};
use hippos_engine::{
    Administration, ChangeError, CredentialsError, Message, Next, Session, SourcesChange,
    CREDENTIALS_MAX,
};
use hippos_invariant::{Exact, CHECKED};
use hippos_kapi::device::Calls;
use hippos_kapi::latency;

use crate::buffer::Buffer;
use crate::config::memory_max_settable;
use crate::server::{Server, Wanted, CONNECTIONS};

/// The longest text of statistics, without that of connections.
const TEXT_MAX: usize = 4 << 20;
/// The longest text of a connection in `stats conns`: some six lines with two addresses and two counts.
const CONNECTION_TEXT: usize = 448;

// The properties that the device's structures must have.
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

    fn info(&self) -> Info {
        let mut release = [0; 32];
        let version = self.server.engine.settings().version;
        for (to, from) in release.iter_mut().zip(version.bytes()) {
            *to = from;
        }
        Info {
            version: VERSION,
            port: self.server.config.port,
            reserved: Reserved,
            memory: self.server.engine.store.memory_limit() as u64,
            release,
        }
    }

    fn stats(&self, argument: usize) -> Result {
        let input = read::<ReadStats>(argument)?;
        let section = Section::from_number(input.section).ok_or(EINVAL)?;
        let text = self.text(section)?;
        let text = text.bytes();
        let ends: [&[u8]; 3] = [b"END\r\n", b"RESET\r\n", b"OK\r\n"];
        let text = ends.iter().find_map(|end| text.strip_suffix(*end));
        let text = text.ok_or(EIO)?;
        give::<ReadStats>(argument, input, text)
    }

    /// Out of line: the list uses a third of the stack that a function may use.
    #[inline(never)]
    fn sources(&self, argument: usize) -> Result {
        let input = read::<ReadSources>(argument)?;
        let mut text = GrowingText(KVVec::new());
        for network in &self.server.engine.sources() {
            core::writeln!(text, "{network}").map_err(|_| ENOMEM)?;
        }
        give::<ReadSources>(argument, input, &text.0)
    }

    /// Called only where [`CHECKED`] is true; otherwise its code is not in the module.
    #[inline(never)]
    fn verify(&self, argument: usize) -> Result {
        let input = read::<ReadVerify>(argument)?;
        let mut text = GrowingText(KVVec::new());
        let result = {
            let _maintaining = self.server.lock_maintenance();
            self.server.engine.store.verify()
        };
        match &result {
            Ok(census) => core::writeln!(text, "{census}"),
            Err(violation) => core::writeln!(text, "{violation}"),
        }
        .map_err(|_| ENOMEM)?;
        if result.is_err() {
            let text = core::str::from_utf8(&text.0).unwrap_or_default();
            pr_err!("the store is inconsistent: {text}");
        }
        give::<ReadVerify>(argument, input, &text.0)
    }

    fn allow(&self, input: Input) -> Result {
        let change = match input.operation {
            ALLOW_SET => SourcesChange::Set,
            ALLOW_ADD => SourcesChange::Add,
            ALLOW_REMOVE => SourcesChange::Remove,
            _ => return Err(EINVAL),
        };
        self.server
            .engine
            .change_sources(change, &take(input)?)
            .map_err(|why| match why {
                ChangeError::Malformed => EINVAL,
                ChangeError::Busy => EBUSY,
                ChangeError::Full => E2BIG,
                ChangeError::Missing => ENOENT,
                ChangeError::NoneLeft => ERANGE,
            })
    }

    fn credentials(&self, input: Input) -> Result {
        self.server
            .engine
            .set_credentials(&take(input)?)
            .map_err(|why| match why {
                CredentialsError::Line => EINVAL,
                CredentialsError::TooLong => E2BIG,
                CredentialsError::Busy => EBUSY,
            })
    }

    fn limits(&self) -> Limits {
        let engine = &self.server.engine;
        let (udp_bytes, udp_datagrams) = engine.udp_limits();
        let (udp_rate, udp_private_rate) = engine.udp_rates();
        Limits {
            udp_bytes,
            udp_datagrams,
            udp_rate,
            udp_private_rate,
        }
    }

    fn change_limits(&self, change: LimitsChange) -> Result {
        let engine = &self.server.engine;
        let (bytes, datagrams) = (change.of(LIMITS_BYTES), change.of(LIMITS_DATAGRAMS));
        if !engine.change_udp_limits(bytes, datagrams) {
            return Err(EINVAL);
        }
        engine.change_udp_rates(change.of(LIMITS_RATE), change.of(LIMITS_PRIVATE_RATE));
        Ok(())
    }

    /// The reply to `stats`, with its last line.
    fn text(&self, section: Section) -> Result<Buffer> {
        let mut text = Buffer::new(16 << 10)?;
        let mut command = KVVec::new();
        for part in ["stats ", section.argument(), "\r\n"] {
            command.extend_from_slice(part.as_bytes(), GFP_KERNEL)?;
        }
        let most = self.server.engine.settings().max_connections as usize;
        let most = TEXT_MAX.add_exact(most.mul_exact(CONNECTION_TEXT));
        let mut session = Session::owner(&self.server.engine);
        let mut command = &command[..];
        loop {
            let fed = session.feed(command, &mut text);
            command = command.get(fed.consumed..).unwrap_or(&[]);
            match fed.next {
                Next::Write if text.len() > most => return Err(E2BIG),
                Next::Write => text.grow()?,
                Next::Read | Next::Park | Next::Watch | Next::Close => return Ok(text),
            }
        }
    }

    fn admin(&self) -> Admin {
        Admin {
            who: self.server.engine.administration().number(),
        }
    }

    fn set_admin(&self, admin: Admin) -> Result {
        let who = Administration::from_number(admin.who).ok_or(EINVAL)?;
        self.server.engine.set_administration(who);
        Ok(())
    }

    fn set_latency(&self, Latency { action }: Latency) -> Result {
        match action {
            LATENCY_OFF => latency::set(false),
            LATENCY_ON => latency::set(true),
            LATENCY_RESET => self.server.engine.reset_times(),
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    fn close_connections(argument: usize) -> Result {
        let input = read::<CloseConnections>(argument)?;
        let wanted = Wanted {
            peer: (input.by_address != 0).then_some((input.address, input.port)),
            idle: input.idle,
        };
        let count = CONNECTIONS.shut_down(&wanted);
        write::<CloseConnections>(argument, Connections { count, ..input })
    }

    fn ranges(&self) -> Ranges {
        let items = (self.server.config.store.item_max as u64).mul_exact(2);
        Ranges {
            memory_least: MEMORY_MIN.max(items),
            memory_most: memory_max_settable()
                .min(self.server.engine.store.memory_max_settable() as u64),
            udp_bytes_most: self.server.config.params.udp_bytes,
            reserved: Reserved,
        }
    }

    fn set_memory(&self, Memory { bytes }: Memory) -> Result {
        if bytes / 2 < self.server.config.store.item_max as u64 {
            return Err(EINVAL);
        }
        let most = memory_max_settable();
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
struct GrowingText(KVVec<u8>);

impl Write for GrowingText {
    fn write_str(&mut self, part: &str) -> core::fmt::Result {
        self.0
            .extend_from_slice(part.as_bytes(), GFP_KERNEL)
            .map_err(|_| core::fmt::Error)
    }
}

/// Reads the caller's structure and checks it.
fn read<R: Request>(argument: usize) -> Result<R::In> {
    let mut bytes = R::In::ZEROED;
    UserSlice::new(UserPtr::from_addr(argument), R::In::SIZE)
        .reader()
        .read_slice(bytes.as_mut())?;
    R::accept(bytes.as_ref()).map_err(|refused| match refused {
        InputError::Invalid => EINVAL,
        InputError::TooLong => E2BIG,
    })
}

/// Writes the caller's structure.
fn write<R: Request>(argument: usize, out: R::Out) -> Result {
    UserSlice::new(UserPtr::from_addr(argument), R::Out::SIZE)
        .writer()
        .write_slice(out.encode().as_ref())
}

/// Writes a text into the caller's buffer, and its length into the structure.
fn give<R: Request<Out = Text>>(argument: usize, input: Text, text: &[u8]) -> Result {
    let len = text.len() as u32;
    write::<R>(argument, Text { len, ..input })?;
    if len > input.len {
        return Err(ENOSPC);
    }
    UserSlice::new(UserPtr::from_addr(input.address.0 as usize), text.len())
        .writer()
        .write_slice(text)
}

/// Reads a text, whose length was checked, from the caller's buffer.
fn take(input: Input) -> Result<KVVec<u8>> {
    let len = input.len as usize;
    let mut text = KVVec::from_elem(0, len, GFP_KERNEL)?;
    UserSlice::new(UserPtr::from_addr(input.address.0 as usize), len)
        .reader()
        .read_slice(&mut text)?;
    Ok(text)
}

impl Calls for Control {
    fn call(&self, number: u32, argument: usize) -> Result<isize> {
        match number {
            GetInfo::NUMBER => write::<GetInfo>(argument, self.info())?,
            ReadStats::NUMBER => self.stats(argument)?,
            SetFlush::NUMBER => {
                let Flush { delay } = read::<SetFlush>(argument)?;
                self.server.engine.store.flush(delay);
            }
            SetMemory::NUMBER => self.set_memory(read::<SetMemory>(argument)?)?,
            ChangeSources::NUMBER => self.allow(read::<ChangeSources>(argument)?)?,
            ReadSources::NUMBER => self.sources(argument)?,
            SetCredentials::NUMBER => self.credentials(read::<SetCredentials>(argument)?)?,
            GetLimits::NUMBER => write::<GetLimits>(argument, self.limits())?,
            ChangeLimits::NUMBER => self.change_limits(read::<ChangeLimits>(argument)?)?,
            GetAdmin::NUMBER => write::<GetAdmin>(argument, self.admin())?,
            SetAdmin::NUMBER => self.set_admin(read::<SetAdmin>(argument)?)?,
            SetLatency::NUMBER => self.set_latency(read::<SetLatency>(argument)?)?,
            CloseConnections::NUMBER => Self::close_connections(argument)?,
            GetRanges::NUMBER => write::<GetRanges>(argument, self.ranges())?,
            ReadVerify::NUMBER if CHECKED => self.verify(argument)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
