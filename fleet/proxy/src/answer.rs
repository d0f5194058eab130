// SPDX-License-Identifier: MIT

//! The answers of nodes, and the clients and jobs that wait for them.

/// This bit in a waiter marks a job.
pub(crate) const JOB: u32 = 1 << 31;

/// The waiter for a node's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) client: u32,
    pub(crate) generation: u32,
    /// The number of the client's command.
    pub(crate) number: u32,
    /// The index of the part of the reply.
    pub(crate) part: u16,
    /// The hash of a key that is read by datagram; 0 if it is not.
    pub(crate) reading: u32,
}

/// A node's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// The reply, or a value of a `get` (empty for a miss).
    Reply(&'a [u8]),
    /// An error line instead of a value.
    Error(&'a [u8]),
    /// No answer.
    Unavailable,
}

/// A copy of an answer.
#[derive(Debug)]
pub(crate) enum OwnedAnswer {
    Reply(Vec<u8>),
    Error(Vec<u8>),
    Unavailable,
}

impl OwnedAnswer {
    pub(crate) fn of(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Reply(bytes) => OwnedAnswer::Reply(bytes.to_vec()),
            Answer::Error(line) => OwnedAnswer::Error(line.to_vec()),
            Answer::Unavailable => OwnedAnswer::Unavailable,
        }
    }

    pub(crate) fn as_answer(&self) -> Answer<'_> {
        match self {
            OwnedAnswer::Reply(bytes) => Answer::Reply(bytes),
            OwnedAnswer::Error(line) => Answer::Error(line),
            OwnedAnswer::Unavailable => Answer::Unavailable,
        }
    }

    /// Whether the node did not execute the command.
    pub(crate) fn failed(&self) -> bool {
        match self {
            OwnedAnswer::Reply(bytes) => match bytes.as_slice() {
                // In the binary protocol: out of memory, internal error, busy.
                [0x81, _, _, _, _, _, 0, status, ..] => matches!(status, 0x82 | 0x84..=0x86),
                bytes => {
                    bytes.starts_with(b"SERVER_ERROR")
                        || bytes.starts_with(b"CLIENT_ERROR")
                        || bytes.starts_with(b"ERROR")
                }
            },
            _ => true,
        }
    }
}

/// The receiver of answers.
pub(crate) trait Deliver {
    fn deliver(&mut self, waiter: Waiter, answer: Answer<'_>);
}
