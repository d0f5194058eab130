// SPDX-License-Identifier: GPL-2.0-only
//! Records the reference's replies into the case files.
//!
//! Only steps without an answer are filled in, so that answers written by hand stay. Every
//! case is played twice: numbers that differ between the two are written as `{n}`.

use anyhow::{bail, ensure, Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::case::{self, Case, CaseStep, End, Exchange};
use crate::options::{Options, Target};
use crate::packet;
use crate::run::{Feed, Player};
use crate::template::{self, Match, Piece, Scope};
use crate::udp;

/// A reply is complete when nothing more arrives for this time.
const QUIET: Duration = Duration::from_millis(40);

/// One step's answer.
struct Answer {
    line: usize,
    bytes: Vec<u8>,
}

/// Fills in the missing replies of one file. Returns their number.
pub fn record(group: &str, path: &Path, target: &Target, options: &Options) -> Result<usize> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut lines: Vec<Vec<String>> = text.lines().map(|l| vec![l.to_owned()]).collect();
    let mut count = 0;
    for case in case::parse(group, &text)? {
        let unknown = |s: &CaseStep| matches!(s, CaseStep::Exchange(e) if e.unknown.is_some());
        if case.hippos || !case.steps.iter().any(unknown) || !case.name.contains(&options.filter) {
            continue;
        }
        let recorded = match one(&case, &text, target, options) {
            Ok(recorded) => recorded,
            Err(error) => {
                eprintln!("{}: {error:#}", case.place());
                continue;
            }
        };
        for (line, answer) in recorded {
            lines[line - 1] = answer;
            count += 1;
        }
    }
    let text: String = lines.concat().iter().map(|l| format!("{l}\n")).collect();
    std::fs::write(path, text)?;
    Ok(count)
}

/// The new lines of one case, and the line that they replace.
fn one(
    case: &Case,
    text: &str,
    target: &Target,
    options: &Options,
) -> Result<Vec<(usize, Vec<String>)>> {
    let play = || match case.udp {
        true => play_udp(case, target.udp.context("no address for UDP")?, options),
        false => play_tcp(case, target.tcp, options),
    };
    let (first, scope, closed) = play()?;
    let (second, scope2, _) = play()?;
    let mut out = Vec::new();
    for (a, b) in first.iter().zip(&second) {
        let stats = match text.lines().nth(a.line - 1).unwrap_or_default() {
            "<stats ?" => Some(("<stats", template::stat_lines(&a.bytes))),
            "<bstats ?" => {
                let found = template::packet_stats(&a.bytes)
                    .context("no statistics came")?
                    .1;
                Some(("<bstats", found))
            }
            _ => None,
        };
        if let Some((word, found)) = stats {
            let mut names: Vec<String> = Vec::new();
            for (name, _) in found {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            out.push((a.line, vec![format!("{word} {}", names.join(" "))]));
            continue;
        }
        let lines = match a.bytes.first() {
            Some(&packet::RESPONSE) => packets(&a.bytes, &b.bytes)?,
            _ => same(
                &shown(&a.bytes, case, &scope)?,
                &shown(&b.bytes, case, &scope2)?,
            )?,
        };
        let key = String::from_utf8_lossy(&scope.key).into_owned();
        out.push((a.line, lines.iter().map(|l| l.replace(&key, "$")).collect()));
    }
    if closed && case.end == End::Open {
        if let Some((_, lines)) = out.last_mut() {
            lines.push("closed".to_owned());
        }
    }
    Ok(out)
}

fn play_tcp(
    case: &Case,
    address: SocketAddr,
    options: &Options,
) -> Result<(Vec<Answer>, Scope, bool)> {
    let mut player = Player::new(address, options);
    player.connect()?;
    let mut answers = Vec::new();
    let mut closed = false;
    for step in &case.steps {
        let CaseStep::Exchange(exchange) = step else {
            player.other(step)?;
            continue;
        };
        let input = template::bytes(&exchange.input, &player.scope)?;
        player.send(&input, Feed::Steps)?;
        let (bytes, end) = player.read_rest(QUIET);
        let bytes = bytes.to_vec();
        closed = end;
        player.clear();
        take(exchange, bytes, &mut player.scope, &mut answers)?;
    }
    Ok((answers, player.scope, closed))
}

fn play_udp(
    case: &Case,
    address: SocketAddr,
    options: &Options,
) -> Result<(Vec<Answer>, Scope, bool)> {
    let mut player = udp::Player::new(address, options)?;
    let mut answers = Vec::new();
    for step in &case.steps {
        match step {
            CaseStep::Exchange(exchange) => {
                let id = player.send(exchange)?;
                let mut message = udp::Message::new(id, true);
                let mut bytes = Vec::new();
                while let Some(datagram) = player.next(Instant::now() + QUIET)? {
                    match exchange.framed {
                        true => bytes.extend(datagram),
                        false => bytes.extend(message.add(&datagram)?),
                    }
                }
                take(exchange, bytes, &mut player.scope, &mut answers)?;
            }
            CaseStep::Pause(time) => std::thread::sleep(*time),
            _ => bail!("not over UDP"),
        }
    }
    Ok((answers, player.scope, false))
}

/// Records a reply that has none yet; checks one that has.
fn take(e: &Exchange, bytes: Vec<u8>, scope: &mut Scope, answers: &mut Vec<Answer>) -> Result<()> {
    if let Some(line) = e.unknown {
        answers.push(Answer { line, bytes });
        return Ok(());
    }
    let expected = template::tokens(e.output.as_deref().unwrap_or_default(), scope)?;
    match template::compare(&expected, &bytes) {
        Match::Whole(len, kept) if len == bytes.len() => scope.kept.extend(kept),
        other => bail!(
            "line {}: {} is not as written: {other:?}",
            e.line,
            crate::show::brief(&bytes)
        ),
    }
    Ok(())
}

/// The bytes as lines of a case file, keys and base64 put back.
fn shown(bytes: &[u8], case: &Case, scope: &Scope) -> Result<Vec<String>> {
    let mut coded = Vec::new();
    for step in &case.steps {
        if let CaseStep::Exchange(exchange) = step {
            base64s(&exchange.input, scope, &mut coded)?;
        }
    }
    let key = String::from_utf8_lossy(&scope.key).into_owned();
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (word, line) = match rest.windows(2).position(|w| w == b"\r\n") {
            Some(n) => {
                let line = &rest[..n];
                rest = &rest[n + 2..];
                ("<", line)
            }
            None => ("<-", std::mem::take(&mut rest)),
        };
        let mut line = template::show(line).replace(&key, "$");
        for (code, plain) in &coded {
            line = line.replace(
                code,
                &format!("{{b64:{}}}", template::show(plain).replace(&key, "$")),
            );
        }
        lines.push(format!("{word} {line}").trim_end().to_owned());
    }
    for line in &mut lines {
        *line = clocked(line);
    }
    if lines.is_empty() {
        lines.push("<nothing".to_owned());
    }
    Ok(lines)
}

