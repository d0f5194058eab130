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
}

/// What left, and how many requests the receive paths before the socket answered.
type Seen = (Vec<Vec<Sent>>, u64);

pub(crate) fn fast() -> Result<u64> {
    Tcp::connect("127.0.0.1")?.stat("hippos_udp_fast_datagrams")
}

impl Row {
    fn see(&self, bench: &mut Topology) -> Result<Seen> {
        set_up(self.setup)?;
        let before = fast()?;
        let seen = self
            .asks
            .iter()
            .map(|(card, frame)| bench.ask(*card, frame))
            .collect::<Result<Vec<_>>>();
        let after = fast()?;
        set_up(self.undo)?;
        Ok((seen?, after - before))
    }

    /// Whether the judge did what the row is about.
    fn check_expected(&self, seen: &Seen) -> Result<()> {
        let last = seen.0.last().context("nothing was asked")?;
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
                judge.insert(row.name, seen.0);
                continue;
            }
            if judge.get(row.name) != Some(&seen.0) {
                wrong.push(format!(
                    "{by:?}: {}: {:?}, the socket: {:?}",
                    row.name,
                    seen.0,
                    judge.get(row.name)
                ));
            }
            if (seen.1 > 0) != row.fast {
                wrong.push(format!("{by:?}: {}: {} in place", row.name, seen.1));
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
            .and_then(|()| {
                ensure!((seen.1 > 0) == row.fast, "{} in place", seen.1);
                Ok(())
            })
            .with_context(|| format!("{by:?}: {}", row.name))?;
    }
    served.unload()
}
