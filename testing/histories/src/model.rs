// SPDX-License-Identifier: GPL-2.0-only
//! The operations on one key: a register that can be absent, with memcached's conditional and arithmetic writes.
//!
//! Every value that is written to a key is written only once, so a value stands for the CAS number of its item: `cas`
//! is modelled as «only if the value is still that one».

use std::rc::Rc;

/// A key's state: its item, or none.
pub(crate) type State = Option<Item>;

/// The visible state of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    value: Rc<[u8]>,
    ttl: Ttl,
    stale: bool,
    /// Whether its win token was given out.
    sent: bool,
}

/// How long an item lives; so far apart that the time a test takes makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// For ever.
    #[default]
    Never,
    /// Some days.
    Days,
    /// Some weeks.
    Weeks,
    /// In the past: with this expiry time an item expires at once.
    Expired,
}

/// The threshold of `mg … R`, in seconds: between some days and some weeks.
pub(crate) const RECACHE: u32 = 1_000_000;

impl Ttl {
    /// The expiry time for this lifetime.
    pub(crate) fn exptime(self) -> i32 {
        match self {
            Self::Expired => -1,
            Self::Never => 0,
            Self::Days => 200_000,
            Self::Weeks => 2_000_000,
        }
    }

    /// The lifetime of which this many seconds are left.
    pub(crate) fn of(left: i64) -> Self {
        match left {
            ..0 => Self::Never,
            0..=200_000 => Self::Days,
            _ => Self::Weeks,
        }
    }
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `get` or `gets`
    Get,
    /// `set`
    Set(Vec<u8>),
    /// `add`
    Add(Vec<u8>),
    /// `replace`
    Replace(Vec<u8>),
    /// `append`
    Append(Vec<u8>),
    /// `prepend`
    Prepend(Vec<u8>),
    /// `cas` with the number that came with the first value; writes the second
    Cas(Vec<u8>, Vec<u8>),
    /// `delete`
    Delete,
    /// `incr`
    Incr(u64),
    /// `touch`
    Touch(Ttl),
    /// `gat`
    GetAndTouch(Ttl),
    /// `mg` with t: returns the remaining time, and gives out the token of a stale item; with T, if there is a new
    /// expiry time
    MetaGet(Option<Ttl>),
    /// `mg` with t and R: gives out the token of an item that lives for [`Ttl::Days`] as well
    MetaGetRecache,
    /// `mg` with t and N: makes an empty item for the winner where there is none
    MetaGetVivify(Ttl),
    /// `md` with I, and T if there is a new expiry time
    Invalidate(Option<Ttl>),
    /// `ms` with I and the number that came with the first value: writes the second, which is stale
    /// if the first is not the value any more
    MetaSetInvalidate(Vec<u8>, Vec<u8>),
    /// `set` with an expiry time that has passed
    SetExpired(Vec<u8>),
}

/// The server's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `VALUE`
    Value(Vec<u8>),
    /// A `get` without a `VALUE`, or `NOT_FOUND`
    Absent,
    /// `STORED`
    Stored,
    /// `NOT_STORED`, or the refusal of arithmetic on a value that is no number
    NotStored,
    /// `EXISTS`
    Exists,
    /// `DELETED`
    Deleted,
    /// The number after `incr`
    Number(u64),
    /// `TOUCHED`, or `HD` of `md` and `ms`
    Done,
    /// The flags of `mg`
    Seen {
        /// t
        ttl: Ttl,
        /// X
        stale: bool,
        /// Z
        sent: bool,
        /// W
        won: bool,
    },
    /// No reply: the action may have happened at any time since, or never
    Unknown,
}

/// The state after `action`, if `answer` is right for it in `state`.
pub(crate) fn step(state: &State, action: &Action, answer: &Answer) -> Option<State> {
    let (expected, next) = apply(state, action);
    (*answer == Answer::Unknown || *answer == expected).then_some(next)
}

