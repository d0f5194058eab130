// SPDX-License-Identifier: GPL-2.0-only
//! Clients that remember the acknowledged writes: each has keys of its own, and
//! each value that it reads must be one whose storing was acknowledged, to the last
//! byte.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{Tcp, Udp};

use crate::netns::Namespace;
use crate::random::Random;

/// Keys of a client.
const KEYS: usize = 150;
/// How long a datagram's answer may take before it counts as lost.
const UDP_LIMIT: Duration = Duration::from_millis(300);

/// The values that may be found under a key.
struct KeyHistory {
    name: String,
    /// Versions; 0 is a miss.
    possible: Vec<u32>,
}

/// The operations of one client, and their results.
#[derive(Default)]
pub(crate) struct ClientLog {
    keys: Vec<KeyHistory>,
    /// Keys whose last write was not answered: not written again.
    given_up: Vec<KeyHistory>,
    /// Sets that were acknowledged.
    pub(crate) stored: u64,
    /// Sets that were answered with a lack of memory.
    pub(crate) refused: u64,
    /// Reads that were answered, over TCP and over UDP.
    pub(crate) read: u64,
    pub(crate) read_udp: u64,
    /// Reads of nothing where something had been stored.
    pub(crate) missed: u64,
    /// Connections that ended, and datagrams without an answer.
    pub(crate) broken: u64,
    pub(crate) lost: u64,
}

/// The value that version `version` of a key has: most are small, some large.
fn value(name: &str, version: u32) -> Vec<u8> {
    let seed = name.bytes().fold(u64::from(version), |seed, byte| {
        seed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
    });
    let mut random = Random::new(seed);
    let most = match random.below(100) {
        0..=59 => 100,
        60..=89 => 1300,
        90..=98 => 10_000,
        _ => 100_000,
    };
    let length = random.below(most);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The version in a reply to `get NAME`, 0 for a miss.
fn version(name: &str, reply: &[u8]) -> Result<u32> {
    if reply == b"END\r\n" {
        return Ok(0);
    }
    let end = reply
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .with_context(|| format!("{name}: no line"))?;
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let words: Vec<&str> = head.split(' ').collect();
    let ["VALUE", key, flags, _] = words[..] else {
        bail!("{name}: {head:?}");
    };
    ensure!(key == name, "{name}: the value of {key}");
    let version: u32 = flags.parse()?;
    let right = [&reply[..end + 2], &value(name, version), b"\r\nEND\r\n"].concat();
    ensure!(
        reply == right,
        "{name}: other bytes than version {version} has: {} bytes, not {}",
        reply.len(),
        right.len()
    );
    Ok(version)
}

/// The whole reply to a get of one key over TCP.
fn get(tcp: &mut Tcp, name: &str) -> Result<Vec<u8>> {
    tcp.send(format!("get {name}\r\n").as_bytes())?;
    let head = tcp.line()?;
    let mut reply = head.clone().into_bytes();
    if head.starts_with("VALUE ") {
        let length = head.trim_end().rsplit(' ').next().unwrap_or_default();
        let length: usize = length.parse().with_context(|| head.clone())?;
        let mut rest = vec![0; length + 7];
        tcp.read(&mut rest)?;
        reply.extend_from_slice(&rest);
    } else if head != "END\r\n" {
        // An end in the middle of a line is the connection's.
        bail!("{head:?}");
    }
    Ok(reply)
}

impl ClientLog {
    /// Takes a read's result in. A miss that nothing explains is counted; [`under`], which asks for
    /// the number of evictions, judges it.
    fn check_read(&mut self, at: usize, found: u32) -> Result<()> {
        let key = &self.keys[at];
        if found == 0 && !key.possible.contains(&0) {
            self.missed += 1;
        } else {
            ensure!(
                key.possible.contains(&found),
                "{}: version {found}, where only {:?} can be",
                key.name,
                key.possible
            );
        }
        Ok(())
    }

    /// A write that was not answered: the key is left as it is, and another takes its place.
    fn give_up(&mut self, at: usize, version: Option<u32>, fresh: String) {
        let new = KeyHistory {
            name: fresh,
            possible: vec![0],
        };
        let mut old = std::mem::replace(&mut self.keys[at], new);
        old.possible.push(version.unwrap_or(0));
        self.given_up.push(old);
    }

    /// Reads everything back, each key over TCP.
    fn read_back(&mut self, host: &str) -> Result<()> {
        let mut tcp = Tcp::patient(host)?;
        let given_up = std::mem::take(&mut self.given_up);
        self.keys.extend(given_up);
        for at in 0..self.keys.len() {
            let name = self.keys[at].name.clone();
            let reply = get(&mut tcp, &name)?;
            self.check_read(at, version(&name, &reply)?)?;
        }
        Ok(())
    }
}

/// Runs one client against `host` until `stop` is set. Errors are answers that are wrong; that
/// answers fail to come is only counted.
pub(crate) fn client(host: &str, id: usize, stop: &AtomicBool) -> Result<ClientLog> {
    let mut client_log = ClientLog::default();
    let mut names = 0;
    let mut fresh = || {
        names += 1;
        format!("client{id}-{names}")
    };
    for _ in 0..KEYS {
        let name = fresh();
        client_log.keys.push(KeyHistory {
            name,
            possible: vec![0],
        });
    }
    let mut random = Random::new(id as u64);
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let (Ok(mut tcp), Ok(mut udp)) = (Tcp::connect(host), Udp::connect(host)) else {
            client_log.broken += 1;
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        udp.socket.set_read_timeout(Some(UDP_LIMIT))?;
        while !stop.load(Ordering::Relaxed) {
            let at = random.below(KEYS);
            let name = client_log.keys[at].name.clone();
            match random.below(100) {
                0..=39 => {
                    next += 1;
                    let value = value(&name, next);
                    let mut request =
                        format!("set {name} {next} 0 {}\r\n", value.len()).into_bytes();
                    request.extend_from_slice(&value);
                    request.extend_from_slice(b"\r\n");
                    let answer = tcp.send(&request).and_then(|()| tcp.line());
                    match answer.as_deref() {
                        Ok("STORED\r\n") => {
                            client_log.keys[at].possible = vec![next];
                            client_log.stored += 1;
                        }
                        Ok(line) if line.starts_with("SERVER_ERROR out of memory") => {
                            // The server deletes the old value too, so that no client reads a stale one.
                            client_log.keys[at].possible.push(0);
                            client_log.refused += 1;
                        }
                        Ok(line) if line.ends_with('\n') => bail!("set {name}: {line:?}"),
                        _ => {
                            client_log.give_up(at, Some(next), fresh());
                            break;
                        }
                    }
                }
                40..=44 => {
                    let request = format!("delete {name}\r\n");
                    match tcp
                        .send(request.as_bytes())
                        .and_then(|()| tcp.line())
                        .as_deref()
                    {
                        Ok("DELETED\r\n" | "NOT_FOUND\r\n") => {
                            client_log.keys[at].possible = vec![0]
                        }
                        Ok(line) if line.ends_with('\n') => bail!("delete {name}: {line:?}"),
                        _ => {
                            client_log.give_up(at, None, fresh());
                            break;
                        }
                    }
                }
                45..=69 => match get(&mut tcp, &name) {
                    Ok(reply) => {
                        client_log.check_read(at, version(&name, &reply)?)?;
                        client_log.read += 1;
                    }
                    Err(_) => break,
                },
                _ => match udp.ask(format!("get {name}\r\n").as_bytes()) {
                    // The worker may have no memory for a long one.
                    Ok(reply) if reply.starts_with(b"SERVER_ERROR") => client_log.lost += 1,
                    Ok(reply) => {
                        client_log.check_read(at, version(&name, &reply)?)?;
                        client_log.read_udp += 1;
                    }
                    Err(_) => {
                        client_log.lost += 1;
                        // An answer that is still on its way must not be taken for the next one.
                        match Udp::connect(host) {
                            Ok(fresh) => udp = fresh,
                            // There is no way to the host now.
                            Err(_) => break,
                        }
                        udp.socket.set_read_timeout(Some(UDP_LIMIT))?;
                    }
                },
            }
        }
        client_log.broken += 1;
    }
    Ok(client_log)
}

/// Where a client lives, and whom it asks.
pub(crate) struct ClientNamespace<'a> {
    pub(crate) namespace: Option<&'a Namespace>,
    pub(crate) host: String,
}

