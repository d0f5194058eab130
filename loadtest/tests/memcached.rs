// SPDX-License-Identifier: GPL-2.0-only
//! The generator with memcached itself, if `HIPPOS_MEMCACHED` contains the command that starts it, to which the port
//! and limits are added.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hippos_load::replay::{replay, Replay};
use hippos_load::report::Pace;
use hippos_load::session::{Load, Session};
use hippos_load::settings::{Protocol, Settings, Transport};
use hippos_load::trace::Options;
use hippos_load::workload::{Model, Workload};
use hippos_process::Process;

struct Memcached {
    _process: Process,
    address: SocketAddr,
}

impl Memcached {
    /// Starts one, if that is known.
    fn start() -> Option<Self> {
        let (process, address) = Process::memcached(&["-m", "128", "-t", "2"])?;
        Some(Self {
            _process: process,
            address,
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            servers: vec![self.address.into()],
            sockets: 4,
            connections: 2,
            timeout: 2_000_000_000,
            ..Settings::default()
        }
    }
}

fn model(name: &str, keys: u64) -> Model {
    let mut workload = Workload::named(name).unwrap();
    workload.keys.count = keys;
    Model::new(&workload).unwrap()
}

fn closed(requests: u64, window: usize) -> Load {
    Load {
        pace: Pace::Closed { window },
        warmup: Duration::ZERO,
        duration: None,
        requests: Some(requests),
        interval: Duration::from_secs(1),
    }
}

#[test]
fn every_pool_is_verified() {
    let Some(memcached) = Memcached::start() else {
        return;
    };
    for name in [
        "usr",
        "app",
        "etc",
        "var",
        "sys",
        "micro:mget-16",
        "micro:value-16k",
    ] {
        let model = model(name, 4000);
        for (get, protocol) in [
            (Transport::Udp, Protocol::Classic),
            (Transport::Tcp, Protocol::Meta),
            (Transport::Udp, Protocol::Meta),
            (Transport::Udp, Protocol::Binary),
            (Transport::Tcp, Protocol::Binary),
        ] {
            let settings = Settings {
                get,
                protocol,
                ..memcached.settings()
            };
            let mut session = Session::connect(&settings, &model, Arc::default()).unwrap();
            assert!(
                session.servers()[0].starts_with("1."),
                "{:?}",
                session.servers()
            );
            let (fill, failure) = session.fill(&mut ());
            assert_eq!(
                (failure, fill.counters.stored),
                (None, 4000),
                "{name}: {:?}",
                fill.errors
            );
            let (run, failure) = session.run(&closed(2000, 1), 1, &mut ());
            let c = &run.counters;
            assert_eq!(
                (failure, c.errors, c.strays, c.answered + c.timeouts),
                (None, 0, 0, 2000),
                "{name}: {:?}",
                run.errors
            );
            // Popular keys are missing for a while after each DELETE.
            let most = 1.0 - model.workload.gets.absent;
            let ratio = run.hit_ratio.unwrap();
            assert!(
                ratio > most - 0.08 && ratio < most + 0.03,
                "{name}: {ratio}, {c:?}"
            );
        }
    }
}

#[test]
fn the_samples_are_replayed() {
    let Some(memcached) = Memcached::start() else {
        return;
    };
    let model = model("micro", 1);
    for pool in ["usr", "app", "etc", "var", "sys"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../traces/samples/{pool}.csv.zst"));
        let settings = Settings {
            fill_on_miss: true,
            ..memcached.settings()
        };
        let mut session = Session::connect(&settings, &model, Arc::default()).unwrap();
        let how = Replay {
            paths: vec![path],
            options: Options::default(),
            load: Load {
                requests: None,
                ..closed(0, 1)
            },
            skip_bad: 0,
            again: false,
        };
        let (run, trace, failure) = replay(&mut session, &how, false).unwrap();
        let c = &run.counters;
        assert_eq!(
            (failure, trace.skipped, c.errors),
            (None, 0, 0),
            "{pool}: {:?}",
            run.errors
        );
        assert_eq!(c.answered + c.timeouts, 2000 + c.refills, "{pool}: {c:?}");
        assert!(c.hits > 0, "{pool}: {c:?}");
    }
}
