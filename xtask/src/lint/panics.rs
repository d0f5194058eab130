//! No way to a panic in what the kernel runs: in softirq it would be the machine's end.
//!
//! Looked at are the release objects that Kbuild made, as the linker sees them: a
//! call that the optimiser could not rule out is an undefined `core::panicking::…`.
//! Generic code of the pure crates lands in the objects of its users, so the
//! module's own object is looked at as well.

use anyhow::{ensure, Result};

use super::Finding;
use crate::{kbuild, root, shell, workspace};

/// What may remain: the object, the panicking function, and why that is no danger.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// Every finding in target/kmod, which is built first.
pub(crate) fn check() -> Result<Vec<Finding>> {
    kbuild::build(&Default::default())?;
    let root = root::ready()?;
    let mut objects: Vec<String> = workspace::PURE_CRATES
        .iter()
        .map(|name| format!("crates/{name}.o"))
        .collect();
    objects.push("kmod/src/hippos.o".into());
    let mut findings = Vec::new();
    for object in objects {
        let path = kbuild::output_dir().join(&object);
        ensure!(path.exists(), "the build left no {}", path.display());
        let list = shell::output(root.command("/usr/bin/nm").arg("-u").arg(&path))?;
        findings.extend(ways_to_panic(&object, &list));
    }
    Ok(findings)
}

fn ways_to_panic(object: &str, undefined: &str) -> Vec<Finding> {
    undefined
        .split_whitespace()
        .filter_map(panicking_function)
        .filter(|function| {
            !ALLOWED
                .iter()
                .any(|(at, name, _)| at == &object && name == function)
        })
        .map(|function| {
            Finding::new(
                &format!("target/kmod/{object}"),
                0,
                format!("can reach core::panicking::{function}"),
            )
        })
        .collect()
}

/// `panic_bounds_check` of `_RNvNtCsXXXX_4core9panicking18panic_bounds_check`.
fn panicking_function(symbol: &str) -> Option<&str> {
    let (_, after) = symbol.split_once("4core9panicking")?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let length: usize = after.get(..digits)?.parse().ok()?;
    // A name that begins with a digit or an underscore has one underscore before it.
    after.get(digits..)?.trim_start_matches('_').get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_read_from_the_symbols() {
        let undefined =
            "                 U _RNvNtCs5HWCVCjWaIa_4core9panicking18panic_bounds_check\n\
                         \x20                U memcpy\n";
        let findings = ways_to_panic("crates/a.o", undefined);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].what.ends_with("::panic_bounds_check"),
            "{}",
            findings[0]
        );
        assert!(ways_to_panic("crates/a.o", "U memcpy\nU _RNvNtC_4core3str5count\n").is_empty());
    }
}
