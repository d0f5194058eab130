// SPDX-License-Identifier: GPL-2.0-only
//! `exporter`: metrics for Prometheus, and the figures of `top` as a web page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hippos_abi::Section;

use crate::metrics::Scrape;
use crate::page;
use crate::source::Source;
use crate::top::Frames;

/// How long a client may take to send its request and to read the reply.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's header.
const HEAD_MOST: u64 = 8 << 10;
/// The most clients at once.
const CLIENTS_MOST: usize = 16;

/// Serves `/metrics` and `/` until the process ends.
pub(crate) fn serve(source: Source, listen: &str) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    let address = listener.local_addr()?;
    println!("http://{address}/metrics");
    // Until the process ends.
    let source: &'static Source = Box::leak(Box::new(source));
    let frames = Arc::new(Mutex::new(Frames::new(source)));
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No file descriptor is free at the moment.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if clients.fetch_add(1, SeqCst) >= CLIENTS_MOST {
            clients.fetch_sub(1, SeqCst);
            continue;
        }
        let (frames, clients) = (frames.clone(), clients.clone());
        thread::spawn(move || {
            // A client that closed its connection is not an error.
            drop(answer(source, &frames, stream));
            clients.fetch_sub(1, SeqCst);
        });
    }
    Ok(())
}

fn answer(source: &Source, frames: &Mutex<Frames<'_>>, mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = BufReader::new((&stream).take(HEAD_MOST)).lines();
    let first = head.next().context("no request")??;
    // Read to its end: closing the socket with unread bytes would reset the connection.
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/metrics")) => (
            "200 OK",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            scrape(source).text()?,
        ),
        (Some("GET" | "HEAD"), Some("/")) => ("200 OK", "text/html; charset=utf-8", page(frames)),
        (Some("GET" | "HEAD"), _) => ("404 Not Found", "text/plain", "/metrics or /\n".into()),
        _ => ("405 Method Not Allowed", "text/plain", "GET\n".into()),
    };
    let len = body.len();
    let body = if first.starts_with("HEAD") { "" } else { &body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// The server's statistics now; `is_up` is false if it does not answer.
pub(crate) fn scrape(source: &Source) -> Scrape {
    let all = || -> Result<Scrape> {
        Ok(Scrape {
            general: source.stats(Section::General)?,
            latency: source.open()?.stats_if_served(Section::Latency)?,
            passes: source.open()?.stats_if_served(Section::Pass)?,
            settings: source.stats(Section::Settings)?,
            items: source.stats(Section::Items)?,
            slabs: source.stats(Section::Slabs)?,
            is_up: true,
        })
    };
    all().unwrap_or_else(|error| {
        eprintln!("hippos-ctl: {error:#}");
        Scrape::default()
    })
}

/// The page for a browser.
fn page(frames: &Mutex<Frames<'_>>) -> String {
    let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
    match frames.now() {
        Ok(model) => page::page(&model),
        Err(error) => page::failure(&error),
    }
}
