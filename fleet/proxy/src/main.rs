// SPDX-License-Identifier: MIT

//! The program: configuration, signals, and commands over HTTP.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use hippos_proxy::config::Config;
use hippos_proxy::server::{ControlCommand, Server};
use hippos_proxy::watch::Watch;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A fleet of memcached servers behind one address.
///
/// A changed configuration is loaded automatically, and at SIGHUP; SIGTERM ends the proxy after all clients have their
/// replies.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Configuration file
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let lookup = |name: &str| name.to_socket_addrs().map(|found| found.collect());
    let (mut watch, config) = Watch::new(args.config, &lookup)?;
    if args.check {
        return Ok(());
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let server = Server::start(config)?;
    let shown = |name, address: Option<std::net::SocketAddr>| {
        address.map_or(String::new(), |address| format!(" {name} {address}"))
    };
    println!(
        "hippos-proxy: ready{}{}{}{}",
        shown("tcp", server.tcp),
        shown("tls", server.tls),
        shown("udp", server.udp),
        shown("http", server.http)
    );
    let control_commands = server.control_commands();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _ = control_commands.send(match signal {
                SIGHUP => ControlCommand::Reload(None),
                _ => ControlCommand::Drain,
            });
        }
    });
    let take = |read: anyhow::Result<Config>| match read {
        Ok(config) => {
            server.reload(config);
            eprintln!("hippos-proxy: configuration taken");
            Ok(())
        }
        Err(error) => {
            eprintln!("hippos-proxy: configuration kept: {error:#}");
            Err(format!("{error:#}"))
        }
    };
    loop {
        match server.order(Duration::from_secs(1)) {
            Some(ControlCommand::Drain) => break,
            Some(ControlCommand::Reload(sender)) => {
                let result = take(watch.read(&lookup));
                if let Some(sender) = sender {
                    let _ = sender.send(result);
                }
            }
            None => {
                if let Some(read) = watch.look(&lookup) {
                    let _ = take(read);
                }
            }
        }
    }
    server.drain();
    Ok(())
}
