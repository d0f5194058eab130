// SPDX-License-Identifier: MIT

//! Stock clients through the proxy to three engines, if they are installed: Debian's python3-pymemcache,
//! python3-pylibmc, libmemcached-tools.

mod common;

use common::{proxy, Engine};
use std::process::Command;

fn nodes() -> [Engine; 3] {
    [Engine::start(), Engine::start(), Engine::start()]
}

/// Whether a command succeeds.
fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn python_clients_find_nothing_amiss() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testing/conformance/clients"
    );
    for module in ["pymemcache", "pylibmc"] {
        if !works(Command::new("python3").args(["-c", &format!("import {module}")])) {
            println!("{module} is not installed");
            continue;
        }
        let nodes = nodes();
        let proxy = proxy("", &nodes.each_ref().map(|node| node.address));
        let output = Command::new("python3")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(folder)
            .args([format!("{module}_ops.py"), proxy.tcp.unwrap().to_string()])
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&text)
        );
    }
}

#[test]
fn libmemcacheds_tools_find_nothing_amiss() {
    if !works(Command::new("memcat").arg("--help")) {
        println!("libmemcached's tools are not installed");
        return;
    }
    let nodes = nodes();
    let proxy = proxy("", &nodes.each_ref().map(|node| node.address));
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testing/conformance/clients/libmemcached.sh"
    );
    let output = Command::new("sh")
        .args([script, &proxy.tcp.unwrap().to_string()])
        .output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}
