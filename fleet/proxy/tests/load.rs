// SPDX-License-Identifier: MIT

//! The load generator of `cargo xtask bench fleet` with few requests: through a proxy, as a client that hashes, and
//! through forwarders in turn.

mod common;

use std::net::SocketAddr;
use std::process::Command;

use common::{proxy, Engine};

fn load(to: &[SocketAddr], more: &[&str]) -> String {
    let to: Vec<_> = to.iter().map(SocketAddr::to_string).collect();
    let own = format!("nodes={}", std::process::id());
    // `cargo test` builds examples, except with a filter like `--test load`.
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/load");
    let output = Command::new(program)
        .args(["--to", &to.join(",")])
        .args(["--keys", "50", "--requests", "300", "--pids", &own])
        .args(more)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{more:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_load_generator_checks_every_reply() {
    let engines = [(); 3].map(|()| Engine::start());
    let nodes: Vec<_> = engines.iter().map(|engine| engine.address).collect();
    let proxies = [(); 3].map(|()| proxy("", &nodes));
    let fronts: Vec<_> = proxies.iter().map(|proxy| proxy.tcp.unwrap()).collect();
    // The keys that clients which hash have stored are those that proxies find.
    let kinds = ["get", "set", "etc"];
    for kind in kinds {
        let report = load(&nodes, &["--kind", kind, "--fill", "--depth", "8"]);
        assert!(report.starts_with("{\"requests\":300,"), "{report}");
        load(&fronts[..1], &["--kind", kind, "--clients", "9"]);
    }
    load(&fronts, &["--kind", "get", "--in-turn", "--clients", "5"]);
    let report = load(&fronts[..1], &["--kind", "get", "--rate", "3000"]);
    assert!(report.contains("\"cpu_nodes\":"), "{report}");
    // Keys of 20 bytes with values of 100 are not stored: a miss is an error.
    let missed = std::panic::catch_unwind(|| {
        load(&fronts[..1], &["--kind", "get", "--value", "100"]);
    });
    assert!(missed.is_err());
}
