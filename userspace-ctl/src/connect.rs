// SPDX-License-Identifier: GPL-2.0-only
//! Connections to a server or a proxy.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Result;

use crate::exit::end;

/// Connects to `HOST:PORT`, whose addresses are tried in turn, with a time-out for the connection and for each read and
/// write.
///
/// # Errors
///
/// The address is not `HOST:PORT` (the command line is wrong), or nothing answers there.
pub(crate) fn connect(address: &str, timeout: Duration) -> Result<TcpStream> {
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) {
        end!(Usage, "{address}: must be HOST:PORT");
    }
    let resolved = match address.to_socket_addrs() {
        Ok(resolved) => resolved,
        Err(error) => end!(NotLoaded, "{address}: the host is unknown: {error}"),
    };
    let mut refused = None;
    for one in resolved {
        match TcpStream::connect_timeout(&one, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => end!(NotLoaded, "{address} does not answer: {error}"),
        None => end!(NotLoaded, "{address}: the host has no address"),
    }
}
