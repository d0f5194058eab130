// SPDX-License-Identifier: GPL-2.0-only
//! The table of cases: its files, and how they are read.
//!
//! A file under `cases/` is a list of cases. Each line is a word and a text:
//!
//! | line            | meaning                                                              |
//! |-----------------|----------------------------------------------------------------------|
//! | `# …`           | comment                                                              |
//! | `case NAME`     | begins a case                                                        |
//! | `note …`        | the reason for the answers, and where versions differ                |
//! | `with …`        | `udp`; `alone` (changes state that all cases share: runs alone); `whole` (not fed in splits); `unpiped` (the reference errs when commands are pipelined); `hippos` (for Hippos only: memcached answers otherwise, or can't be used afterwards) |
//! | `> …`           | send this and CR LF                                                  |
//! | `>- …`          | send just this                                                       |
//! | `>b …`          | send a packet of the binary protocol                                 |
//! | `>d …`          | send a datagram of just this (UDP), with no frame added              |
//! | `< …` `<- …` `<b …` `<d …` | expect the same way                                       |
//! | `<stats NAME…`  | expect statistics with at least these names (or `NAME=value`)        |
//! | `<bstats NAME…` | the same in the binary protocol                                      |
//! | `<nothing`      | expect no answer                                                     |
//! | `<?` `<stats ?` | not recorded yet: recording fills it in                              |
//! | `or< …` …       | the answer that Hippos may give instead; the note has the reason     |
//! | `pause 1100ms`  | wait                                                                 |
//! | `half-close`    | send no more; replies must still come                                |
//! | `reconnect`     | go on with a new connection                                          |
//! | `closed`        | at the end: the server has closed the connection                     |
//! | `stuck`         | at the end: the server waits for more input                          |
//! | `whatever`      | at the end: any of these (else: the connection is open, and answers) |
//!
//! Lines that send are one step with the lines of answer that follow. Over UDP such lines are
//! the payload of one datagram, framed by the runner. Texts are templates (see `template`).

use anyhow::{bail, ensure, Context, Result};
use std::path::Path;
use std::time::Duration;

use crate::packet::{REQUEST, RESPONSE};
use crate::template::{self, Packet, Piece, Template};

/// The files of the table, embedded: their group and their text.
pub const FILES: &[(&str, &str)] = &[
    ("text/admin", include_str!("../cases/text/admin.txt")),
    ("text/change", include_str!("../cases/text/change.txt")),
    ("text/expiry", include_str!("../cases/text/expiry.txt")),
    ("text/lines", include_str!("../cases/text/lines.txt")),
    (
        "text/retrieval",
        include_str!("../cases/text/retrieval.txt"),
    ),
    ("text/storage", include_str!("../cases/text/storage.txt")),
    ("meta/flags", include_str!("../cases/meta/flags.txt")),
    ("meta/ma", include_str!("../cases/meta/ma.txt")),
    ("meta/md", include_str!("../cases/meta/md.txt")),
    ("meta/me", include_str!("../cases/meta/me.txt")),
    ("meta/mg", include_str!("../cases/meta/mg.txt")),
    ("meta/ms", include_str!("../cases/meta/ms.txt")),
    ("binary/change", include_str!("../cases/binary/change.txt")),
    ("binary/other", include_str!("../cases/binary/other.txt")),
    (
        "binary/retrieval",
        include_str!("../cases/binary/retrieval.txt"),
    ),
    (
        "binary/storage",
        include_str!("../cases/binary/storage.txt"),
    ),
    ("udp/binary", include_str!("../cases/udp/binary.txt")),
    ("udp/frames", include_str!("../cases/udp/frames.txt")),
    ("udp/hippos", include_str!("../cases/udp/hippos.txt")),
    ("udp/meta", include_str!("../cases/udp/meta.txt")),
    ("udp/text", include_str!("../cases/udp/text.txt")),
];