/// A reply to a meta command, in which fields that depend on the clock or on the store are `{n}`.
fn clocked(line: &str) -> String {
    let meta = ["< HD ", "< VA ", "< ME "]
        .iter()
        .any(|head| line.starts_with(head));
    let word = |word: &str| {
        let vary = |head: &str| match word.strip_prefix(head) {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) => {
                Some(format!("{head}{{n}}"))
            }
            _ => None,
        };
        let heads = ["t", "l", "exp=", "la=", "cls=", "size="];
        heads
            .iter()
            .find_map(|head| vary(head))
            .unwrap_or_else(|| word.to_owned())
    };
    match meta {
        true => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
        false => line.to_owned(),
    }
}

fn base64s(template: &[Piece], scope: &Scope, out: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for piece in template {
        match piece {
            Piece::Base64(inner) => {
                let plain = template::bytes(inner, scope)?;
                // A short code might stand in the answer by chance.
                if plain.len() >= 4 {
                    out.push((template::base64(&plain), plain));
                }
            }
            Piece::Repeat(_, inner) => base64s(inner, scope, out)?,
            _ => {}
        }
    }
    Ok(())
}

/// Lines of which two recordings differ in numbers only.
fn same(a: &[String], b: &[String]) -> Result<Vec<String>> {
    ensure!(
        a.len() == b.len(),
        "it answers differently each time:\n{a:?}\n{b:?}"
    );
    a.iter().zip(b).map(|(a, b)| merge_varying(a, b)).collect()
}

fn merge_varying(a: &str, b: &str) -> Result<String> {
    let (left, right) = (runs(a), runs(b));
    ensure!(
        left.len() == right.len(),
        "it answers differently each time:\n{a}\n{b}"
    );
    let mut out = String::new();
    for (x, y) in left.iter().zip(&right) {
        let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        match (x == y, number(x) && number(y)) {
            (true, _) => out += x,
            (false, true) => out += "{n}",
            (false, false) => bail!("it answers differently each time:\n{a}\n{b}"),
        }
    }
    Ok(out)
}

/// A line cut into digits and the rest.
fn runs(line: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut last = None;
    for c in line.chars() {
        let digit = c.is_ascii_digit();
        match out.last_mut() {
            Some(run) if last == Some(digit) => run.push(c),
            _ => out.push(c.to_string()),
        }
        last = Some(digit);
    }
    out
}

/// Packets of which two recordings differ in their CAS only.
fn packets(a: &[u8], b: &[u8]) -> Result<Vec<String>> {
    let (mut a, mut b) = (a, b);
    let mut lines = Vec::new();
    while !a.is_empty() {
        let cas = |p: &[u8]| p.get(16..24).map(<[u8]>::to_vec);
        let varies = (cas(a) != cas(b)).then_some("{n}");
        let (line, len) = packet::show(a, varies).context("no packet of the binary protocol")?;
        let (_, len2) = packet::show(b, varies).context("it answers differently each time")?;
        lines.push(format!("<b {line}"));
        (a, b) = (&a[len..], &b[len2..]);
    }
    Ok(lines)
}
