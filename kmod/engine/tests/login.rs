// SPDX-License-Identifier: GPL-2.0-only
//! Authentication over TCP, byte for byte as in memcached with `-Y`.

mod common;

use common::{engine_with, framed, message, say, slow, TestEngine};
use hippos_engine::{Credentials, CredentialsError, Cursor, EngineCounter, Session, Settings};

/// An engine whose credentials are its own.
fn engine() -> TestEngine {
    let credentials = Box::leak(Box::new(Credentials::new()));
    engine_with(Settings {
        credentials,
        ..Settings::default()
    })
}

const LINES: &[u8] = b"user:pass\r\nother:p:w\nempty:\n\n";

#[test]
fn first_command_authenticates() {
    let engine = engine();
    say(&engine, "set before 0 0 1\r\n1\r\n");
    engine.set_credentials(LINES).unwrap();
    let unknown = "CLIENT_ERROR unauthenticated\r\n";
    for (input, output) in [
        ("get before\r\n", unknown),
        ("\r\n\r\n", &unknown.repeat(2)),
        ("version\r\nmn\r\nquit\r\n", &unknown.repeat(3)),
        ("set a 0 0\r\n", unknown),
        ("set a 0 0 x\r\n", unknown),
        ("set a 0 0 -1\r\n", unknown),
        ("SET a 0 0 9\r\n", unknown),
        ("set a 0 0 9\r\nuser pass\r\n", "STORED\r\n"),
        (
            "set a b c 9 noreply\n user pass\r\n",
            "CLIENT_ERROR bad command line termination\r\n",
        ),
        ("set  a b c 9 noreply\nuser pass\r\n", "STORED\r\n"),
        ("set a 0 0 12\r\nuser pass  x\r\n", "STORED\r\n"),
        ("set a 0 0 9\r\nother p:w\r\n", "STORED\r\n"),
        (
            "set a 0 0 4\r\nuser\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        ),
        (
            "set a 0 0 6\r\nempty \r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        ),
        (
            "set a 0 0 0\r\n\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        ),
        (
            "set a 0 0 9\r\nuser p4ss\r\n",
            "CLIENT_ERROR authentication failure\r\n",
        ),
        (
            "set a 0 0 8\r\nuser pas\r\n",
            "CLIENT_ERROR authentication failure\r\n",
        ),
        (
            "set a 0 0 9\r\nuserpass \r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
        ),
        (
            "set a 0 0 7\r\nother p\r\n",
            "CLIENT_ERROR authentication failure\r\n",
        ),
        (
            "set a 0 0 9\r\nuser passx\n",
            "CLIENT_ERROR bad command line termination\r\n",
        ),
        (
            "get b\r\nset a 0 0 9\r\nuser pass\r\nget before a\r\n",
            "CLIENT_ERROR unauthenticated\r\nSTORED\r\nVALUE before 0 1\r\n1\r\nEND\r\n",
        ),
    ] {
        assert_eq!(say(&engine, input), output, "{input:?}");
    }
    let long = format!("set a 0 0 5000\r\n{}\r\nmn\r\n", "x".repeat(5000));
    let refused = "CLIENT_ERROR authentication failure\r\nCLIENT_ERROR unauthenticated\r\n";
    assert_eq!(say(&engine, &long), refused);
    let counted = |name: EngineCounter| engine.engine_counted(name);
    assert_eq!(
        (
            counted(EngineCounter::AuthCommands),
            counted(EngineCounter::AuthErrors)
        ),
        (9, 4)
    );
}

#[test]
fn unauthenticated_session_skips_every_fast_path() {
    let engine = engine();
    say(&engine, "set a 0 0 1\r\n1\r\n");
    engine.set_credentials(LINES).unwrap();
    let mut session = Session::new(&engine, hippos_engine::Transport::Tcp);
    let mut room = [0; 4096];
    let mut out = Cursor::new(&mut room);
    assert_eq!(session.feed_softirq(b"get a\r\n", 64, &mut out), 0);
    session.feed(b"set x 0 0 9\r\nuser pass\r\n", &mut out);
    assert_eq!(session.feed_softirq(b"get a\r\n", 64, &mut out), 7);
    assert_eq!(out.as_bytes(), b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n");
}

#[test]
fn udp_is_refused_while_authentication_is_required() {
    let engine = engine();
    say(&engine, "set a 0 0 1\r\n1\r\n");
    engine.set_credentials(LINES).unwrap();
    assert!(common::fast(&engine, &framed(b"get a\r\n")).1.is_empty());
    assert!(slow(&engine, &framed(b"get a\r\n")).is_empty());
    assert!(slow(&engine, &framed(b"set a 0 0 9\r\nuser pass\r\n")).is_empty());
    assert_eq!(engine.engine_counted(EngineCounter::UdpRefused), 2);
    engine.set_credentials(b"").unwrap();
    let reply = b"VALUE a 0 1\r\n1\r\nEND\r\n";
    assert_eq!(message(&slow(&engine, &framed(b"get a\r\n"))), reply);
    assert_eq!(say(&engine, "get a\r\n").as_bytes(), reply);
}

/// Like a module that is loaded with `closed=1`.
#[test]
fn closed_engine_refuses_until_credentials_are_set() {
    for (lines, token) in [(LINES, "set a 0 0 9\r\nuser pass\r\n"), (b"", "")] {
        let engine = engine();
        let shows = |closed: &str| {
            let mut owner = Session::owner(&engine);
            let mut room = [0; 16384];
            let mut out = Cursor::new(&mut room);
            owner.feed(b"stats settings\r\n", &mut out);
            let text = String::from_utf8_lossy(out.as_bytes()).into_owned();
            text.contains(&format!("STAT hippos_closed {closed}\r\n"))
        };
        assert!(shows("no"));
        engine.close();
        assert!(shows("yes"));
        let unknown = "CLIENT_ERROR unauthenticated\r\n";
        assert_eq!(say(&engine, "get a\r\n"), unknown);
        let no_user = "set a 0 0 1\r\n \r\n";
        assert!(say(&engine, no_user).starts_with("CLIENT_ERROR "));
        assert!(slow(&engine, &framed(b"get a\r\n")).is_empty());
        assert!(common::fast(&engine, &framed(b"get a\r\n")).1.is_empty());
        engine.set_credentials(lines).unwrap();
        assert!(shows("no"));
        let said = say(&engine, &format!("{token}get a\r\n"));
        assert!(said.ends_with("END\r\n"), "{said}");
        let said = say(&engine, &format!("{token}stats settings\r\n"));
        assert!(said.contains("STAT hippos_closed no\r\n"), "{said}");
    }
}

#[test]
fn settings_show_that_the_engine_is_closed_while_no_user_is_known() {
    let engine = engine();
    engine.set_credentials(LINES).unwrap();
    let mut session = Session::new(&engine, hippos_engine::Transport::Tcp);
    let mut closed = |request: &[u8]| {
        let mut room = vec![0; 32768];
        let mut out = Cursor::new(&mut room);
        session.feed(request, &mut out);
        let said = String::from_utf8_lossy(out.as_bytes()).into_owned();
        let row = said
            .lines()
            .find_map(|line| line.strip_prefix("STAT hippos_closed "));
        row.map(str::to_owned)
    };
    let first = b"set a 0 0 9\r\nuser pass\r\nstats settings\r\n";
    assert_eq!(closed(first).as_deref(), Some("no"));
    engine.set_credentials(b"").unwrap();
    engine.close();
    assert_eq!(closed(b"stats settings\r\n").as_deref(), Some("yes"));
    engine.set_credentials(LINES).unwrap();
    assert_eq!(closed(b"stats settings\r\n").as_deref(), Some("no"));
}

#[test]
fn connection_is_served_after_authentication_is_disabled() {
    let engine = engine();
    engine.close();
    let mut session = Session::new(&engine, hippos_engine::Transport::Tcp);
    let mut room = [0; 4096];
    let mut out = Cursor::new(&mut room);
    session.feed(b"get a\r\n", &mut out);
    engine.set_credentials(b"").unwrap();
    session.feed(b"get a\r\n", &mut out);
    let said = b"CLIENT_ERROR unauthenticated\r\nEND\r\n";
    assert_eq!(out.as_bytes(), said);
}

#[test]
fn credentials_are_taken_whole_or_not_at_all() {
    let engine = engine();
    assert_eq!(
        engine.set_credentials(b"user\n"),
        Err(CredentialsError::Line)
    );
    assert_eq!(
        engine.set_credentials(&[b':'; 2049]),
        Err(CredentialsError::TooLong)
    );
    assert!(!engine.authentication());
    engine.set_credentials(LINES).unwrap();
    assert_eq!(
        engine.set_credentials(b"a:b\nuser\n"),
        Err(CredentialsError::Line)
    );
    assert_eq!(say(&engine, "set a 0 0 9\r\nuser pass\r\n"), "STORED\r\n");
    engine.set_credentials(b"user:word").unwrap();
    assert_eq!(say(&engine, "set a 0 0 9\r\nuser word\r\n"), "STORED\r\n");
    let refused = "CLIENT_ERROR authentication failure\r\n";
    assert_eq!(say(&engine, "set a 0 0 9\r\nuser pass\r\n"), refused);
}

#[test]
fn authenticated_connection_survives_credential_change() {
    let engine = engine();
    let mut session = Session::new(&engine, hippos_engine::Transport::Tcp);
    engine.set_credentials(LINES).unwrap();
    let mut out = common::Small::new(4096);
    session.feed(b"mn\r\n", &mut out);
    assert_eq!(out.waiting, b"MN\r\n");
    let mut out = common::Small::new(4096);
    Session::owner(&engine).feed(b"mn\r\n", &mut out);
    assert_eq!(out.waiting, b"MN\r\n");
}
