// SPDX-License-Identifier: GPL-2.0-only
//! The generator with test servers: every transport and fault, no store needed.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hippos_load::arrival::Arrival;
use hippos_load::echo::{Contents, Echo, Faults};
use hippos_load::merge::merge;
use hippos_load::replay::{replay, Replay};
use hippos_load::report::{Pace, Report, Run};
use hippos_load::session::{Load, Session};
use hippos_load::settings::{Failure, Part, Protocol, Settings, Transport};
use hippos_load::trace::Options;
use hippos_load::workload::{Mix, Model, Workload};

const PROTOCOLS: [Protocol; 3] = [Protocol::Classic, Protocol::Meta, Protocol::Binary];

fn model(name: &str, keys: u64) -> Model {
    let mut workload = Workload::named(name).unwrap();
    workload.keys.count = keys;
    Model::new(&workload).unwrap()
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A server that derives its answers from the workload.
fn derived(model: &Model, faults: Faults) -> Echo {
    Echo::start(
        local(),
        1,
        false,
        Contents::Model(Box::new(model.clone())),
        faults,
    )
    .unwrap()
}

/// A server that stores values.
fn kept(faults: Faults) -> Echo {
    Echo::start(local(), 1, false, Contents::Kept(Mutex::default()), faults).unwrap()
}

/// Long timeouts, because the machine may be busy; tests with faults that lose replies set their own.
fn settings(servers: &[&Echo]) -> Settings {
    Settings {
        servers: servers
            .iter()
            .map(|server| server.address().into())
            .collect(),
        sockets: 4,
        connections: 2,
        timeout: 20_000_000_000,
        ..Settings::default()
    }
}

fn session(settings: &Settings, model: &Model) -> Session {
    Session::connect(settings, model, Arc::default()).unwrap()
}

fn closed(requests: u64, window: usize) -> Load {
    Load {
        pace: Pace::Closed { window },
        warmup: Duration::ZERO,
        duration: None,
        requests: Some(requests),
        interval: Duration::from_millis(100),
    }
}

fn open(rate: f64, arrival: Arrival, milliseconds: u64) -> Load {
    Load {
        pace: Pace::Open { rate, arrival },
        warmup: Duration::ZERO,
        duration: Some(Duration::from_millis(milliseconds)),
        requests: None,
        interval: Duration::from_millis(100),
    }
}

fn run(settings: &Settings, model: &Model, load: &Load) -> (Run, Option<Failure>) {
    session(settings, model).run(load, 1, &mut ())
}

/// A run that must be complete, with every request answered.
fn complete(settings: &Settings, model: &Model, load: &Load) -> Run {
    let (run, failure) = run(settings, model, load);
    assert_eq!(failure, None);
    assert_eq!(
        run.counters.answered, run.counters.sent,
        "{:?}",
        run.counters
    );
    assert_eq!((run.counters.errors, run.counters.strays), (0, 0));
    run
}

#[test]
fn all_pools_complete_over_udp_and_tcp_in_each_protocol() {
    for name in ["usr", "app", "etc", "var", "sys"] {
        let model = model(name, 5000);
        let server = derived(&model, Faults::default());
        for (get, protocol) in [
            (Transport::Udp, Protocol::Classic),
            (Transport::Tcp, Protocol::Classic),
            (Transport::Udp, Protocol::Meta),
            (Transport::Tcp, Protocol::Meta),
            (Transport::Udp, Protocol::Binary),
            (Transport::Tcp, Protocol::Binary),
        ] {
            let settings = Settings {
                get,
                protocol,
                ..settings(&[&server])
            };
            let run = complete(&settings, &model, &closed(2000, 4));
            assert_eq!(run.counters.sent, 2000);
            let expected = 1.0 - model.workload.gets.absent;
            let ratio = run.hit_ratio.unwrap();
            assert!(
                (ratio - expected).abs() < 0.05,
                "{name}: {ratio} hits, not {expected}"
            );
        }
    }
}

#[test]
fn multi_key_gets_in_one_message_and_in_one_a_hit() {
    for (variant, protocol) in [
        ("micro:mget-64", Protocol::Classic),
        ("micro:mget-1-64", Protocol::Classic),
        ("micro:mget-16", Protocol::Meta),
        ("micro:mget-16", Protocol::Binary),
    ] {
        let model = model(variant, 2000);
        for message_per_hit in [false, true] {
            let server = derived(
                &model,
                Faults {
                    message_per_hit,
                    ..Faults::default()
                },
            );
            let run = complete(
                &Settings {
                    protocol,
                    ..settings(&[&server])
                },
                &model,
                &closed(500, 2),
            );
            assert_eq!(run.counters.misses, 0);
            assert!(run.counters.hits > 500 * 8);
            assert!(run.kinds.contains_key("mget"));
        }
    }
}

#[test]
fn no_part_of_an_answer_to_many_keys_is_a_stray() {
    let mut workload = Workload::named("micro:mget-16").unwrap();
    workload.keys.count = 1000;
    workload.gets.absent = 0.3;
    let model = Model::new(&workload).unwrap();
    let server = derived(
        &model,
        Faults {
            message_per_hit: true,
            ..Faults::default()
        },
    );
    // `complete` requires that there are no strays.
    let run = complete(&settings(&[&server]), &model, &closed(500, 2));
    assert!(run.counters.misses > 500);
}

#[test]
fn replies_of_many_datagrams_come_together() {
    let model = model("micro:value-16k", 100);
    let server = derived(&model, Faults::default());
    let run = complete(&settings(&[&server]), &model, &closed(300, 1));
    assert_eq!(run.counters.hits, 300);
    assert!(run.counters.bytes_received > 300 * 16_384);
    // Larger ones go over TCP unless UDP is allowed for them.
    let large = self::model("micro:value-64k", 20);
    let server = derived(&large, Faults::default());
    for udp_max in [1000, 1 << 20] {
        let settings = Settings {
            udp_max,
            ..settings(&[&server])
        };
        assert_eq!(
            complete(&settings, &large, &closed(50, 1)).counters.hits,
            50
        );
    }
}

#[test]
fn filled_keys_hit_and_deleted_keys_miss() {
    let model = model("etc", 2000);
    let server = kept(Faults::default());
    let mut session = session(
        &Settings {
            threads: 2,
            ..settings(&[&server])
        },
        &model,
    );
    let (fill, failure) = session.fill(&mut ());
    assert_eq!((failure, fill.counters.stored), (None, 2000));
    let (run, failure) = session.run(&closed(5000, 4), 1, &mut ());
    assert_eq!(failure, None);
    let c = &run.counters;
    assert_eq!(c.answered, 5000);
    assert!(
        c.hits > c.misses && c.deleted > 0 && c.not_found > c.deleted && c.stored > 0,
        "{c:?}"
    );
}

#[test]
fn misses_are_filled_when_wanted() {
    let model = model("micro:zipf", 500);
    let server = kept(Faults::default());
    let run = complete(
        &Settings {
            fill_on_miss: true,
            ..settings(&[&server])
        },
        &model,
        &closed(5000, 1),
    );
    let c = &run.counters;
    assert!(
        c.misses > 0 && c.refills >= c.stored && c.stored > 0,
        "{c:?}"
    );
    assert!(c.hits > 3 * c.misses, "{c:?}");
}

#[test]
fn keys_are_spread_over_several_servers() {
    let model = model("micro:mget-16", 2000);
    let (one, two) = (kept(Faults::default()), kept(Faults::default()));
    let mut session = session(&settings(&[&one, &two]), &model);
    assert_eq!(session.fill(&mut ()).1, None);
    let (stored_by_one, stored_by_two) = (one.answered(), two.answered());
    assert!(stored_by_one > 500 && stored_by_two > 500);
    let (run, failure) = session.run(&closed(500, 1), 1, &mut ());
    assert_eq!((failure, run.counters.misses), (None, 0));
    assert!(one.answered() > stored_by_one && two.answered() > stored_by_two);
}

#[test]
fn an_open_loop_sends_all_that_is_due() {
    let model = model("micro", 1000);
    let server = derived(&model, Faults::default());
    let bursts = Arrival::Burst {
        factor: 2.5,
        length: 0.02,
        period: 0.1,
    };
    for arrival in [Arrival::Constant, Arrival::Poisson, bursts] {
        let settings = Settings {
            threads: 2,
            ..settings(&[&server])
        };
        let run = complete(&settings, &model, &open(5000.0, arrival, 300));
        let sent = run.counters.sent as f64;
        assert!((sent - 1500.0).abs() < 150.0, "{arrival:?}: {sent} sent");
        let answered: u64 = run.timeline.iter().map(|moment| moment.answered).sum();
        assert_eq!(answered, run.counters.answered);
    }
}

#[test]
fn stalls_show_in_open_loop_latency() {
    let model = model("micro", 1000);
    // It sleeps 50 ms before each batch of replies: requests that arrive meanwhile wait.
    let server = derived(
        &model,
        Faults {
            delay: Duration::from_millis(50),
            ..Faults::default()
        },
    );
    let run = complete(
        &settings(&[&server]),
        &model,
        &open(1000.0, Arrival::Constant, 500),
    );
    assert!(
        run.counters.sent >= 499,
        "all are sent, though the server stalls: {}",
        run.counters.sent
    );
    assert!(run.latency.max_us >= 50_000.0);
    assert!(
        run.latency.p50_us >= 20_000.0,
        "the median request waits for half a stall or longer"
    );
}

#[test]
fn wrong_bytes_end_the_run() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            corrupt: 300,
            ..Faults::default()
        },
    );
    for (get, protocol) in [
        (Transport::Udp, Protocol::Classic),
        (Transport::Tcp, Protocol::Classic),
        (Transport::Tcp, Protocol::Binary),
    ] {
        let (run, failure) = run(
            &Settings {
                get,
                protocol,
                ..settings(&[&server])
            },
            &model,
            &closed(2000, 1),
        );
        let Some(Failure::Wrong(what)) = failure else {
            panic!("{failure:?}")
        };
        assert!(what.contains("wrong from byte"), "{what}");
        assert!(run.counters.answered > 0, "what was measured is kept");
    }
}

