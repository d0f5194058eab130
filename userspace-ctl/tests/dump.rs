// SPDX-License-Identifier: GPL-2.0-only
//! `hippos-ctl dump` and `load` with the engine's example server.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hippos_process::Process;

mod common;

use common::ctl;

/// A server and a client of it.
struct Server {
    process: Process,
    address: String,
    stream: TcpStream,
}

impl Server {
    fn new(arguments: &[&str]) -> Self {
        let process = Process::engine(&[&["--port", "0"], arguments].concat());
        let address = process.address().to_string();
        let stream = TcpStream::connect(&address).unwrap();
        Self {
            process,
            address,
            stream,
        }
    }

    /// The replies to these requests.
    fn ask(&mut self, requests: impl AsRef<[u8]>) -> String {
        self.stream.write_all(requests.as_ref()).unwrap();
        self.stream.write_all(b"mn\r\n").unwrap();
        let mut reply = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while !reply.ends_with(b"MN\r\n") {
            let len = self.stream.read(&mut buffer).unwrap();
            assert!(len > 0, "the server closed the connection");
            reply.extend_from_slice(&buffer[..len]);
        }
        reply.truncate(reply.len() - 4);
        String::from_utf8(reply).unwrap()
    }

    fn items(&mut self) -> u64 {
        let stats = self.ask("stats\r\n");
        let line = stats.lines().find(|line| line.contains(" curr_items "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn fill(&mut self, from: u32, to: u32, value: &str) {
        let mut requests = Vec::new();
        for number in from..to {
            let len = value.len();
            write!(requests, "ms key{number} {len} q\r\n{value}\r\n").unwrap();
        }
        assert_eq!(self.ask(requests), "");
    }

    /// Stores `x` by the binary protocol, which accepts any key.
    fn set_binary(&self, key: &[u8], expiry: u32) {
        let len = u8::try_from(key.len()).unwrap();
        let mut set = vec![0x80, 1, 0, len, 8, 0, 0, 0, 0, 0];
        set.extend((u16::from(len) + 9).to_be_bytes());
        // Opaque, CAS number and client flags.
        set.extend([0; 16]);
        set.extend(expiry.to_be_bytes());
        set.extend(key);
        set.push(b'x');
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(&set).unwrap();
        let mut said = [0; 24];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(said[..8], [0x81, 1, 0, 0, 0, 0, 0, 0]);
    }

    fn ctl(&self, arguments: &[&str]) -> (i32, String, String) {
        ctl(&[&["--server", &self.address], arguments].concat())
    }

    /// A command that succeeds.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let (status, out, error) = self.ctl(&[&["--json"], arguments].concat());
        assert_eq!(status, 0, "{arguments:?}: {error}");
        serde_json::from_str(&out).unwrap()
    }
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("hippos-dump-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn all_attributes_of_items_are_kept() {
    let folder = Folder::new("attributes");
    let file = &folder.file("dump");
    let mut from = Server::new(&[]);
    let large = "x".repeat((1 << 20) - 512);
    // More than 30 days: an absolute time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let late = now.as_secs() + 9_000_000;
    let reply = from.ask(format!(
        "ms plain 3 F5 E77 T0\r\nabc\r\nms empty 0 E78\r\n\r\nms Zm9v 1 b E79\r\ni\r\n\
         ms IG8K 2 b E80\r\n\r\n\r\nms soon 1 T1000 E81\r\ns\r\nms late 1 T{late} E82\r\nl\r\n\
         ms over 1 T-1\r\no\r\nms large {} E83\r\n{large}\r\n\
         ms stale 1 E84 T500\r\ns\r\nmd stale I C84 E84\r\n\
         ms taken 1 E85\r\nt\r\nmd taken I C85 E85\r\nmg taken\r\n\
         ms won 1 T600 E86\r\nw\r\nmg won R1000\r\nms ever 1 T600 E87\r\nw\r\nmg ever R700 T0\r\n",
        large.len()
    ));
    assert_eq!(reply.matches("HD").count(), 17, "{reply}");
    let asked = "mg plain k v f t c\r\nmg empty k v f t c\r\nmg Zm9v b k v f c\r\n\
                 mg IG8K b k v f t c\r\nmg soon v f c\r\nmg late v c\r\nmg over v\r\nmg large c s\r\n\
                 mg won c v\r\nmg ever c v t\r\nmg taken c v t\r\n";
    let report = from.json(&["dump", file]);
    assert_eq!(
        (&report["items"], &report["gone"]),
        (&11.into(), &0.into()),
        "{report}"
    );
    let wanted = from.ask(asked);
    assert!(wanted.contains("VA 1 c85 t-1 Z X") || wanted.contains("VA 1 c85 t-1 X Z"));
    assert!(wanted.contains("VA 1 c86 Z") && wanted.contains("VA 1 c87 t-1 Z"));

    let mut to = Server::new(&[]);
    let report = to.json(&["load", file]);
    assert_eq!(
        (&report["stored"], &report["refused"]),
        (&11.into(), &0.into())
    );
    assert_eq!(to.ask(asked), wanted);
    let value = to.ask("mg large v\r\n");
    assert!(value.contains(&large));
    for server in [&mut from, &mut to] {
        let left =
            |reply: &str| -> u32 { reply.trim().trim_start_matches("HD t").parse().unwrap() };
        assert!((900..=1000).contains(&left(&server.ask("mg soon t\r\n"))));
        assert!((8_999_000..=9_000_001).contains(&left(&server.ask("mg late t\r\n"))));
        // The dump did not take the token from the client that stores the item anew.
        let reply = server.ask("mg stale c v\r\nmg stale c v\r\n");
        let (first, second) = reply.trim_end().split_at(reply.len() / 2);
        assert!(
            first.contains("c84") && first.contains('W') && first.contains('X'),
            "{reply}"
        );
        assert!(second.contains('Z') && !second.contains('W'), "{reply}");
    }
}

#[test]
fn expiries_up_to_the_last_that_a_client_can_express_are_kept() {
    let folder = Folder::new("far");
    let file = &folder.file("dump");
    let mut from = Server::new(&[]);
    let last = i32::MAX;
    // The binary protocol has 32 bits for it.
    from.set_binary(b"beyond", u32::MAX);
    let said = from.ask(format!("ms last 1 T{last}\r\nl\r\n"));
    assert_eq!(said, "HD\r\n");
    for (key, days) in [("d14", 14), ("d16", 16), ("d29", 29), ("never", 0)] {
        let seconds = days * 86_400;
        let said = from.ask(format!(
            "ms {key} 1 T1000\r\nx\r\nmg {key} R2000 T{seconds}\r\nmg {key}\r\n"
        ));
        assert_eq!(said, "HD\r\nHD W\r\nHD Z\r\n");
    }
    from.json(&["dump", file]);
    let mut to = Server::new(&[]);
    assert_eq!(to.json(&["load", file])["stored"], 6);
    // Seconds and marks.
    let of = |server: &mut Server, key: &str| -> (i64, String) {
        let said = server.ask(format!("mg {key} t\r\n"));
        let reply = said.strip_prefix("HD t").map(str::trim_end);
        let reply = reply.unwrap_or_else(|| panic!("{key}: {said:?}"));
        let (left, marks) = reply.split_once(' ').unwrap_or((reply, ""));
        (left.parse().unwrap(), marks.to_owned())
    };
    for key in ["beyond", "last", "never", "d14", "d16", "d29"] {
        let (there, here) = (of(&mut from, key), of(&mut to, key));
        assert_eq!(there.1, here.1, "{key}");
        // Half a second later is a time that no request can express: never.
        let is_never = matches!(key, "beyond" | "never") || key == "last" && here.0 == -1;
        match is_never {
            true => assert_eq!(here.0, -1, "{key}"),
            false => assert!((there.0 - here.0).abs() <= 5, "{key}: {there:?} {here:?}"),
        }
    }
}

#[test]
fn values_are_not_sent_to_a_server_that_would_take_them_for_commands() {
    let folder = Folder::new("old");
    let file = &folder.file("dump");
    let mut from = Server::new(&[]);
    from.ask("ms key 9\r\nflush_all\r\n");
    from.json(&["dump", file]);
    // It does not know `ms`, like memcached before 1.6.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = String::new();
        while stream.read_line(&mut line).unwrap_or(0) > 0 {
            let _ = stream.get_mut().write_all(b"ERROR\r\n");
            seen.push(std::mem::take(&mut line));
        }
        seen
    });
    let arguments = ["load", file, "--connections", "1"];
    let (status, _, error) = ctl(&[&["--server", &address], &arguments[..]].concat());
    assert_eq!(status, 5, "{error}");
    let seen = seen.join().unwrap();
    assert!(!seen.contains(&"flush_all\r\n".into()), "{seen:?}");
}

#[test]
fn an_item_that_expires_between_dump_and_load_is_not_loaded() {
    let folder = Folder::new("expiry");
    let file = &folder.file("dump");
    let mut from = Server::new(&[]);
    from.ask("ms a 1 T2\r\na\r\nms b 1 T2\r\nb\r\nms c 1 T1000\r\nc\r\n");
    assert_eq!(from.json(&["dump", file])["items"], 3);
    thread::sleep(Duration::from_secs(3));
    let report = Server::new(&[]).json(&["load", file]);
    assert_eq!(
        (&report["stored"], &report["expired"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn load_keeps_newer_items_unless_mode_set_is_given() {
    let folder = Folder::new("newer");
    let file = &folder.file("dump");
    let mut server = Server::new(&[]);
    server.fill(0, 100, "old");
    server.json(&["dump", file]);
    server.ask("flush_all\r\n");
    server.fill(40, 50, "new");
    let report = server.json(&["load", file]);
    assert_eq!(
        (&report["stored"], &report["kept"]),
        (&90.into(), &10.into())
    );
    assert!(server.ask("mg key45 v\r\n").contains("new"));
    assert!(server.ask("mg key4 v\r\n").contains("old"));
    let report = server.json(&["load", file, "--mode", "set"]);
    assert_eq!(
        (&report["stored"], &report["kept"]),
        (&100.into(), &0.into())
    );
    assert!(server.ask("mg key45 v\r\n").contains("old"));
}

/// A dump with several blocks, and their number.
fn blocks(folder: &Folder, items: u32) -> (Vec<u8>, String) {
    let file = folder.file("dump");
    let mut server = Server::new(&[]);
    server.fill(0, items, &"v".repeat(1000));
    server.json(&["dump", &file, "--connections", "1"]);
    (fs::read(&file).unwrap(), file)
}

#[test]
fn a_damaged_file_changes_nothing_and_its_whole_blocks_can_be_saved() {
    let folder = Folder::new("damage");
    let (bytes, file) = blocks(&folder, 4000);
    let mut to = Server::new(&[]);
    let cut = bytes.len() * 3 / 4;
    fs::write(&file, &bytes[..cut]).unwrap();
    let (status, _, error) = to.ctl(&["load", &file]);
    assert_eq!(status, 1);
    assert!(error.contains("nothing is loaded"), "{error}");
    assert_eq!(to.items(), 0);
    let (status, out, _) = to.ctl(&["load", &file, "--salvage"]);
    assert_eq!(status, 1);
    assert!(out.contains("only the blocks before are loaded"), "{out}");
    let saved = to.items();
    assert!((1000..4000).contains(&saved), "{saved}");
    fs::write(&file, b"nonsense").unwrap();
    assert_eq!(to.ctl(&["load", &file, "--salvage"]).0, 1);
    assert_eq!(to.items(), saved);
}

#[test]
fn an_interrupted_load_goes_on_with_a_block() {
    let folder = Folder::new("go-on");
    let (_, file) = blocks(&folder, 4000);
    let mut to = Server::new(&[]);
    let report = to.json(&["load", &file, "--from-block", "2"]);
    let later = report["stored"].as_u64().unwrap();
    assert!((1..3000).contains(&later), "{later}");
    let report = to.json(&["load", &file]);
    assert_eq!(report["kept"], later);
    assert_eq!(to.items(), 4000);
    let address = to.address.clone();
    drop((to.process, to.stream));
    assert_eq!(ctl(&["--server", &address, "load", &file]).0, 3);
}

#[test]
fn an_interrupted_dump_leaves_the_old_one_and_goes_on() {
    let folder = Folder::new("interrupted");
    let (bytes, file) = blocks(&folder, 4000);
    let partial = format!("{file}.partial");
    // A server that ends while it is being dumped.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap_or(0) > 0 {
                    let out = stream.get_mut();
                    match line.as_str() {
                        "stats\r\n" => out.write_all(b"STAT curr_items 9000\r\nEND\r\n").unwrap(),
                        "lru_crawler metadump hash\r\n" => {
                            for number in 0..9000 {
                                // The dump may have ended.
                                let _ = writeln!(out, "key=k{number} exp=-1 la=1 cas=1");
                            }
                            return;
                        }
                        "mg k0 k v f t c u\r\n" => return,
                        _ => out.write_all(b"VA 1 kk f0 t-1 c1\r\nx\r\n").unwrap_or(()),
                    }
                    line.clear();
                }
            });
        }
    });
    let (status, _, error) = ctl(&["--server", &address, "dump", &file]);
    assert_eq!(status, 3, "{error}");
    assert!(error.contains("--resume"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(fs::exists(&partial).unwrap());

    // As after a power failure: cut within a block.
    fs::write(&partial, &bytes[..bytes.len() * 3 / 4]).unwrap();
    let mut from = Server::new(&[]);
    from.fill(0, 4000, "again");
    let report = from.json(&["dump", &file, "--resume"]);
    assert_eq!(report["items"], 4000);
    assert!(!fs::exists(&partial).unwrap());
    let mut to = Server::new(&[]);
    assert_eq!(to.json(&["load", &file])["stored"], 4000);
    let reply: String = (0..4000).map(|n| format!("mg key{n} s\r\n")).collect();
    let reply = to.ask(reply);
    let [old, new] = ["HD s1000", "HD s5"].map(|size| reply.matches(size).count());
    assert!(
        old >= 1000 && new >= 500 && old + new == 4000,
        "{old} {new}"
    );
    // A partial file that is left does not affect the next dump.
    fs::write(&partial, b"nonsense").unwrap();
    assert_eq!(from.json(&["dump", &file])["items"], 4000);
    fs::write(&partial, b"nonsense").unwrap();
    assert_eq!(from.ctl(&["dump", &file, "--resume"]).0, 1);
}

#[test]
fn a_dump_that_can_not_be_written_puts_the_tokens_back() {
    let mut server = Server::new(&[]);
    // Several blocks of one batch, with data that cannot be compressed into a buffer.
    let mut random = 1u64;
    let mut requests = String::new();
    for key in 0..500 {
        requests.push_str(&format!("ms key{key} 12000 q\r\n"));
        for _ in 0..750 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            requests.push_str(&format!("{random:016x}"));
        }
        requests.push_str("\r\n");
    }
    assert_eq!(server.ask(requests), "");
    let all = |command: &str| -> String { (0..500).map(|n| format!("{command}{n}\r\n")).collect() };
    let said = server.ask(all("md key").replace("\r", " I\r"));
    assert_eq!(said.matches("HD").count(), 500);
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let dump = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
        .args([
            "--server",
            &server.address,
            "dump",
            "-",
            "--connections",
            "1",
        ])
        .stdout(full.unwrap())
        .output()
        .unwrap();
    assert_eq!(dump.status.code(), Some(1));
    let error = String::from_utf8(dump.stderr).unwrap();
    assert!(error.contains("No space left"), "{error}");
    let said = server.ask(all("mg key"));
    assert_eq!(
        said.matches("HD W X").count() + said.matches("HD X W").count(),
        500
    );
}

