// SPDX-License-Identifier: GPL-2.0-only
//! A program on a terminal of its own (pty(7)), which a test reads and presses keys on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::pty::{openpty, Winsize};
use nix::sys::signal::{kill, Signal};
use nix::sys::termios::{tcgetattr, LocalFlags};
use nix::unistd::Pid;

use crate::screen::Screen;

/// How long something may take to be shown.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for output before looking again, in milliseconds.
const TICK: u16 = 100;

/// A program, and the terminal that it prints on.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's end, which stays open for a look at the terminal's modes.
    line: OwnedFd,
    screen: Screen,
}

impl Terminal {
    /// Starts a program on a terminal of that size.
    pub(crate) fn start(line: &str, (columns, rows): (u16, u16)) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).context("no terminal")?;
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command")?;
        let end = || pair.slave.try_clone();
        let child = Command::new(program)
            .args(words)
            .env("TERM", "xterm-256color")
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            child,
            keyboard: pair.master.into(),
            line: pair.slave,
            screen: Screen::new(columns.into(), rows.into()),
        })
    }

    /// The screen after the program's output so far; waits a little for that.
    fn look(&mut self) -> Result<()> {
        let mut ready = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(TICK))? == 0 {
            return Ok(());
        }
        let mut bytes = [0; 4096];
        let len = self.keyboard.read(&mut bytes)?;
        self.screen.feed(&bytes[..len]);
        Ok(())
    }

    /// Waits until the screen is so; returns its lines.
    pub(crate) fn shows(
        &mut self,
        what: &str,
        is_so: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        let start = Instant::now();
        loop {
            self.look()?;
            let lines = self.screen.lines();
            if is_so(&lines) {
                return Ok(lines);
            }
            if start.elapsed() > LIMIT {
                bail!("{what} is not shown:\n{}", lines.join("\n"));
            }
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    fn is_raw(&self) -> Result<bool> {
        let flags = tcgetattr(&self.line)?.local_flags;
        Ok(!flags.contains(LocalFlags::ICANON) && !flags.contains(LocalFlags::ECHO))
    }

    /// Whether keys go to the program as they are pressed, and its screen is not the one of the shell.
    pub(crate) fn is_taken(&self) -> Result<bool> {
        Ok(self.is_raw()? && self.screen.is_alternate && !self.screen.has_cursor)
    }

    /// Waits for the program's end; the terminal must be as it was before.
    pub(crate) fn ends(mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        let status = loop {
            self.look()?;
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(start.elapsed() < LIMIT, "the program does not end");
        };
        // The rest of its output.
        for _ in 0..3 {
            self.look()?;
        }
        let screen = &self.screen;
        ensure!(
            !self.is_raw()? && !screen.is_alternate && screen.has_cursor,
            "the terminal is left raw: {}, on the alternate screen: {}, with a cursor: {}",
            self.is_raw()?,
            screen.is_alternate,
            screen.has_cursor
        );
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}
