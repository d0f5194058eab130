//! What one key may do: a register that can be absent, with memcached's
//! conditional and arithmetic writes.
//!
//! Every value that is written to a key is written only once, so a value
//! stands for the CAS number that came with it: `cas` is modelled as «only
//! if the value is still that one».

use std::rc::Rc;

/// A key's state: its value, or none.
pub(crate) type State = Option<Rc<[u8]>>;

/// What a client asked for.
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
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `VALUE`
    Value(Vec<u8>),
    /// A `get` without a `VALUE`, or `NOT_FOUND`
    Absent,
    /// `STORED`
    Stored,
    /// `NOT_STORED`
    NotStored,
    /// `EXISTS`
    Exists,
    /// `DELETED`
    Deleted,
    /// The number that `incr` left
    Number(u64),
    /// None came: the action may have happened at any time since, or never
    Unknown,
}

/// The state after `action`, if `answer` is right for it in `state`.
pub(crate) fn step(state: &State, action: &Action, answer: &Answer) -> Option<State> {
    let (expected, next) = apply(state, action);
    (*answer == Answer::Unknown || *answer == expected).then_some(next)
}

fn apply(state: &State, action: &Action) -> (Answer, State) {
    let value = |bytes: &[u8]| Some(Rc::from(bytes));
    let kept = state.clone();
    match (action, state) {
        (Action::Get, Some(now)) => (Answer::Value(now.to_vec()), kept),
        (Action::Get, None) => (Answer::Absent, None),
        (Action::Set(new), _) => (Answer::Stored, value(new)),
        (Action::Add(new), None) => (Answer::Stored, value(new)),
        (Action::Add(_), Some(_)) => (Answer::NotStored, kept),
        (Action::Replace(new), Some(_)) => (Answer::Stored, value(new)),
        (Action::Append(new), Some(now)) => (Answer::Stored, value(&[&**now, new].concat())),
        (Action::Prepend(new), Some(now)) => (Answer::Stored, value(&[new, &**now].concat())),
        (Action::Replace(_) | Action::Append(_) | Action::Prepend(_), None) => {
            (Answer::NotStored, None)
        }
        (Action::Cas(old, new), Some(now)) if **now == **old => (Answer::Stored, value(new)),
        (Action::Cas(..), Some(_)) => (Answer::Exists, kept),
        (Action::Delete, Some(_)) => (Answer::Deleted, None),
        (Action::Incr(by), Some(now)) => {
            let number: Option<u64> = std::str::from_utf8(now)
                .ok()
                .and_then(|text| text.parse().ok());
            match number {
                Some(number) => {
                    let sum = number.wrapping_add(*by);
                    (Answer::Number(sum), value(sum.to_string().as_bytes()))
                }
                // The recorder counts only on keys that hold numbers.
                None => (Answer::NotStored, kept),
            }
        }
        (Action::Cas(..) | Action::Delete | Action::Incr(_), None) => (Answer::Absent, None),
    }
}
