// SPDX-License-Identifier: MIT

//! Measures the CPU time of a request in a proxy and in its nodes.
//!
//!     cargo run --release -p hippos_proxy --example cpu -- ADDRESS CONNECTIONS REQUESTS PID...
//!
//! stores 1,000 values of 20 bytes through ADDRESS, then reads REQUESTS of them on CONNECTIONS, one at a time on each,
//! and prints the CPU time that each process used for it. Every value is checked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const KEYS: usize = 1000;
const VALUE: &str = "01234567890123456789";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or_else(|| anyhow::anyhow!("ADDRESS CONNECTIONS REQUESTS PID..."))
    };
    let address = next()?;
    let connections: usize = next()?.parse()?;
    let requests: usize = next()?.parse()?;
    let pids: Vec<String> = arguments.collect();

    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(&address)?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let key = |number: usize| format!("cpu:{:013}", number % KEYS);
    let mut reply = [0; 256];
    for number in 0..KEYS {
        let request = format!("set {} 0 0 {}\r\n{VALUE}\r\n", key(number), VALUE.len());
        streams[0].write_all(request.as_bytes())?;
        let len = streams[0].read(&mut reply)?;
        anyhow::ensure!(&reply[..len] == b"STORED\r\n", "not stored");
    }
    let before: Vec<u64> = pids
        .iter()
        .map(|pid| ticks(pid))
        .collect::<Result<_, _>>()?;
    let began = Instant::now();
    let mut number = 0;
    while number < requests {
        // All at once, so that the proxy serves that many clients concurrently.
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("get {}\r\n", key(number + index * 7)).as_bytes())?;
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let want = format!(
                "VALUE {} 0 20\r\n{VALUE}\r\nEND\r\n",
                key(number + index * 7)
            );
            stream.read_exact(&mut reply[..want.len()])?;
            anyhow::ensure!(&reply[..want.len()] == want.as_bytes(), "another answer");
        }
        number += connections;
    }
    let seconds = began.elapsed().as_secs_f64();
    print!("{number} requests in {seconds:.2} s; CPU ns a request:");
    for (pid, before) in pids.iter().zip(before) {
        // A tick is 10 ms on every Linux.
        let took = (ticks(pid)? - before) as f64 * 1e7 / number as f64;
        print!(" {pid} {took:.0}");
    }
    println!();
    Ok(())
}

/// CPU time of a process, in clock ticks.
fn ticks(pid: &str) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let field = |index: usize| {
        fields
            .split_whitespace()
            .nth(index)
            .map_or(Ok(0), str::parse::<u64>)
    };
    Ok(field(11)? + field(12)?)
}
