// SPDX-License-Identifier: GPL-2.0-only
//! libFuzzer's process: feeds its inputs to the target named by `HIPPOS_FUZZ_TARGET`. `cargo xtask fuzz` builds it with
//! the coverage that libFuzzer needs.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("HIPPOS_FUZZ_TARGET").unwrap_or_default();
    hippos_fuzz::target(&name).unwrap_or_else(|| panic!("no target {name:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
