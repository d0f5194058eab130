// SPDX-License-Identifier: GPL-2.0-only
//! No function of the module takes much of the kernel's small stack.
//!
//! The kernel's own limit (`CONFIG_FRAME_WARN`) is for C alone; rustc has none, and may move whole structures through
//! the stack unnoticed.

use anyhow::Result;

use super::Finding;
use crate::target::Selection;
use crate::{kbuild, root, shell};

/// The most that one function may take, in bytes, of a stack of 16 KiB. The kernel's own limit for C
/// is 2048; a plan of a reply to many keys lies on the stack by design, and two such frames on a
/// packet's way still leave most of it to the layers above and below.
const LIMIT: u64 = 3072;

/// The functions that may take more: the name, the limit in bytes, and the reason.
const ALLOWED: &[(&str, u64, &str)] = &[(
    "<hippos_engine::engine::Engine<hippos::platform::Kernel>>::answer_by_plan::<hippos::fast_path::PacketRequest>",
    4096,
    "its plan holds each hit's CAS value beside the item, read once; only lookups are called below it",
)];

/// Every finding in target/kmod/hippos.ko, which is built first.
pub(crate) fn check(selection: &Selection) -> Result<Vec<Finding>> {
    let root = root::ready(selection)?;
    let module = kbuild::build_for(&root, &Default::default())?;
    let mut objdump = root.tool("objdump");
    objdump.args(["-d", "-C", "--no-show-raw-insn"]).arg(module);
    Ok(large_frames(&shell::output(&mut objdump)?))
}

fn large_frames(disassembly: &str) -> Vec<Finding> {
    let mut function = "?";
    // arm64 takes a large frame in two steps.
    let mut taken = 0;
    let mut findings = Vec::new();
    for line in disassembly.lines() {
        if let Some(name) = line
            .strip_suffix(">:")
            .and_then(|line| line.split_once(" <"))
        {
            function = name.1;
            taken = 0;
        } else if let Some(bytes) = frame(line) {
            taken += bytes;
            let bytes = taken;
            let allowed = ALLOWED.iter().find(|(name, ..)| *name == function);
            let limit = allowed.map_or(LIMIT, |(_, limit, _)| *limit);
            if bytes <= limit {
                continue;
            }
            let what = format!("{function} takes {bytes} bytes of stack, {limit} are the limit");
            findings.push(Finding::new("hippos.ko", 0, what));
        }
    }
    findings
}

/// The bytes of `sub $0x4c8,%rsp`, or of `sub sp, sp, #0x4c8` and `sub sp, sp, #0x1, lsl #12`. Compilers write 128 as
/// its negative, whose encoding is shorter: `add $0xffffffffffffff80,%rsp` takes it, `sub` gives it back.
fn frame(line: &str) -> Option<u64> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    if let Some((rest, bytes)) = line
        .strip_suffix(",%rsp")
        .and_then(|line| line.split_once("$0x"))
    {
        let bytes = number(bytes)? as i64;
        let taken = match rest.trim_end() {
            rest if rest.ends_with("sub") => bytes,
            rest if rest.ends_with("add") => bytes.checked_neg()?,
            _ => return None,
        };
        return u64::try_from(taken).ok();
    }
    let (_, operands) = line.split_once("sub")?;
    let operands = operands.trim();
    let bytes = operands.strip_prefix("sp, sp, #0x")?;
    match bytes.split_once(", lsl #12") {
        Some((pages, _)) => number(pages)?.checked_mul(4096),
        None => number(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_frame_is_found() {
        let text = "0000000000000010 <hippos::small>:\n  14:\tsub    $0xbf8,%rsp\n\
                    0000000000000020 <<hippos::A as Drop>::drop>:\n  24:\tsub    $0xc08,%rsp\n";
        let findings = large_frames(text);
        assert_eq!(findings.len(), 1);
        assert!(findings[0]
            .what
            .starts_with("<hippos::A as Drop>::drop takes 3080"));
    }

    #[test]
    fn a_negative_number_of_bytes_is_the_other_direction() {
        assert_eq!(frame("  14:\tsub    $0xffffffffffffff80,%rsp"), None);
        assert_eq!(frame("  14:\tadd    $0xffffffffffffff80,%rsp"), Some(128));
        assert_eq!(frame("  14:\tadd    $0x80,%rsp"), None);
        assert_eq!(frame("  14:\tsub    $0x80,%rsp"), Some(128));
    }

    #[test]
    fn a_large_frame_of_arm64s_is_found() {
        let text = "0000000000000010 <hippos::small>:\n  14:\tsub\tsp, sp, #0xc00\n\
                    0000000000000020 <hippos::large>:\n  24:\tsub\tsp, sp, #0x1, lsl #12\n  \
                    28:\tsub\tsp, sp, #0x10\n  2c:\tsub\tx0, sp, #0xfff\n";
        let findings = large_frames(text);
        assert_eq!(findings.len(), 2);
        assert!(findings[1].what.starts_with("hippos::large takes 4112"));
    }
}
