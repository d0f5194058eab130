// SPDX-License-Identifier: GPL-2.0-only
//! Counts the instructions that a guest executes, for repeatable figures on a machine whose clock is too noisy.
//!
//! A string instruction with a repeat prefix counts once, as in a processor's own counter, however many bytes it
//! processes: QEMU runs each repetition as a separate block when the guest's clock counts instructions, so a kernel
//! that clears and copies memory would appear to do little else.
//!
//! QEMU loads this library with `-plugin FILE,socket=PATH[,profile=on|off]`. A
//! halted vCPU executes nothing, so idle time is not counted. The library
//! listens on the Unix socket PATH; each line received is a question:
//!
//! - `count`: answered by one line, the instructions executed so far by all
//!   vCPUs.
//! - `blocks`: with `profile=on`, a line `ADDRESS LENGTH COUNT` for each
//!   translated block that ran (address in hexadecimal, length in
//!   instructions, count of executions so far), then an empty line. The
//!   difference of two answers, summed by symbol, is a profile.

mod api;

use api::{Block, Counter, Id, Info, Scoreboard};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, CStr};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The plugin interface's version that this library was made for.
#[no_mangle]
#[allow(non_upper_case_globals, reason = "QEMU looks it up by this name")]
pub static qemu_plugin_version: c_int = api::VERSION;

/// Instructions executed by all vCPUs; set once, before any translation.
static TOTAL: OnceLock<Counter> = OnceLock::new();

/// Executions of each block by address and length; `None` without `profile=on`.
static BLOCKS: OnceLock<Mutex<HashMap<(u64, usize), Counter>>> = OnceLock::new();

/// Called by QEMU once, before the guest starts. Returns 0 on success.
///
/// # Safety
///
/// `argv` must point to `argc` C strings, as QEMU passes them.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const Info,
    argc: c_int,
    argv: *mut *mut c_char,
) -> c_int {
    let mut socket = None;
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: QEMU passes `argc` pointers to C strings that live across this call.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        match argument.split_once('=') {
            Some(("socket", path)) => socket = Some(path.to_owned()),
            Some(("profile", "off")) => {}
            Some(("profile", "on")) => {
                BLOCKS.get_or_init(Mutex::default);
            }
            _ => {
                eprintln!("hippos_plugin: unknown argument {argument:?}");
                return -1;
            }
        }
    }
    let Some(path) = socket else {
        eprintln!("hippos_plugin: socket=PATH is missing");
        return -1;
    };
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("hippos_plugin: {path}: {error}");
            return -1;
        }
    };
    TOTAL.get_or_init(new_counter);
    // SAFETY: `id` is ours and the callback has the type that QEMU expects.
    unsafe { api::qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One client at a time; when it disconnects, the next is accepted.
            let _ = answer(&stream);
        }
    });
    0
}

/// Puts the counting code into a block that is being translated.
extern "C" fn translated(_id: Id, block: *mut Block) {
    let Some(&total) = TOTAL.get() else { return };
    // SAFETY: QEMU gives a block that is valid during this callback.
    let (mut length, address) = unsafe {
        (
            api::qemu_plugin_tb_n_insns(block),
            api::qemu_plugin_tb_vaddr(block),
        )
    };
    let mut code = [0u8; 15];
    // SAFETY: a block has a first instruction; no more than `code` holds is copied.
    let size = unsafe {
        let first = api::qemu_plugin_tb_get_insn(block, 0);
        api::qemu_plugin_insn_data(first, code.as_mut_ptr().cast(), code.len())
    };
    if repeats(code.get(..size).unwrap_or(&code)) {
        // The first repetition was counted in the block before.
        length -= 1;
    }
    if length == 0 {
        return;
    }
    // SAFETY: the block is valid during this callback, the counter for ever.
    unsafe {
        api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            block,
            api::INLINE_ADD,
            total,
            length as u64,
        );
    }
    if let Some(blocks) = BLOCKS.get() {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        // A block may be translated again; it goes on counting where it was.
        let counter = *blocks.entry((address, length)).or_insert_with(new_counter);
        // SAFETY: as above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
                block,
                api::INLINE_ADD,
                counter,
                1,
            );
        }
    }
}

/// Whether the code of an instruction is a string instruction with a repeat
/// prefix: INS, OUTS, MOVS, CMPS, STOS, LODS or SCAS.
fn repeats(code: &[u8]) -> bool {
    let prefix = |byte: &u8| matches!(byte, 0x40..=0x4f | 0x66 | 0x67 | 0xf2 | 0xf3);
    let count = code.iter().take_while(|byte| prefix(byte)).count();
    let repeat = code
        .iter()
        .take(count)
        .any(|byte| matches!(byte, 0xf2 | 0xf3));
    let string = matches!(
        code.get(count),
        Some(0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf)
    );
    repeat && string
}

fn answer(stream: &UnixStream) -> std::io::Result<()> {
    let mut out = BufWriter::new(stream);
    for line in BufReader::new(stream).lines() {
        match line?.trim() {
            "count" => writeln!(out, "{}", TOTAL.get().map_or(0, |&c| sum(c)))?,
            "blocks" => {
                if let Some(blocks) = BLOCKS.get() {
                    let blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
                    for (&(address, length), &counter) in blocks.iter() {
                        match sum(counter) {
                            0 => {}
                            count => writeln!(out, "{address:x} {length} {count}")?,
                        }
                    }
                }
                writeln!(out)?;
            }
            other => writeln!(out, "unknown question {other:?}")?,
        }
        out.flush()?;
    }
    Ok(())
}

fn new_counter() -> Counter {
    // SAFETY: a plain allocation of QEMU's, zeroed, never freed by us.
    let score: *mut Scoreboard = unsafe { api::qemu_plugin_scoreboard_new(size_of::<u64>()) };
    Counter { score, offset: 0 }
}

fn sum(counter: Counter) -> u64 {
    // SAFETY: the counter's scoreboard lives until QEMU exits.
    unsafe { api::qemu_plugin_u64_sum(counter) }
}
