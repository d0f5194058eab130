// SPDX-License-Identifier: GPL-2.0-only
//! Compiles the XDP program, when the tool is built with it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/xdp/hippos.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_XDP").is_none() {
        return;
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let object = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("hippos.bpf.o");
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c"])
        .args([SOURCE, "-o"])
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} ended with {status}"),
        Err(error) => panic!("the XDP program needs clang ({clang}: {error}); set CLANG"),
    }
}
