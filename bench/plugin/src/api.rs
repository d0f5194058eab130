// SPDX-License-Identifier: GPL-2.0-only
//! QEMU's plugin interface, the part used here (`include/qemu/qemu-plugin.h`
//! of QEMU 9.0 to 10.x, plugin version 3 and 4).

use std::ffi::{c_int, c_void};

/// The oldest interface that has per-vCPU scoreboards.
pub(crate) const VERSION: c_int = 3;

/// `QEMU_PLUGIN_INLINE_ADD_U64`
pub(crate) const INLINE_ADD: c_int = 0;

pub(crate) type Id = u64;

/// A translated block while it is being translated.
#[repr(C)]
pub(crate) struct Block {
    _private: [u8; 0],
}

/// An instruction of a block that is being translated.
#[repr(C)]
pub(crate) struct Instruction {
    _private: [u8; 0],
}

/// Storage with one cell for each vCPU.
#[repr(C)]
pub(crate) struct Scoreboard {
    _private: [u8; 0],
}

/// A `u64` in each cell of a scoreboard.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Counter {
    pub(crate) score: *mut Scoreboard,
    pub(crate) offset: usize,
}

// SAFETY: the scoreboard lives until QEMU exits, and QEMU's functions on it may be called from
// any thread.
unsafe impl Send for Counter {}
// SAFETY: as above; `qemu_plugin_u64_sum` only reads.
unsafe impl Sync for Counter {}

extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: Id,
        callback: extern "C" fn(Id, *mut Block),
    );
    pub(crate) fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut Block,
        op: c_int,
        entry: Counter,
        value: u64,
    );
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub(crate) fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    pub(crate) fn qemu_plugin_insn_data(
        instruction: *const Instruction,
        bytes: *mut c_void,
        length: usize,
    ) -> usize;
    pub(crate) fn qemu_plugin_scoreboard_new(element_size: usize) -> *mut Scoreboard;
    pub(crate) fn qemu_plugin_u64_sum(entry: Counter) -> u64;
}

/// QEMU's description of itself for a plugin; not used.
pub(crate) type Info = c_void;
