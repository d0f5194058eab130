// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! The interface between the module and its tools: the calls of `/dev/hippos`, and the module's [`parameters`].
//!
//! The device answers `ioctl(2)` only. Each call is a [`Request`]: a number made as in the kernel's
//! `include/uapi/asm-generic/ioctl.h`, a structure that the module reads, and one that it writes to the same address.
//! Longer texts pass through a buffer of the caller's, to which the structure points. The module and `hippos-ctl` both
//! use this crate to encode and decode them; [`VERSION`] lets a tool detect a module of another build.
//!
//! Errors are the usual ones: `ENOTTY` for an unknown number, `EFAULT` for
//! a bad pointer, `EINVAL` for a value out of range, `E2BIG` for a text that
//! is too long, `ENOSPC` for a buffer that is too small (its needed size is
//! written back).
#![no_std]
#![forbid(unsafe_code)]

pub mod log_line;
pub mod parameters;
mod structure;

pub use hippos_semantics::{Administration, MEMORY_MIN, NETWORKS_MAX};
use structure::{structures, Field};
pub use structure::{Address, Reserved, Structure};

/// The device node's path. Mode 0600, owned by root.
pub const DEVICE: &str = "/dev/hippos";

/// The kernel series that Hippos is built and tested for: the oldest and the newest, as major and minor number.
pub const TESTED_SERIES: [(u32, u32); 2] = [(7, 2), (7, 3)];

/// The device's name, as passed to `misc_register`.
pub const DEVICE_NAME: &core::ffi::CStr = c"hippos";

/// Grows by one with each incompatible change of this file.
pub const VERSION: u32 = 2;

/// The type letter of the calls: eight bits that distinguish them from other drivers'.
pub const MAGIC: u8 = b'H';

/// A call of the control device.
pub trait Request {
    /// The structure that the module reads from the caller.
    type In: Structure;
    /// The structure that it writes to the caller.
    type Out: Structure;
    /// Identifies the call; never reused for another one.
    const ORDINAL: u8;
    /// The call's name in messages, as in "reading the limits".
    const TITLE: &'static str;
    /// The number for `ioctl(2)`.
    const NUMBER: u32 = number::<Self::In, Self::Out>(Self::ORDINAL);

    /// Checks that the values of [`In`](Self::In) are valid on every machine.
    ///
    /// # Errors
    ///
    /// They are not valid.
    fn check(input: &Self::In) -> Result<(), InputError> {
        let _ = input;
        Ok(())
    }

    /// Decodes and checks the caller's bytes.
    ///
    /// # Errors
    ///
    /// The number of bytes is wrong, or the values are refused.
    fn accept(bytes: &[u8]) -> Result<Self::In, InputError> {
        let input = Self::In::decode(bytes).ok_or(InputError::Invalid)?;
        Self::check(&input)?;
        Ok(input)
    }
}

/// Why an input is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// `EINVAL`
    Invalid,
    /// `E2BIG`
    TooLong,
}

/// The number of a call: two bits of direction, fourteen of size, eight of type, eight of ordinal.
const fn number<In: Structure, Out: Structure>(ordinal: u8) -> u32 {
    const WRITE: u32 = 1;
    const READ: u32 = 2;
    // Input and output are at the same address.
    assert!(In::SIZE == 0 || Out::SIZE == 0 || In::SIZE == Out::SIZE);
    let (mut direction, mut size) = (0, 0);
    if In::SIZE != 0 {
        direction |= WRITE;
        size = In::SIZE;
    }
    if Out::SIZE != 0 {
        direction |= READ;
        size = Out::SIZE;
    }
    assert!(size <= ARGUMENT_MAX);
    direction << 30 | (size as u32) << 16 | (MAGIC as u32) << 8 | ordinal as u32
}

/// The size of the largest structure.
pub const ARGUMENT_MAX: usize = 48;

/// Defines the calls.
macro_rules! requests {
    ($(
        $(#[$attribute:meta])*
        $name:ident = $ordinal:literal, $title:literal: $in:ty => $out:ty
            $(, check $input:ident $check:block)?;
    )*) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Request for $name {
                type In = $in;
                type Out = $out;
                const ORDINAL: u8 = $ordinal;
                const TITLE: &'static str = $title;

                $(fn check($input: &Self::In) -> Result<(), InputError> $check)?
            }
        )*

        /// The name and the number of each call.
        pub const REQUESTS: &[(&str, u32)] = &[
            $((stringify!($name), <$name as Request>::NUMBER),)*
        ];
    };
}