#[test]
fn requests_that_leave_as_one_are_answered_one_by_one() {
    // Keys of two lengths, replies of many, some in several datagrams.
    for (workload, keys) in [("usr", 5000), ("micro:mget-16", 2000), ("etc", 5000)] {
        let model = model(workload, keys);
        for peer in [true, false] {
            let contents = Contents::Model(Box::new(model.clone()));
            let server = Echo::start(local(), 1, peer, contents, Faults::default()).unwrap();
            let settings = Settings {
                gso: true,
                ..settings(&[&server])
            };
            let (run, failure) = run(&settings, &model, &closed(20_000, 64));
            assert_eq!(failure, None, "{workload}");
            let c = &run.counters;
            assert_eq!((c.answered, c.strays), (20_000, 0), "{workload}: {c:?}");
        }
    }
}

#[test]
fn lost_updates_are_detected() {
    let model = model("micro:get-set-50", 50);
    let server = kept(Faults {
        forget: 10,
        ..Faults::default()
    });
    let (_, failure) = run(&settings(&[&server]), &model, &closed(20_000, 1));
    let Some(Failure::Wrong(what)) = failure else {
        panic!("{failure:?}")
    };
    assert!(what.contains("stale"), "{what}");
}

#[test]
fn hits_on_keys_that_were_never_stored_are_wrong() {
    let model = model("micro:get-miss", 1000);
    let server = Echo::start(local(), 1, false, Contents::Any(20), Faults::default()).unwrap();
    let (_, failure) = run(&settings(&[&server]), &model, &closed(100, 1));
    let Some(Failure::Wrong(what)) = failure else {
        panic!("{failure:?}")
    };
    assert!(what.contains("never stored"), "{what}");
}