/// A server with three stale items. It pauses at the second reply until the test lets it continue; the third reply is
/// given. It returns the lines that clients sent, except those that list items.
struct Stale {
    address: String,
    stopped: Receiver<()>,
    go_on: Sender<()>,
    lines: Receiver<String>,
}

impl Stale {
    fn new(third: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ((put_stop, stopped), (go_on, may_go_on)) = (channel(), channel());
        let (put_line, lines) = channel();
        let may_go_on = Arc::new(Mutex::new(may_go_on));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (put_stop, put_line) = (put_stop.clone(), put_line.clone());
                let may_go_on = may_go_on.clone();
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    let mut line = String::new();
                    while stream.read_line(&mut line).unwrap_or(0) > 0 {
                        let word = line.split(' ').nth(1).unwrap_or("").to_owned();
                        let said = match (line.as_str(), word.as_str()) {
                            ("stats\r\n", _) => "STAT curr_items 3\r\nEND\r\n",
                            (_, "metadump") => {
                                "key=a exp=-1 size=9\nkey=b exp=-1 size=9\nkey=c exp=-1 size=9\nEND\r\n"
                            }
                            (line, word) => {
                                put_line.send(line.trim_end().to_owned()).unwrap();
                                match (&line[..2], word) {
                                    ("mg", "a") => "VA 1 f0 t-1 c5 X W\r\na\r\n",
                                    ("mg", "b") => {
                                        put_stop.send(()).unwrap();
                                        may_go_on.lock().unwrap().recv().unwrap();
                                        "VA 1 f0 t-1 c6 X Z\r\nb\r\n"
                                    }
                                    ("mg", _) => third,
                                    _ => "HD\r\n",
                                }
                            }
                        };
                        // The client may have ended.
                        let _ = stream.get_mut().write_all(said.as_bytes());
                        line.clear();
                    }
                });
            }
        });
        Self {
            address,
            stopped,
            go_on,
            lines,
        }
    }

    /// Starts a dump that pauses there.
    fn dump(&self) -> Child {
        let dump = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
            .args(["--server", &self.address, "dump", "-"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.stopped.recv().unwrap();
        dump.unwrap()
    }

    fn end(self) -> Vec<String> {
        self.lines
            .try_iter()
            .filter(|line| line.starts_with("md"))
            .collect()
    }
}

#[test]
fn a_dump_ends_by_a_signal_when_it_has_put_the_tokens_back() {
    let server = Stale::new("VA 1 f0 t-1 c7 X W\r\nc\r\n");
    let mut dump = server.dump();
    let kill = Command::new("kill").arg(dump.id().to_string()).status();
    assert!(kill.unwrap().success());
    // The signal is pending before the dump continues.
    thread::sleep(Duration::from_millis(300));
    // It may have ended already, which is the defect.
    let _ = server.go_on.send(());
    assert_eq!(dump.wait().unwrap().signal(), Some(15));
    assert_eq!(server.end(), ["md a I C5 E5", "md c I C7 E7"]);
}

#[test]
fn a_load_ends_by_a_signal_when_what_it_stored_has_its_marks() {
    const ITEMS: usize = 30;
    let folder = Folder::new("marks");
    let file = folder.file("dump");
    let mut from = Server::new(&[]);
    for number in 0..ITEMS {
        from.ask(format!("ms key{number} 1\r\nv\r\nmd key{number} I\r\n"));
    }
    from.json(&["dump", &file]);

    // It pauses at the first item until the test lets it continue.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ((put_stop, stopped), (go_on, may_go_on)) = (channel(), channel());
    let (put_line, lines) = channel();
    thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = String::new();
        while stream.read_line(&mut line).unwrap_or(0) > 0 {
            let said = match line.split(' ').next().unwrap() {
                "ms" if line.contains("MX") => "CLIENT_ERROR invalid mode\r\n",
                "mn\r\n" => "MN\r\n",
                word @ ("ms" | "md") => {
                    put_line.send(word.to_owned()).unwrap();
                    if line.starts_with("ms key0 ") {
                        put_stop.send(()).unwrap();
                        may_go_on.recv().unwrap();
                    }
                    "HD\r\n"
                }
                // A value.
                _ => "",
            };
            // The client may have ended.
            let _ = stream.get_mut().write_all(said.as_bytes());
            line.clear();
        }
    });
    let load = Command::new(env!("CARGO_BIN_EXE_hippos-ctl"))
        .args(["--server", &address, "load", &file, "--connections", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut load = load.unwrap();
    stopped.recv().unwrap();
    let kill = Command::new("kill").arg(load.id().to_string()).status();
    assert!(kill.unwrap().success());
    // The signal is pending before the load continues.
    thread::sleep(Duration::from_millis(300));
    go_on.send(()).unwrap();
    assert_eq!(load.wait().unwrap().signal(), Some(15));
    let all: Vec<String> = lines.iter().collect();
    let count = |word| all.iter().filter(|line| *line == word).count();
    assert_eq!((count("ms"), count("md")), (ITEMS, ITEMS));
}

#[test]
fn tokens_are_put_back_on_another_connection_when_an_answer_makes_no_sense() {
    let server = Stale::new("nonsense\r\n");
    let mut dump = server.dump();
    server.go_on.send(()).unwrap();
    assert_eq!(dump.wait().unwrap().code(), Some(5));
    assert_eq!(server.end(), ["md a I C5 E5"]);
}

#[test]
fn items_that_no_text_can_ask_for_are_counted() {
    let folder = Folder::new("binary");
    let file = &folder.file("dump");
    let mut server = Server::new(&[]);
    for (len, left_out, dumped) in [(186, 0, 2), (187, 1, 3), (250, 2, 4)] {
        server.set_binary(&vec![1; len], 0);
        server.set_binary(&vec![b'k'; len], 0);
        let (status, out, error) = server.ctl(&["--json", "dump", file]);
        assert_eq!(status, if left_out > 0 { 6 } else { 0 }, "{len}: {error}");
        let reply: serde_json::Value = serde_json::from_str(&out).unwrap();
        let counts = ["binary_only", "items", "gone"].map(|name| reply[name].as_u64());
        assert_eq!(counts, [Some(left_out), Some(dumped), Some(0)], "{len}");
    }
    let (status, out, _) = server.ctl(&["dump", file]);
    assert_eq!(status, 6);
    assert!(
        out.contains("2 items have keys that only the binary protocol has"),
        "{out}"
    );
    let mut to = Server::new(&[]);
    assert_eq!(to.json(&["load", file])["stored"], 4);
    assert_eq!(server.items(), 6);
    assert_eq!(to.items(), 4);
}

#[test]
fn writes_during_a_dump_take_nothing_else_out_of_it() {
    const KEYS: u32 = 20_000;
    let folder = Folder::new("writes");
    let file = &folder.file("dump");
    let mut server = Server::new(&[]);
    server.fill(0, KEYS, "0");
    let (is_over, rounds) = (AtomicBool::new(false), Mutex::new(0));
    let mut writer = Server {
        process: Process::from(Command::new("true").spawn().unwrap()),
        address: server.address.clone(),
        stream: TcpStream::connect(&server.address).unwrap(),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                *rounds.lock().unwrap() = round;
                // Half of the keys, and new ones.
                writer.fill(0, KEYS / 2, &round.to_string());
                writer.fill(KEYS + round, KEYS + round + 1, "new");
                if is_over.load(Relaxed) {
                    break;
                }
            }
        });
        server.json(&["dump", file]);
        is_over.store(true, Relaxed);
    });
    let mut to = Server::new(&[]);
    to.json(&["load", file]);
    let mut values = |keys: Range<u32>| -> Vec<u32> {
        let asked: String = keys.map(|n| format!("mg key{n} v\r\n")).collect();
        let reply = to.ask(asked);
        let values = reply.lines().filter(|line| !line.starts_with(['V', 'E']));
        values.map(|value| value.parse().unwrap()).collect()
    };
    // An item that is written anew while the keys are listed may be missed, but its value is never another's.
    let rounds = *rounds.lock().unwrap();
    let written = values(0..KEYS / 2);
    assert!(written.iter().all(|value| *value <= rounds), "{rounds}");
    let others = values(KEYS / 2..KEYS);
    assert_eq!(others, [0; KEYS as usize / 2]);
}

