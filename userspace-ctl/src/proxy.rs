// SPDX-License-Identifier: GPL-2.0-only
//! Control of a running `hippos-proxy`, by its HTTP pages.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{json, Map, Value};

use crate::answer::Answer;
use crate::connect::connect;
use crate::exit::end;
use crate::timed::Timed;

/// How long the proxy may take for a response: a reload looks names up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest response that is read.
const RESPONSE_MAX: u64 = 4 << 20;

/// How long `drain --wait` waits, at most: longer than any sensible `drain_s`.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Prints its state, counters and nodes
    Status,
    /// Loads its configuration file again; an error leaves the old configuration in force
    Reload,
    /// Accepts no new clients; the proxy ends when all have their replies
    Drain {
        /// Return when it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Uses a node again that stays out after a failure (returning = "hold")
    Admit {
        /// Its name, as status prints it
        node: String,
    },
}

/// Asks the proxy whose configuration has `http = ADDRESS`.
pub(crate) fn proxy(address: &str, action: &Action) -> Result<Answer> {
    match action {
        Action::Status => {
            let text = request(address, "GET", "/status")?;
            let json = status_json(&text);
            Ok(Answer::new(text, json))
        }
        Action::Reload => request(address, "POST", "/reload").map(said),
        Action::Drain { wait } => {
            let answer = said(request(address, "POST", "/drain")?);
            if *wait {
                wait_for_end(address)?;
            }
            Ok(answer)
        }
        Action::Admit { node } => {
            if node.contains(char::is_whitespace) {
                end!(Usage, "a node's name has no spaces");
            }
            request(address, "POST", &format!("/admit?{node}")).map(said)
        }
    }
}

fn said(text: String) -> Answer {
    let json = json!({"done": text.trim_end()});
    Answer::new(text, json)
}

/// The body of the response; an error for each status that is none of success.
fn request(address: &str, verb: &str, path: &str) -> Result<String> {
    let mut stream = Timed::new(connect(address, TIMEOUT)?, TIMEOUT);
    stream.limit(Some(TIMEOUT), None);
    let mut response = Vec::new();
    let request = format!("{verb} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream
        .take(RESPONSE_MAX)
        .read_to_end(&mut response)
        .with_context(|| format!("{address} stopped answering"))?;
    let response = String::from_utf8_lossy(&response);
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        end!(
            Failed,
            "{address} is no hippos-proxy: it does not speak HTTP"
        );
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    let reason = body.trim_end();
    match status {
        "200" | "202" => Ok(body.to_owned()),
        "403" => end!(
            NoPermission,
            "{address}: {reason}: only on the proxy's own host"
        ),
        "404" => end!(Refused, "{address}: {reason}"),
        // Of a reload.
        "409" => end!(Found, "{reason}"),
        _ => end!(Failed, "{address}: {status}: {reason}"),
    }
}

/// Waits until nothing listens at the address.
fn wait_for_end(address: &str) -> Result<()> {
    let start = Instant::now();
    while connect(address, TIMEOUT).is_ok() {
        if start.elapsed() > DRAIN_MAX {
            end!(Failed, "{address}: the proxy has not ended");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The lines `NAME VALUE` and `node NAME STATE`.
fn status_json(text: &str) -> Value {
    let (mut all, mut nodes) = (Map::new(), Map::new());
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        if name == "node" {
            if let Some((node, state)) = value.rsplit_once(' ') {
                nodes.insert(node.to_owned(), state.into());
            }
            continue;
        }
        let value = value
            .parse::<u64>()
            .map_or_else(|_| value.into(), Value::from);
        all.insert(name.to_owned(), value);
    }
    all.insert("nodes".to_owned(), nodes.into());
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use std::net::TcpListener;

    /// Serves one response.
    fn serve(response: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_response_determines_the_exit_status() {
        for (response, status) in [
            (
                "HTTP/1.1 403 Forbidden\r\n\r\nnot from here\n",
                Status::NoPermission,
            ),
            (
                "HTTP/1.1 404 Not Found\r\n\r\nno such node\n",
                Status::Refused,
            ),
            (
                "HTTP/1.1 409 Conflict\r\n\r\nkept: line 3: x\n",
                Status::Found,
            ),
            ("HTTP/1.1 500 Internal Server Error\r\n\r\n", Status::Failed),
            ("ERROR\r\n", Status::Failed),
        ] {
            let error = proxy(&serve(response), &Action::Reload).unwrap_err();
            assert_eq!(Status::of(&error), status, "{error:#}");
        }
        let answer = proxy(&serve("HTTP/1.1 200 OK\r\n\r\ntaken\n"), &Action::Reload).unwrap();
        assert_eq!(
            (answer.text.as_str(), answer.status),
            ("taken\n", Status::Done)
        );
    }

    #[test]
    fn the_state_as_json_has_numbers_and_nodes() {
        let json =
            status_json("state serving\nuptime 5\nnode 10.0.0.1:11211 in\nnode c@[::1]:1 out\n");
        let want = json!({
            "state": "serving",
            "uptime": 5,
            "nodes": {"10.0.0.1:11211": "in", "c@[::1]:1": "out"},
        });
        assert_eq!(json, want);
    }
}
