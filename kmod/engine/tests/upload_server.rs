// SPDX-License-Identifier: GPL-2.0-only
//! Values that are announced and never sent, over sockets: the example server, beside memcached itself if
//! `HIPPOS_MEMCACHED` contains the command that starts it. Each has one worker and 64 MiB.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use hippos_client::Tcp;
use hippos_process::Process;

const LIMIT: Duration = Duration::from_secs(120);
const IDLE: usize = 70;
const SETS: usize = 40;
const STORED: &str = "STORED\r\n";
const REFUSED: &str = "SERVER_ERROR out of memory storing object\r\n";

/// Clients that announced values of 1,000,000 bytes and send nothing more.
struct Announced {
    server: SocketAddr,
    _idle: Vec<Tcp>,
}

impl Announced {
    fn to(server: SocketAddr) -> Self {
        let announce = |number| {
            let mut client = Tcp::to(server, LIMIT).unwrap();
            let line = format!("set big{number} 0 0 1000000\r\n");
            client.send(line.as_bytes()).unwrap();
            client
        };
        let announced = Self {
            server,
            _idle: (0..IDLE).map(announce).collect(),
        };
        // The worker accepts connections in their order, and has read what came before this one's second command.
        let mut last = announced.client();
        for _ in 0..2 {
            assert_eq!(last.ask("get none\r\n").unwrap(), "END\r\n");
        }
        announced
    }

    fn client(&self) -> Tcp {
        Tcp::to(self.server, LIMIT).unwrap()
    }

    /// The replies to values of 5,000 bytes.
    fn sets(&self) -> Vec<String> {
        let mut writer = self.client();
        let value = "v".repeat(5000);
        let set = |number| {
            let request = format!("set key{number} 0 0 5000\r\n{value}\r\n");
            writer.ask(&request).unwrap()
        };
        (0..SETS).map(set).collect()
    }

    /// The reply to a value of 20,000 bytes, and how many commands of another connection were answered before it.
    fn larger_set(&self) -> (String, usize) {
        let (mut late, mut other) = (self.client(), self.client());
        let request = format!("set late 0 0 20000\r\n{}\r\n", "v".repeat(20_000));
        late.send(request.as_bytes()).unwrap();
        let mut turns = 0;
        while !has_reply(&mut late) {
            assert_eq!(other.ask("get none\r\n").unwrap(), "END\r\n");
            turns += 1;
        }
        (late.line().unwrap(), turns)
    }
}

fn has_reply(client: &mut Tcp) -> bool {
    let stream = client.reader().get_ref();
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match peeked {
        Ok(count) => count != 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn memcached_stores_values_beside_unfinished_ones() {
    let Some((_server, address)) = Process::memcached(&["-t", "1", "-m", "64"]) else {
        return;
    };
    let announced = Announced::to(address);
    assert_eq!(announced.sets(), [STORED; SETS]);
    assert_eq!(announced.larger_set().0, STORED);
}

/// memcached allocates the memory of a large value as it arrives. Here announced values of more than 16 KiB have half of
/// the memory together, and another one waits for it in vain, while the worker goes on.
#[test]
fn values_are_stored_beside_unfinished_ones_with_few_grace_periods() {
    let server = Process::engine(&["--port", "0", "--threads", "1", "--memory-mb", "64"]);
    let announced = Announced::to(server.address());
    let waits = || {
        let waits = announced.client().stat("hippos_writer_waits");
        waits.unwrap()
    };
    let before = waits();
    let replies = announced.sets();
    let used = waits() - before;
    assert!(used <= 4, "{used} grace periods for {SETS} values");
    assert_eq!(replies, [STORED; SETS]);
    let (reply, turns) = announced.larger_set();
    assert_eq!(reply, REFUSED);
    assert!(turns >= 10, "{turns} commands while another waited");
    let used = waits() - before;
    assert!(used <= 16, "{used} grace periods with the larger value");
}
