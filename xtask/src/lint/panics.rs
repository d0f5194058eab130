// SPDX-License-Identifier: GPL-2.0-only
//! No path to a panic in the kernel's code: in softirq a panic would stop the machine.
//!
//! The check reads the release objects that Kbuild made, as the linker sees them: a call that the optimiser could not
//! rule out is a relocation against `core::panicking::…`. Generic code of the pure crates is compiled into the module's
//! own object, so that object is checked as well, except for the code that runs only at insmod.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{ensure, Result};

use super::Finding;
use crate::root::Root;
use crate::target::Selection;
use crate::{kbuild, root, shell, workspace};

/// The object of the module's own crate.
const MODULE: &str = "kmod/src/hippos.o";
/// Sources that are not looked at there: they run once, at insmod, before anything is served.
const START: &[&str] = &["kmod/src/hippos.rs", "kmod/src/config.rs", "/usr/"];
/// The panics that are allowed: the file, or the line, of the innermost frame, and why it cannot be reached. Lines are
/// those of the compiler and the crates that are pinned.
const ALLOWED: &[(&str, &str)] = &[
    (
        "target/vendor/heapless/src/vec.rs:275",
        "push counts up only when it saw room for one more",
    ),
    (
        "target/vendor/heapless/src/vec.rs:217",
        "a slice's length is at most isize::MAX, the vector's at most its capacity",
    ),
    (
        "/rust/kernel/alloc/kvec.rs",
        "KVec's own sums of its length and capacity, which it keeps below isize::MAX bytes",
    ),
    (
        "/core/src/num/mod.rs:1452",
        "parsing: taken only by texts too short to overflow",
    ),
    ("/core/src/num/mod.rs:1454", "the same"),
    (
        "/core/src/str/iter.rs:649",
        "the rest of a split text ends after its start",
    ),
    (
        "/core/src/iter/adapters/zip.rs:270",
        "an index below the shorter one's length",
    ),
    (
        "/core/src/slice/mod.rs:2828",
        "binary search: base and half lie in the slice",
    ),
];

/// Every finding in target/kmod, which is built first.
pub(crate) fn check(selection: &Selection) -> Result<Vec<Finding>> {
    let root = root::ready(selection)?;
    kbuild::build_for(&root, &Default::default())?;
    let mut objects: Vec<String> = workspace::PURE_CRATES
        .iter()
        .map(|name| format!("crates/{name}.o"))
        .collect();
    objects.push(MODULE.into());
    let mut findings = Vec::new();
    for object in objects {
        let path = kbuild::output_dir(root.kernel())?.join(&object);
        ensure!(path.exists(), "the build left no {}", path.display());
        let objdump = |option: &[&str]| shell::output(root.tool("objdump").args(option).arg(&path));
        let calls = calls(&objdump(&["-r"])?);
        let jumps = jumps(&objdump(&["-d", "--no-show-raw-insn"])?);
        // One line of source may be inlined into many places.
        let mut places: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for call in calls {
            for frames in ways(&root, &path, &call, &jumps)? {
                let ours = innermost_own_frame(&frames).to_owned();
                let exempt = object == MODULE && START.iter().any(|start| ours.starts_with(start));
                let inner = frames.first().map_or("?", String::as_str);
                let allowed = ALLOWED.iter().any(|(place, _)| inner.contains(place));
                if !exempt && !allowed {
                    let chains = places.entry((ours, call.function.clone())).or_default();
                    chains.push(frames.join(" < "));
                }
            }
        }
        for ((ours, function), chains) in places {
            let count = chains.len();
            let what = format!("{function} in {object}, {count} times: {}", chains[0]);
            findings.push(Finding::new(&ours, 0, what));
        }
    }
    Ok(findings)
}

/// The innermost frame whose source is ours or vendored: the place to fix.
fn innermost_own_frame(frames: &[String]) -> &str {
    let ours = |frame: &&String| frame.starts_with("kmod/") || frame.starts_with("target/vendor/");
    frames
        .iter()
        .find(ours)
        .or(frames.first())
        .map_or("?", String::as_str)
}

/// A call of a panicking function.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    section: String,
    offset: u64,
    /// Its bare name, `panic_bounds_check`.
    function: String,
}

/// An instruction; a jump inside a section has its target, other instructions have none.
#[derive(Debug, PartialEq, Eq)]
struct Instruction {
    section: String,
    offset: u64,
    target: Option<u64>,
    /// The next instruction belongs to another block: only a jump leads there.
    last: bool,
}

