// SPDX-License-Identifier: MIT

//! TLS to clients and to nodes: one proxy is the other's node.

mod common;

use common::{count, until, Client, Engine};
use hippos_proxy::config::Config;
use hippos_proxy::server::Server;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A folder with a certificate and its key, for clients and servers.
struct Certificate(PathBuf);

impl Certificate {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hippos-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), made.key_pair.serialize_pem()).unwrap();
        Self(dir)
    }

    fn paths(&self) -> (String, String) {
        let path = |name: &str| Path::join(&self.0, name).display().to_string();
        (path("cert.pem"), path("key.pem"))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(text: &str) -> Server {
    let config = Config::parse(text).unwrap_or_else(|error| panic!("{error}"));
    Server::start(config).unwrap()
}

#[test]
fn clients_and_nodes_are_met_with_tls() {
    let certificate = Certificate::new("both");
    let (cert, key) = certificate.paths();
    let node = Engine::start();
    let inner = start(&format!(
        "threads = 2\n[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n\
         client_ca = \"{cert}\"\n[pools.a]\nnodes = [\"{}\"]\n",
        node.address
    ));
    let port = inner.tls.unwrap().port();
    let outer = |own: &str| {
        start(&format!(
            "listen = \"127.0.0.1:0\"\nthreads = 2\nretry_ms = 50\n[pools.a]\n\
             nodes = [\"localhost:{port}\"]\ntls = {{ ca = \"{cert}\"{own} }}\n"
        ))
    };
    let proxy = outer(&format!(", certificate = \"{cert}\", key = \"{key}\""));
    let mut client = Client::new(&proxy);
    for len in [1, 1000, 100_000, 900_000] {
        let value = "v".repeat(len);
        until(|| client.set("tls", &value) == "STORED");
        assert_eq!(client.get("tls"), Ok(Some(value)));
    }
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = Client::new(&proxy);
            scope.spawn(move || {
                for round in 0..200 {
                    let key = format!("tls{number}:{}", round % 10);
                    assert_eq!(client.set(&key, &key), "STORED");
                    assert_eq!(client.get(&key), Ok(Some(key)));
                }
            });
        }
    });
    assert_eq!(count(&proxy, "batches"), 0);

    // A client without a certificate is refused, and so is plain text.
    let stranger = outer("");
    let mut client = Client::new(&stranger);
    assert_eq!(
        client.get("tls"),
        Err("SERVER_ERROR node is not available".into())
    );
    let mut plain = std::net::TcpStream::connect(inner.tls.unwrap()).unwrap();
    plain.write_all(b"get tls\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|word| word == b"END\r"));
}

#[test]
fn a_node_with_the_wrong_certificate_is_refused() {
    let (ours, theirs) = (Certificate::new("ours"), Certificate::new("theirs"));
    let node = Engine::start();
    let (cert, key) = theirs.paths();
    let inner = start(&format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n\
         [pools.a]\nnodes = [\"{}\"]\n",
        node.address
    ));
    let outer = start(&format!(
        "listen = \"127.0.0.1:0\"\n[pools.a]\nnodes = [\"localhost:{}\"]\ntls = {{ ca = \"{}\" }}\n",
        inner.tls.unwrap().port(),
        ours.paths().0
    ));
    let mut client = Client::new(&outer);
    assert_eq!(client.set("x", "x"), "SERVER_ERROR node is not available");
    assert_eq!(count(&inner, "cmd_forward"), 0);
}