#[test]
fn lost_datagrams_are_timeouts() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            drop: 10,
            ..Faults::default()
        },
    );
    let settings = Settings {
        timeout: 300_000_000,
        ..settings(&[&server])
    };
    let (run, failure) = run(&settings, &model, &closed(500, 32));
    assert_eq!(failure, None);
    let c = &run.counters;
    assert!(c.timeouts >= 40, "{c:?}");
    assert_eq!((c.answered + c.timeouts, c.partial), (500, 0), "{c:?}");
}

#[test]
fn a_lost_part_of_a_reply_is_counted_separately() {
    let model = model("micro:value-4k", 100);
    let server = derived(
        &model,
        Faults {
            tear: 10,
            ..Faults::default()
        },
    );
    let settings = Settings {
        timeout: 300_000_000,
        ..settings(&[&server])
    };
    let (run, failure) = run(&settings, &model, &closed(200, 16));
    assert_eq!(failure, None);
    let c = &run.counters;
    assert!(c.partial >= 15 && c.partial <= c.timeouts, "{c:?}");
    assert_eq!(c.answered + c.timeouts, 200);
}

#[test]
fn late_replies_are_counted_separately() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            delay: Duration::from_millis(40),
            ..Faults::default()
        },
    );
    let settings = Settings {
        timeout: 5_000_000,
        ..settings(&[&server])
    };
    let (run, _) = run(&settings, &model, &open(500.0, Arrival::Constant, 400));
    let c = &run.counters;
    assert!(c.timeouts > 0 && c.late > 0, "{c:?}");
    assert_eq!(c.answered + c.timeouts, c.sent);
}

