// SPDX-License-Identifier: GPL-2.0-only
//! The counters that commands change: a matrix of commands and states of their keys.
//!
//! A cell is one command, of the text, meta or binary protocol, over TCP or UDP, against one
//! state of its key: absent, present, expired, flushed, stale, and so on. `counters/recorded.txt`
//! holds, for each cell, by how much memcached's counters change: all of `stats`, and those of
//! `stats items` and `stats slabs` summed over the classes. `counters/differs.txt` lists the differences that are
//! allowed, with the reasons.

use anyhow::{bail, ensure, Context, Result};
use hippos_client::{framed, FRAME};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::fresh_key::fresh_key;
use crate::options::Target;

/// The recorded deltas.
pub const RECORDED: &str = include_str!("../counters/recorded.txt");
/// The differences that are allowed.
pub const DIFFERS: &str = include_str!("../counters/differs.txt");

/// CAS number of the item that a state makes.
const CAS: u64 = 777;
/// A value's length with which the item alone is too large.
const TOO_LARGE: usize = 1_100_000;
/// A value's length with which the item fits, but not two of them joined.
const HALF: usize = 600_000;
/// How often a cell that differs is repeated: a background sweep of the server may have removed expired or flushed
/// items meanwhile.
const TRIES: u32 = 10;
/// The pause before the first repetition; each later one is longer by as much, until the sweep has ended.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long memcached needs until `flush_all` covers an item.
const FLUSHABLE: Duration = Duration::from_millis(2100);

/// The state of the key before the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No item has the key.
    Miss,
    /// An item with the value `10`.
    Hit,
    /// The same, and the command's CAS number is above the item's.
    Above,
    /// The same, and the command's CAS number is below the item's.
    Below,
    /// An item with the value `ab`.
    Word,
    /// An item that has expired.
    Expired,
    /// An item that was flushed.
    Flushed,
    /// An item that was invalidated.
    Stale,
    /// An absent key, and the new value is too large.
    Large,
    /// An item, and the new value is too large.
    LargeHit,
    /// An item, and the new value is too large together with the item's.
    LargeJoin,
}

impl State {
    const ALL: [(State, &'static str); 11] = [
        (State::Miss, "miss"),
        (State::Hit, "hit"),
        (State::Above, "cas above"),
        (State::Below, "cas below"),
        (State::Word, "word"),
        (State::Expired, "expired"),
        (State::Flushed, "flushed"),
        (State::Stale, "stale"),
        (State::Large, "too large"),
        (State::LargeHit, "too large over an item"),
        (State::LargeJoin, "too large when joined"),
    ];

    /// Whether the command can be combined with the state.
    fn applies_to(self, command: &Command, udp: bool) -> bool {
        let text = command.text;
        let keyed = text.contains('$');
        let joins = ["append", "prepend", "MA", "MP"];
        match self {
            State::Miss => true,
            State::Above | State::Below => text.contains("{cas}"),
            State::Word => command.arithmetic(),
            // A block of such a size fits no datagram.
            State::Large | State::LargeHit => text.contains("{value}") && !udp,
            State::LargeJoin => {
                text.contains("{value}") && joins.iter().any(|word| text.contains(word)) && !udp
            }
            _ => keyed,
        }
    }

    fn value(self) -> Vec<u8> {
        match self {
            State::Large | State::LargeHit => vec![b'x'; TOO_LARGE],
            State::LargeJoin => vec![b'x'; HALF],
            _ => b"5".to_vec(),
        }
    }

    fn cas(self) -> u64 {
        match self {
            State::Above => CAS + 1,
            State::Below => CAS - 1,
            _ => CAS,
        }
    }

    /// The commands that set up the state, without the flush.
    fn setup(self, key: &str) -> Vec<u8> {
        let set = |value: &[u8], flags: &str| {
            let mut line = format!("ms {key} {} E{CAS}{flags}\r\n", value.len()).into_bytes();
            line.extend_from_slice(value);
            line.extend_from_slice(b"\r\n");
            line
        };
        match self {
            State::Miss | State::Large => Vec::new(),
            State::Word => set(b"ab", ""),
            State::Expired => set(b"10", " T-1"),
            State::Stale => {
                let mut both = set(b"10", "");
                both.extend_from_slice(format!("md {key} I E{CAS}\r\n").as_bytes());
                both
            }
            State::LargeJoin => set(&vec![b'y'; HALF], ""),
            // In a class of its own: memcached removes a class's dead items when it stores one there.
            State::Flushed => set(&[b'z'; 500], ""),
            _ => set(b"10", ""),
        }
    }
}

/// A command of the matrix.
struct Command {
    protocol: &'static str,
    /// `$` is the key, `{len}` and `{value}` a value, `{cas}` a CAS number. For the binary
    /// protocol: the opcode, extras in hexadecimal, then words of that kind.
    text: &'static str,
}

impl Command {
    fn arithmetic(&self) -> bool {
        ["incr", "decr", "ma "]
            .iter()
            .any(|word| self.text.starts_with(word))
    }

