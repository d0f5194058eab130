// SPDX-License-Identifier: GPL-2.0-only
//! `watch`: its replies, its lines compared with those of memcached 1.6.38, and slow watchers.

use std::net::SocketAddr;

mod common;

use common::{engine, engine_of, play, Small, TestEngine, WHOLE};
use hippos_engine::{
    Administration, CloseReason, Message, Next, Session, Settings, Transport, REPLY_HEADER_MAX,
};
use hippos_store::host::Host;

/// The number of the client whose lines were recorded.
const CLIENT: u32 = 13;

/// A session that watches.
struct Watcher<'e>(Session<'e, Host>);

impl<'e> Watcher<'e> {
    fn new(engine: &'e TestEngine, words: &str) -> Self {
        let (watcher, said) = Self::ask(engine, &format!("watch {words}\r\n"));
        assert_eq!(said, "OK\r\n");
        assert!(watcher.0.is_watching());
        watcher
    }

    /// The reply to `line`.
    fn ask(engine: &'e TestEngine, line: &str) -> (Self, String) {
        let mut session = Session::new(engine, Transport::Tcp);
        let mut out = Small::new(4096);
        let fed = session.feed(line.as_bytes(), &mut out);
        assert_eq!(fed.consumed, line.len());
        (Self(session), String::from_utf8(out.waiting).unwrap())
    }

    /// The available lines, read by a client with this much space for replies.
    fn lines_in(&mut self, room: usize) -> Vec<String> {
        let mut out = Small::new(room);
        let mut text = String::new();
        loop {
            let next = self.0.feed(b"noise", &mut out).next;
            text += std::str::from_utf8(&out.waiting).unwrap();
            out.clear();
            match next {
                Next::Watch => break,
                Next::Write => {}
                other => panic!("{other:?}"),
            }
        }
        text.lines().map(str::to_owned).collect()
    }

    /// The same, without the time and the number of each line.
    fn lines(&mut self) -> Vec<String> {
        let whole = self.lines_in(4096);
        whole.iter().map(|line| strip(line).to_owned()).collect()
    }
}

/// A line without its time and its number.
fn strip(line: &str) -> &str {
    let (ts, rest) = line.split_once(" gid=").expect("a number");
    let (seconds, micros) = ts.strip_prefix("ts=").unwrap().split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000 && micros.len() <= 6);
    let (number, rest) = rest.split_once(' ').expect("more");
    number.parse::<u64>().expect("a number");
    rest
}

fn client(engine: &TestEngine) -> Session<'_, Host> {
    let mut session = Session::new(engine, Transport::Tcp);
    session.set_number(CLIENT);
    session
}