#[test]
fn errors_are_counted_with_their_texts() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            refuse: 5,
            ..Faults::default()
        },
    );
    for (get, protocol) in [
        (Transport::Udp, Protocol::Classic),
        (Transport::Tcp, Protocol::Classic),
        (Transport::Tcp, Protocol::Binary),
    ] {
        let (run, failure) = run(
            &Settings {
                get,
                protocol,
                ..settings(&[&server])
            },
            &model,
            &closed(500, 1),
        );
        assert_eq!(failure, None);
        assert_eq!(run.counters.errors, 100);
        let text = match protocol {
            Protocol::Binary => "out of memory (status 0x82)",
            _ => "SERVER_ERROR refused",
        };
        assert_eq!(run.errors.get(text), Some(&100));
    }
}

#[test]
fn a_server_that_closes_ends_the_run() {
    let model = model("micro:set", 1000);
    // The probe's request counts as well.
    let server = derived(
        &model,
        Faults {
            close: 200,
            ..Faults::default()
        },
    );
    let (run, failure) = run(&settings(&[&server]), &model, &closed(5000, 1));
    let Some(Failure::Server(what)) = failure else {
        panic!("{failure:?}")
    };
    assert!(what.contains("closed"), "{what}");
    assert!(run.counters.stored > 0, "what was measured is kept");
}

#[test]
fn an_unreachable_server_is_reported() {
    let model = model("micro", 10);
    let server = derived(&model, Faults::default());
    let gone = settings(&[&server]);
    drop(server);
    let Err(Failure::Server(what)) = Session::connect(&gone, &model, Arc::default()) else {
        panic!()
    };
    assert!(what.contains(&gone.servers[0].to_string()), "{what}");
}

#[test]
fn a_server_that_stops_answering_is_reported() {
    let model = model("micro", 10);
    // It answers only the probe: the delay is longer than the timeout.
    let server = derived(
        &model,
        Faults {
            delay: Duration::from_millis(200),
            ..Faults::default()
        },
    );
    let settings = Settings {
        timeout: 10_000_000,
        ..settings(&[&server])
    };
    let (_, failure) = run(&settings, &model, &closed(3, 1));
    let Some(Failure::Server(what)) = failure else {
        panic!("{failure:?}")
    };
    assert!(what.contains("not one of 3"), "{what}");
}

