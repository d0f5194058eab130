// SPDX-License-Identifier: MIT

//! Commands that need the answers of several nodes, at once or one after another: copies in several pools, misses that
//! are looked up in another pool. The nodes answer the job, and the job answers the client.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hippos_proto::binary::REQUEST;
use hippos_proto::token::Words;
use hippos_proto::RELATIVE_MAX;

use crate::answer::{OwnedAnswer, Waiter};
use crate::flight::Flight;
use crate::framing::Expect;
use crate::job_step::{JobStep, NodeRef};
use crate::lock::LockOperation;
use crate::numbered_list::NumberedList;
use crate::route::{Read, Write};
use crate::split::{Gather, SplitWrite};

/// A request to read.
#[derive(Debug)]
pub(crate) enum ReadRequest {
    /// A value, by `get` or one of its variants.
    Values { cas: bool, touch: Option<i32> },
    /// A complete request.
    Raw {
        request: Vec<u8>,
        expect: Expect,
        fence: bool,
    },
}

/// Whether an answer has the item's CAS value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShowsCas {
    No,
    /// In every answer of the binary protocol.
    Always,
    /// Because the client asked for it: it means to compare it.
    Asked,
}

impl ReadRequest {
    pub(crate) fn shows_cas(&self) -> ShowsCas {
        match self {
            ReadRequest::Values { cas: true, .. } => ShowsCas::Asked,
            ReadRequest::Values { cas: false, .. } => ShowsCas::No,
            ReadRequest::Raw { request, .. } => {
                let mut words = Words::new(request.trim_ascii_end());
                match words.next() {
                    _ if request.first() == Some(&REQUEST) => ShowsCas::Always,
                    Some(b"mg") if words.skip(1).any(|word| word.first() == Some(&b'c')) => {
                        ShowsCas::Asked
                    }
                    _ => ShowsCas::No,
                }
            }
        }
    }
}

/// The operation of a job.
#[derive(Debug)]
pub(crate) enum JobKind {
    Read(Reading),
    Write(Writing),
    Flight(Flight),
    Lock(LockOperation),
    Gather(Gather),
    SplitWrite(SplitWrite),
}

#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) ask: ReadRequest,
    pub(crate) policy: Read,
    /// Whether datagrams may be used.
    pub(crate) udp: bool,
    /// The number of nodes that were asked.
    pub(crate) asked: usize,
    pub(crate) left: usize,
    pub(crate) missed: Option<OwnedAnswer>,
    pub(crate) failed: Option<OwnedAnswer>,
    pub(crate) warm: Option<NodeRef>,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It asks the pools of the route.
    Pools,
    /// It asks the warm pool.
    Warm,
    /// It stores the warm pool's value.
    Fill,
    /// It reads the stored value.
    Filled,
}

#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) policy: Write,
    /// The number of pools that get the change.
    pub(crate) total: usize,
    pub(crate) left: usize,
    pub(crate) done: usize,
    pub(crate) first: Option<OwnedAnswer>,
    /// An answer that reports success.
    pub(crate) some: Option<OwnedAnswer>,
    pub(crate) failed: Option<OwnedAnswer>,
    /// The change is conditional on a CAS value, and goes to one pool.
    pub(crate) compares: bool,
    /// Nodes at which the key is deleted after a pool has made the change, or may have made it.
    pub(crate) then_clear: Vec<NodeRef>,
    pub(crate) binary: bool,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) generation: u32,
    /// `None` after it is answered.
    pub(crate) waiter: Option<Waiter>,
    pub(crate) key: Vec<u8>,
    pub(crate) hash: u32,
    pub(crate) node_refs: Vec<NodeRef>,
    pub(crate) work: JobKind,
    /// The value is cached, if the key still has this version.
    pub(crate) keep: Option<u32>,
    /// Bytes of the worker's budget.
    pub(crate) held: usize,
}

