// SPDX-License-Identifier: GPL-2.0-only
//! `dump` and `load`: keep a cache's items in a file, over a restart of the server or the machine.

mod client;
mod file;
mod interrupt;
mod progress;
mod reader;
mod replay;
mod save;
mod writer;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde_json::json;

use crate::answer::Answer;
use crate::arguments::{Dump, Load};
use crate::exit::{end, Status};

pub(crate) use client::Target;

use file::Header;
use interrupt::Interrupt;
use progress::Progress;
use reader::Reader;
use replay::Done;
use save::Known;
use writer::{Partial, Writer};

/// Writes all items into a file.
pub(crate) fn dump(target: &Target, given: &Dump) -> Result<Answer> {
    let interrupt = Interrupt::default();
    let dumped = write(target, given, &interrupt);
    if interrupt.has_come() {
        if let Err(error) = &dumped {
            eprintln!("hippos-ctl: {error:#}");
        }
        interrupt.pass_on();
    }
    dumped
}

fn write(target: &Target, given: &Dump, interrupt: &Interrupt) -> Result<Answer> {
    let counts = save::Counts::default();
    let connections = usize::from(given.connections);
    let expected = save::expected(target)?;
    let mut progress = Progress::new(given.quiet);
    let header = Header {
        made: writer::now(),
        identity: RandomState::new().hash_one(std::process::id()),
    };
    let mut known = Known::default();
    let is_stdout = given.file.as_os_str() == "-";
    let mut partial = (!is_stdout).then(|| Partial::of(&given.file));
    let mut writer = match &mut partial {
        None if given.resume => end!(Usage, "--resume needs a file"),
        None => Writer::new(BufWriter::new(stdout()?), header)?,
        Some(partial) if given.resume => partial.resume(|key| known.insert(key))?,
        Some(partial) => partial.create(header)?,
    };
    let saved = save::save(
        target,
        connections,
        &known,
        &mut writer,
        &counts,
        interrupt,
        (&mut progress, expected),
    );
    match &partial {
        None => saved?,
        Some(_) => saved.with_context(|| {
            let shown = given.file.display();
            format!("{shown}.partial is left: --resume goes on with it")
        })?,
    }
    let (out, totals, written) = writer.end()?;
    if let Some(partial) = partial {
        partial.complete(out)?;
    }
    let seconds = progress.end();
    let [items, gone, too_large, binary_only, refused] = [
        &counts.items,
        &counts.gone,
        &counts.too_large,
        &counts.binary_only,
        &counts.refused,
    ]
    .map(|count| count.load(Relaxed));
    let mut text = format!(
        "{} items in {written} bytes, {}\n",
        totals.items,
        pace(items, seconds)
    );
    for (left_out, why) in [
        (too_large, "are too large for a dump"),
        (binary_only, "have keys that only the binary protocol has"),
        (refused, "were refused: the server has no memory"),
    ] {
        if left_out > 0 {
            text.push_str(&format!("{left_out} items {why}\n"));
        }
    }
    let status = Status::found(too_large + binary_only + refused > 0);
    if is_stdout {
        if !given.quiet {
            eprint!("{text}");
        }
        return Ok(Answer::silent().ending(status));
    }
    let json = json!({"items": totals.items, "bytes": written, "gone": gone,
        "too_large": too_large, "binary_only": binary_only, "refused": refused,
        "seconds": seconds});
    Ok(Answer::new(quiet(given.quiet, text), json).ending(status))
}

/// Standard output as a `File`, so that [`Writer`] has one type for both destinations.
fn stdout() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Stores all items of a file.
pub(crate) fn load(target: &Target, given: &Load) -> Result<Answer> {
    let interrupt = Interrupt::default();
    let loaded = read(target, given, &interrupt);
    if interrupt.has_come() {
        if let Err(error) = &loaded {
            eprintln!("hippos-ctl: {error:#}");
        }
        interrupt.pass_on();
    }
    loaded
}

fn read(target: &Target, given: &Load, interrupt: &Interrupt) -> Result<Answer> {
    if given.file.as_os_str() == "-" {
        return store(target, given, io::stdin().lock(), None, interrupt);
    }
    let shown = || given.file.display().to_string();
    let mut file = File::open(&given.file).with_context(shown)?;
    if !given.salvage {
        if let Err(damage) = reader::verify(BufReader::new(&file)) {
            end!(
                Failed,
                "{}: {damage}; nothing is loaded (--salvage loads the blocks before)",
                shown()
            );
        }
        file.rewind().with_context(shown)?;
    }
    let size = file.metadata().with_context(shown)?.len();
    store(target, given, BufReader::new(file), Some(size), interrupt)
}

fn store(
    target: &Target,
    given: &Load,
    input: impl Read,
    size: Option<u64>,
    interrupt: &Interrupt,
) -> Result<Answer> {
    let counts = replay::Counts::default();
    let mut progress = Progress::new(given.quiet);
    let mut reader = match Reader::new(input) {
        Ok(reader) => reader,
        Err(damage) => end!(Failed, "{}: {damage}", given.file.display()),
    };
    let done = Mutex::new(Done::from(given.from_block));
    let replayed = replay::replay(
        target,
        usize::from(given.connections),
        given.mode,
        &mut reader,
        &counts,
        &done,
        interrupt,
        (&mut progress, size),
    );
    let done = done
        .into_inner()
        .map_or(given.from_block, |done| done.next());
    let damage = replayed.with_context(|| format!("to go on: --from-block {done}"))?;
    let seconds = progress.end();
    let [stored, kept, expired, refused] = [
        &counts.stored,
        &counts.kept,
        &counts.expired,
        &counts.refused,
    ]
    .map(|count: &AtomicU64| count.load(Relaxed));
    let mut text = format!(
        "{stored} items stored, {}; {kept} were there, {expired} have expired\n",
        pace(stored + kept + expired, seconds)
    );
    if refused > 0 {
        text.push_str(&format!(
            "{refused} items were refused: no memory, or too large\n"
        ));
    }
    text = quiet(given.quiet, text);
    let mut json = json!({"stored": stored, "kept": kept, "expired": expired, "refused": refused,
        "seconds": seconds});
    let mut status = Status::Done;
    if refused > 0 {
        status = Status::Refused;
    }
    if let Some(damage) = damage {
        text.push_str(&format!("{damage}; only the blocks before are loaded\n"));
        json["damage"] = damage.to_string().into();
        status = Status::Failed;
    }
    Ok(Answer::new(text, json).ending(status))
}

fn quiet(is_quiet: bool, text: String) -> String {
    if is_quiet {
        String::new()
    } else {
        text
    }
}

fn pace(items: u64, seconds: f64) -> String {
    format!("{seconds:.1} s, {:.0}/s", items as f64 / seconds.max(0.001))
}
