// SPDX-License-Identifier: GPL-2.0-only
//! Asks for the version of the module that belongs to this tool, and compiles the XDP program, when the tool is built
//! with it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/xdp/hippos.bpf.c";

/// Prints the version of the module, from these sources.
const VERSION: &str = "../kmod/version.sh";
const VERSION_SOURCES: [&str; 3] = ["../Cargo.toml", "../Kbuild", "../kmod"];

fn main() {
    for source in VERSION_SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rustc-env=HIPPOS_VERSION={}", version());
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

fn version() -> String {
    let output = Command::new("sh").arg(VERSION).output();
    let output = output.unwrap_or_else(|error| panic!("{VERSION} does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{VERSION}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