    fn bytes(&self, key: &str, state: State) -> Result<Vec<u8>> {
        let value = state.value();
        if self.protocol == "binary" {
            return self.packet(key, &value, state.cas());
        }
        let text = self
            .text
            .replace('$', key)
            .replace("{len}", &value.len().to_string())
            .replace("{cas}", &state.cas().to_string())
            .replace("{long}", &"k".repeat(251));
        let line = text.replace("{value}", "");
        let mut bytes = format!("{}\r\n", line.trim_end()).into_bytes();
        if text.contains("{value}") {
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        Ok(bytes)
    }

    /// A packet of the binary protocol.
    fn packet(&self, key: &str, value: &[u8], cas: u64) -> Result<Vec<u8>> {
        let mut words = self.text.split(' ');
        let name = words.next().context("no opcode")?;
        let opcode = crate::packet::opcode(name).with_context(|| name.to_owned())?;
        let (mut extras, mut with_key, mut with_value, mut number) = (Vec::new(), false, false, 0);
        for word in words {
            match word {
                "$" => with_key = true,
                "{value}" => with_value = true,
                "{cas}" => number = cas,
                hex => {
                    ensure!(hex.len() % 2 == 0, "extras {hex}");
                    for at in (0..hex.len()).step_by(2) {
                        let digits = hex.get(at..at + 2).context("extras")?;
                        extras.push(u8::from_str_radix(digits, 16)?);
                    }
                }
            }
        }
        let key = if with_key { key.as_bytes() } else { b"" };
        let value = if with_value { value } else { b"" };
        let mut packet = vec![0; 24];
        packet[0] = crate::packet::REQUEST;
        packet[1] = opcode;
        packet[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
        packet[4] = extras.len() as u8;
        let body = extras.len() + key.len() + value.len();
        packet[8..12].copy_from_slice(&(body as u32).to_be_bytes());
        packet[16..24].copy_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&extras);
        packet.extend_from_slice(key);
        packet.extend_from_slice(value);
        Ok(packet)
    }
}

const TEXT: &[&str] = &[
    "get $",
    "gets $",
    "get $ $",
    "get $ none",
    "get $ {long}",
    "get",
    "gat 100 $",
    "gats 100 $",
    "gat 100 $ $",
    "gat x $",
    "set $ 0 0 {len} {value}",
    "set $ 0 0 {len} noreply{value}",
    "set $ 7 100 {len} {value}",
    "set $ 0 -1 {len} {value}",
    "set $ 0 0 x",
    "set {long} 0 0 1",
    "add $ 0 0 {len} {value}",
    "replace $ 0 0 {len} {value}",
    "append $ 0 0 {len} {value}",
    "prepend $ 0 0 {len} {value}",
    "cas $ 0 0 {len} {cas} {value}",
    "incr $ 1",
    "incr $ 90",
    "incr $ 1 noreply",
    "incr $ x",
    "decr $ 1",
    "decr $ 20",
    "delete $",
    "delete $ noreply",
    "touch $ 100",
    "touch $ -1",
    "touch $ noreply",
    "flush_all",
    "flush_all 100",
    "flush_all noreply",
    "version",
    "verbosity 1",
    "shutdown",
    "bogus",
    "slabs automove 1",
];

const META: &[&str] = &[
    "mg $",
    "mg $ v",
    "mg $ v q",
    "mg $ k O1 s c f t h l",
    "mg $ u v",
    "mg $ T100 v",
    "mg $ T100 q",
    "mg $ N100 v",
    "mg $ N100 T50 v",
    "mg $ N0 T-1",
    "mg $ R1000 v",
    "mg $ E99 N100",
    "mg $ Tx",
    "mg {long}",
    "ms $ {len} {value}",
    "ms $ {len} q{value}",
    "ms $ {len} T100 F7{value}",
    "ms $ {len} ME{value}",
    "ms $ {len} MR{value}",
    "ms $ {len} MA{value}",
    "ms $ {len} MP{value}",
    "ms $ {len} MA N100{value}",
    "ms $ {len} MP N100{value}",
    "ms $ {len} C{cas}{value}",
    "ms $ {len} C{cas} I{value}",
    "ms $ {len} C{cas} ME{value}",
    "ms $ {len} C{cas} MR{value}",
    "ms $ {len} C{cas} MA{value}",
    "ms $ {len} C{cas} MP{value}",
    "ms $ {len} C{cas} MA N100{value}",
    "ms $ {len} C0{value}",
    "ms $ {len} C0 MA{value}",
    "ms $ {len} MX{value}",
    "md $",
    "md $ q",
    "md $ C{cas}",
    "md $ I",
    "md $ I T30",
    "md $ I C{cas}",
    "md $ x",
    "md $ x I",
    "md $ x C{cas}",
    "ma $",
    "ma $ q",
    "ma $ MD",
    "ma $ D90",
    "ma $ MD D20",
    "ma $ T100 v",
    "ma $ N100 J5",
    "ma $ MD N100 J5",
    "ma $ C{cas}",
    "ma $ MD C{cas}",
    "ma $ C{cas} N100",
    "me $",
    "mn",
];

const BINARY: &[&str] = &[
    "get $",
    "getq $",
    "getk $",
    "getkq $",
    "set $ 0000000000000000 {value}",
    "setq $ 0000000000000000 {value}",
    "set $ 0000000000000000 {value} {cas}",
    "add $ 0000000000000000 {value}",
    "addq $ 0000000000000000 {value}",
    "add $ 0000000000000000 {value} {cas}",
    "replace $ 0000000000000000 {value}",
    "replaceq $ 0000000000000000 {value}",
    "replace $ 0000000000000000 {value} {cas}",
    "append $ {value}",
    "appendq $ {value}",
    "append $ {value} {cas}",
    "prepend $ {value}",
    "prependq $ {value}",
    "prepend $ {value} {cas}",
    "delete $",
    "deleteq $",
    "delete $ {cas}",
    "incr $ 0000000000000001000000000000000000000000",
    "incr $ 000000000000000100000000000000000000ffff",
    "incr $ 00000000000000010000000000000000ffffffff",
    "incr $ 000000000000005a0000000000000000ffffffff",
    "incrq $ 00000000000000010000000000000000ffffffff",
    "incr $ 00000000000000010000000000000000ffffffff {cas}",
    "decr $ 00000000000000010000000000000000ffffffff",
    "decr $ 0000000000000001000000000000000000000000",
    "decrq $ 00000000000000010000000000000000ffffffff",
    "decr $ 00000000000000010000000000000000ffffffff {cas}",
    "touch $ 00000064",
    "gat $ 00000064",
    "gatq $ 00000064",
    "gatk $ 00000064",
    "gatkq $ 00000064",
    "flush",
    "flushq",
    "noop",
    "version",
    "sasl_list",
    "rget",
];

/// One cell.
struct Cell {
    command: Command,
    state: State,
    udp: bool,
}

impl Cell {
    fn name(&self) -> String {
        let transport = if self.udp { "udp" } else { "tcp" };
        let state = State::ALL.iter().find(|(state, _)| *state == self.state);
        let state = state.map_or("", |(_, name)| name);
        format!(
            "{} {} | {state} | {transport}",
            self.command.protocol, self.command.text
        )
    }
}

fn cells(udp: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (protocol, commands) in [("text", TEXT), ("meta", META), ("binary", BINARY)] {
        for text in commands {
            for udp in [false, true].into_iter().filter(|over| udp || !over) {
                for (state, _) in State::ALL {
                    let command = Command { protocol, text };
                    if state.applies_to(&command, udp) {
                        cells.push(Cell {
                            command,
                            state,
                            udp,
                        });
                    }
                }
            }
        }
    }
    cells
}

/// Counters that changed, and by how much.
type Delta = BTreeMap<String, i64>;

/// The connections to a server.
struct Client {
    control: TcpStream,
    reader: BufReader<TcpStream>,
    text: TcpStream,
    binary: TcpStream,
    udp: Option<UdpSocket>,
    /// Bytes sent and received by the control connection, for statistics.
    sent: i64,
    received: i64,
}

impl Client {
    fn new(target: &Target) -> Result<Self> {
        let connect = || hippos_client::stream(target.tcp, TIMEOUT);
        let control = connect()?;
        let udp = target.udp.map(hippos_client::socket).transpose()?;
        if let Some(udp) = &udp {
            udp.set_read_timeout(Some(TIMEOUT))?;
        }
        let mut client = Self {
            reader: BufReader::new(control.try_clone()?),
            control,
            text: connect()?,
            binary: connect()?,
            udp,
            sent: 0,
            received: 0,
        };
        // The server must have accepted all connections before the first comparison.
        client.serve(&Channel::Text, b"")?;
        client.serve(&Channel::Binary, b"")?;
        Ok(client)
    }

