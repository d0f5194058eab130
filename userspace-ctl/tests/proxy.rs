// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-ctl proxy` with a real `hippos-proxy`.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::ctl;
use hippos_process::Process;

/// Builds and starts the proxy; returns it with its address for HTTP.
fn start(file: &PathBuf) -> (Process, String) {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "hippos_proxy"])
        .args(["--bin", "hippos-proxy"])
        .status();
    assert!(built.unwrap().success(), "the proxy does not build");
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("hippos-proxy");
    let process = Process::start(Command::new(program).arg(file));
    let http = process.line.split("http ").nth(1).unwrap().trim();
    let http = http.to_owned();
    (process, http)
}

#[test]
fn a_proxy_is_looked_into_reloaded_and_drained() {
    let node = Process::engine(&["--port", "0"]);
    let file = std::env::temp_dir().join(format!("hippos-ctl-proxy-{}.toml", std::process::id()));
    let write = |more: &str| {
        let node = node.address();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nthreads = 1\n{more}\n\
             [pools.default]\nnodes = [\"{node}\"]\n"
        );
        fs::write(&file, text).unwrap();
    };
    write("");
    let (_process, http) = start(&file);
    let of = |words: &[&str]| ctl(&[&["--json", "proxy", "--http", &http], words].concat());
    let (status, out, error) = of(&["status"]);
    assert_eq!(status, 0, "{error}");
    let state: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(state["state"], "serving");
    assert_eq!(state["nodes"][node.address().to_string()], "in");
    let reloads = state["reloads"].as_u64().unwrap();

    // The file's error is reported with its line, and the old configuration stays.
    write("nonsense = 1");
    let (status, out, _) = of(&["reload"]);
    assert!(status == 6 && out.contains("line 4"), "{status} {out}");
    write("timeout_ms = 500");
    let (status, out, error) = of(&["reload"]);
    assert!(status == 0 && out.contains("taken"), "{out}{error}");
    let (_, out, _) = of(&["status"]);
    let state: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(state["reloads"].as_u64().unwrap() > reloads, "{out}");

    let (status, out, _) = of(&["admit", "10.9.9.9:1"]);
    assert!(
        status == 5 && out.contains("no such node"),
        "{status} {out}"
    );
    let (status, _, error) = of(&["drain", "--wait"]);
    assert_eq!(status, 0, "{error}");
    let (status, ..) = of(&["status"]);
    assert_eq!(status, 3);
    fs::remove_file(&file).unwrap();
}