#[test]
fn an_interrupt_keeps_what_was_measured() {
    let model = model("micro", 1000);
    let server = derived(&model, Faults::default());
    let interrupt = Arc::new(AtomicBool::new(false));
    let mut session = Session::connect(&settings(&[&server]), &model, interrupt.clone()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.answered() < 100 {
                std::thread::sleep(Duration::from_millis(5));
            }
            interrupt.store(true, Ordering::Relaxed);
        });
        let (run, failure) = session.run(&open(2000.0, Arrival::Poisson, 60_000), 1, &mut ());
        assert_eq!(failure, Some(Failure::Interrupted));
        assert!(run.counters.answered > 0);
    });
}

/// Sends every datagram back, optionally with one changed, until it receives an empty one.
fn mirror(socket: &UdpSocket, change: Option<u32>) {
    let mut buffer = [0; 2048];
    for n in 0.. {
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        if len == 0 {
            return;
        }
        if Some(n) == change {
            buffer[len - 1] ^= 1;
        }
        socket.send_to(&buffer[..len], from).unwrap();
    }
}

#[test]
fn a_mirror_is_measured_and_checked() {
    let model = model("etc", 1000);
    for change in [None, Some(50)] {
        let socket = UdpSocket::bind(local()).unwrap();
        let address = socket.local_addr().unwrap();
        let settings = Settings {
            servers: vec![address.into()],
            sockets: 2,
            mirror: true,
            ..Settings::default()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| mirror(&socket, change));
            let (run, failure) = run(&settings, &model, &closed(500, 1));
            UdpSocket::bind(local())
                .unwrap()
                .send_to(&[], address)
                .unwrap();
            match change {
                None => assert_eq!((failure, run.counters.answered), (None, 500)),
                Some(_) => assert!(matches!(failure, Some(Failure::Wrong(_))), "{failure:?}"),
            }
        });
    }
}

/// Replays the text of a trace.
fn replayed(settings: &Settings, text: &str, pace: Pace) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.csv");
    std::fs::write(&path, text).unwrap();
    let how = Replay {
        paths: vec![path],
        options: Options::default(),
        load: Load {
            pace,
            warmup: Duration::ZERO,
            duration: None,
            requests: None,
            interval: Duration::from_millis(100),
        },
        skip_bad: 0,
        again: false,
    };
    let mut session = session(settings, &model("micro", 1));
    let (run, _, failure) = replay(&mut session, &how, false).unwrap();
    assert_eq!(failure, None);
    let c = &run.counters;
    assert_eq!((c.timeouts, c.errors), (0, 0), "{c:?}");
    run
}

/// Every transport and protocol for a trace's requests.
fn ways() -> Vec<(Settings, Pace)> {
    let mut ways = Vec::new();
    for pace in [
        Pace::Closed { window: 16 },
        Pace::Recorded { speed: 1000.0 },
        Pace::Open {
            rate: 100_000.0,
            arrival: Arrival::Poisson,
        },
    ] {
        for (get, protocol, threads) in [
            (Transport::Udp, Protocol::Classic, 1),
            (Transport::Udp, Protocol::Meta, 2),
            (Transport::Tcp, Protocol::Classic, 1),
            (Transport::Tcp, Protocol::Meta, 2),
            (Transport::Udp, Protocol::Binary, 1),
            (Transport::Tcp, Protocol::Binary, 2),
        ] {
            let settings = Settings {
                get,
                protocol,
                threads,
                connections: 4,
                sockets: 4,
                timeout: 20_000_000_000,
                ..Settings::default()
            };
            ways.push((settings, pace));
        }
    }
    ways
}