/// Where a call is in the source. The optimiser merges the same calls of several lines into one that
/// has no line; then where it is jumped to from.
fn ways(root: &Root, object: &Path, call: &Call, code: &[Instruction]) -> Result<Vec<Vec<String>>> {
    let own = frames(root, object, call, call.offset)?;
    if own.first().is_some_and(|frame| !frame.contains(":?")) {
        return Ok(vec![own]);
    }
    let sources = sources(call, code);
    if sources.is_empty() {
        return Ok(vec![own]);
    }
    sources
        .into_iter()
        .map(|offset| frames(root, object, call, offset))
        .collect()
}

/// The jumps to one of the few instructions that end with the call.
fn sources(call: &Call, code: &[Instruction]) -> Vec<u64> {
    /// The call itself, and the instructions that load its arguments. Its relocation is at its start or inside.
    const BLOCK: usize = 5;
    let code: Vec<&Instruction> = code
        .iter()
        .filter(|instruction| instruction.section == call.section)
        .collect();
    let end = code.partition_point(|instruction| instruction.offset <= call.offset);
    let block = code.get(end.saturating_sub(BLOCK)..end).unwrap_or_default();
    // The last of them is the call.
    let before = block.split_last().map_or(&[][..], |(_, before)| before);
    let start = before
        .iter()
        .rposition(|instruction| instruction.last)
        .map_or(0, |at| at + 1);
    let first = block
        .get(start)
        .map_or(call.offset, |instruction| instruction.offset);
    let into_block = |instruction: &&&Instruction| {
        instruction
            .target
            .is_some_and(|target| (first..=call.offset).contains(&target))
    };
    code.iter()
        .filter(into_block)
        .map(|instruction| instruction.offset)
        .collect()
}

/// The instructions in the output of `objdump -d`, for x86 or arm64.
fn jumps(disassembly: &str) -> Vec<Instruction> {
    let mut section = "";
    let mut code = Vec::new();
    for line in disassembly.lines() {
        if let Some(name) = line.strip_prefix("Disassembly of section ") {
            section = name.trim_end_matches(':');
            continue;
        }
        let Some((offset, rest)) = line.trim_start().split_once(":\t") else {
            continue;
        };
        let Ok(offset) = u64::from_str_radix(offset, 16) else {
            continue;
        };
        let mut words = rest.split_whitespace();
        let name = words.next().unwrap_or_default();
        let last = ["jmp", "ret", "ud2", "int3", "call"]
            .iter()
            .any(|end| name.starts_with(end))
            || ["b", "bl", "br", "blr", "brk"].contains(&name);
        // An unconditional jump out of the section looks like one to the code that follows.
        let conditional = name.starts_with('j') && name != "jmp"
            || ["b.", "cbz", "cbnz", "tbz", "tbnz"]
                .iter()
                .any(|jump| name.starts_with(jump));
        // The operand before the symbol's name.
        let target = words
            .take_while(|word| !word.starts_with('<'))
            .last()
            .filter(|_| conditional);
        let target = target.and_then(|target| u64::from_str_radix(target, 16).ok());
        code.push(Instruction {
            section: section.to_owned(),
            offset,
            target,
            last,
        });
    }
    code
}

/// The calls in the output of `objdump -r`.
fn calls(relocations: &str) -> Vec<Call> {
    let mut section = "";
    let mut calls = Vec::new();
    for line in relocations.lines() {
        if let Some(rest) = line.strip_prefix("RELOCATION RECORDS FOR [") {
            section = rest.trim_end_matches("]:");
        } else if let Some((_, path)) = line.split_once("4core9panicking") {
            // Debug sections only describe.
            if section.contains("text") {
                let offset = line.split_whitespace().next().unwrap_or_default();
                let Ok(offset) = u64::from_str_radix(offset, 16) else {
                    continue;
                };
                calls.push(Call {
                    section: section.into(),
                    offset,
                    function: last_name(path),
                });
            }
        }
    }
    calls
}