/// This part number marks the answer to the deletion of a key.
pub(crate) const CLEARED: u16 = u16::MAX;

/// All jobs of a worker.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) list: NumberedList<Job>,
    pub(crate) generation: u32,
    /// The next copy to be read.
    pub(crate) turn: usize,
    /// Jobs that continue at a certain time.
    pub(crate) timers: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Jobs {
    /// When the next job continues.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.timers.peek().map(|&Reverse((time, ..))| time)
    }
}

impl Reading {
    fn is_miss(&self, answer: &OwnedAnswer) -> bool {
        let OwnedAnswer::Reply(bytes) = answer else {
            return false;
        };
        match &self.ask {
            ReadRequest::Values { .. } => bytes.is_empty(),
            ReadRequest::Raw { .. } => match bytes.as_slice() {
                [0x81, _, _, _, _, _, 0, status, ..] => *status == 1,
                bytes => matches!(bytes, b"" | b"EN\r\n"),
            },
        }
    }

    pub(crate) fn take(
        &mut self,
        key: &[u8],
        node_refs: usize,
        unix: u64,
        answer: OwnedAnswer,
    ) -> JobStep {
        self.left = self.left.saturating_sub(1);
        match self.stage {
            Stage::Pools => {}
            Stage::Warm => return self.warm(key, unix, answer),
            Stage::Fill => {
                self.stage = Stage::Filled;
                self.left = 1;
                return JobStep {
                    ask: Some(0),
                    ..JobStep::default()
                };
            }
            Stage::Filled => return JobStep::end(answer),
        }
        let pools = node_refs - usize::from(self.warm.is_some());
        let failed = answer.failed();
        let missed = !failed && self.is_miss(&answer);
        if failed {
            self.failed.get_or_insert(answer);
        } else if missed {
            self.missed.get_or_insert(answer);
        } else if self.left > 0 {
            // The remaining answers are dropped when they arrive.
            return JobStep {
                answer: Some(answer),
                ..JobStep::default()
            };
        } else {
            return JobStep::end(answer);
        }
        if self.left > 0 {
            return JobStep::default();
        }
        let on = failed || self.policy == Read::MissFailover;
        if on && self.asked < pools {
            self.asked += 1;
            self.left = 1;
            return JobStep {
                ask: Some(self.asked - 1),
                ..JobStep::default()
            };
        }
        // A failover pool's answer counts as that of the pool it replaces.
        let Some(last) = self.missed.take() else {
            return JobStep::end(self.failed.take().unwrap_or(OwnedAnswer::Unavailable));
        };
        match self.warm {
            Some(node_ref) => {
                self.stage = Stage::Warm;
                self.left = 1;
                JobStep {
                    warm: Some((node_ref, key.to_vec())),
                    ..JobStep::default()
                }
            }
            None => JobStep::end(last),
        }
    }

    /// The warm pool's answer to `mg KEY f t v`.
    fn warm(&mut self, key: &[u8], unix: u64, answer: OwnedAnswer) -> JobStep {
        let miss = || JobStep::end(OwnedAnswer::Reply(Vec::new()));
        let OwnedAnswer::Reply(bytes) = answer else {
            // A miss in the warm pool is a miss.
            return miss();
        };
        let Some((len, flags, ttl, data)) = meta_value(&bytes) else {
            return miss();
        };
        let ttl = match i64::from(ttl.max(0)) {
            ttl if ttl <= RELATIVE_MAX => ttl,
            // A longer time to live is written as a time.
            ttl => (unix as i64 + ttl).min(i64::from(i32::MAX)),
        };
        let rest = format!(" {flags} {ttl} {len}\r\n");
        let fill = [b"add ", key, rest.as_bytes(), data].concat();
        match self.ask {
            ReadRequest::Values { cas: true, .. } => {
                self.stage = Stage::Fill;
                self.left = 1;
                JobStep {
                    fill: Some((fill, true)),
                    ..JobStep::default()
                }
            }
            _ => {
                let rest = format!(" {flags} {len}\r\n");
                let value = [b"VALUE ", key, rest.as_bytes(), data].concat();
                JobStep {
                    answer: Some(OwnedAnswer::Reply(value)),
                    fill: Some((fill, false)),
                    over: true,
                    ..JobStep::default()
                }
            }
        }
    }
}