    /// All counters, those of classes as sums.
    fn counters(&mut self) -> Result<BTreeMap<String, i64>> {
        let mut counters = BTreeMap::new();
        // Those of classes first: `stats` includes the bytes sent before it.
        for (section, kind) in [("items", "items"), ("slabs", "slabs"), ("", "")] {
            let line = format!("stats {section}").trim_end().to_owned() + "\r\n";
            self.control.write_all(line.as_bytes())?;
            self.sent += line.len() as i64;
            let base = (self.sent, self.received);
            loop {
                let mut line = String::new();
                let count = self.reader.read_line(&mut line)?;
                ensure!(count > 0, "the server closed the connection");
                self.received += count as i64;
                let words: Vec<&str> = line.split_whitespace().collect();
                let (name, value) = match *words.as_slice() {
                    ["STAT", name, value] => (name, value),
                    ["END"] => break,
                    _ => continue,
                };
                let Ok(value) = value.parse::<i64>() else {
                    continue;
                };
                let name = match (kind, name.rsplit_once(':')) {
                    ("", _) | (_, None) => name.to_owned(),
                    (kind, Some((_, last))) => format!("{kind}:{last}"),
                };
                *counters.entry(name).or_default() += value;
            }
            if kind.is_empty() {
                // Without the bytes of the `stats` commands themselves.
                *counters.entry("bytes_read".to_owned()).or_default() -= base.0;
                *counters.entry("bytes_written".to_owned()).or_default() -= base.1;
            }
        }
        Ok(counters)
    }

