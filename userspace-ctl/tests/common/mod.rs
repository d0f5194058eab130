// SPDX-License-Identifier: GPL-2.0-only
//! The program under test.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use hippos_process::Process;

/// Runs hippos-ctl; returns its status, standard output and standard error.
pub(crate) fn ctl(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}

/// Starts an exporter for a server; returns it with its own address.
pub(crate) fn exporter(server: &str) -> (Process, String) {
    let exporter = Process::start(Command::new(env!("CARGO_BIN_EXE_hippos-ctl")).args([
        "--server",
        server,
        "exporter",
        "--listen",
        "127.0.0.1:0",
    ]));
    let address = exporter.line.trim().trim_start_matches("http://");
    let address = address.trim_end_matches("/metrics").to_owned();
    (exporter, address)
}

/// Stores some items; makes hits and misses.
pub(crate) fn fill(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request = Vec::new();
    for number in 0..5 {
        write!(request, "set user:{number} 0 0 3\r\nabc\r\n").unwrap();
    }
    request.extend(b"set other 0 100 2000\r\n");
    request.extend(vec![b'x'; 2000]);
    request.extend(b"\r\nget user:1\r\nget none\r\nquit\r\n");
    stream.write_all(&request).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}