/// The lines that memcached 1.6.38 printed for these commands after `watch fetchers mutations deletions`, in this order
/// on an empty cache.
const RECORDED: &[(&str, &[&str])] = &[
    (
        "get nokey\r\n",
        &["type=item_get key=nokey status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "set a%b 5 0 3\r\nabc\r\n",
        &[
            "type=item_get key=a%25b status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=a%25b status=stored cmd=set ttl=0 clsid=1 cfd=13 size=3",
        ],
    ),
    (
        "get a%b\r\n",
        &["type=item_get key=a%25b status=found clsid=1 cfd=13 size=3"],
    ),
    (
        "gets a%b x\r\n",
        &[
            "type=item_get key=a%25b status=found clsid=1 cfd=13 size=3",
            "type=item_get key=x status=not_found clsid=0 cfd=13 size=0",
        ],
    ),
    (
        "set k 0 100 3\r\n123\r\n",
        &[
            "type=item_get key=k status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=k status=stored cmd=set ttl=100 clsid=1 cfd=13 size=3",
        ],
    ),
    (
        "add k 0 0 1\r\n1\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=3",
            "type=item_store key=k status=not_stored cmd=add ttl=0 clsid=1 cfd=13 size=1",
        ],
    ),
    (
        "add k2 0 0 1\r\n1\r\n",
        &[
            "type=item_get key=k2 status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=k2 status=stored cmd=add ttl=0 clsid=1 cfd=13 size=1",
        ],
    ),
    (
        "replace k 0 0 2\r\n10\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=3",
            "type=item_store key=k status=stored cmd=replace ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "replace zz 0 0 1\r\nx\r\n",
        &[
            "type=item_get key=zz status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=zz status=not_stored cmd=replace ttl=0 clsid=1 cfd=13 size=1",
        ],
    ),
    (
        "append k 0 0 1\r\n1\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=item_store key=k status=stored cmd=append ttl=0 clsid=1 cfd=13 size=3",
        ],
    ),
    (
        "prepend k 0 0 1\r\n1\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=3",
            "type=item_store key=k status=stored cmd=prepend ttl=0 clsid=1 cfd=13 size=4",
        ],
    ),
    (
        "append zz 0 0 1\r\nx\r\n",
        &[
            "type=item_get key=zz status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=zz status=not_stored cmd=append ttl=0 clsid=1 cfd=13 size=1",
        ],
    ),
    (
        "cas k 0 0 2 1\r\n10\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=4",
            "type=item_store key=k status=exists cmd=cas ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "cas zz 0 0 1 1\r\nx\r\n",
        &[
            "type=item_get key=zz status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=zz status=not_found cmd=cas ttl=0 clsid=1 cfd=13 size=1",
        ],
    ),
    (
        "incr k 1\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=4"],
    ),
    (
        "incr k 1000000\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=4"],
    ),
    (
        "decr zz 1\r\n",
        &["type=item_get key=zz status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "touch k 50\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=7"],
    ),
    (
        "touch zz 1\r\n",
        &["type=item_get key=zz status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "gat 10 k\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=7"],
    ),
    (
        "gat 10 zz\r\n",
        &["type=item_get key=zz status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "delete k\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=7",
            "type=deleted key=k cmd=delete clsid=1 size=7",
        ],
    ),
    (
        "delete k\r\n",
        &["type=item_get key=k status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "set k 0 0 2 noreply\r\n12\r\n",
        &[
            "type=item_get key=k status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=k status=stored cmd=set ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    ("set k 0 0 2\r\n123\r\n\r\n", &[]),
    (
        "delete k noreply\r\nget k\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=deleted key=k cmd=delete clsid=1 size=2",
            "type=item_get key=k status=not_found clsid=0 cfd=13 size=0",
        ],
    ),
    (
        "mg k\r\n",
        &["type=item_get key=k status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "mg k v N30\r\n",
        &["type=item_get key=k status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "mg k v\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=0"],
    ),
    (
        "mg k t T30\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=0"],
    ),
    (
        "mg k u v\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=0"],
    ),
    (
        "ms k 2\r\nhi\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=0",
            "type=item_store key=k status=stored cmd=set ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "ms k 2 T30 ME\r\nhi\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=item_store key=k status=not_stored cmd=add ttl=30 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "ms kk 2 MA N10\r\nhi\r\n",
        &[
            "type=item_get key=kk status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=kk status=stored cmd=append ttl=10 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "append kk 0 0 1\r\ny\r\n",
        &[
            "type=item_get key=kk status=found clsid=1 cfd=13 size=2",
            "type=item_store key=kk status=stored cmd=append ttl=10 clsid=1 cfd=13 size=3",
        ],
    ),
    (
        "ms k 2 C99 MR\r\nhi\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=item_store key=k status=exists cmd=cas ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "ms Zm9v 2 b\r\nhi\r\n",
        &[
            "type=item_get key=foo status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=foo status=stored cmd=set ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "mg Zm9v v b\r\n",
        &["type=item_get key=foo status=found clsid=1 cfd=13 size=2"],
    ),
    (
        "ma n\r\n",
        &["type=item_get key=n status=not_found clsid=0 cfd=13 size=0"],
    ),
    (
        "ma n N0 J13\r\n",
        &[
            "type=item_get key=n status=not_found clsid=0 cfd=13 size=0",
            "type=item_get key=n status=not_found clsid=0 cfd=13 size=0",
            "type=item_store key=n status=stored cmd=add ttl=0 clsid=1 cfd=13 size=2",
        ],
    ),
    (
        "ma n MD\r\n",
        &["type=item_get key=n status=found clsid=1 cfd=13 size=2"],
    ),
    (
        "md k I T30\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=2"],
    ),
    (
        "mg k v\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=2"],
    ),
    (
        "md k x\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=item_get key=k status=found clsid=1 cfd=13 size=2",
            "type=item_store key=k status=stored cmd=set ttl=0 clsid=1 cfd=13 size=0",
            "type=deleted key=k cmd=md clsid=1 size=0",
        ],
    ),
    (
        "md k C1\r\n",
        &["type=item_get key=k status=found clsid=1 cfd=13 size=0"],
    ),
    (
        "md k q\r\n",
        &[
            "type=item_get key=k status=found clsid=1 cfd=13 size=0",
            "type=deleted key=k cmd=md clsid=1 size=0",
        ],
    ),
    (
        "me n\r\n",
        &["type=item_get key=n status=found clsid=1 cfd=13 size=2"],
    ),
    ("mn\r\nverbosity 1\r\nfoo bar\r\n", &[]),
];

#[test]
fn lines_are_those_that_memcached_printed() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "fetchers mutations deletions rawcmds sysevents");
    let mut client = client(&engine);
    for (commands, lines) in RECORDED {
        let mut out = Small::new(4096);
        let fed = client.feed(commands.as_bytes(), &mut out);
        assert_eq!(fed.consumed, commands.len());
        assert_eq!(&watcher.lines(), lines, "{commands:?}");
    }
}