    /// Sends bytes, and waits until the server has processed them.
    fn serve(&mut self, channel: &Channel, bytes: &[u8]) -> Result<()> {
        match channel {
            Channel::Control => {
                let mut both = bytes.to_vec();
                both.extend_from_slice(b"mn\r\n");
                self.sent += both.len() as i64;
                self.control.write_all(&both)?;
                loop {
                    let mut line = Vec::new();
                    let count = self.reader.read_until(b'\n', &mut line)?;
                    ensure!(count > 0, "the server closed the connection");
                    self.received += count as i64;
                    if line == b"MN\r\n" {
                        return Ok(());
                    }
                }
            }
            Channel::Text => {
                self.text.write_all(bytes)?;
                self.text.write_all(b"mn\r\n")?;
                until(&mut self.text, b"MN\r\n")
            }
            Channel::Binary => {
                self.binary.write_all(bytes)?;
                self.binary.write_all(&END)?;
                let mut end = END;
                end[0] = crate::packet::RESPONSE;
                until(&mut self.binary, &end)
            }
            Channel::Udp => {
                let socket = self.udp.as_ref().context("no UDP")?;
                socket.send(&framed(1, bytes))?;
                // A command that no fast path serves, so it is answered after the ones before.
                socket.send(&framed(2, b"verbosity 0\r\n"))?;
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let count = socket.recv(&mut buffer).context("no answer over UDP")?;
                    let datagram = buffer.get(..count).unwrap_or_default();
                    if datagram.first_chunk::<2>() == Some(&[0, 2]) {
                        ensure!(count > FRAME, "an empty answer");
                        return Ok(());
                    }
                }
            }
        }
    }
}

enum Channel {
    Control,
    Text,
    Binary,
    Udp,
}

/// A `noop` packet of the binary protocol, whose reply marks the end.
const END: [u8; 24] = {
    let mut packet = [0; 24];
    packet[0] = crate::packet::REQUEST;
    packet[1] = 0x0a;
    packet[12] = 0xe5;
    packet
};

fn until(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !got.ends_with(end) {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the server closed the connection");
        got.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(())
}

/// Runs a cell; `key` was set up if `ready`.
fn play(client: &mut Client, cell: &Cell, key: &str, ready: bool) -> Result<Delta> {
    if !ready {
        client.serve(&Channel::Control, &cell.state.setup(key))?;
    }
    if cell.state == State::Flushed {
        client.serve(&Channel::Control, b"flush_all\r\n")?;
    }
    let bytes = cell.command.bytes(key, cell.state)?;
    let channel = match (cell.udp, cell.command.protocol) {
        (true, _) => Channel::Udp,
        (false, "binary") => Channel::Binary,
        (false, _) => Channel::Text,
    };
    let before = client.counters()?;
    client.serve(&channel, &bytes)?;
    let after = client.counters()?;
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |counters: &BTreeMap<String, i64>, name| counters.get(name).copied().unwrap_or(0);
    // The items that a flush removes are those that earlier cells left.
    let flushes = cell.command.text.starts_with("flush");
    let left = |name: &str| flushes && matches!(name, "curr_items" | "items:number");
    let changes = names.into_iter().filter(|name| !left(name));
    let changes = changes.filter_map(|name| {
        let change = of(&after, name) - of(&before, name);
        (change != 0).then(|| (name.clone(), change))
    });
    Ok(changes.collect())
}

/// The name of the record of counters that are not 0 after `stats reset`.
const RESET: &str = "stats reset";

/// The counters that are not 0 after `stats reset`, each as 1.
fn after_reset(client: &mut Client) -> Result<Delta> {
    client.serve(&Channel::Control, b"stats reset\r\n")?;
    // Bytes sent and received before the reset do not count any more.
    (client.sent, client.received) = (0, 0);
    let counters = client.counters()?.into_iter();
    let left = counters.filter(|(name, value)| *value != 0 && !name.starts_with("bytes_"));
    Ok(left.map(|(name, _)| (name, 1)).collect())
}

fn key() -> String {
    String::from_utf8_lossy(&fresh_key()).into_owned()
}

/// Runs the matrix against memcached; returns the text of `recorded.txt`. memcached must run without background threads
/// that remove items: `-o no_lru_crawler,no_lru_maintainer`.
pub fn record(target: &Target) -> Result<String> {
    let differs = Differs::parse(DIFFERS, Server::Memcached)?;
    let mut text = String::new();
    for (name, delta) in reference(target)? {
        write!(text, "{name}:")?;
        let compared = |name: &str| !differs.everywhere.contains(name);
        for (counter, change) in delta.iter().filter(|(counter, _)| compared(counter)) {
            write!(text, " {counter}{change:+}")?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// Runs all cells against memcached.
fn reference(target: &Target) -> Result<BTreeMap<String, Delta>> {
    let mut client = Client::new(target)?;
    let mut cells: Vec<(Cell, String)> = cells(target.udp.is_some())
        .into_iter()
        .map(|cell| (cell, key()))
        .collect();
    // `flush_all` affects items stored in an earlier second.
    let flushed = |cell: &Cell| cell.state == State::Flushed;
    for (cell, key) in cells.iter().filter(|(cell, _)| flushed(cell)) {
        client.serve(&Channel::Control, &cell.state.setup(key))?;
    }
    std::thread::sleep(FLUSHABLE);
    let mut played = BTreeMap::new();
    // Cells with a flushed item run first: some of the remaining cells flush too.
    cells.sort_by_key(|(cell, _)| !flushed(cell));
    for (cell, key) in cells {
        let delta = play(&mut client, &cell, &key, flushed(&cell)).with_context(|| cell.name())?;
        played.insert(cell.name(), delta);
    }
    played.insert(RESET.to_owned(), after_reset(&mut client)?);
    Ok(played)
}

/// The server that is compared with the recorded deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// memcached itself, without any differences.
    Memcached,
    /// The engine over host sockets.
    Engine,
    /// The module, whose threads count and remove items on their own as well.
    Module,
}

/// The allowed differences.
#[derive(Default)]
struct Differs {
    /// Counters that are not compared.
    everywhere: BTreeSet<String>,
    /// Patterns of cells' names, and the counters that may differ there.
    cells: Vec<(String, Vec<CounterChange>)>,
}

/// A counter, and by how much it changes; `None` allows any change.
type CounterChange = (String, Option<i64>);

impl Differs {
    fn parse(text: &str, server: Server) -> Result<Self> {
        let mut differs = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (head, tail) = line.split_once(": ").with_context(|| line.to_owned())?;
            match head {
                "module" if server != Server::Module => {}
                "everywhere" | "module" => differs
                    .everywhere
                    .extend(tail.split(' ').map(str::to_owned)),
                pattern => {
                    let changes = tail.split(' ').map(change).collect::<Result<_>>()?;
                    differs.cells.push((pattern.to_owned(), changes));
                }
            }
        }
        Ok(differs)
    }
}

/// `name+1`, or `name` for any change.
fn change(word: &str) -> Result<CounterChange> {
    match word.find(['+', '-']) {
        Some(at) => {
            let (name, number) = word.split_at(at);
            Ok((name.to_owned(), Some(number.parse()?)))
        }
        None => Ok((word.to_owned(), None)),
    }
}

/// Whether a cell's name matches a pattern, in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| fits(rest, name)))
        }),
    }
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// Cells that count as recorded.
    pub passed: usize,
    /// A description of each cell that differs.
    pub failures: Vec<String>,
}

