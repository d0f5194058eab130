// SPDX-License-Identifier: GPL-2.0-only
//! Rules about Rust sources: where `unsafe` may be, where C is declared, what the pure crates may not use.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::tokens::{self, Part, Token};
use super::{read, tracked, Finding};
use crate::workspace;

/// Files and folders that may hold `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("kmod/kapi/", "the one place that talks to the kernel's C"),
    (
        "kmod/store/src/",
        "touches raw memory; which of its files is in STORE_UNSAFE",
    ),
    (
        "kmod/store/tests/read_only_hits.rs",
        "takes the right to write from the store's memory",
    ),
    (
        "kmod/store/tests/instrumented/mod.rs",
        "a platform of its own, whose trait has it unsafe",
    ),
    ("userspace-ctl/src/device.rs", "ioctl on the control device"),
    ("userspace-ctl/src/xdp.rs", "libbpf's calls for links"),
    (
        "kmod/src/platform.rs",
        "hands kapi's memory to the store, whose trait has it unsafe",
    ),
    (
        "testing/guest/src/firewall.rs",
        "socket options of IPVS and iptables",
    ),
    ("testing/guest/src/socket_map.rs", "the system call bpf()"),
    ("testing/guest/src/tap.rs", "ioctl on a tap device"),
    ("bench/plugin/src/", "QEMU's plugin interface is C"),
];
/// The store's files that touch raw memory.
const STORE_UNSAFE: &[&str] = &[
    "kmod/store/src/counters.rs",
    "kmod/store/src/event_log.rs",
    "kmod/store/src/eviction/ghosts.rs",
    "kmod/store/src/host.rs",
    "kmod/store/src/index/bucket.rs",
    "kmod/store/src/index/mod.rs",
    "kmod/store/src/index/overflow.rs",
    "kmod/store/src/item.rs",
    "kmod/store/src/lock.rs",
    "kmod/store/src/loom_models.rs",
    "kmod/store/src/memory/pool.rs",
    "kmod/store/src/memory/retire.rs",
    "kmod/store/src/memory/slab.rs",
    "kmod/store/src/operations/reservation.rs",
    "kmod/store/src/platform.rs",
    "kmod/store/src/store.rs",
    "kmod/store/src/sync.rs",
    "kmod/store/src/table.rs",
    "kmod/store/src/maintenance/drain.rs",
    "kmod/store/src/maintenance/reclaim.rs",
];
/// The files that may declare C functions (`extern "C" { … }`).
const FOREIGN: &[&str] = &["kmod/kapi/ffi.rs", "bench/plugin/src/api.rs"];
/// The folders that may give C functions to call (`extern "C" fn`).
const CALLBACKS: &[&str] = &["kmod/kapi/", "bench/plugin/src/"];

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in tracked()?.iter().filter(|file| file.ends_with(".rs")) {
        let text = read(file)?;
        let tokens = tokens::read(&text, Part::Whole)
            .with_context(|| file.clone())?
            .tokens;
        findings.extend(unsafety(file, &text, &tokens));
        findings.extend(extern_c_findings(file, &tokens));
    }
    for file in kernel_files()? {
        let part = tokens::read(&read(&file)?, Part::Kernel).with_context(|| file.clone())?;
        findings.extend(purity(&file, &part.tokens));
    }
    Ok(findings)
}

/// The files of the pure crates that Kbuild compiles.
pub(crate) fn kernel_files() -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for (name, krate) in workspace::kernel_crates()? {
        if workspace::PURE_CRATES.contains(&name.as_str()) {
            let dir = krate.dir.strip_prefix(workspace::root())?.to_owned();
            files.extend(files_of(&dir.join("src/lib.rs"), Part::Kernel)?);
        }
    }
    Ok(files)
}

/// The files of this part of the crate whose root file is `root`.
pub(crate) fn files_of(root: &Path, part: Part) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(file) = todo.pop() {
        let name = file.to_string_lossy().into_owned();
        let modules = tokens::read(&read(&name)?, part)
            .with_context(|| name.clone())?
            .modules;
        for module in modules {
            todo.extend(find_module(&file, file == root, &module));
        }
        files.insert(name);
    }
    Ok(files)
}

/// Where `mod NAME;` in `file` lies. (A module inside a module's braces has none at these places.)
fn find_module(file: &Path, is_root: bool, name: &str) -> Option<std::path::PathBuf> {
    let dir = file.parent()?;
    let stem = file.file_stem()?;
    let own = if is_root || stem == "mod" {
        dir.to_owned()
    } else {
        dir.join(stem)
    };
    [
        own.join(format!("{name}.rs")),
        own.join(name).join("mod.rs"),
    ]
    .into_iter()
    .find(|path| workspace::root().join(path).is_file())
}