#[test]
fn clients_that_have_to_log_in_are_logged_in() {
    let folder = Folder::new("login");
    let (file, users) = (&folder.file("dump"), &folder.file("users"));
    fs::write(users, "user:pass\n").unwrap();
    let mut from = Server::new(&["--authfile", users]);
    assert_eq!(from.ctl(&["dump", file]).0, 4);
    assert!(!fs::exists(file).unwrap());
    from.ask("set auth 0 0 9\r\nuser pass\r\n");
    from.fill(0, 10, "x");
    assert_eq!(
        from.json(&["--auth-file", users, "dump", file])["items"],
        10
    );
    let to = Server::new(&["--authfile", users]);
    assert_eq!(to.ctl(&["load", file]).0, 4);
    assert_eq!(to.json(&["--auth-file", users, "load", file])["stored"], 10);
}

#[test]
fn a_dump_goes_through_a_pipe() {
    let mut from = Server::new(&[]);
    from.fill(0, 5000, "value");
    let mut to = Server::new(&[]);
    let program = env!("CARGO_BIN_EXE_hippos-ctl");
    let mut dump = Command::new(program)
        .args(["--server", &from.address, "dump", "-", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let load = Command::new(program)
        .args(["--server", &to.address, "load", "-"])
        .stdin(dump.stdout.take().unwrap())
        .status();
    assert!(load.unwrap().success());
    assert!(dump.wait().unwrap().success());
    assert_eq!(to.items(), 5000);
}

#[test]
fn items_that_do_not_fit_are_counted() {
    let folder = Folder::new("large");
    let file = &folder.file("dump");
    let mut from = Server::new(&["--item-max", "2097152"]);
    let large = "x".repeat(1_500_000);
    let reply = from.ask(format!(
        "ms a {}\r\n{large}\r\nms b 1\r\nb\r\n",
        large.len()
    ));
    assert_eq!(reply, "HD\r\nHD\r\n");
    from.json(&["dump", file]);
    let mut to = Server::new(&[]);
    let (status, out, _) = to.ctl(&["load", file]);
    assert_eq!(status, 5);
    assert!(out.contains("1 items were refused"), "{out}");
    assert_eq!(to.items(), 1);
}
