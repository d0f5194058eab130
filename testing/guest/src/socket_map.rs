// SPDX-License-Identifier: GPL-2.0-only
//! A BPF program that puts TCP sockets into a socket map, as service meshes do.

use std::fs::{self, File};
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;
use nix::mount::{mount, MsFlags};

/// Where the control groups are mounted.
const GROUPS: &str = "/tmp/socket-map-groups";
// Of linux/bpf.h: commands, kinds, helper functions, and calls of such a program.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;
const SOCK_MAP_UPDATE: u32 = 53;
const PASSIVE_ESTABLISHED: u32 = 5;
const TCP_LISTEN: u32 = 11;

/// An instruction: code, registers (source, destination), offset, immediate value.
const fn instruction(code: u8, registers: u8, offset: i16, immediate: u32) -> u64 {
    code as u64 | (registers as u64) << 8 | (offset as u16 as u64) << 16 | (immediate as u64) << 32
}

/// The program, attached to all control groups, and its map of one socket: the last one that was
/// accepted or has begun to listen. Detached when it is dropped.
pub(crate) struct SocketMap {
    map: OwnedFd,
    program: OwnedFd,
    groups: File,
}

impl SocketMap {
    pub(crate) fn attach() -> Result<Self> {
        let map = bpf(MAP_CREATE, &[word(MAP_TYPE_SOCKMAP, 4), word(8, 1)]).context("map")?;
        let map = owned(map);
        let program = [
            // The call: only accepted and listening sockets.
            instruction(0x61, 0x12, 0, 0),
            instruction(0x15, 0x02, 1, PASSIVE_ESTABLISHED),
            instruction(0x55, 0x02, 7, TCP_LISTEN),
            // Key 0, on the stack.
            instruction(0x62, 0x0a, -4, 0),
            instruction(0x18, 0x12, 0, map.as_raw_fd() as u32),
            instruction(0, 0, 0, 0),
            instruction(0xbf, 0xa3, 0, 0),
            instruction(0x07, 0x03, 0, -4i32 as u32),
            instruction(0xb7, 0x04, 0, 0),
            instruction(0x85, 0, 0, SOCK_MAP_UPDATE),
            instruction(0xb7, 0x00, 0, 1),
            instruction(0x95, 0, 0, 0),
        ];
        let licence = c"GPL";
        let program = bpf(
            PROG_LOAD,
            &[
                word(PROG_TYPE_SOCK_OPS, program.len() as u32),
                program.as_ptr() as u64,
                licence.as_ptr() as u64,
            ],
        )
        .context("program")?;
        let program = owned(program);
        fs::create_dir_all(GROUPS)?;
        let kind = Some("cgroup2");
        mount(kind, GROUPS, kind, MsFlags::empty(), None::<&str>).context("control groups")?;
        let groups = File::open(GROUPS)?;
        let both = word(groups.as_raw_fd() as u32, program.as_raw_fd() as u32);
        bpf(PROG_ATTACH, &[both, CGROUP_SOCK_OPS.into()]).context("attach")?;
        Ok(Self {
            map,
            program,
            groups,
        })
    }

    /// The cookie of the socket in the map.
    pub(crate) fn socket(&self) -> Option<u64> {
        let (key, mut cookie) = (0u32, 0u64);
        let key = &raw const key as u64;
        let value = &raw mut cookie as u64;
        bpf(MAP_LOOKUP, &[self.map.as_raw_fd() as u64, key, value]).ok()?;
        Some(cookie)
    }
}

impl Drop for SocketMap {
    fn drop(&mut self) {
        let both = word(
            self.groups.as_raw_fd() as u32,
            self.program.as_raw_fd() as u32,
        );
        // Nothing is left to do when it fails: the guest keeps the program.
        let _ = bpf(PROG_DETACH, &[both, CGROUP_SOCK_OPS.into()]);
        let _ = nix::mount::umount2(GROUPS, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Two fields of 32 bits.
fn word(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A bpf() call with the first fields of its attributes; the others are 0.
fn bpf(command: libc::c_int, fields: &[u64]) -> Result<libc::c_int, Error> {
    let mut attributes = [0u64; 18];
    attributes
        .iter_mut()
        .zip(fields)
        .for_each(|(to, from)| *to = *from);
    // SAFETY: the attributes outlive the call, and their addresses are of objects that do.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    };
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(result as libc::c_int)
}
