// SPDX-License-Identifier: MIT OR GPL-2.0-only

//! What the module and its tools say to each other through `/dev/hippos`, and the module's
//! [`parameters`].
//!
//! The device answers `ioctl(2)` only. Each call has a number made as in
//! the kernel's `include/uapi/asm-generic/ioctl.h` and at most one fixed
//! structure; longer texts pass through a buffer of the caller's that the
//! structure points to. The module and `hippos-ctl` are built from this one
//! file, so the numbers can't drift apart; [`VERSION`] tells a tool that
//! meets a module of another build.
//!
//! Errors are the usual ones: `ENOTTY` for an unknown number, `EFAULT` for
//! a bad pointer, `EINVAL` for a value out of range, `ENOSPC` for a buffer
//! that is too small (its needed size is written back).
#![no_std]
#![forbid(unsafe_code)]

pub mod parameters;

/// The device node's path. Mode 0600, owned by root.
pub const DEVICE: &str = "/dev/hippos";

/// The device's name, as `misc_register` takes it.
pub const DEVICE_NAME: &str = "hippos";

/// Grows by one with each incompatible change of this file.
pub const VERSION: u32 = 1;

/// The calls' type letter, the eight bits that set them apart from other
/// drivers'.
pub const MAGIC: u8 = b'H';

/// Asks for an [`Info`].
pub const INFO: u32 = read::<Info>(0);
/// Asks for one of the `stats` texts; takes and gives a [`Text`].
pub const STATS: u32 = read_write::<Text>(1);
/// Forgets all items now or after a delay; takes a [`Flush`].
pub const FLUSH: u32 = write::<Flush>(2);
/// Sets the memory limit; takes a [`Memory`].
pub const MEMORY: u32 = write::<Memory>(3);

/// Changes who may ask; takes an [`Input`] whose text is a list of networks
/// with commas between them, or `any`, or `default`. `E2BIG` when the list
/// would be too long, `ENOENT` when one that is to be removed is not in it,
/// `ERANGE` when none would be left.
pub const ALLOW: u32 = write::<Input>(4);
/// Asks who may, a network a line; takes and gives a [`Text`] of section 0.
pub const SOURCES: u32 = read_write::<Text>(5);
/// Sets who may log in over TCP; takes an [`Input`] of lines like
/// `user:password`. An empty one is: whoever comes.
pub const CREDENTIALS: u32 = write::<Input>(6);
/// Asks for the [`Limits`].
pub const LIMITS: u32 = read::<Limits>(7);
/// Sets the [`Limits`].
pub const SET_LIMITS: u32 = write::<Limits>(8);
/// Asks which clients may use administration commands; gives an [`Admin`].
pub const ADMIN: u32 = read::<Admin>(9);
/// Sets it; takes an [`Admin`].
pub const SET_ADMIN: u32 = write::<Admin>(10);
/// Asks what may be set; gives [`Ranges`].
pub const RANGES: u32 = read::<Ranges>(11);

/// What [`ALLOW`] does: replaces the list,
pub const ALLOW_SET: u32 = 0;
/// adds to it,
pub const ALLOW_ADD: u32 = 1;
/// or takes from it.
pub const ALLOW_REMOVE: u32 = 2;

/// The module behind the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Info {
    /// [`VERSION`] as the module was built with.
    pub version: u32,
    /// UDP and TCP port served, host byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// The memory limit in force, bytes.
    pub memory: u64,
    /// Hippos's own version, ASCII, padded with zeros.
    pub release: [u8; 32],
}

/// A text that the module writes into the caller's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Text {
    /// Which text: one of [`Section`]'s numbers.
    pub section: u32,
    /// In: the buffer's size in bytes. Out: the text's, also with `ENOSPC`.
    pub len: u32,
    /// The buffer's address in the caller.
    pub address: u64,
}

/// A text that the module reads from the caller's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Input {
    /// What to do with it, where there is a choice; else 0.
    pub operation: u32,
    /// Bytes.
    pub len: u32,
    /// The buffer's address in the caller.
    pub address: u64,
}

/// Limits on what UDP sources get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    /// The most bytes of a reply, frames not counted: from [`UDP_BYTES_MIN`] to
    /// the module's parameter `udp_bytes`.
    pub udp_bytes: u32,
    /// The most datagrams of a reply: from 1 to [`UDP_DATAGRAMS_MAX`].
    pub udp_datagrams: u32,
    /// Reply bytes a second for each source outside private networks; 0 is no
    /// limit.
    pub udp_rate: u32,
    /// The same for those within.
    pub udp_private_rate: u32,
}