#[test]
fn a_get_sees_the_set_before_it() {
    let mut text = "time,op,key,size,ttl\n".to_string();
    for i in 0..1000 {
        text += &format!("{i},set,key{i},30,0\n{i},get,key{i},30,0\n");
    }
    for (settings, pace) in ways() {
        let server = kept(Faults::default());
        let settings = Settings {
            servers: vec![server.address().into()],
            ..settings
        };
        let run = replayed(&settings, &text, pace);
        let c = &run.counters;
        assert_eq!(
            (c.hits, c.misses),
            (1000, 0),
            "{settings:?} {pace:?}: {c:?}"
        );
    }
}

#[test]
fn gets_of_many_keys_see_the_deletes_before_them() {
    let mut text = "time,op,key,size,ttl\n".to_string();
    for i in 0..300 {
        text += &format!("{i},set,a{i},30,0\n{i},set,b{i},30,0\n{i},delete,a{i},0,0\n");
        text += &format!("{i},get,a{i} b{i} c{i},30,0\n{i},set,c{i},30,0\n");
    }
    for (settings, pace) in ways() {
        let server = kept(Faults::default());
        let settings = Settings {
            servers: vec![server.address().into()],
            ..settings
        };
        let c = replayed(&settings, &text, pace).counters;
        assert_eq!(
            (c.hits, c.misses),
            (300, 600),
            "{settings:?} {pace:?}: {c:?}"
        );
    }
}

#[test]
fn a_cold_key_is_filled_in_once() {
    // One hot key, and other keys that are each requested three times.
    let mut text = "time,op,key,size,ttl\n".to_string();
    for i in 0..600 {
        text += &format!("{i},get,hot,30,0\n{i},get,key{},30,0\n", i % 200);
    }
    for (settings, pace) in ways() {
        let server = kept(Faults::default());
        let settings = Settings {
            servers: vec![server.address().into()],
            fill_on_miss: true,
            ..settings
        };
        let c = replayed(&settings, &text, pace).counters;
        assert_eq!(
            (c.refills, c.misses, c.hits),
            (201, 201, 999),
            "{pace:?}: {c:?}"
        );
    }
}

#[test]
fn requests_that_were_given_up_have_their_true_latency_when_they_are_answered() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            stall: Duration::from_millis(400),
            stall_at: 100,
            ..Faults::default()
        },
    );
    let settings = Settings {
        get: Transport::Tcp,
        timeout: 50_000_000,
        ..settings(&[&server])
    };
    let (run, failure) = run(&settings, &model, &open(1000.0, Arrival::Constant, 800));
    assert_eq!(failure, None);
    let (c, latency) = (&run.counters, &run.latency);
    assert!(c.timeouts > 100 && c.late == c.timeouts, "{c:?}");
    assert_eq!((latency.count, latency.unanswered), (c.sent, 0));
    // Without these no latency would be longer than the timeout.
    assert!(
        latency.max_us >= 300_000.0 && latency.p99_us >= 200_000.0,
        "{latency:?}"
    );
}

#[test]
fn requests_without_an_answer_are_in_the_percentiles() {
    let model = model("micro", 1000);
    let server = derived(
        &model,
        Faults {
            drop: 10,
            ..Faults::default()
        },
    );
    let settings = Settings {
        timeout: 300_000_000,
        ..settings(&[&server])
    };
    let mut report = Report::new("run", "micro", &settings);
    let (run, failure) = run(&settings, &model, &closed(500, 32));
    assert_eq!(failure, None);
    let latency = &run.latency;
    assert_eq!(latency.unanswered, run.counters.timeouts);
    assert_eq!(latency.count, run.counters.sent);
    assert!(latency.p95_us >= 300_000.0 && latency.p95_us >= latency.exact_below_us);
    assert!(latency.mean_answered_us < latency.mean_us);
    assert_eq!(
        run.timeline.iter().map(|m| m.timeouts).sum::<u64>(),
        run.counters.timeouts
    );
    report.runs.push(run);
    let table = report.table();
    assert!(
        table.contains("> 3") && table.contains("(given up)"),
        "{table}"
    );
}

