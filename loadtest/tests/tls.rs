// SPDX-License-Identifier: GPL-2.0-only
//! Encrypted connections: to a server with a certificate in front of the echo server, and to memcached if it is
//! installed with TLS. Needs `--features tls`.
#![cfg(feature = "tls")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hippos_load::echo::{Contents, Echo, Faults};
use hippos_load::report::Pace;
use hippos_load::session::{Load, Session};
use hippos_load::settings::{Failure, Protocol, Settings, Tls, Transport};
use hippos_load::workload::{Mix, Model, Workload};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tls")
        .join(name)
}

/// Accepts encrypted connections and forwards their contents to a server.
fn encrypted(server: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls_rustcrypto::provider());
    let certificate = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, config) = (client.unwrap(), config.clone());
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).unwrap();
                // It ends with an error when either side closes.
                let _ = pass(StreamOwned::new(session, client), server);
            });
        }
    });
    address
}

fn pass(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    server: SocketAddr,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    server.set_nonblocking(true)?;
    client.sock.set_nonblocking(true)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let mut idle = true;
        match client.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                idle = false;
                server.set_nonblocking(false)?;
                server.write_all(&chunk[..n])?;
                server.set_nonblocking(true)?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        match server.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                idle = false;
                client.sock.set_nonblocking(false)?;
                client.write_all(&chunk[..n])?;
                client.flush()?;
                client.sock.set_nonblocking(true)?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn settings(server: SocketAddr, tls: Tls) -> Settings {
    Settings {
        servers: vec![server.into()],
        get: Transport::Tcp,
        connections: 2,
        timeout: 20_000_000_000,
        tls: Some(tls),
        ..Settings::default()
    }
}

fn trusted() -> Tls {
    Tls {
        ca: Some(file("ca.pem")),
        name: Some("cache.test".into()),
    }
}

fn model(variant: &str, keys: u64) -> Model {
    let mut workload = Workload::named(variant).unwrap();
    workload.keys.count = keys;
    workload.mix = Mix {
        get: 2.0,
        set: 1.0,
        ..Mix::default()
    };
    Model::new(&workload).unwrap()
}

fn closed(requests: u64) -> Load {
    Load {
        pace: Pace::Closed { window: 8 },
        warmup: Duration::ZERO,
        duration: None,
        requests: Some(requests),
        interval: Duration::from_secs(1),
    }
}

fn kept(faults: Faults) -> Echo {
    let local = ([127, 0, 0, 1], 0).into();
    Echo::start(local, 1, false, Contents::Kept(Mutex::default()), faults).unwrap()
}

/// Fills, runs, and verifies every value.
fn serves(settings: &Settings, model: &Model, requests: u64) {
    let mut session = Session::connect(settings, model, Arc::default()).unwrap();
    let (fill, failure) = session.fill(&mut ());
    assert_eq!((failure, fill.counters.stored), (None, model.count()));
    let (run, failure) = session.run(&closed(requests), 1, &mut ());
    let c = &run.counters;
    assert_eq!(
        (failure, c.answered, c.errors, c.misses),
        (None, requests, 0, 0)
    );
    assert!(c.hits > requests / 2, "{c:?}");
}

#[test]
fn encrypted_connections_carry_small_and_large_values() {
    for protocol in [Protocol::Classic, Protocol::Meta, Protocol::Binary] {
        let echo = kept(Faults::default());
        let server = encrypted(echo.address());
        for (variant, keys, requests) in [("micro", 300, 400), ("micro:value-16k", 10, 60)] {
            let settings = Settings {
                protocol,
                ..settings(server, trusted())
            };
            serves(&settings, &model(variant, keys), requests);
        }
    }
}

#[test]
fn a_value_of_many_records_is_whole() {
    let echo = kept(Faults::default());
    let mut workload = Workload::named("micro").unwrap();
    workload.keys.count = 2;
    workload.values.size = hippos_load::dist::Sizes::Constant(3_000_001);
    let model = Model::new(&workload).unwrap();
    let settings = settings(encrypted(echo.address()), trusted());
    let mut session = Session::connect(&settings, &model, Arc::default()).unwrap();
    let (fill, failure) = session.fill(&mut ());
    assert_eq!((failure, fill.counters.stored), (None, 2));
    let (run, failure) = session.run(&closed(6), 1, &mut ());
    assert_eq!((failure, run.counters.answered), (None, 6));
}

#[test]
fn only_a_certificate_of_the_authority_and_of_the_name_is_taken() {
    let echo = kept(Faults::default());
    let server = encrypted(echo.address());
    let model = model("micro", 10);
    let connect = |tls: Tls| Session::connect(&settings(server, tls), &model, Arc::default());
    let by_address = Tls {
        name: None,
        ..trusted()
    };
    let any = Tls {
        ca: None,
        name: None,
    };
    for tls in [trusted(), by_address, any] {
        assert!(connect(tls.clone()).is_ok(), "{tls:?}");
    }
    let other_name = Tls {
        name: Some("other.test".into()),
        ..trusted()
    };
    // The server's own certificate is not a certificate authority.
    let other_authority = Tls {
        ca: Some(file("cert.pem")),
        ..trusted()
    };
    for tls in [other_name, other_authority] {
        let Err(Failure::Server(error)) = connect(tls.clone()) else {
            panic!("{tls:?} was taken")
        };
        assert!(error.contains("certificate"), "{error}");
    }
    let no_file = Tls {
        ca: Some("/nowhere/ca.pem".into()),
        name: None,
    };
    let Err(Failure::Server(error)) = connect(no_file) else {
        panic!("an authority that cannot be read was taken")
    };
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}

#[test]
fn a_server_without_tls_is_reported() {
    let echo = kept(Faults::default());
    let settings = settings(echo.address(), trusted());
    let failed = Session::connect(&settings, &model("micro", 10), Arc::default());
    assert!(matches!(failed, Err(Failure::Server(_))), "{failed:?}");
}

#[test]
fn an_encrypted_connection_that_breaks_is_made_anew() {
    let echo = kept(Faults {
        close: 60,
        ..Faults::default()
    });
    let settings = Settings {
        reconnect: true,
        timeout: 1_000_000_000,
        ..settings(encrypted(echo.address()), trusted())
    };
    let model = model("micro", 50);
    let mut session = Session::connect(&settings, &model, Arc::default()).unwrap();
    let load = Load {
        pace: Pace::Open {
            rate: 100.0,
            arrival: hippos_load::arrival::Arrival::Constant,
        },
        duration: Some(Duration::from_secs(4)),
        requests: None,
        ..closed(0)
    };
    let (run, failure) = session.run(&load, 1, &mut ());
    let c = &run.counters;
    assert_eq!(failure, None);
    assert!(c.reconnects > 0 && c.lost > 0 && c.answered > 0, "{c:?}");
}

#[test]
fn memcached_with_tls_is_served() {
    let Some(mut command) = hippos_process::memcached_command() else {
        return;
    };
    let address = hippos_process::free_address();
    let port = address.port().to_string();
    let certificates = format!(
        "ssl_chain_cert={},ssl_key={}",
        file("cert.pem").display(),
        file("key.pem").display()
    );
    let mut process = command
        .args(["-u", "root", "-l", "127.0.0.1", "-p", &port])
        .args(["-Z", "-o", &certificates])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut up = false;
    for _ in 0..100 {
        up = TcpStream::connect(address).is_ok();
        if up || process.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if !up {
        println!("skipped: memcached has no TLS");
    }
    let run = std::panic::catch_unwind(|| {
        if up {
            let settings = settings(address, trusted());
            serves(&settings, &model("micro", 300), 400);
            serves(&settings, &model("micro:value-16k", 10), 60);
        }
    });
    // It has ended already if it has no TLS.
    let _ = process.kill();
    let _ = process.wait();
    run.unwrap();
}