impl Report {
    fn note(&mut self, name: &str, wrong: String) {
        match wrong.as_str() {
            "" => self.passed += 1,
            _ => self.failures.push(format!("{name}:{wrong}")),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        let failed = self.failures.len();
        write!(f, "counters: {} passed, {failed} failed", self.passed)
    }
}

/// Runs the cells whose names contain `filter` against a server and compares their counters.
pub fn compare(target: &Target, filter: &str, server: Server) -> Result<Report> {
    let differs = Differs::parse(DIFFERS, server)?;
    let mut recorded = BTreeMap::new();
    for line in RECORDED.lines() {
        let (name, changes) = line.split_once(':').with_context(|| line.to_owned())?;
        let mut delta = Delta::new();
        for word in changes.split_whitespace() {
            let (counter, by) = change(word)?;
            delta.insert(counter, by.with_context(|| word.to_owned())?);
        }
        recorded.insert(name, delta);
    }
    let mut report = Report::default();
    let wanted = |name: &str| {
        let wanted = recorded.get(name);
        wanted.with_context(|| format!("{name} was not recorded"))
    };
    if server == Server::Memcached {
        for (name, delta) in reference(target)? {
            report.note(&name, wrong(wanted(&name)?, &delta, &differs, None));
        }
        return Ok(report);
    }
    let mut client = Client::new(target)?;
    for cell in cells(target.udp.is_some()) {
        let name = cell.name();
        if !name.contains(filter) {
            continue;
        }
        let wanted = wanted(&name)?;
        let mut result = String::new();
        for repetition in 0..TRIES {
            std::thread::sleep(PAUSE * repetition);
            let delta = play(&mut client, &cell, &key(), false).with_context(|| name.clone())?;
            result = wrong(wanted, &delta, &differs, Some(&name));
            if result.is_empty() {
                break;
            }
        }
        report.note(&name, result);
    }
    if RESET.contains(filter) {
        let mut wanted = wanted(RESET)?.clone();
        let left = after_reset(&mut client)?;
        // A counter that is not 0 after memcached's reset may be 0 here.
        wanted.retain(|name, _| left.contains_key(name));
        report.note(RESET, wrong(&wanted, &left, &differs, Some(RESET)));
    }
    if report.passed == 0 && report.failures.is_empty() {
        bail!("no cell has such a name");
    }
    Ok(report)
}

/// Describes the counters that changed otherwise than recorded.
fn wrong(recorded: &Delta, delta: &Delta, differs: &Differs, cell: Option<&str>) -> String {
    let mut wanted: BTreeMap<&str, Option<i64>> = BTreeMap::new();
    for (name, by) in recorded {
        wanted.insert(name, Some(*by));
    }
    for (pattern, changes) in &differs.cells {
        if cell.is_some_and(|name| fits(pattern, name)) {
            for (name, by) in changes {
                wanted.insert(name, *by);
            }
        }
    }
    let mut wrong = String::new();
    let names: BTreeSet<&str> = wanted
        .keys()
        .copied()
        .chain(delta.keys().map(String::as_str))
        .collect();
    for name in names {
        let ours = name.starts_with("hippos_") || name.contains(":hippos_");
        let Some(wanted) = wanted.get(name).copied().unwrap_or(Some(0)) else {
            continue;
        };
        let got = delta.get(name).copied().unwrap_or(0);
        if got != wanted && !ours && !differs.everywhere.contains(name) {
            let _ = write!(wrong, " {name}{got:+} for {wanted:+}");
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_was_recorded() -> Result<()> {
        let names: BTreeSet<&str> = RECORDED
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name)
            .collect();
        for cell in cells(true) {
            ensure!(names.contains(cell.name().as_str()), "{}", cell.name());
        }
        Ok(())
    }

    #[test]
    fn every_difference_is_of_some_cell() -> Result<()> {
        let cells = cells(true);
        for (pattern, _) in Differs::parse(DIFFERS, Server::Memcached)?.cells {
            let found = cells.iter().any(|cell| fits(&pattern, &cell.name()));
            ensure!(found, "{pattern}");
        }
        Ok(())
    }

    #[test]
    fn a_counter_that_differs_is_reported() -> Result<()> {
        let recorded: Delta = [("get_hits".to_owned(), 1), ("cmd_get".to_owned(), 1)].into();
        let got: Delta = [("get_hits".to_owned(), 1), ("cmd_touch".to_owned(), 1)].into();
        let found = wrong(&recorded, &got, &Differs::default(), Some("x"));
        ensure!(found == " cmd_get+0 for +1 cmd_touch+1 for +0", "{found}");
        let differs = Differs::parse("everywhere: cmd_touch\nx*: cmd_get+0\n", Server::Engine)?;
        ensure!(wrong(&recorded, &got, &differs, Some("xy")).is_empty());
        ensure!(!wrong(&recorded, &got, &differs, None).is_empty());
        Ok(())
    }
}