/// One case of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// `group: name`.
    pub name: String,
    /// Line of its beginning in the file.
    pub line: usize,
    /// The note: the reason for the expected reply, or versions that differ.
    pub note: String,
    /// Runs over UDP.
    pub udp: bool,
    /// Changes state that all connections share: no other case may run at that time.
    pub alone: bool,
    /// Depends on how the input is split: is sent as written only.
    pub whole: bool,
    /// The reference loses replies of this case when commands are pipelined.
    pub unpiped: bool,
    /// Not run against the reference: it replies otherwise, or is unusable afterwards.
    pub hippos: bool,
    /// The steps, in order.
    pub steps: Vec<CaseStep>,
    /// The connection at the end.
    pub end: End,
}

/// One step of a case.
#[derive(Clone, Debug)]
pub enum CaseStep {
    /// Bytes in, bytes out.
    Exchange(Exchange),
    /// Time passes.
    Pause(Duration),
    /// The client sends no more.
    HalfClose,
    /// A new connection takes over.
    Reconnect,
}

/// Bytes in, bytes out.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Line of the last thing sent.
    pub line: usize,
    /// The bytes to send.
    pub input: Template,
    /// Sent as a datagram without a frame.
    pub bare: bool,
    /// The reply is compared with its frame (UDP).
    pub framed: bool,
    /// Line of a `<?`, which recording replaces.
    pub unknown: Option<usize>,
    /// The expected reply.
    pub output: Option<Template>,
    /// The alternative reply.
    pub other: Option<Template>,
}

/// The expected state of the connection at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It answers the next command.
    Open,
    /// The server has closed it.
    Closed,
    /// It waits for the rest of something.
    Timeout,
    /// Any of these.
    Any,
}

/// All cases that are part of the program.
pub fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (group, text) in FILES {
        cases.extend(parse(group, text)?);
    }
    Ok(cases)
}

/// The cases of one file on disk.
pub fn read(group: &str, path: &Path) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(group, &text)
}

/// Parses one file.
pub fn parse(group: &str, text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        (|| match line.split_once(' ').unwrap_or((line, "")) {
            ("case", name) => {
                ensure!(!name.is_empty(), "a case needs a name");
                let name = format!("{group}: {name}");
                ensure!(cases.iter().all(|c| c.name != name), "the name is taken");
                cases.push(Case {
                    name,
                    line: i + 1,
                    note: String::new(),
                    udp: false,
                    alone: false,
                    whole: false,
                    unpiped: false,
                    hippos: false,
                    steps: Vec::new(),
                    end: End::Open,
                });
                Ok(())
            }
            (word, rest) => cases
                .last_mut()
                .context("expected `case`")?
                .add(word, rest, i + 1),
        })()
        .with_context(|| format!("{group}.txt line {}: {line}", i + 1))?;
    }
    Ok(cases)
}

impl Exchange {
    /// Whether more input can be added to it.
    fn grows(&self) -> bool {
        self.output.is_none() && self.unknown.is_none() && !self.bare
    }
}

impl Case {
    fn add(&mut self, word: &str, rest: &str, line: usize) -> Result<()> {
        ensure!(self.end == End::Open, "the case has ended");
        match word {
            "note" => self.note = format!("{} {rest}", self.note).trim().to_owned(),
            "with" => {
                for tag in rest.split_whitespace() {
                    match tag {
                        "udp" => self.udp = true,
                        "alone" => self.alone = true,
                        "whole" => self.whole = true,
                        "unpiped" => self.unpiped = true,
                        "hippos" => self.hippos = true,
                        _ => bail!("unknown tag `{tag}`"),
                    }
                }
            }
            "pause" => {
                let millis = rest.strip_suffix("ms").context("expected milliseconds")?;
                self.steps
                    .push(CaseStep::Pause(Duration::from_millis(millis.parse()?)));
            }
            "half-close" => self.steps.push(CaseStep::HalfClose),
            "reconnect" => self.steps.push(CaseStep::Reconnect),
            "closed" => self.end = End::Closed,
            "stuck" => self.end = End::Timeout,
            "whatever" => self.end = End::Any,
            word => match word.split_at(word.find(['<', '>']).context("unknown word")? + 1) {
                (">", kind) => self.send(kind, rest, line)?,
                ("<", "?") => self.exchange()?.unknown = Some(line),
                ("<", "stats" | "bstats") if rest == "?" => {
                    self.exchange()?.unknown = Some(line);
                }
                ("<", kind) => {
                    let exchange = self.exchange()?;
                    exchange.framed |= kind == "d";
                    expect(&mut exchange.output, kind, rest)?;
                }
                ("or<", kind) => expect(&mut self.exchange()?.other, kind, rest)?,
                _ => bail!("unknown word"),
            },
        }
        Ok(())
    }