/// Length, flags, time to live and data of `VA LEN fF tT`.
fn meta_value(bytes: &[u8]) -> Option<(usize, u32, i32, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    let mut words = Words::new(bytes[..end].strip_prefix(b"VA ")?);
    let len = hippos_proto::number::parse_u32(words.next()?)? as usize;
    let (mut flags, mut ttl) = (0, 0);
    for word in words {
        match word.split_first()? {
            (b'f', number) => flags = hippos_proto::number::parse_u32(number)?,
            (b't', number) => ttl = hippos_proto::number::parse_i32(number)?,
            _ => return None,
        }
    }
    let data = bytes.get(end + 2..)?;
    (data.len() == len + 2).then_some((len, flags, ttl, data))
}

impl Writing {
    pub(crate) fn take(&mut self, part: u16, answer: OwnedAnswer) -> JobStep {
        self.left -= 1;
        let mut step = JobStep::default();
        if part != CLEARED {
            if answer.failed() {
                self.failed.get_or_insert(answer);
            } else {
                self.done += 1;
                if part == 0 {
                    self.first = Some(answer);
                } else {
                    self.some = Some(answer);
                }
            }
            let made = [&self.first, &self.some];
            let did = made.into_iter().flatten().any(stored);
            let may_have = self.failed.is_some() && !self.compares;
            if (did || may_have) && !self.then_clear.is_empty() {
                let clear = std::mem::take(&mut self.then_clear);
                self.left += clear.len();
                step.clear = clear
                    .into_iter()
                    .map(|node_ref| (node_ref, self.binary))
                    .collect();
            }
        }
        step.over = self.left == 0;
        let enough = match self.policy {
            Write::AllSync => false,
            Write::AllMajority => self.done * 2 > self.total,
            Write::AllFastest => self.done > 0,
            Write::AllAsync => part == 0,
        };
        // Also the last one, if no other is outstanding.
        if enough || step.over {
            let done = match self.policy {
                Write::AllSync => self.done == self.total,
                Write::AllMajority => self.done * 2 > self.total,
                Write::AllFastest => self.done > 0,
                Write::AllAsync => self.first.is_some(),
            };
            let answer = match done {
                true => self.first.take().or_else(|| self.some.take()),
                false => self.failed.take(),
            };
            step.answer = Some(answer.unwrap_or(OwnedAnswer::Unavailable));
        }
        step
    }
}

/// Whether a change was made.
fn stored(answer: &OwnedAnswer) -> bool {
    match answer {
        OwnedAnswer::Reply(bytes) => match bytes.as_slice() {
            [0x81, _, _, _, _, _, status @ ..] => status.starts_with(&[0, 0]),
            // Quiet commands have no reply on success.
            bytes => {
                bytes.is_empty()
                    || bytes.starts_with(b"HD")
                    || bytes.starts_with(b"VA")
                    || bytes.starts_with(b"STORED")
                    || bytes.starts_with(b"DELETED")
                    || bytes.starts_with(b"TOUCHED")
                    || bytes[0].is_ascii_digit()
            }
        },
        _ => false,
    }
}

/// The start of a `get` or one of its variants.
pub(crate) fn get_command(cas: bool, touch: Option<i32>) -> String {
    match (cas, touch) {
        (false, None) => "get ".to_owned(),
        (true, None) => "gets ".to_owned(),
        (false, Some(time)) => format!("gat {time} "),
        (true, Some(time)) => format!("gats {time} "),
    }
}