requests! {
    /// Reads the version and basic settings of the loaded module.
    GetInfo = 0, "reading the module's version": () => Info;
    /// Reads one of the `stats` texts.
    ReadStats = 1, "reading statistics": Text => Text, check input {
        valid(Section::from_number(input.section).is_some())
    };
    /// Flushes all items now or after a delay.
    SetFlush = 2, "flushing": Flush => (), check input {
        valid(input.delay <= FLUSH_DELAY_MAX)
    };
    /// Sets the memory limit.
    SetMemory = 3, "setting the memory limit": Memory => (), check input {
        valid(input.bytes >= MEMORY_MIN)
    };
    /// Changes the allow list, given as networks separated by commas, or `any`, or `default`. `E2BIG` when the list
    /// would be too long, `ENOENT` when a network to be removed is not in it, `ERANGE` when the list would be empty.
    ChangeSources = 4, "changing the allow list": Input => (), check input {
        valid(matches!(input.operation, ALLOW_SET | ALLOW_ADD | ALLOW_REMOVE))?;
        short(input, ALLOW_MAX)
    };
    /// Reads the allow list, one network per line; [`Text::section`] is 0.
    ReadSources = 5, "reading the allow list": Text => Text, check input {
        valid(input.section == 0)
    };
    /// Sets the users that may authenticate over TCP, one `user:password` per line; without any, authentication is not
    /// required. [`Input::operation`] is 0.
    SetCredentials = 6, "setting the users": Input => (), check input {
        valid(input.operation == 0)?;
        short(input, CREDENTIALS_MAX)
    };
    /// Reads the limits on UDP replies.
    GetLimits = 7, "reading the limits": () => Limits;
    /// Reads which clients may use administration commands.
    GetAdmin = 9, "reading which clients may use administration commands": () => Admin;
    /// Sets it.
    SetAdmin = 10, "setting which clients may use administration commands": Admin => (), check input {
        valid(Administration::from_number(input.who).is_some())
    };
    /// Reads the ranges of the settings in this module, on this machine.
    GetRanges = 11, "reading the ranges of the settings": () => Ranges;
    /// Shuts down the TCP connections that meet all conditions, and counts them.
    CloseConnections = 12, "closing connections": Connections => Connections, check input {
        let has_address = input.by_address == 1;
        valid(has_address || (input.by_address == 0 && input.idle > 0))?;
        valid(has_address || (input.address == [0; 16] && input.port == 0))?;
        valid(input.count == 0)
    };
    /// Compares the store's lists and counts with its memory, while no client writes. Returns the number of slots in
    /// each state, one state per line, or the first inconsistency; [`Text::section`] is 0. Only modules for the debug
    /// kernel support it; all others return `ENOTTY`.
    ReadVerify = 13, "comparing the store with its memory": Text => Text, check input {
        valid(input.section == 0)
    };
    /// Starts or stops measuring latency, or resets its histograms.
    SetLatency = 14, "measuring latency": Latency => (), check input {
        valid(matches!(input.action, LATENCY_OFF | LATENCY_ON | LATENCY_RESET))
    };
    /// Sets some of the limits on UDP replies. (8 was a call that set all of them.)
    ChangeLimits = 15, "setting the limits": LimitsChange => (), check input {
        valid(input.fields & !LIMITS_ALL == 0)?;
        valid(input.of(LIMITS_BYTES).is_none_or(|limit| limit >= UDP_BYTES_MIN))?;
        valid(input.of(LIMITS_DATAGRAMS).is_none_or(|limit| (1..=UDP_DATAGRAMS_MAX).contains(&limit)))
    };
}

fn valid(is: bool) -> Result<(), InputError> {
    if is {
        Ok(())
    } else {
        Err(InputError::Invalid)
    }
}

fn short(input: &Input, most: u32) -> Result<(), InputError> {
    if input.len <= most {
        Ok(())
    } else {
        Err(InputError::TooLong)
    }
}

/// [`ChangeSources`] replaces the list,
pub const ALLOW_SET: u32 = 0;
/// adds to it,
pub const ALLOW_ADD: u32 = 1;
/// or removes from it.
pub const ALLOW_REMOVE: u32 = 2;
/// The most bytes of a list for [`ChangeSources`].
pub const ALLOW_MAX: u32 = 4096;