    fn send(&mut self, kind: &str, rest: &str, line: usize) -> Result<()> {
        let mut input = match kind {
            "" => template::parse(&format!("{rest}\\r\\n"))?,
            "-" | "d" => template::parse(rest)?,
            "b" => vec![Piece::Packet(Box::new(Packet::parse(rest, REQUEST)?))],
            _ => bail!("unknown way to send"),
        };
        match self.steps.last_mut() {
            Some(CaseStep::Exchange(last)) if last.grows() && kind != "d" => {
                last.input.append(&mut input);
                last.line = line;
            }
            _ => self.steps.push(CaseStep::Exchange(Exchange {
                line,
                input,
                bare: kind == "d",
                framed: false,
                unknown: None,
                output: None,
                other: None,
            })),
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<&mut Exchange> {
        match self.steps.last_mut() {
            Some(CaseStep::Exchange(exchange)) => Ok(exchange),
            _ => bail!("nothing was sent"),
        }
    }

    /// The case's file and line, for messages.
    pub fn place(&self) -> String {
        let (group, name) = self.name.split_once(": ").unwrap_or(("", &self.name));
        format!("{group}.txt:{} {name}", self.line)
    }
}

fn expect(output: &mut Option<Template>, kind: &str, rest: &str) -> Result<()> {
    let names = || rest.split_whitespace().map(str::to_owned).collect();
    let mut more = match kind {
        "" => template::parse(&format!("{rest}\\r\\n"))?,
        "-" | "d" => template::parse(rest)?,
        "b" => vec![Piece::Packet(Box::new(Packet::parse(rest, RESPONSE)?))],
        "stats" => vec![Piece::Stats(names())],
        "bstats" => vec![Piece::PacketStats(names())],
        "nothing" => Vec::new(),
        _ => bail!("unknown way to answer"),
    };
    output.get_or_insert_with(Vec::new).append(&mut more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_of_cases_parse() {
        for case in all().unwrap() {
            let known = |s: &CaseStep| match s {
                CaseStep::Exchange(exchange) => exchange.output.is_some(),
                _ => true,
            };
            // Input that leaves the server waiting needs no answer.
            let steps = match case.end {
                End::Timeout => case.steps.len() - 1,
                _ => case.steps.len(),
            };
            assert!(!case.steps.is_empty(), "{}: is empty", case.place());
            assert!(
                case.steps[..steps].iter().all(known),
                "{}: not recorded",
                case.place()
            );
        }
    }

    #[test]
    fn steps_are_input_then_output() {
        let text = "case a\nwith alone\n> x\n>- y\n< z\n> q\n<nothing\nor< r\nclosed\n\ncase b\n";
        let cases = parse("t", text).unwrap();
        assert_eq!(cases.len(), 2);
        assert!(cases[0].alone);
        assert_eq!(cases[0].steps.len(), 2);
        assert_eq!(cases[0].end, End::Closed);
    }

    #[test]
    fn errors_name_their_line() {
        for bad in [
            "> x",
            "case a\n< x",
            "case a\ncase a",
            "case a\nclosed\n> x",
            "case a\n>q x",
        ] {
            let error = format!("{:#}", parse("t", bad).unwrap_err());
            assert!(error.contains("t.txt line"), "{error}");
        }
    }
}