#[test]
fn more_than_can_be_done_degrades_to_what_can() {
    let model = model("micro", 1000);
    for get in [Transport::Udp, Transport::Tcp] {
        let server = derived(&model, Faults::default());
        let settings = Settings {
            get,
            timeout: 200_000_000,
            ..settings(&[&server])
        };
        let (best, failure) = run(&settings, &model, &closed(30_000, 16));
        assert_eq!(failure, None);
        // Without the warm-up all measured requests would be sent first.
        let load = Load {
            warmup: Duration::from_millis(300),
            ..open(20e6, Arrival::Poisson, 500)
        };
        let (run, failure) = run(&settings, &model, &load);
        assert_eq!(failure, None);
        let c = &run.counters;
        assert!(
            run.answered_per_second > best.answered_per_second / 10.0,
            "{get:?}: {} of {} a second: {c:?}",
            run.answered_per_second,
            best.answered_per_second
        );
        assert!(c.unsent > c.sent, "{c:?}");
        // The rate counts the replies that arrived, not those to requests due meanwhile.
        let came = run.timeline.iter().filter(|m| !m.warmup && m.at < 0.8);
        let came: u64 = came.map(|m| m.answered).sum();
        let counted = run.answered_per_second * run.seconds;
        assert!(
            (counted - came as f64).abs() < 0.2 * counted,
            "{counted} of {came}"
        );
        assert!(run.offered_per_second > 10e6, "{}", run.offered_per_second);
    }
}

