// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-ctl --server` and its exporter beside the engine's example server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use hippos_process::Process;

mod common;

use common::{ctl, exporter, fill};

/// The engine's example server.
fn server(arguments: &[&str]) -> Process {
    Process::engine(&[&["--port", "0"], arguments].concat())
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let (status, out, error) = ctl(arguments);
    assert_eq!(status, 0, "{arguments:?}: {error}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_server_over_tcp_is_looked_into() {
    let server = server(&[]);
    let address = &server.address().to_string();
    fill(address);
    let of = |words: &[&'static str]| json(&[&["--json", "--server", address], words].concat());
    let stats = of(&["stats"]);
    assert_eq!(
        (&stats["curr_items"], &stats["get_hits"]),
        (&6.into(), &1.into())
    );
    let status = of(&["status"]);
    assert_eq!(status["health"], "healthy");
    let slabs = of(&["slabs"]);
    let items: u64 = slabs
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["items"].as_u64().unwrap())
        .sum();
    assert_eq!(items, 6);
    assert!(of(&["conns"]).is_array());
    let (code, keys, _) = ctl(&["--server", address, "keys", "user:"]);
    assert_eq!((code, keys.lines().count()), (0, 5), "{keys}");
    let (code, keys, error) = ctl(&["--server", address, "keys", "--most", "2", "--json"]);
    assert_eq!((code, keys.lines().count()), (0, 2), "{keys}");
    assert!(error.contains("2 of 6 keys"), "{error}");
    assert_eq!(of(&["stats", "reset"])["done"], true);
    assert_eq!(of(&["stats"])["get_hits"], 0);
}

#[test]
fn top_prints_a_frame_of_the_rates_in_the_interval() {
    let server = server(&[]);
    let address = &server.address().to_string();
    let client = TcpStream::connect(address).unwrap();
    let arguments = ["--server", address, "top", "--once", "--interval", "0.1"];
    let (status, text, error) = ctl(&arguments);
    assert_eq!(status, 0, "{error}");
    assert!(text.starts_with("healthy: hippos "), "{text}");
    let peer = client.local_addr().unwrap().to_string();
    assert!(text.contains(&peer), "{peer} in {text}");
    assert!(text.contains("\nTCP "), "{text}");
    let top = json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(top["receive_paths"].as_array().unwrap().len(), 4);
    assert!(!top["cpus"].as_array().unwrap().is_empty());
    let (status, _, error) = ctl(&["--server", address, "top"]);
    assert_eq!(status, 2, "{error}");
    let (status, out, error) = ctl(&["--server", address, "stats", "detail", "on"]);
    assert_eq!((status, &out[..]), (0, ""), "{error}");
    fill(address);
    let detail = json(&["--server", address, "--json", "stats", "detail"]);
    assert_eq!(detail["user"]["set"], 5);
    assert_eq!(
        json(&["--server", address, "--json", "stats", "sizes"])["sizes_status"],
        "disabled"
    );
}

#[test]
fn a_login_is_asked_for_and_used() {
    let users = std::env::temp_dir().join(format!("hippos-ctl-users-{}", std::process::id()));
    fs::write(&users, "user:pass\n").unwrap();
    let file = users.to_str().unwrap();
    let server = server(&["-Y", file]);
    let address = &server.address().to_string();
    let (code, _, error) = ctl(&["--server", address, "stats"]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("--auth-file"), "{error}");
    let (code, ..) = ctl(&["--server", address, "--auth-file", file, "stats"]);
    assert_eq!(code, 0);
    let (code, out, _) = ctl(&["--server", "127.0.0.1:1", "--json", "stats"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["status"]), (3, &3.into()));
    drop(fs::remove_file(users));
}

#[test]
fn errors_are_json_too_and_a_closed_output_changes_no_status() {
    let (code, out, error) = ctl(&["--json", "memory", "many"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["status"]), (2, &2.into()));
    assert!(error.contains("invalid"), "{error}");
    let (code, out, _) = ctl(&["--server", "127.0.0.1:1", "--json", "dump", "-"]);
    assert_eq!((code, &out[..]), (3, ""));
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
        .args(["--server", "127.0.0.1:1", "--json", "stats"])
        .stdout(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn the_exporter_serves_metrics_and_a_page() {
    let server = server(&[]);
    let address = &server.address().to_string();
    fill(address);
    let (_exporter, address) = exporter(address);
    let address = &address;
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("openmetrics-text; version=1.0.0"), "{head}");
    let sample = |name: &str| body.lines().find(|line| line.starts_with(name)).unwrap();
    assert_eq!(
        sample("memcached_current_items"),
        "memcached_current_items 6.0"
    );
    assert!(body.contains("memcached_commands_total{command=\"get\",status=\"hit\"} 1\n"));

    let (head, page) = get(address, "/");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    for part in ["healthy: hippos ", " in 6 items", "<caption>Slab classes"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(get(address, "/x").0.starts_with("HTTP/1.1 404"));
    drop(server);
    let (_, body) = get(address, "/metrics");
    assert!(body.contains("memcached_up 0\n"), "{body}");
    thread::sleep(Duration::from_millis(600));
    let (_, page) = get(address, "/");
    assert!(page.contains("no answer"), "{page}");
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = ctl(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(
            text.contains("hippos-ctl") && text.contains("reload"),
            "{shell}: {text}"
        );
    }
    let folder = std::env::temp_dir().join(format!("hippos-ctl-man-{}", std::process::id()));
    assert_eq!(ctl(&["man", folder.to_str().unwrap()]).0, 0);
    let page = fs::read_to_string(folder.join("hippos-ctl.1")).unwrap();
    assert!(
        page.contains("Exit status") && page.contains("not loaded"),
        "{page}"
    );
    assert!(folder.join("hippos-ctl-start.1").exists());
    drop(fs::remove_dir_all(folder));
}
