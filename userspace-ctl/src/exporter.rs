// SPDX-License-Identifier: GPL-2.0-only
//! `exporter`: metrics for Prometheus, and the figures of `top` as a web page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hippos_abi::Section;

use crate::connect::{addresses, has_port};
use crate::exit::end;
use crate::metrics::Scrape;
use crate::page;
use crate::source::Source;
use crate::timed::{Timed, Timeout};
use crate::top::Frames;

/// How long a client may take to send its whole request,
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// how long the server may take for its statistics,
const STATS_TIME: Duration = Duration::from_secs(4);
/// and how long the client may take to read the whole reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// The most bytes of a request's header.
const HEAD_MOST: u64 = 8 << 10;
/// After a reply, how long and for how many bytes of the rest of its request a client is waited for.
const END_TIME: Duration = Duration::from_secs(2);
const END_MOST: u64 = 256 << 10;
/// The most clients at once, and the most beyond them that get an error.
const CLIENTS_MOST: usize = 16;
/// How long the name of the address to listen on may be looked up.
const LOOK_UP_TIME: Duration = Duration::from_secs(30);

// A server that does not answer is reported as `memcached_up 0`, before Prometheus gives up, after 10 s
// (`scrape_timeout`): connecting, with the look-up of its name, takes this time again, at most.
const _: () = assert!(2 * STATS_TIME.as_secs() < 10);

/// The source of all replies, and the page.
struct Content {
    source: &'static Source,
    page: Mutex<Page>,
}

/// The page for a browser.
struct Page {
    frames: Frames<'static>,
    /// The last one, and when it was made.
    last: Option<(Instant, String)>,
}

/// Serves `/metrics` and `/` until the process ends.
pub(crate) fn serve(source: Source, listen: &str) -> Result<()> {
    if !has_port(listen) {
        end!(Usage, "--listen {listen}: must be ADDRESS:PORT");
    }
    let listener = addresses(listen, LOOK_UP_TIME).and_then(|all| TcpListener::bind(&all[..]));
    let listener = listener.with_context(|| format!("can't listen on {listen}"))?;
    let address = listener.local_addr()?;
    println!("http://{address}/metrics");
    // Until the process ends.
    let content: &'static Content = Box::leak(Box::new(Content::new(source)));
    let (clients, refused) = (Arc::default(), Arc::default());
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No file descriptor is free at the moment.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let stream = Timed::new(stream, REPLY_TIME);
        // A client that closed its connection, or takes too long, is not an error.
        match Place::take(&clients) {
            Some(place) => place.hold(move || drop(content.answer(stream))),
            // Clients beyond those that are refused are closed.
            None => {
                if let Some(place) = Place::take(&refused) {
                    place.hold(|| drop(refuse(stream)));
                }
            }
        }
    }
    Ok(())
}

/// Replies to a client too many, whatever its request.
fn refuse(mut stream: Timed<impl Timeout>) -> Result<()> {
    stream.limit(Some(REPLY_TIME), None);
    let status = "503 Service Unavailable";
    reply(
        &mut stream,
        "GET",
        status,
        "text/plain",
        "too many clients\n",
    )?;
    Ok(stream.finish(END_TIME, END_MOST)?)
}

/// One of the places for clients; dropping it frees it.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Place(clients.clone());
        (clients.fetch_add(1, SeqCst) < CLIENTS_MOST).then_some(place)
    }

    /// Holds it while a thread does the work. Without memory for a thread, the work is dropped.
    fn hold(self, work: impl FnOnce() + Send + 'static) {
        drop(thread::Builder::new().spawn(move || {
            let _place = self;
            work();
        }));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Content {
    fn new(source: Source) -> Self {
        let source: &'static Source = Box::leak(Box::new(source.limited(STATS_TIME)));
        Content {
            source,
            page: Mutex::new(Page {
                frames: Frames::new(source),
                last: None,
            }),
        }
    }

    fn answer<S: Timeout>(&self, mut stream: Timed<S>) -> Result<()> {
        stream.limit(Some(REQUEST_TIME), None);
        let (verb, path) = request(&mut stream)?;
        let (status, kind, body) = match (&verb[..], &path[..]) {
            ("GET" | "HEAD", "/metrics") => (
                "200 OK",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                scrape(self.source).text()?,
            ),
            ("GET" | "HEAD", "/") => ("200 OK", "text/html; charset=utf-8", self.page()),
            ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "/metrics or /\n".into()),
            _ => ("405 Method Not Allowed", "text/plain", "GET\n".into()),
        };
        stream.limit(Some(REPLY_TIME), None);
        reply(&mut stream, &verb, status, kind, &body)?;
        Ok(stream.finish(END_TIME, END_MOST)?)
    }

    /// The page for a browser. Clients that waited while it was made get the same one: with a server that does not
    /// answer, each would wait for those before it.
    fn page(&self) -> String {
        let asked = Instant::now();
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, text)) = &page.last {
            if *made >= asked {
                return text.clone();
            }
        }
        let text = match page.frames.now() {
            Ok(model) => page::page(&model),
            Err(error) => page::failure(&error),
        };
        page.last = Some((Instant::now(), text.clone()));
        text
    }
}