/// A binary request.
fn binary(opcode: u8, key: &str, extras: &[u8], value: &str) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut head = [0; 24];
    (head[0], head[1], head[3], head[4]) = (0x80, opcode, key.len() as u8, extras.len() as u8);
    head[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    [&head[..], extras, key.as_bytes(), value.as_bytes()].concat()
}

#[test]
fn lines_of_binary_commands_are_those_that_memcached_printed() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "mutations fetchers deletions");
    let mut client = client(&engine);
    let count = [&1u64.to_be_bytes()[..], &5u64.to_be_bytes(), &[0; 4]].concat();
    let recorded: &[(Vec<u8>, &[&str])] = &[
        (
            binary(1, "bk", &[0; 8], "val"),
            &[
                "type=item_get key=bk status=not_found clsid=0 cfd=13 size=0",
                "type=item_store key=bk status=stored cmd=set ttl=0 clsid=1 cfd=13 size=3",
            ],
        ),
        (
            binary(0, "bk", &[], ""),
            &["type=item_get key=bk status=found clsid=1 cfd=13 size=3"],
        ),
        (
            binary(14, "bk", &[], "val"),
            &[
                "type=item_get key=bk status=found clsid=1 cfd=13 size=3",
                "type=item_store key=bk status=stored cmd=append ttl=0 clsid=1 cfd=13 size=6",
            ],
        ),
        (
            binary(0x1c, "bk", &10u32.to_be_bytes(), ""),
            &["type=item_get key=bk status=found clsid=1 cfd=13 size=6"],
        ),
        (
            binary(5, "bc", &count, ""),
            &[
                "type=item_get key=bc status=not_found clsid=0 cfd=13 size=0",
                "type=item_get key=bc status=not_found clsid=0 cfd=13 size=0",
                "type=item_store key=bc status=stored cmd=add ttl=0 clsid=1 cfd=13 size=1",
            ],
        ),
        (
            binary(4, "bk", &[], ""),
            &["type=item_get key=bk status=found clsid=1 cfd=13 size=6"],
        ),
    ];
    for (request, lines) in recorded {
        client.feed(request, &mut Small::new(4096));
        assert_eq!(&watcher.lines(), lines, "{request:?}");
    }
}

#[test]
fn a_refused_store_is_a_line_with_its_reason() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "mutations fetchers");
    let mut client = client(&engine);
    client.feed(b"set big 0 0 2000000\r\n", &mut Small::new(4096));
    // memcached's own line has wrong numbers here, because it omits an argument.
    let lines = [
        "type=item_store key=big status=too_large cmd=set ttl=0 clsid=0 cfd=13 size=0",
        "type=item_get key=big status=not_found clsid=0 cfd=13 size=0",
    ];
    assert_eq!(watcher.lines(), lines);
}

#[test]
fn connections_come_and_go_with_their_address_and_reason() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "connevents");
    for (ip, reason, shown) in [
        ("127.0.0.1", CloseReason::Normal, "normal"),
        ("2001:db8::1", CloseReason::Error, "error"),
        ("::ffff:10.0.0.1", CloseReason::IdleTimeout, "idle_timeout"),
        ("::1", CloseReason::Shutdown, "shutdown"),
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 39214);
        engine.connected(15, &peer);
        engine.disconnected(15, &peer, reason);
        let ip = ip.trim_start_matches("::ffff:");
        let peer = format!("rip={ip} rport=39214 transport=tcp");
        let lines = [
            format!("type=conn_new {peer} cfd=15"),
            format!("type=conn_close {peer} reason={shown} cfd=15"),
        ];
        assert_eq!(watcher.lines(), lines);
    }
}

#[test]
fn evictions_are_lines_with_what_the_item_was() {
    let engine = engine_of(4 << 20, Settings::default());
    let mut client = client(&engine);
    let mut watcher = Watcher::new(&engine, "evictions");
    let value = "B".repeat(11_000);
    let mut evicted = Vec::new();
    for number in 0..600 {
        let set = format!("set n,foo{number} 0 0 11000 noreply\r\n{value}\r\n");
        client.feed(set.as_bytes(), &mut Small::new(4096));
        evicted.extend(watcher.lines());
    }
    assert!(!evicted.is_empty(), "nothing was evicted");
    for line in evicted {
        let key = line.strip_prefix("type=eviction key=n%2Cfoo").expect(&line);
        let (_, rest) = key.split_once(" fetch=no ttl=-1 la=0 clsid=").expect(&line);
        assert!(rest.ends_with(" size=11000"), "{line}");
    }
}