fn unsafety(file: &str, text: &str, tokens: &[Token]) -> Vec<Finding> {
    let listed = UNSAFE.iter().any(|(place, _)| file.starts_with(place))
        && (!file.starts_with("kmod/store/src/") || STORE_UNSAFE.contains(&file));
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for pair in tokens.windows(2) {
        let [word, next] = pair else { continue };
        if word.text != "unsafe" {
            continue;
        }
        if !listed {
            let hint = "`unsafe` outside the listed files (xtask/src/lint/sources.rs)";
            findings.push(Finding::new(file, word.line, hint));
        }
        // A block or an impl needs the reason why it is sound; functions and traits have `# Safety`.
        if matches!(next.text.as_str(), "{" | "impl") && !has_safety_comment(&lines, word.line) {
            findings.push(Finding::new(file, word.line, "`unsafe` without `SAFETY:`"));
        }
    }
    findings
}

/// Whether the comment before line `line` (counted from 1), or before the statement that it
/// belongs to, has a `SAFETY:`.
fn has_safety_comment(lines: &[&str], line: usize) -> bool {
    let mut above = lines
        .get(..line)
        .unwrap_or_default()
        .iter()
        .map(|line| line.trim())
        .rev();
    if above.next().is_some_and(|own| own.contains("SAFETY:")) {
        return true;
    }
    let mut comment = false;
    for line in above {
        if line.starts_with("//") || line.starts_with("/*") || line.starts_with('*') {
            comment = true;
            if line.contains("SAFETY:") {
                return true;
            }
        } else if comment || line.is_empty() || line.ends_with([';', '}']) {
            // Comments further up belong to other code.
            return false;
        }
    }
    false
}

fn extern_c_findings(file: &str, tokens: &[Token]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for triple in tokens.windows(3) {
        let [word, abi, next] = triple else { continue };
        if word.text != "extern" || abi.text != "\"C\"" {
            continue;
        }
        if next.text == "{" && !FOREIGN.contains(&file) {
            findings.push(Finding::new(
                file,
                word.line,
                "C is declared in kmod/kapi/ffi.rs",
            ));
        }
        if next.text == "fn" && !CALLBACKS.iter().any(|place| file.starts_with(place)) {
            findings.push(Finding::new(
                file,
                word.line,
                "functions for C to call are kapi's",
            ));
        }
    }
    findings
}

fn purity(file: &str, tokens: &[Token]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = |step: usize| {
            tokens
                .get(at + step)
                .map_or("", |token| token.text.as_str())
        };
        let what = match token.text.as_str() {
            "extern" if next(1) == "crate" && next(2) != "self" => {
                format!("`extern crate {}` in a pure crate", next(2))
            }
            "alloc" | "kernel" if next(1) == ":" && next(2) == ":" => {
                format!("`{}` in a pure crate", token.text)
            }
            "f32" | "f64" => "floats in a pure crate".to_owned(),
            _ if token.float => format!("the float {} in a pure crate", token.text),
            _ => continue,
        };
        findings.push(Finding::new(file, token.line, what));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        tokens::read(text, Part::Kernel).unwrap().tokens
    }

    fn lines(findings: Vec<Finding>) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_is_only_for_the_listed() {
        let text = "fn f() {\n    // SAFETY: it is.\n    unsafe { g() }\n}\n";
        assert_eq!(
            lines(unsafety("kmod/proto/src/lib.rs", text, &tokens(text))),
            [3]
        );
        assert!(unsafety("kmod/kapi/lib.rs", text, &tokens(text)).is_empty());
    }

    #[test]
    fn unsafe_needs_its_reason() {
        let bare =
            "fn f() {\n    let a = 1;\n    let b = unsafe { g() };\n}\nunsafe impl Sync for A {}\n";
        assert_eq!(
            lines(unsafety("kmod/kapi/a.rs", bare, &tokens(bare))),
            [3, 5]
        );
        let far = "// SAFETY: of another.\nlet a = unsafe { f() };\nlet b = unsafe { g() };\n";
        assert_eq!(lines(unsafety("kmod/kapi/a.rs", far, &tokens(far))), [3]);
        let fine = "// SAFETY: the\n// best.\nlet a =\n    h(unsafe { g() });\n";
        assert!(unsafety("kmod/kapi/a.rs", fine, &tokens(fine)).is_empty());
        let word = "// says unsafe {\nconst A: &str = \"unsafe { }\";\n";
        assert!(unsafety("kmod/proto/src/lib.rs", word, &tokens(word)).is_empty());
    }

    #[test]
    fn c_is_declared_in_one_file() {
        let text = "extern \"C\" {\n    fn f();\n}\nextern \"C\" fn g() {}\n";
        assert!(lines(extern_c_findings("kmod/kapi/ffi.rs", &tokens(text))).is_empty());
        assert_eq!(
            lines(extern_c_findings("kmod/kapi/lib.rs", &tokens(text))),
            [1]
        );
        assert_eq!(
            lines(extern_c_findings("kmod/src/hippos.rs", &tokens(text))),
            [1, 4]
        );
    }

    #[test]
    fn pure_crates_are_pure() {
        let text = "extern crate alloc;\nuse alloc::vec;\nfn f(a: f64) -> u32 { 1 }\nconst B: u32 = 2.5;\n";
        assert_eq!(lines(purity("x.rs", &tokens(text))), [1, 2, 3, 4]);
        let fine = "#[cfg(test)]\nmod tests {\n    extern crate std;\n    const A: f32 = 1.5;\n}\n";
        assert!(purity("x.rs", &tokens(fine)).is_empty());
    }
}
