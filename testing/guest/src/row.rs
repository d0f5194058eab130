// SPDX-License-Identifier: GPL-2.0-only
//! Replies in a topology by one receive path and another, with a socket as the judge.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};
use hippos_client::{ReceivePath, Tcp};

use crate::modules;
use crate::request::Ask;
use crate::topology::{set_up, Sent, Served, Topology, NAT};

/// Where the judge must be seen to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExpectedRoute {
    /// To this station by the first card.
    To([u8; 6]),
    /// To this one by the second.
    Second,
    Nowhere,
    /// In pieces.
    Pieces,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) setup: &'static str,
    pub(crate) undo: &'static str,
    pub(crate) asks: Vec<Ask>,
    /// Of the last of them.
    pub(crate) goes: ExpectedRoute,
    /// Whether the receive paths before the socket answer it themselves.
    pub(crate) fast: bool,
    /// Whether XDP leaves it to PRE_ROUTING's hook.
    pub(crate) above_xdp: bool,
}

/// The frames that left, and the number of requests that the receive paths before the socket answered.
struct Seen {
    replies: Vec<Vec<Sent>>,
    /// By a receive path before the socket.
    fast: u64,
    /// By XDP.
    xdp: u64,
}

pub(crate) fn fast() -> Result<u64> {
    Tcp::connect("127.0.0.1")?.stat("hippos_udp_fast_datagrams")
}

/// Requests that XDP answered.
pub(crate) fn xdp() -> Result<u64> {
    Tcp::connect("127.0.0.1")?.stat("hippos_xdp_served")
}

impl Row {
    /// A row whose requests XDP passes to PRE_ROUTING's hook.
    pub(crate) fn above_xdp(self) -> Self {
        Row {
            above_xdp: true,
            ..self
        }
    }

    fn see(&self, bench: &mut Topology) -> Result<Seen> {
        set_up(self.setup)?;
        let before = (fast()?, xdp()?);
        let replies = self
            .asks
            .iter()
            .map(|(card, frame)| bench.ask(*card, frame))
            .collect::<Result<Vec<_>>>();
        let after = (fast()?, xdp()?);
        set_up(self.undo)?;
        Ok(Seen {
            replies: replies?,
            fast: after.0 - before.0,
            xdp: after.1 - before.1,
        })
    }

    /// Whether the receive path that the row is about answered it, or left it to the socket.
    fn check_path(&self, seen: &Seen, by: ReceivePath) -> Result<()> {
        ensure!((seen.fast > 0) == self.fast, "{} in place", seen.fast);
        if by == ReceivePath::Xdp && self.fast {
            let expected = if self.above_xdp { 0 } else { seen.fast };
            ensure!(
                seen.xdp == expected,
                "{} by XDP of {} in place",
                seen.xdp,
                seen.fast
            );
        }
        Ok(())
    }

    /// Checks that the socket's replies take the row's route.
    fn check_expected(&self, seen: &Seen) -> Result<()> {
        let last = seen.replies.last().context("nothing was asked")?;
        let goes = match &last[..] {
            [] => ExpectedRoute::Nowhere,
            [_, _, ..] => ExpectedRoute::Pieces,
            [one] if one.card == "e1" => ExpectedRoute::Second,
            [one] => ExpectedRoute::To(one.bytes[..6].try_into()?),
        };
        // Either of equal routes.
        if self.name == "equal routes" {
            return Ok(());
        }
        ensure!(goes == self.goes, "{goes:02x?}: {last:?}");
        Ok(())
    }
}

/// Compares each row, in a topology of its own, by the socket and by `paths`.
pub(crate) fn compare(rows: &[Row], paths: &[ReceivePath]) -> Result<()> {
    compare_by(rows, paths, Topology::reset)
}

/// Compares rows that change the topology one after the other.
pub(crate) fn compare_in_turn(rows: &[Row], paths: &[ReceivePath]) -> Result<()> {
    compare_by(rows, paths, |_| Ok(()))
}

fn compare_by(
    rows: &[Row],
    paths: &[ReceivePath],
    before_each: impl Fn(&mut Topology) -> Result<()>,
) -> Result<()> {
    let mut bench = Topology::new()?;
    for module in NAT {
        modules::load(module)?;
    }
    let mut judge = BTreeMap::new();
    let mut wrong = Vec::new();
    for &by in [ReceivePath::Socket].iter().chain(paths) {
        bench.reset()?;
        let served = Served::load(by, "")?;
        for row in rows {
            before_each(&mut bench)?;
            let seen = row
                .see(&mut bench)
                .with_context(|| format!("{by:?}: {}", row.name))?;
            if by == ReceivePath::Socket {
                if let Err(error) = row.check_expected(&seen) {
                    wrong.push(format!("{}: the socket: {error:#}", row.name));
                }
                judge.insert(row.name, seen.replies);
                continue;
            }
            if judge.get(row.name) != Some(&seen.replies) {
                wrong.push(format!(
                    "{by:?}: {}: {:?}, the socket: {:?}",
                    row.name,
                    seen.replies,
                    judge.get(row.name)
                ));
            }
            if let Err(error) = row.check_path(&seen, by) {
                wrong.push(format!("{by:?}: {}: {error:#}", row.name));
            }
        }
        served.unload()?;
    }
    ensure!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Sees each row by one receive path, where a socket is no judge.
pub(crate) fn expect(rows: impl IntoIterator<Item = Row>, by: ReceivePath) -> Result<()> {
    let mut bench = Topology::new()?;
    bench.reset()?;
    let served = Served::load(by, "")?;
    for row in rows {
        bench.reset()?;
        let seen = row.see(&mut bench)?;
        row.check_expected(&seen)
            .and_then(|()| row.check_path(&seen, by))
            .with_context(|| format!("{by:?}: {}", row.name))?;
    }
    served.unload()
}
