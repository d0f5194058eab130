// SPDX-License-Identifier: GPL-2.0-only
//! PID 1 of the virtual machine, and the tests that run inside it.
//!
//! One static program: as PID 1 it mounts the usual file systems, brings the
//! network up and serves the host's requests on the second serial port
//! (`control.rs`); called with `test NAME` it is one test, in a process of its
//! own. The tests are in `tests/`, one file per theme.

mod control;
mod dashboard;
mod exporter;
mod firewall;
mod init;
mod kmsg;
mod leaks;
mod load;
mod modules;
mod net;
mod netns;
mod random;
mod random_topology;
mod receive_path;
mod request;
mod row;
mod screen;
mod socket_map;
mod system;
mod tap;
mod terminal;
mod tests;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return init::init();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for test in tests::TESTS {
                println!("{}", test.name);
            }
            ExitCode::SUCCESS
        }
        ["test", name, ..] => tests::run(name, &args[2..]),
        _ => {
            eprintln!("usage: hippos-guest list | test NAME [ARGUMENT...] (or be PID 1)");
            ExitCode::FAILURE
        }
    }
}