/// Which clients may use administration commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Admin {
    /// One of [`ADMIN_NETWORK`], [`ADMIN_LOCAL`] and [`ADMIN_OFF`].
    pub who: u32,
}

/// All clients.
pub const ADMIN_NETWORK: u32 = 0;
/// Those on this host, over TCP.
pub const ADMIN_LOCAL: u32 = 1;
/// None.
pub const ADMIN_OFF: u32 = 2;

/// What may be set in a loaded module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ranges {
    /// The least memory limit, bytes.
    pub memory_least: u64,
    /// The most.
    pub memory_most: u64,
    /// The most for [`Limits::udp_bytes`].
    pub udp_bytes_most: u32,
    /// Zero.
    pub reserved: u32,
}

/// The least for [`Limits::udp_bytes`]: the data of a datagram.
pub const UDP_BYTES_MIN: u32 = 1392;
/// The most for [`Limits::udp_datagrams`]: what a reply's frame can count.
pub const UDP_DATAGRAMS_MAX: u32 = 65_535;
/// A full datagram: with less a second none is ever sent.
pub const UDP_RATE_MIN: u32 = 1400;
/// The most bytes of all lines that [`CREDENTIALS`] takes.
pub const CREDENTIALS_MAX: u32 = 2048;
/// The longest delay of a flush, seconds: 30 days.
pub const FLUSH_DELAY_MAX: u32 = 30 * 24 * 60 * 60;

/// A delayed or immediate flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flush {
    /// Seconds from now, at most [`FLUSH_DELAY_MAX`]; 0 is at once.
    pub delay: u32,
}

/// A new memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Memory {
    /// Bytes; at least [`MEMORY_MIN`].
    pub bytes: u64,
}

/// The least memory limit, bytes: what memcached's `cache_memlimit` takes.
pub const MEMORY_MIN: u64 = 8 << 20;

/// The texts of [`STATS`]: the same as the protocol's `stats` command
/// gives, lines of `STAT name value\r\n` without the closing `END`.
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
}

impl Section {
    /// Every section, in the order of their numbers.
    pub const ALL: [Section; 5] = [
        Section::General,
        Section::Settings,
        Section::Items,
        Section::Slabs,
        Section::Conns,
    ];

    /// The section behind a number from the other side.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u32 == number)
    }

    /// The argument that the protocol's `stats` command takes for it.
    pub fn argument(self) -> &'static str {
        match self {
            Section::General => "",
            Section::Settings => "settings",
            Section::Items => "items",
            Section::Slabs => "slabs",
            Section::Conns => "conns",
        }
    }
}

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn number(direction: u32, nr: u8, size: usize) -> u32 {
    // Two bits of direction, fourteen of size, eight of type, eight of number.
    direction << 30 | (size as u32 & 0x3fff) << 16 | (MAGIC as u32) << 8 | nr as u32
}

const fn read<T>(nr: u8) -> u32 {
    number(READ, nr, size_of::<T>())
}

const fn write<T>(nr: u8) -> u32 {
    number(WRITE, nr, size_of::<T>())
}

const fn read_write<T>(nr: u8) -> u32 {
    number(READ | WRITE, nr, size_of::<T>())
}

// The layouts are part of the contract: no padding, no surprises.
const _: () = {
    assert!(size_of::<Info>() == 48);
    assert!(size_of::<Text>() == 16);
    assert!(size_of::<Flush>() == 4);
    assert!(size_of::<Memory>() == 8);
    assert!(size_of::<Input>() == 16);
    assert!(size_of::<Limits>() == 16);
    assert!(size_of::<Admin>() == 4);
    assert!(size_of::<Ranges>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_macros() {
        // Computed with _IOR('H', 0, 48 bytes) and so on in C.
        assert_eq!(INFO, 0x8030_4800);
        assert_eq!(STATS, 0xc010_4801);
        assert_eq!(FLUSH, 0x4004_4802);
        assert_eq!(MEMORY, 0x4008_4803);
        assert_eq!(ALLOW, 0x4010_4804);
        assert_eq!(SOURCES, 0xc010_4805);
        assert_eq!(CREDENTIALS, 0x4010_4806);
        assert_eq!(LIMITS, 0x8010_4807);
        assert_eq!(SET_LIMITS, 0x4010_4808);
        assert_eq!(ADMIN, 0x8004_4809);
        assert_eq!(SET_ADMIN, 0x4004_480a);
        assert_eq!(RANGES, 0x8018_480b);
    }

    #[test]
    fn sections_come_back_from_their_numbers() {
        for section in Section::ALL {
            assert_eq!(Section::from_number(section as u32), Some(section));
        }
        assert_eq!(Section::from_number(5), None);
    }
}