#[test]
fn two_generators_share_one_server() {
    let model = model("app", 3000);
    let server = kept(Faults::default());
    let parts: Vec<Settings> = (1..=2)
        .map(|number| Settings {
            part: Part { number, of: 2 },
            prefix: "both:".into(),
            ..settings(&[&server])
        })
        .collect();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .map(|settings| {
                scope.spawn(|| {
                    let mut session = session(settings, &model);
                    let (fill, failure) = session.fill(&mut ());
                    assert_eq!((failure, fill.counters.stored), (None, 1500));
                    let (run, failure) = session.run(&closed(5000, 4), 1, &mut ());
                    assert_eq!(failure, None, "no stale value");
                    let mut report = Report::new("run", "app", settings);
                    report.runs.push(run);
                    report
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let whole = merge(&reports).unwrap();
    let run = &whole.runs[0];
    assert_eq!(run.counters.answered, 10_000);
    assert_eq!(run.latency.count, 10_000);
    assert_eq!(run.timeline.iter().map(|m| m.answered).sum::<u64>(), 10_000);
    let max = reports.iter().map(|r| r.runs[0].latency.max_us);
    assert_eq!(run.latency.max_us, max.fold(0.0, f64::max));
}

#[test]
fn shared_keys_may_be_older() {
    let model = model("micro:get-set-50", 50);
    let server = kept(Faults {
        forget: 10,
        ..Faults::default()
    });
    let settings = Settings {
        shared: true,
        ..settings(&[&server])
    };
    let (run, failure) = run(&settings, &model, &closed(20_000, 1));
    assert_eq!((failure, run.counters.answered), (None, 20_000));
}

#[test]
fn foreign_values_are_accepted_unless_verified() {
    let model = model("micro", 100);
    let server = Echo::start(local(), 1, false, Contents::Any(33), Faults::default()).unwrap();
    let wrong = run(&settings(&[&server]), &model, &closed(100, 1)).1;
    assert!(matches!(wrong, Some(Failure::Wrong(_))), "{wrong:?}");
    let settings = Settings {
        check: false,
        ..settings(&[&server])
    };
    let run = complete(&settings, &model, &closed(100, 1));
    assert_eq!(run.counters.hits, 100);
}

#[test]
fn a_connection_that_breaks_is_made_anew() {
    let model = model("micro:get-set-50", 1000);
    let server = kept(Faults {
        close: 200,
        ..Faults::default()
    });
    let settings = Settings {
        get: Transport::Tcp,
        reconnect: true,
        ..settings(&[&server])
    };
    let (run, failure) = run(&settings, &model, &open(5000.0, Arrival::Constant, 600));
    assert_eq!(failure, None);
    let c = &run.counters;
    assert!(
        c.reconnects >= 2 && c.lost >= 1 && c.answered > 500,
        "{c:?}"
    );
    assert_eq!(run.latency.count, c.answered + c.lost, "{c:?}");
}

#[test]
fn garbage_is_shown_in_part() {
    let model = model("micro", 10);
    let server = derived(
        &model,
        Faults {
            garbage: true,
            ..Faults::default()
        },
    );
    for get in [Transport::Udp, Transport::Tcp] {
        let settings = Settings {
            get,
            ..settings(&[&server])
        };
        let (_, failure) = run(&settings, &model, &closed(10, 1));
        let Some(Failure::Wrong(what)) = failure else {
            panic!("{failure:?}")
        };
        assert!(what.len() < 200 && what.contains("??"), "{what}");
    }
}

#[test]
fn every_operation_is_answered() {
    let mut workload = Workload::named("micro").unwrap();
    workload.keys.count = 200;
    workload.mix = Mix {
        get: 1.0,
        set: 1.0,
        delete: 0.2,
        touch: 1.0,
        gat: 1.0,
        incr: 1.0,
        append: 1.0,
        cas: 1.0,
        ..Mix::default()
    };
    let model = Model::new(&workload).unwrap();
    for protocol in PROTOCOLS {
        let server = kept(Faults::default());
        let settings = Settings {
            protocol,
            ..settings(&[&server])
        };
        let mut session = session(&settings, &model);
        assert_eq!(session.fill(&mut ()).1, None);
        let (run, failure) = session.run(&closed(4000, 2), 1, &mut ());
        assert_eq!(failure, None);
        let c = &run.counters;
        assert_eq!((c.errors, c.timeouts), (0, 0), "{c:?}");
        assert!(c.counted > 100 && c.touched > 100, "{c:?}");
        for kind in [
            "get", "set", "delete", "touch", "gat", "append", "incr", "cas",
        ] {
            assert!(
                run.kinds.contains_key(kind),
                "{kind}: {:?}",
                run.kinds.keys()
            );
        }
    }
}

#[test]
fn values_of_many_packets_are_right_in_each_protocol() {
    let mut workload = Workload::named("micro").unwrap();
    workload.keys.count = 3;
    workload.values.size = hippos_load::dist::Sizes::Constant(1_200_001);
    let model = Model::new(&workload).unwrap();
    for protocol in PROTOCOLS {
        let server = kept(Faults::default());
        let settings = Settings {
            protocol,
            ..settings(&[&server])
        };
        let mut session = session(&settings, &model);
        let (fill, failure) = session.fill(&mut ());
        assert_eq!((failure, fill.counters.stored), (None, 3), "{protocol:?}");
        let (run, failure) = session.run(&closed(6, 2), 1, &mut ());
        assert_eq!((failure, run.counters.misses), (None, 0), "{protocol:?}");
    }
}

#[test]
fn a_value_larger_than_any_buffer_is_right() {
    let mut workload = Workload::named("micro").unwrap();
    workload.keys.count = 3;
    workload.values.size = hippos_load::dist::Sizes::Constant(40_000_001);
    let model = Model::new(&workload).unwrap();
    let server = kept(Faults::default());
    let mut session = session(&settings(&[&server]), &model);
    let (fill, failure) = session.fill(&mut ());
    assert_eq!((failure, fill.counters.stored), (None, 3));
    let run = complete(&settings(&[&server]), &model, &closed(6, 1));
    assert_eq!(run.counters.hits, 6);
}

#[test]
fn a_run_without_requests_has_no_latency() {
    let model = model("micro", 10);
    let server = derived(&model, Faults::default());
    let (run, failure) = run(&settings(&[&server]), &model, &closed(0, 1));
    assert_eq!((failure, run.latency.count), (None, 0));
    assert!(run.latency.p99_us.is_nan() && run.hit_ratio.is_none());
}