structures! {
    /// The module behind the device.
    Info: 48 bytes {
        /// [`VERSION`] as the module was built with.
        version: u32,
        /// UDP and TCP port served, host byte order.
        port: u16,
        /// Zero.
        reserved: Reserved<2>,
        /// The memory limit in force, bytes.
        memory: u64,
        /// Hippos's own version, ASCII, padded with zeros.
        release: [u8; 32],
    }

    /// A text that the module writes into the caller's buffer.
    Text: 16 bytes {
        /// Which text: one of [`Section`]'s numbers.
        section: u32,
        /// In: the buffer's size in bytes. Out: the text's, also with `ENOSPC`.
        len: u32,
        /// The buffer.
        address: Address,
    }

    /// A text that the module reads from the caller's buffer.
    Input: 16 bytes {
        /// The operation, if the call has several; otherwise 0.
        operation: u32,
        /// The text's length in bytes.
        len: u32,
        /// The buffer.
        address: Address,
    }

    /// Limits on the replies to UDP sources.
    Limits: 16 bytes {
        /// The most bytes of a reply, frames not counted: from [`UDP_BYTES_MIN`] to
        /// the module's parameter `udp_bytes`.
        udp_bytes: u32,
        /// The most datagrams of a reply: from 1 to [`UDP_DATAGRAMS_MAX`].
        udp_datagrams: u32,
        /// Reply bytes a second for each source outside private networks; 0 is no
        /// limit.
        udp_rate: u32,
        /// The same for sources in private networks.
        udp_private_rate: u32,
    }

    /// New values of some [`Limits`]: tools that change different ones at the same time do not undo each other's change.
    LimitsChange: 24 bytes {
        /// Which values are set: a sum of [`LIMITS_BYTES`] and the like.
        fields: u32,
        /// [`Limits::udp_bytes`]; like the others it is ignored if it is not among the fields.
        udp_bytes: u32,
        /// [`Limits::udp_datagrams`]
        udp_datagrams: u32,
        /// [`Limits::udp_rate`]
        udp_rate: u32,
        /// [`Limits::udp_private_rate`]
        udp_private_rate: u32,
        /// Zero.
        reserved: Reserved<4>,
    }

    /// Which clients may use administration commands.
    Admin: 4 bytes {
        /// The number of an [`Administration`].
        who: u32,
    }

    /// Controls the measuring of latency.
    Latency: 4 bytes {
        /// One of [`LATENCY_OFF`], [`LATENCY_ON`] and [`LATENCY_RESET`].
        action: u32,
    }

    /// The ranges of a loaded module's settings.
    Ranges: 24 bytes {
        /// The least memory limit, bytes.
        memory_least: u64,
        /// The largest memory limit.
        memory_most: u64,
        /// The largest [`Limits::udp_bytes`].
        udp_bytes_most: u32,
        /// Zero.
        reserved: Reserved<4>,
    }

    /// Connections by their peer and by their idle time.
    Connections: 32 bytes {
        /// The peer's IPv6 address in network byte order, an IPv4 one mapped (`::ffff:a.b.c.d`).
        address: [u8; 16],
        /// The peer's port, host byte order; 0: any.
        port: u16,
        /// 1: of this address and port; 0: of any, which are zero then.
        by_address: u16,
        /// Seconds since the last command, at least; not 0 without an address.
        idle: u32,
        /// In: 0. Out: the number of connections.
        count: u32,
        /// Zero.
        reserved: Reserved<4>,
    }

    /// A delayed or immediate flush.
    Flush: 4 bytes {
        /// Seconds from now, at most [`FLUSH_DELAY_MAX`]; 0 is at once.
        delay: u32,
    }

    /// A new memory limit.
    Memory: 8 bytes {
        /// Bytes; at least [`MEMORY_MIN`].
        bytes: u64,
    }
}

/// The fields of a [`LimitsChange`]: [`LimitsChange::udp_bytes`],
pub const LIMITS_BYTES: u32 = 1;
/// [`LimitsChange::udp_datagrams`],
pub const LIMITS_DATAGRAMS: u32 = 2;
/// [`LimitsChange::udp_rate`],
pub const LIMITS_RATE: u32 = 4;
/// and [`LimitsChange::udp_private_rate`].
pub const LIMITS_PRIVATE_RATE: u32 = 8;
const LIMITS_ALL: u32 = LIMITS_BYTES | LIMITS_DATAGRAMS | LIMITS_RATE | LIMITS_PRIVATE_RATE;