#[test]
fn watch_gets_memcached_s_replies() {
    let engine = engine();
    for (line, said) in [
        ("watch\r\n", "OK\r\n"),
        ("watch foo\r\n", "ERROR\r\n"),
        ("watch fetchers foo\r\n", "ERROR\r\n"),
        (
            "get a\r\nwatch foo\r\n",
            "END\r\nERROR cannot pipeline other commands before watch\r\n",
        ),
        (
            "touch a 0\r\nwatch fetchers foo\r\nmn\r\n",
            "NOT_FOUND\r\nERROR cannot pipeline other commands before watch\r\nMN\r\n",
        ),
        ("mn\r\nwatch foo noreply\r\nmn\r\n", "MN\r\nMN\r\n"),
        ("watch noreply\r\n", ""),
        ("watch fetchers noreply\r\n", ""),
        (
            "watch rawcmds evictions fetchers mutations sysevents connevents\r\n",
            "OK\r\n",
        ),
        ("watch deletions\r\n", "OK\r\n"),
        ("watch proxyreqs proxyevents proxyuser\r\n", "OK\r\n"),
        (
            "get a\r\nwatch fetchers\r\n",
            "END\r\nERROR cannot pipeline other commands before watch\r\n",
        ),
        (
            "set a 0 0 1 noreply\r\nx\r\nwatch\r\n",
            "ERROR cannot pipeline other commands before watch\r\n",
        ),
        ("watch fetchers\r\nget a\r\nquit\r\n", "OK\r\n"),
    ] {
        let (watcher, found) = Watcher::ask(&engine, line);
        assert_eq!(found, said, "{line:?}");
        assert_eq!(watcher.0.is_watching(), said == "OK\r\n", "{line:?}");
    }
}

#[test]
fn watch_without_arguments_logs_fetchers() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "");
    play(&engine, b"set a 0 0 1\r\nx\r\n", WHOLE);
    assert_eq!(
        watcher.lines(),
        ["type=item_get key=a status=not_found clsid=0 cfd=0 size=0"]
    );
}

#[test]
fn the_twenty_first_watcher_is_refused_and_its_connection_continues() {
    let engine = engine();
    let mut all: Vec<_> = (0..20)
        .map(|_| Watcher::new(&engine, "evictions"))
        .collect();
    let (mut late, said) = Watcher::ask(&engine, "watch\r\n");
    assert_eq!(said, "WATCHER_TOO_MANY log watcher limit reached\r\n");
    let mut out = Small::new(4096);
    late.0.feed(b"get a\r\n", &mut out);
    assert_eq!(out.waiting, b"END\r\n");
    assert!(stats(&engine).contains("STAT log_watchers 20\r\n"));
    all.pop();
    assert!(stats(&engine).contains("STAT log_watchers 19\r\n"));
    Watcher::new(&engine, "fetchers");
}

fn stats(engine: &TestEngine) -> String {
    String::from_utf8(play(engine, b"stats\r\n", WHOLE).output).unwrap()
}

fn stat(engine: &TestEngine, name: &str) -> usize {
    let all = stats(engine);
    let mut rows = all.lines();
    let row = rows.find_map(|row| row.strip_prefix(&format!("STAT {name} ")));
    row.expect(name).parse().expect("a number")
}

#[test]
fn a_slow_watcher_loses_lines_and_receives_their_number() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "fetchers");
    let mut quick = Watcher::new(&engine, "fetchers");
    let mut client = client(&engine);
    let spacer = "X".repeat(180);
    let mut seen = 0;
    for number in 0..20_000 {
        let get = format!("get foo{number}{spacer}\r\n");
        client.feed(get.as_bytes(), &mut Small::new(4096));
        if number % 1000 == 999 {
            seen += quick.lines().len();
        }
    }
    assert_eq!(seen, 20_000, "one that keeps up loses nothing");
    let lines = watcher.lines_in(REPLY_HEADER_MAX + 7);
    let skipped: usize = lines[0]
        .strip_prefix("skipped=")
        .expect("skipped")
        .parse()
        .unwrap();
    assert!(lines[1..]
        .iter()
        .all(|line| strip(line).starts_with("type=item_get key=foo")));
    let sent = lines.len() - 1;
    assert!(sent > 1000, "{sent} lines");
    assert_eq!(skipped + sent, 20_000);
    assert_eq!(stat(&engine, "log_worker_written"), 20_000);
    assert_eq!(stat(&engine, "log_worker_dropped"), 0);
    assert_eq!(stat(&engine, "log_watcher_skipped"), skipped);
    assert_eq!(stat(&engine, "log_watcher_sent"), sent + 20_000);
    play(&engine, b"stats reset\r\n", WHOLE);
    assert_eq!(stat(&engine, "log_watcher_sent"), 0);
}

