// SPDX-License-Identifier: GPL-2.0-only
//! `top`: live rates on the terminal.

pub(crate) mod draw;
mod hot_keys;
pub(crate) mod model;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hippos_abi::Section;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::answer::Answer;
use crate::arguments;
use crate::exit::end;
use crate::source::Source;
use crate::status::Snapshot;
use crate::system::System;
use draw::Footer;
use hot_keys::Gets;
use model::{frame, Model, Sample, Sort};

/// How long a signal may be pending before it is noticed.
const TICK: Duration = Duration::from_millis(100);

/// Reads and shows the statistics until the user ends it.
pub(crate) fn top(source: &Source, given: &arguments::Top, is_json: bool) -> Result<Answer> {
    let interval = Duration::from_secs_f64(given.interval);
    let mut reader = Reader::new(source);
    reader.watches = given.keys;
    if given.once {
        let before = reader.sample()?;
        thread::sleep(interval);
        let model = reader.frame(&before, &reader.sample()?, Sort::Rate);
        return Ok(Answer::new(draw::text(&model), model.json()));
    }
    if is_json {
        let mut before = reader.sample()?;
        let mut out = std::io::stdout().lock();
        loop {
            thread::sleep(interval);
            let now = reader.sample()?;
            let model = reader.frame(&before, &now, Sort::Rate);
            writeln!(out, "{}", model.json())?;
            out.flush()?;
            before = now;
        }
    }
    if !std::io::stdout().is_terminal() {
        end!(
            Usage,
            "standard output is no terminal: use --once or --json"
        );
    }
    // An error at the start is reported without a screen.
    let first = reader.sample()?;
    let signal = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(number, signal.clone()).context("signals")?;
    }
    let screen = Screen::open()?;
    live(screen, &mut reader, first, interval, &signal)?;
    Ok(Answer::silent())
}

/// Two samples, an interval apart.
pub(crate) fn samples(source: &Source, interval: Duration) -> Result<(Sample, Sample)> {
    let reader = Reader::new(source);
    let before = reader.sample()?;
    thread::sleep(interval);
    Ok((before, reader.sample()?))
}

/// Frames for readers that ask now and then: each is of the time since the one before.
pub(crate) struct Frames<'s> {
    reader: Reader<'s>,
    last: Option<(Sample, Model)>,
}

impl<'s> Frames<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Self {
            reader: Reader::new(source),
            last: None,
        }
    }

    /// The frame of now. Readers that come shortly after each other get the same one.
    pub(crate) fn now(&mut self) -> Result<Model> {
        /// A shorter time gives no rates, and a long one those of long ago.
        const SPAN: std::ops::RangeInclusive<Duration> =
            Duration::from_millis(500)..=Duration::from_secs(60);
        let (before, now) = match self.last.take() {
            Some((before, model)) => {
                let elapsed = self.reader.began.elapsed().saturating_sub(before.at);
                if elapsed < *SPAN.start() {
                    self.last = Some((before, model.clone()));
                    return Ok(model);
                }
                let now = self.reader.sample()?;
                (Some(before).filter(|_| SPAN.contains(&elapsed)), now)
            }
            None => (None, self.reader.sample()?),
        };
        let (before, now) = match before {
            Some(before) => (before, now),
            None => {
                thread::sleep(Duration::from_secs(1));
                (now, self.reader.sample()?)
            }
        };
        let model = self.reader.frame(&before, &now, Sort::Rate);
        self.last = Some((now, model.clone()));
        Ok(model)
    }
}