/// Sum of the clients' figures.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) stored: u64,
    pub(crate) refused: u64,
    pub(crate) read: u64,
    pub(crate) read_udp: u64,
    pub(crate) missed: u64,
}

/// Runs clients while `inject_fault` does, then sees through `host` that all that was acknowledged is
/// there: misses are for evictions alone.
pub(crate) fn under(
    namespaces: &[ClientNamespace<'_>],
    host: &str,
    inject_fault: impl FnOnce() -> Result<()>,
) -> Result<Sum> {
    let stop = AtomicBool::new(false);
    let (ledgers, with_faults) = thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = namespaces
            .iter()
            .enumerate()
            .map(|(id, client_namespace)| {
                scope.spawn(move || match client_namespace.namespace {
                    Some(namespace) => namespace.enter(|| client(&client_namespace.host, id, stop)),
                    None => client(&client_namespace.host, id, stop),
                })
            })
            .collect();
        let with_faults = inject_fault();
        stop.store(true, Ordering::Relaxed);
        let ledgers: Vec<Result<ClientLog>> = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect();
        (ledgers, with_faults)
    });
    let mut ledgers = ledgers.into_iter().collect::<Result<Vec<_>>>()?;
    with_faults?;
    let mut sum = Sum::default();
    let evicted = || -> Result<u64> {
        let mut tcp = Tcp::patient(host)?;
        Ok(tcp.stat("evictions")? + tcp.stat("expired_unfetched")?)
    };
    for client_log in &mut ledgers {
        client_log.read_back(host).context("after it all")?;
        sum.stored += client_log.stored;
        sum.refused += client_log.refused;
        sum.read += client_log.read;
        sum.read_udp += client_log.read_udp;
        sum.missed += client_log.missed;
    }
    let evicted = evicted()?;
    let broken: u64 = ledgers.iter().map(|client_log| client_log.broken).sum();
    let lost: u64 = ledgers.iter().map(|client_log| client_log.lost).sum();
    println!(
        "{} sets stored, {} refused, {} and {} reads over TCP and UDP, {} missed, {evicted} \
         evicted, {broken} connections ended, {lost} datagrams lost",
        sum.stored, sum.refused, sum.read, sum.read_udp, sum.missed
    );
    ensure!(
        sum.missed == 0 || evicted > 0,
        "{} acknowledged values are gone, and nothing was evicted",
        sum.missed
    );
    ensure!(sum.stored > 0 && sum.read > 0, "nothing was done");
    Ok(sum)
}