#[test]
fn the_longest_key_is_logged_completely() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "mutations");
    let key = "#".repeat(250);
    play(
        &engine,
        format!("set {key} 0 0 9\r\nmemcached\r\n").as_bytes(),
        WHOLE,
    );
    let lines = watcher.lines();
    assert!(
        lines[0].contains(&format!(" key={} ", "%23".repeat(250))),
        "{lines:?}"
    );
}

#[test]
fn no_event_is_logged_while_no_client_watches_its_kind() {
    let engine = engine();
    play(&engine, b"set a 0 0 1\r\nx\r\nget a\r\ndelete a\r\n", WHOLE);
    assert_eq!(stat(&engine, "log_worker_written"), 0);
    let watcher = Watcher::new(&engine, "deletions");
    play(&engine, b"set a 0 0 1\r\nx\r\nget a\r\n", WHOLE);
    assert_eq!(stat(&engine, "log_worker_written"), 0);
    play(&engine, b"delete a\r\n", WHOLE);
    assert_eq!(stat(&engine, "log_worker_written"), 1);
    drop(watcher);
    play(&engine, b"set a 0 0 1\r\nx\r\ndelete a\r\n", WHOLE);
    assert_eq!(stat(&engine, "log_worker_written"), 1);
}

#[test]
fn who_may_not_administrate_may_not_watch() {
    const REFUSED: &str = "CLIENT_ERROR watch commands not allowed\r\n";
    let engine = engine();
    let mut session = Session::new(&engine, Transport::Udp);
    let mut out = Small::new(4096);
    session.feed(b"watch\r\n", &mut out);
    assert_eq!(out.waiting, REFUSED.as_bytes());
    let mut owner = Session::owner(&engine);
    let mut out = Small::new(4096);
    owner.feed(b"watch\r\n", &mut out);
    assert_eq!(out.waiting, REFUSED.as_bytes());
    engine.set_administration(Administration::Off);
    assert_eq!(Watcher::ask(&engine, "watch\r\n").1, REFUSED);
}

/// memcached 1.6.38 reports the lookup that finds a dead item in this way, since it removes the item.
#[test]
fn the_expiry_or_flush_of_an_item_is_logged_once() {
    let engine = engine();
    let mut watcher = Watcher::new(&engine, "fetchers");
    let line =
        |status, client| format!("type=item_get key=e status={status} clsid=0 cfd={client} size=0");
    let flushes = [
        ("set e 0 -1 1\r\nx\r\n", "expired"),
        ("set e 0 0 1\r\nx\r\nflush_all\r\n", "flushed"),
    ];
    for (before, status) in flushes {
        for command in [
            "get e",
            "gets e",
            "gat 0 e",
            "gats 0 e",
            "mg e",
            "mg e v",
            "mg e T30",
            "me e",
            "incr e 1",
            "ma e",
            "delete e",
            "md e",
            "md e I",
            "touch e 0",
            "set e 0 -1 1\r\nx",
            "add e 0 -1 1\r\nx",
            "append e 0 0 1\r\nx",
            "ms e 1 T-1\r\nx",
            "get z e",
        ] {
            common::say(&engine, before);
            watcher.lines();
            let mut out = Small::new(4096);
            let mut client = client(&engine);
            client.feed(format!("{command}\r\n").as_bytes(), &mut out);
            let lines = watcher.lines();
            assert!(
                lines.contains(&line(status, CLIENT)),
                "{command}: {lines:?}"
            );
            // The stored item has expired as well.
            client.feed(b"get e\r\nget e\r\n", &mut out);
            assert_eq!(watcher.lines().last(), Some(&line("not_found", CLIENT)));
        }
        // Where it arrives, and in the binary protocol.
        let mut binary = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        binary.extend([0; 12]);
        binary.push(b'e');
        for request in [&b"get e\r\n"[..], &binary] {
            common::say(&engine, before);
            watcher.lines();
            let payload = common::framed(request);
            if common::fast(&engine, &payload).1.is_empty() {
                common::slow(&engine, &payload);
            }
            assert_eq!(watcher.lines(), [line(status, 0)]);
        }
    }
}