/// `panic_const_add_overflow` of `11panic_const24panic_const_add_overflow-0x4` (names, each after
/// its length).
fn last_name(mut path: &str) -> String {
    let mut last = "";
    loop {
        let digits = path.bytes().take_while(u8::is_ascii_digit).count();
        let Some(length) = path.get(..digits).and_then(|length| length.parse().ok()) else {
            break;
        };
        let rest = path
            .get(digits..)
            .unwrap_or_default()
            .trim_start_matches('_');
        let Some(name) = rest.get(..length) else {
            break;
        };
        last = name;
        path = rest.get(length..).unwrap_or_default();
    }
    last.to_owned()
}

/// The source position of a call's offset in its section, and those it was inlined into: files and lines, the innermost
/// first.
fn frames(root: &Root, object: &Path, call: &Call, offset: u64) -> Result<Vec<String>> {
    let mut addr2line = root.tool("addr2line");
    addr2line
        .args(["-i", "-f", "-C", "-j", &call.section, "-e"])
        .arg(object);
    addr2line.arg(format!("{offset:#x}"));
    let top = format!("{}/", workspace::root().display());
    let lines = shell::output(&mut addr2line)?;
    let lines: Vec<&str> = lines.lines().collect();
    // A function's name and its place by turns; the name helps where the line was optimised away.
    let frames = lines.chunks_exact(2).map(|pair| {
        let place = pair[1].replace(&top, "").replace("./", "");
        match place.ends_with('?') {
            true => format!("{place} ({})", pair[0]),
            false => place,
        }
    });
    Ok(frames.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_read_from_the_relocations() {
        let relocations = "RELOCATION RECORDS FOR [.text]:\n\
            0000000000002cac R_X86_64_PLT32    _RNvNtNtCs2lKf6AS60Zg_4core9panicking11panic_const24panic_const_add_overflow-0x0000000000000004\n\
            0000000000002cb0 R_X86_64_PLT32    memcpy-0x4\n\
            0000000000002cb4 R_X86_64_PLT32    _RNvNtCs2lKf6AS60Zg_4core9panicking18panic_bounds_check-0x4\n\
            RELOCATION RECORDS FOR [.debug_info]:\n\
            0000000000000001 R_X86_64_64    _RNvNtCs2lKf6AS60Zg_4core9panicking18panic_bounds_check\n";
        let calls = calls(relocations);
        let names: Vec<&str> = calls.iter().map(|call| call.function.as_str()).collect();
        assert_eq!(names, ["panic_const_add_overflow", "panic_bounds_check"]);
        assert_eq!(calls[0].offset, 0x2cac);
        assert_eq!(calls[0].section, ".text");
    }

    #[test]
    fn a_merged_call_is_traced_to_its_jumps() {
        let code = "Disassembly of section .text:\n\n0000000000000000 <f>:\n\
                    \x20  0:\tjo     14 <f+0x14>\n   2:\tmov    %eax,%ebx\n   4:\tjo     15 <f+0x15>\n\
                    \x20  6:\tret\n   7:\tnop\n   8:\tnop\n   9:\tnop\n  14:\tnop\n\
                    \x20 15:\tcall   1a <f+0x1a>\n  1a:\tjo     2 <f+0x2>\n";
        let call = Call {
            section: ".text".into(),
            offset: 0x16,
            function: "panic".into(),
        };
        assert_eq!(sources(&call, &jumps(code)), [0, 4]);
    }

    #[test]
    fn arm64_jumps_are_read() {
        let code = "Disassembly of section .text:\n\n0000000000000000 <f>:\n\
                    \x20  0:\tb.cs\t10 <f+0x10>  // b.hs, b.nlast\n   4:\ttbnz\tw8, #31, c <f+0xc>\n\
                    \x20  8:\tret\n   c:\tadrp\tx0, 0 <f>\n  10:\tbl\t0 <panic>\n";
        let call = Call {
            section: ".text".into(),
            offset: 0x10,
            function: "panic".into(),
        };
        assert_eq!(sources(&call, &jumps(code)), [0, 4]);
    }

    #[test]
    fn panic_is_reported_at_innermost_own_frame() {
        let frames = [
            "/usr/lib/rustlib/core/slice.rs:9",
            "kmod/proto/src/a.rs:1",
            "kmod/src/b.rs:2",
        ];
        assert_eq!(
            innermost_own_frame(&frames.map(str::to_owned)),
            "kmod/proto/src/a.rs:1"
        );
        assert_eq!(
            innermost_own_frame(&["/usr/a.rs:1".to_owned()]),
            "/usr/a.rs:1"
        );
    }
}