impl LimitsChange {
    /// Sets the given limits: bytes and datagrams of a reply, rates outside and inside private networks.
    pub fn new(
        bytes: Option<u32>,
        datagrams: Option<u32>,
        rate: Option<u32>,
        private_rate: Option<u32>,
    ) -> Self {
        let field = |field, value: Option<u32>| value.map_or(0, |_| field);
        Self {
            fields: field(LIMITS_BYTES, bytes)
                | field(LIMITS_DATAGRAMS, datagrams)
                | field(LIMITS_RATE, rate)
                | field(LIMITS_PRIVATE_RATE, private_rate),
            udp_bytes: bytes.unwrap_or(0),
            udp_datagrams: datagrams.unwrap_or(0),
            udp_rate: rate.unwrap_or(0),
            udp_private_rate: private_rate.unwrap_or(0),
            reserved: Reserved,
        }
    }

    /// The value of a field, if it is set.
    pub fn of(&self, field: u32) -> Option<u32> {
        let value = match field {
            LIMITS_BYTES => self.udp_bytes,
            LIMITS_DATAGRAMS => self.udp_datagrams,
            LIMITS_RATE => self.udp_rate,
            LIMITS_PRIVATE_RATE => self.udp_private_rate,
            _ => return None,
        };
        (self.fields & field != 0).then_some(value)
    }
}

/// Stop measuring latency; the histograms stay.
pub const LATENCY_OFF: u32 = 0;
/// Start measuring latency.
pub const LATENCY_ON: u32 = 1;
/// Reset the histograms.
pub const LATENCY_RESET: u32 = 2;

/// The smallest [`Limits::udp_bytes`]: the data of one datagram.
pub const UDP_BYTES_MIN: u32 = 1392;
/// The largest [`Limits::udp_datagrams`]: the largest number in a reply's frame.
pub const UDP_DATAGRAMS_MAX: u32 = 65_535;
/// A full datagram: with a lower rate none would ever be sent.
pub const UDP_RATE_MIN: u32 = 1400;
/// The most bytes of all lines that [`SetCredentials`] takes.
pub const CREDENTIALS_MAX: u32 = 2048;
/// The longest delay of a flush, seconds: more would be a Unix time.
pub const FLUSH_DELAY_MAX: u32 = hippos_semantics::RELATIVE_MAX as u32;
/// The memory of a machine that the cache must leave to everything else: 1/16 of it, at least 64 MiB, at most 4 GiB.
pub const fn memory_reserve(machine: u64) -> u64 {
    let sixteenth = machine / 16;
    if sixteenth < 64 << 20 {
        64 << 20
    } else if sixteenth > 4 << 30 {
        4 << 30
    } else {
        sixteenth
    }
}

/// The texts of [`ReadStats`]: as for the protocol's `stats` command, lines of `STAT name value\r\n` without the
/// closing `END`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Section {
    /// `stats`
    General = 0,
    /// `stats settings`
    Settings = 1,
    /// `stats items`
    Items = 2,
    /// `stats slabs`
    Slabs = 3,
    /// `stats conns`
    Conns = 4,
    /// `stats reset`: no lines.
    Reset = 5,
    /// `stats hippos_pass`
    Pass = 6,
    /// `stats sizes`
    Sizes = 7,
    /// `stats detail dump`: lines of `PREFIX`, not of `STAT`.
    Detail = 8,
    /// `stats detail on`: no lines.
    DetailOn = 9,
    /// `stats detail off`: no lines.
    DetailOff = 10,
    /// `stats hippos_cpus`
    Cpus = 11,
    /// `stats hippos_latency`
    Latency = 12,
}

impl Section {
    /// Every section, in the order of their numbers.
    pub const ALL: [Section; 13] = [
        Section::General,
        Section::Settings,
        Section::Items,
        Section::Slabs,
        Section::Conns,
        Section::Reset,
        Section::Pass,
        Section::Sizes,
        Section::Detail,
        Section::DetailOn,
        Section::DetailOff,
        Section::Cpus,
        Section::Latency,
    ];

    /// The section of a number that the other side sent.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u32 == number)
    }

    /// The argument of the protocol's `stats` command for it.
    pub fn argument(self) -> &'static str {
        match self {
            Section::General => "",
            Section::Settings => "settings",
            Section::Items => "items",
            Section::Slabs => "slabs",
            Section::Conns => "conns",
            Section::Reset => "reset",
            Section::Pass => "hippos_pass",
            Section::Sizes => "sizes",
            Section::Detail => "detail dump",
            Section::DetailOn => "detail on",
            Section::DetailOff => "detail off",
            Section::Cpus => "hippos_cpus",
            Section::Latency => "hippos_latency",
        }
    }
}

#[cfg(test)]
mod tests;