fn apply(state: &State, action: &Action) -> (Answer, State) {
    let fresh = |bytes: &[u8]| {
        Some(Item {
            value: Rc::from(bytes),
            ttl: Ttl::Never,
            stale: false,
            sent: false,
        })
    };
    // The item after a change of its expiry time.
    let unless_over = |item: Item| Some(item).filter(|item| item.ttl != Ttl::Expired);
    let Some(now) = state else {
        return match action {
            Action::SetExpired(_) => (Answer::Stored, None),
            Action::MetaGetVivify(ttl) => {
                // The new expiry time applies after the reply.
                let answer = Answer::Seen {
                    ttl: Ttl::Never,
                    stale: false,
                    sent: false,
                    won: true,
                };
                let made = fresh(b"").map(|made| Item {
                    ttl: *ttl,
                    sent: true,
                    ..made
                });
                (answer, made)
            }
            Action::Set(new) | Action::Add(new) => (Answer::Stored, fresh(new)),
            Action::Replace(_) | Action::Append(_) | Action::Prepend(_) => {
                (Answer::NotStored, None)
            }
            _ => (Answer::Absent, None),
        };
    };
    let kept = state.clone();
    // Derived from the old item: it keeps its expiry time.
    let from = |bytes: &[u8]| {
        fresh(bytes).map(|new| Item {
            ttl: now.ttl,
            ..new
        })
    };
    let living = |ttl: Option<Ttl>| Item {
        ttl: ttl.unwrap_or(now.ttl),
        ..now.clone()
    };
    match action {
        Action::Get => (Answer::Value(now.value.to_vec()), kept),
        Action::Set(new) | Action::Replace(new) => (Answer::Stored, fresh(new)),
        Action::Add(_) => (Answer::NotStored, kept),
        Action::Append(new) => (Answer::Stored, from(&[&*now.value, new].concat())),
        Action::Prepend(new) => (Answer::Stored, from(&[new, &*now.value].concat())),
        Action::Cas(old, new) if *now.value == **old => (Answer::Stored, fresh(new)),
        Action::Cas(..) => (Answer::Exists, kept),
        Action::Delete => (Answer::Deleted, None),
        Action::Incr(by) => {
            let text = std::str::from_utf8(&now.value).ok();
            let number: Option<u64> = text.and_then(|text| text.parse().ok());
            match number {
                Some(number) => {
                    let sum = number.wrapping_add(*by);
                    let text = sum.to_string();
                    let mut next = from(text.as_bytes());
                    // A number that fits is changed in place, and keeps its marks.
                    if let Some(next) = next.as_mut().filter(|_| text.len() <= now.value.len()) {
                        (next.stale, next.sent) = (now.stale, now.sent);
                    }
                    (Answer::Number(sum), next)
                }
                None => (Answer::NotStored, kept),
            }
        }
        Action::SetExpired(_) => (Answer::Stored, None),
        Action::MetaSetInvalidate(old, new) => {
            let stale = *now.value != **old;
            let sent = stale && now.sent;
            let marked = |new| Item { stale, sent, ..new };
            (Answer::Done, fresh(new).map(marked))
        }
        Action::Touch(ttl) => (Answer::Done, unless_over(living(Some(*ttl)))),
        Action::GetAndTouch(ttl) => {
            let answer = Answer::Value(now.value.to_vec());
            (answer, unless_over(living(Some(*ttl))))
        }
        Action::MetaGet(_) | Action::MetaGetRecache | Action::MetaGetVivify(_) => {
            let early = *action == Action::MetaGetRecache && now.ttl == Ttl::Days;
            let won = (now.stale || early) && !now.sent;
            let ttl = match action {
                Action::MetaGet(ttl) => *ttl,
                _ => None,
            };
            // t comes before T.
            let answer = Answer::Seen {
                ttl: now.ttl,
                stale: now.stale,
                sent: now.sent,
                won,
            };
            let next = Item {
                sent: now.sent || won,
                ..living(ttl)
            };
            (answer, Some(next))
        }
        Action::Invalidate(ttl) => {
            let next = Item {
                stale: true,
                sent: false,
                ..living(*ttl)
            };
            (Answer::Done, Some(next))
        }
    }
}
