//! No way to a panic in what the kernel runs: in softirq it would be the machine's end.
//!
//! Looked at are the release objects that Kbuild made, as the linker sees them: a
//! call that the optimiser could not rule out is a relocation against
//! `core::panicking::…`. Generic code of the pure crates lands in the module's own
//! object; there only what comes from them counts, and what runs in softirq.

use std::path::Path;

use anyhow::{ensure, Result};

use super::Finding;
use crate::root::Root;
use crate::{kbuild, root, shell, workspace};

/// The object of the module's own crate.
const MODULE: &str = "kmod/src/hippos.o";
/// Sources whose code in it must not panic.
const STRICT: &[&str] = &[
    "kmod/abi/",
    "kmod/proto/",
    "kmod/store/",
    "kmod/engine/",
    "kmod/src/gate.rs",
    "target/vendor/",
];
/// What may remain: a part of the place that [`Finding`] names, and why it is no danger.
const ALLOWED: &[(&str, &str)] = &[(
    "target/vendor/heapless/src/vec.rs:275",
    "Vec::push counts up only when it saw room for one more",
)];

/// Every finding in target/kmod, which is built first.
pub(crate) fn check() -> Result<Vec<Finding>> {
    kbuild::build(&Default::default())?;
    let root = root::ready()?;
    let mut objects: Vec<String> = workspace::PURE_CRATES
        .iter()
        .map(|name| format!("crates/{name}.o"))
        .collect();
    objects.push(MODULE.into());
    let mut findings = Vec::new();
    for object in objects {
        let path = kbuild::output_dir().join(&object);
        ensure!(path.exists(), "the build left no {}", path.display());
        let relocations = shell::output(root.command("/usr/bin/objdump").arg("-r").arg(&path))?;
        for call in calls(&relocations) {
            let place = place(&root, &path, &call)?;
            let counts = object != MODULE || STRICT.iter().any(|source| place.contains(source));
            if counts && !allowed(&place) {
                let what = format!("can panic ({}) in {place}", call.function);
                findings.push(Finding::new(&object, 0, what));
            }
        }
    }
    Ok(findings)
}

/// A call of a panicking function.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    section: String,
    /// Hexadecimal, as objdump gives it.
    offset: String,
    /// Its bare name, `panic_bounds_check`.
    function: String,
}

/// The calls among what `objdump -r` prints.
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
                calls.push(Call {
                    section: section.into(),
                    offset: offset.into(),
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

/// Where a call is, and what it was inlined into: files and lines, the innermost first.
fn place(root: &Root, object: &Path, call: &Call) -> Result<String> {
    let mut addr2line = root.command("/usr/bin/addr2line");
    addr2line
        .args(["-i", "-j", &call.section, "-e"])
        .arg(object)
        .arg(&call.offset);
    let top = format!("{}/", workspace::root().display());
    let frames = shell::output(&mut addr2line)?;
    let frames: Vec<String> = frames
        .lines()
        .map(|frame| frame.replace(&top, "").replace("./", ""))
        .collect();
    Ok(frames.join(", inlined in "))
}

fn allowed(place: &str) -> bool {
    ALLOWED.iter().any(|(part, _)| place.contains(part))
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
        assert_eq!(calls[0].offset, "0000000000002cac");
        assert_eq!(calls[0].section, ".text");
    }
}
