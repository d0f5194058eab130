// SPDX-License-Identifier: GPL-2.0-only
//! Searches for an order of the operations, each between its call and its return, in which every reply is right.
//!
//! Wing and Gong's search with Lowe's cache of visited states («Testing for linearizability», 2017), one key at a time:
//! linearizability is local, so a history is linearizable when each key's part is.

use crate::model::{step, Action, Answer, State};
use std::collections::HashSet;

/// One operation on one key, as its client saw it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client; for the report only.
    pub client: usize,
    /// The request.
    pub action: Action,
    /// The reply.
    pub answer: Answer,
    /// The time of the call, in nanoseconds since the recording began.
    pub called: u64,
    /// The time of the return. Without meaning for [`Answer::Unknown`].
    pub returned: u64,
}

/// Whether the operations on one key, absent at first, are linearizable.
pub fn linearizable(operations: &[Operation]) -> bool {
    let mut list = Events::new(operations);
    let mut state: State = None;
    let mut done = vec![0u64; operations.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut at = list.first();
    // Every operation with a reply must find its place; those without one may be left for after the end, where they
    // change nothing.
    while list.answered > 0 {
        let Some(event) = at else { return false };
        match list.events[event] {
            Event::Call(index) => {
                let operation = &operations[index];
                let next = step(&state, &operation.action, &operation.answer);
                let tried = next.and_then(|next| {
                    let mut with = done.clone();
                    with[index / 64] |= 1 << (index % 64);
                    seen.insert((with.clone(), next.clone()))
                        .then_some((with, next))
                });
                match tried {
                    Some((with, next)) => {
                        path.push((event, std::mem::replace(&mut state, next)));
                        done = with;
                        list.lift(event);
                        at = list.first();
                    }
                    None => at = list.after(event),
                }
            }
            Event::Return(_) => {
                // No place for its operation after the chosen ones: backtrack.
                let Some((event, before)) = path.pop() else {
                    return false;
                };
                let Event::Call(index) = list.events[event] else {
                    unreachable!("only calls are chosen");
                };
                state = before;
                done[index / 64] &= !(1 << (index % 64));
                list.unlift(event);
                at = list.after(event);
            }
        }
    }
    true
}

#[derive(Clone, Copy)]
enum Event {
    Call(usize),
    Return(usize),
}

/// The calls and returns in the order of time, as a doubly linked list from
/// which an operation can be lifted and put back.
struct Events {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The cell of an operation's return, by the operation's index.
    returns: Vec<Option<usize>>,
    /// Operations with a reply that are still in the list.
    answered: usize,
}

impl Events {
    fn new(operations: &[Operation]) -> Self {
        let mut order: Vec<(u64, u8, Event)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            // At equal times calls go first: then the two overlap, which is the reading without false alarms.
            order.push((operation.called, 0, Event::Call(index)));
            if operation.answer != Answer::Unknown {
                order.push((operation.returned, 1, Event::Return(index)));
            }
        }
        order.sort_by_key(|&(time, kind, _)| (time, kind));
        let events: Vec<Event> = order.into_iter().map(|(_, _, event)| event).collect();
        let mut returns = vec![None; operations.len()];
        for (position, event) in events.iter().enumerate() {
            if let Event::Return(index) = event {
                returns[*index] = Some(position);
            }
        }
        // The last cell is the list's head and end.
        let cells = events.len() + 1;
        Self {
            answered: returns.iter().flatten().count(),
            next: (0..cells).map(|cell| (cell + 1) % cells).collect(),
            previous: (0..cells).map(|cell| (cell + cells - 1) % cells).collect(),
            events,
            returns,
        }
    }

    fn after(&self, cell: usize) -> Option<usize> {
        Some(self.next[cell]).filter(|&cell| cell < self.events.len())
    }

    fn first(&self) -> Option<usize> {
        self.after(self.events.len())
    }

    fn return_of(&self, call: usize) -> Option<usize> {
        match self.events[call] {
            Event::Call(index) | Event::Return(index) => self.returns[index],
        }
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        if let Some(end) = self.return_of(call) {
            self.unlink(end);
            self.answered -= 1;
        }
    }

    fn unlift(&mut self, call: usize) {
        if let Some(end) = self.return_of(call) {
            self.link(end);
            self.answered += 1;
        }
        self.link(call);
    }

    fn unlink(&mut self, cell: usize) {
        let (previous, next) = (self.previous[cell], self.next[cell]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Undoes the last `unlink` that is not undone yet.
    fn link(&mut self, cell: usize) {
        self.next[self.previous[cell]] = cell;
        self.previous[self.next[cell]] = cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ttl;
    use proptest::prelude::*;

    fn operation(action: Action, answer: Answer, called: u64, returned: u64) -> Operation {
        Operation {
            client: 0,
            action,
            answer,
            called,
            returned,
        }
    }

    fn set(value: &str, called: u64, returned: u64) -> Operation {
        operation(Action::Set(value.into()), Answer::Stored, called, returned)
    }

    fn get(value: Option<&str>, called: u64, returned: u64) -> Operation {
        let answer = value.map_or(Answer::Absent, |value| Answer::Value(value.into()));
        operation(Action::Get, answer, called, returned)
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(linearizable(&[
            set("a", 0, 1),
            set("b", 2, 3),
            get(Some("b"), 4, 5)
        ]));
        assert!(!linearizable(&[
            set("a", 0, 1),
            set("b", 2, 3),
            get(Some("a"), 4, 5)
        ]));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(!linearizable(&[set("a", 0, 1), get(None, 2, 3)]));
    }

    #[test]
    fn two_readers_must_agree_on_the_order_of_overlapping_writes() {
        let writes = [set("a", 0, 9), set("b", 0, 9)];
        let agreeing = [get(Some("a"), 10, 11), get(Some("a"), 12, 13)];
        let flipping = [get(Some("a"), 10, 11), get(Some("b"), 12, 13)];
        assert!(linearizable(&[&writes[..], &agreeing].concat()));
        assert!(!linearizable(&[&writes[..], &flipping].concat()));
        // While the writes still run, the value may change between the reads.
        let during = [get(Some("a"), 1, 2), get(Some("b"), 3, 4)];
        assert!(linearizable(&[&writes[..], &during].concat()));
    }

    #[test]
    fn an_unanswered_write_may_have_happened_or_not() {
        let lost = operation(Action::Set("b".into()), Answer::Unknown, 2, 0);
        for seen in ["a", "b"] {
            assert!(linearizable(&[
                set("a", 0, 1),
                lost.clone(),
                get(Some(seen), 4, 5)
            ]));
        }
        // But not before its call, and not undone once seen.
        assert!(!linearizable(&[lost.clone(), get(Some("b"), 0, 1)]));
        let undone = [get(Some("b"), 4, 5), get(Some("a"), 6, 7)];
        assert!(!linearizable(
            &[&[set("a", 0, 1), lost][..], &undone].concat()
        ));
    }

    #[test]
    fn a_lost_update_by_cas_or_incr_is_found() {
        let cas = |new: &str| {
            let action = Action::Cas("a".into(), new.into());
            operation(action, Answer::Stored, 2, 3)
        };
        assert!(!linearizable(&[set("a", 0, 1), cas("b"), cas("c")]));
        let incr = |called| operation(Action::Incr(1), Answer::Number(2), called, called + 5);
        assert!(!linearizable(&[set("1", 0, 1), incr(2), incr(3)]));
    }

    #[test]
    fn a_lost_touch_is_found() {
        let touch = operation(
            Action::GetAndTouch(Ttl::Days),
            Answer::Value(b"1".to_vec()),
            2,
            6,
        );
        let incr = operation(Action::Incr(1), Answer::Number(2), 3, 7);
        let look = |ttl| {
            let (stale, sent, won) = (false, false, false);
            let answer = Answer::Seen {
                ttl,
                stale,
                sent,
                won,
            };
            operation(Action::MetaGet(None), answer, 8, 9)
        };
        let both = [set("1", 0, 1), touch, incr];
        assert!(linearizable(&[&both[..], &[look(Ttl::Days)]].concat()));
        assert!(!linearizable(&[&both[..], &[look(Ttl::Never)]].concat()));
    }

    #[test]
    fn a_second_winner_of_a_token_is_found() {
        let stale = operation(Action::Invalidate(None), Answer::Done, 2, 3);
        let look = |won: bool| {
            let answer = Answer::Seen {
                ttl: Ttl::Never,
                stale: true,
                sent: !won,
                won,
            };
            operation(Action::MetaGet(None), answer, 4, 9)
        };
        let before = [set("1", 0, 1), stale];
        assert!(linearizable(
            &[&before[..], &[look(true), look(false)]].concat()
        ));
        assert!(!linearizable(
            &[&before[..], &[look(true), look(true)]].concat()
        ));
    }

    proptest! {
        /// Histories cut from a real order are accepted; with one read turned
        /// back to an older value, after its successor was seen, they are not.
        #[test]
        fn a_planted_stale_read_is_found(
            spans in prop::collection::vec((0u64..6, 0u64..6), 4..24),
            plant in any::<prop::sample::Index>(),
        ) {
            let mut operations = Vec::new();
            for (turn, &(before, after)) in spans.iter().enumerate() {
                // The operation takes effect at `point`, somewhere in its span.
                let point = 10 + 10 * turn as u64;
                let value = format!("v{turn}");
                let write = set(&value, point - before.min(point), point + after);
                let read = get(Some(&value), point + 5, point + 6);
                operations.extend([write, read]);
            }
            prop_assert!(linearizable(&operations));
            let victim = 1 + plant.index(spans.len() - 1);
            let stale = format!("v{}", victim - 1);
            operations[2 * victim + 1].answer = Answer::Value(stale.into());
            // The write of `victim` may still run while it is read; a later
            // read of the newer value before makes the old one wrong.
            let point = 10 + 10 * victim as u64;
            operations.push(get(Some(&format!("v{victim}")), point + 1, point + 2));
            prop_assert!(!linearizable(&operations));
        }
    }
}