/// Reads a request: its verb and its path.
fn request(stream: &mut impl Read) -> Result<(String, String)> {
    let mut head = BufReader::new(stream.take(HEAD_MOST)).lines();
    let first = head.next().context("no request")??;
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    Ok((word(), word()))
}

fn reply(stream: &mut impl Write, verb: &str, status: &str, kind: &str, body: &str) -> Result<()> {
    let len = body.len();
    let body = if verb == "HEAD" { "" } else { body };
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
        let mut connection = source.open()?;
        Ok(Scrape {
            general: connection.stats(Section::General)?,
            latency: connection.stats_if_served(Section::Latency)?,
            passes: connection.stats_if_served(Section::Pass)?,
            settings: connection.stats(Section::Settings)?,
            items: connection.stats(Section::Items)?,
            slabs: connection.stats(Section::Slabs)?,
            is_up: true,
        })
    };
    all().unwrap_or_else(|error| {
        eprintln!("hippos-ctl: {error:#}");
        Scrape::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use crate::timed::tests::{clock, Dripping};
    use std::io::ErrorKind;
    use std::net::{Shutdown, TcpStream};
    use std::path::Path;

    #[test]
    fn a_client_that_sends_or_reads_a_byte_a_second_is_cut_off() {
        let source = Source::new(Path::new(""), Some("127.0.0.1:1"), None).unwrap();
        let content = Content::new(source);
        for request in [&b""[..], b"GET /x HTTP/1.1\r\n\r\n"] {
            let peer = Dripping {
                first: request,
                ..Dripping::default()
            };
            let error = content.answer(Timed::with_clock(peer, REPLY_TIME, clock));
            let error = error.unwrap_err();
            let error = error.downcast_ref::<std::io::Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
    }

    #[test]
    fn a_request_is_read_to_the_end_of_its_header() {
        let mut text = &b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nmore"[..];
        let (verb, path) = request(&mut text).unwrap();
        assert_eq!((&verb[..], &path[..]), ("GET", "/metrics"));
        let endless = "x".repeat(3 * HEAD_MOST as usize);
        let (verb, path) = request(&mut endless.as_bytes()).unwrap();
        assert_eq!((verb.len() as u64, &path[..]), (HEAD_MOST, ""));
    }

    #[test]
    fn a_client_too_many_has_no_place_until_another_one_goes() {
        let clients = Arc::default();
        let mut places: Vec<_> = (0..CLIENTS_MOST).map(|_| Place::take(&clients)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(Place::take(&clients).is_none());
        places.pop();
        assert!(Place::take(&clients).is_some());
        drop(places);
        assert_eq!(clients.load(SeqCst), 0);
    }

    /// A client of which more comes than is read before the reply.
    #[test]
    fn a_reply_is_read_to_its_end_whatever_was_sent() {
        let source = Source::new(Path::new(""), Some("127.0.0.1:1"), None).unwrap();
        let content: &'static Content = Box::leak(Box::new(Content::new(source)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let served = |serve: fn(&Content, Timed) -> Result<()>| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let request = [b"POST / HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; 30_000]].concat();
            client.write_all(&request).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let server = thread::spawn(move || serve(content, Timed::new(stream, REPLY_TIME)));
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            drop(client);
            // A client that is slow to close is no error of the reply.
            let _ = server.join().unwrap();
            text
        };
        let refused = served(|_, stream| refuse(stream));
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        let answered = served(|content, stream| content.answer(stream));
        assert!(answered.starts_with("HTTP/1.1 405 "), "{answered}");
    }

    #[test]
    fn an_address_to_listen_on_has_a_port_and_a_known_name() {
        for (listen, status) in [
            ("127.0.0.1", Status::Usage),
            ("host.invalid:9150", Status::Failed),
        ] {
            let source = Source::new(Path::new(""), Some("127.0.0.1:1"), None).unwrap();
            let error = serve(source, listen).unwrap_err();
            assert_eq!(Status::of(&error), status, "{error:#}");
        }
    }

    /// A server whose time is over before its first reply.
    #[test]
    fn a_server_that_takes_too_long_is_down_in_metrics_and_has_a_page() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let source = Source::new(Path::new(""), Some(&address), None).unwrap();
        let content = Content::new(source);
        let Source::Server { time, .. } = content.source else {
            panic!("not a server");
        };
        assert_eq!(*time, Some(STATS_TIME));
        // It accepts connections, and never answers.
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        assert!(!scrape(content.source).is_up);
        server.join().unwrap();
        assert!(content.page().contains("no answer"));
    }
}