/// The terminal in raw mode with the alternate screen; dropping it restores the terminal. A panic restores it before
/// its message.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self> {
        let terminal = ratatui::try_init();
        if terminal.is_err() {
            ratatui::restore();
        }
        Ok(Screen(terminal.context("the terminal")?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Reads samples.
struct Reader<'s> {
    source: &'s Source,
    system: System,
    began: Instant,
    /// Whether the hottest keys are sampled.
    watches: bool,
}

impl<'s> Reader<'s> {
    fn new(source: &'s Source) -> Self {
        Reader {
            source,
            system: System::host(),
            began: Instant::now(),
            watches: false,
        }
    }

    fn sample(&self) -> Result<Sample> {
        let mut connection = self.source.open()?;
        let general = connection.stats(Section::General)?;
        Ok(Sample {
            at: self.began.elapsed(),
            snapshot: Snapshot {
                general,
                settings: connection.stats(Section::Settings)?,
            },
            items: connection.stats(Section::Items)?,
            slabs: connection.stats(Section::Slabs)?,
            conns: connection.stats_if_served(Section::Conns)?,
            cpus: connection.stats_if_served(Section::Cpus)?,
            latency: connection.stats_if_served(Section::Latency)?,
            gets: match self.watches {
                true => Some(Gets::watch(self.source)?),
                false => None,
            },
        })
    }

    fn frame(&self, before: &Sample, now: &Sample, sort: Sort) -> Model {
        let system = self.source.is_here().then_some(&self.system);
        frame(before, now, system, sort)
    }
}

/// The state that keys change.
#[derive(Clone, Debug, PartialEq)]
struct View {
    interval: Duration,
    sort: Sort,
    is_paused: bool,
    is_over: bool,
    watches: bool,
}

impl View {
    fn press(&mut self, key: KeyEvent) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        let seconds = self.interval.as_secs_f64();
        let within = |seconds: f64| {
            Duration::from_secs_f64(
                seconds.clamp(*arguments::INTERVALS.start(), *arguments::INTERVALS.end()),
            )
        };
        match key.code {
            KeyCode::Char('c') if is_control => self.is_over = true,
            KeyCode::Char('q') | KeyCode::Esc => self.is_over = true,
            KeyCode::Char('k') => self.watches = !self.watches,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+' | '=') => self.interval = within(seconds * 2.0),
            KeyCode::Char('-') => self.interval = within(seconds / 2.0),
            _ => {}
        }
    }

    fn footer(&self) -> String {
        let paused = if self.is_paused { "PAUSED  " } else { "" };
        format!(
            "{paused}q quit  s sort: {}  p pause  k keys  + - interval: {} s",
            self.sort.word(),
            self.interval.as_secs_f64()
        )
    }
}

fn live(
    mut screen: Screen,
    reader: &mut Reader<'_>,
    first: Sample,
    interval: Duration,
    signal: &AtomicBool,
) -> Result<()> {
    let mut view = View {
        interval,
        sort: Sort::default(),
        is_paused: false,
        is_over: false,
        watches: reader.watches,
    };
    let (mut before, mut now) = (first.clone(), first);
    let mut read_at = Instant::now();
    let mut error = None;
    while !view.is_over && !signal.load(Relaxed) {
        let model = reader.frame(&before, &now, view.sort);
        let text = error.clone().unwrap_or_else(|| view.footer());
        let footer = Footer {
            text: &text,
            is_error: error.is_some(),
        };
        screen
            .0
            .draw(|frame| draw::draw(&model, &footer, frame.area(), frame.buffer_mut()))?;
        // Until a key is pressed, the size changes, or the next sample is due.
        loop {
            let is_due = !view.is_paused && read_at.elapsed() >= view.interval;
            if is_due || signal.load(Relaxed) {
                break;
            }
            if event::poll(TICK)? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => view.press(key),
                    _ => {}
                }
                break;
            }
        }
        if !view.is_paused && read_at.elapsed() >= view.interval {
            read_at = Instant::now();
            reader.watches = view.watches;
            match reader.sample() {
                Ok(sample) => {
                    before = std::mem::replace(&mut now, sample);
                    error = None;
                }
                // The module may be loaded again later.
                Err(why) => error = Some(format!("{why:#}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_change_the_view() {
        let mut view = View {
            interval: Duration::from_secs(1),
            sort: Sort::Rate,
            is_paused: false,
            is_over: false,
            watches: false,
        };
        let mut press = |code| {
            view.press(KeyEvent::new(code, KeyModifiers::NONE));
            view.clone()
        };
        assert_eq!(press(KeyCode::Char('s')).sort, Sort::Size);
        assert!(press(KeyCode::Char('p')).is_paused);
        assert!(press(KeyCode::Char('x')).footer().starts_with("PAUSED"));
        assert_eq!(press(KeyCode::Char('+')).interval, Duration::from_secs(2));
        for _ in 0..20 {
            press(KeyCode::Char('-'));
        }
        let view = press(KeyCode::Char('-'));
        assert_eq!(view.interval, Duration::from_millis(100));
        assert!(!view.is_over);
        assert!(press(KeyCode::Char('q')).is_over);
    }

    #[test]
    fn control_c_ends_the_program() {
        let mut view = View {
            interval: Duration::from_secs(1),
            sort: Sort::Rate,
            is_paused: true,
            is_over: false,
            watches: false,
        };
        view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(view.is_over);
    }
}
