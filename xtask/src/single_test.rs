// SPDX-License-Identifier: GPL-2.0-only
//! Runs one guest test in a guest of its own: the base of the commands for long runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::target::Selection;
use crate::vm::{Machine, Vm, INTERRUPTED};
use crate::{kbuild, root, test};

/// How long a search for leaks may take.
const LEAKS_LIMIT: Duration = Duration::from_secs(900);

/// The outcome of the test.
pub(crate) struct Done {
    /// The kernel that it ran on.
    pub(crate) release: String,
    /// All lines that the test printed.
    pub(crate) lines: Vec<String>,
}

/// Boots a guest with the module's file, on the debug kernel if wanted, and runs a test with its
/// arguments there; `hear` is called with each line as it arrives.
///
/// # Errors
///
/// When the test fails, the kernel complains, or a leak is found on a kernel with kmemleak.
pub(crate) fn run(
    selection: &Selection,
    debug_kernel: bool,
    test: &str,
    limit: Duration,
    hear: impl FnMut(&str),
) -> Result<Done> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let root = match root::ready(selection)? {
        root if debug_kernel => root.debug()?,
        root => root,
    };
    let machine = Machine {
        module: Some(kbuild::build_for(&root, &Default::default())?),
        memory: test::memory(debug_kernel),
        ..Machine::default()
    };
    let mut vm = Vm::boot_clean(&root, &machine)?;
    let lines = vm.request_streaming(&format!("test {test}"), limit, hear)?;
    vm.ask("log")?;
    if debug_kernel {
        vm.ask_within("leaks", LEAKS_LIMIT)?;
    }
    vm.off()?;
    Ok(Done {
        release: root.kernel().release.clone(),
        lines,
    })
}
