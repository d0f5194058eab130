// SPDX-License-Identifier: GPL-2.0-only
//! Connections to a server or a proxy.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::exit::end;

/// Connects to `HOST:PORT`, whose addresses are tried in turn, within that time in all, which is the time-out of each read
/// and write as well.
///
/// # Errors
///
/// The address is not `HOST:PORT` (the command line is wrong), or nothing answers there.
pub(crate) fn connect(address: &str, timeout: Duration) -> Result<TcpStream> {
    if !has_port(address) {
        end!(Usage, "{address}: must be HOST:PORT");
    }
    let end = Instant::now() + timeout;
    let found = match addresses(address, timeout) {
        Ok(found) => found,
        Err(error) => end!(NotLoaded, "{address}: no address of this name: {error}"),
    };
    let mut refused = None;
    for (at, one) in found.iter().enumerate() {
        // An address that does not answer leaves time for those after it.
        let rest = u32::try_from(found.len() - at).unwrap_or(u32::MAX);
        let time = end.saturating_duration_since(Instant::now()) / rest;
        // The time-out of a connection must not be zero.
        let time = time.max(Duration::from_millis(1));
        match TcpStream::connect_timeout(one, time) {
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

/// Whether it ends in a port.
pub(crate) fn has_port(address: &str) -> bool {
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>());
    matches!(port, Some(Ok(_)))
}

/// The addresses of `HOST:PORT`, if they are found within that time: a resolver waits for each of its servers, several
/// times.
pub(crate) fn addresses(address: &str, time: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let name = address.to_owned();
    within(time, move || Ok(name.to_socket_addrs()?.collect()))
}

/// The result of work that can't be interrupted: after that time it goes on by itself, and its result is lost.
fn within<R: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> io::Result<R> {
    let (put, result) = sync_channel(1);
    thread::Builder::new().spawn(move || drop(put.send(work())))?;
    result.recv_timeout(time).unwrap_or_else(|_| {
        let seconds = time.as_secs_f64();
        let why = format!("its name was not resolved within {seconds} s");
        Err(io::Error::new(ErrorKind::TimedOut, why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    #[test]
    fn look_up_that_does_not_end_is_not_waited_for() {
        let (end, ended) = channel::<()>();
        let error = within(Duration::from_millis(1), move || {
            let _ = ended.recv();
            Ok(())
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("not resolved"), "{error}");
        drop(end);
        let found = within(Duration::from_secs(60), || {
            Err::<(), _>(io::Error::other("x"))
        });
        assert_eq!(found.unwrap_err().to_string(), "x");
    }

    #[test]
    fn names_and_numbers_are_found_and_the_address_that_answers_is_used() {
        let time = Duration::from_secs(60);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(addresses(&address.to_string(), time).unwrap(), [address]);
        let name = format!("localhost:{}", address.port());
        assert!(addresses(&name, time).unwrap().contains(&address));
        let stream = connect(&name, time).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(has_port("[::1]:1") && !has_port("host") && !has_port("host:x"));
    }
}
