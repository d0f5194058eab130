// SPDX-License-Identifier: MIT

//! A command about a lock, which is an item, while its node answers.

use hippos_proto::number::parse_u64;
use hippos_proto::reply;

use crate::answer::OwnedAnswer;
use crate::client::Lock;
use crate::job_step::JobStep;

/// A lock operation in flight.
#[derive(Debug)]
pub(crate) enum LockOperation {
    Take(Lock),
    Keep(Lock),
    GiveBack,
}

impl LockOperation {
    /// The reply to the client, and the lock that it holds then.
    pub(crate) fn take(&mut self, answer: OwnedAnswer) -> JobStep {
        let OwnedAnswer::Reply(bytes) = &answer else {
            return JobStep::end(answer);
        };
        let cas = bytes
            .strip_prefix(b"HD c")
            .and_then(|rest| parse_u64(rest.strip_suffix(b"\r\n")?));
        // Error replies have flags too.
        let gone = matches!(bytes.get(..2), Some(b"EX" | b"NF" | b"NS"));
        if let (Some(cas), LockOperation::Take(lock) | LockOperation::Keep(lock)) =
            (cas, &mut *self)
        {
            lock.cas = cas;
            let lock = Some(lock.clone());
            let line: &[u8] = match self {
                LockOperation::Take(_) => reply::STORED,
                _ => b"TOUCHED\r\n",
            };
            return JobStep {
                lock,
                ..JobStep::end(OwnedAnswer::Reply(line.to_vec()))
            };
        }
        let line: &[u8] = match self {
            LockOperation::Take(_) if gone => b"NOT_STORED\r\n",
            LockOperation::GiveBack if bytes.starts_with(b"HD") => b"DELETED\r\n",
            _ if gone => b"NOT_FOUND\r\n",
            _ => return JobStep::end(answer),
        };
        JobStep::end(OwnedAnswer::Reply(line.to_vec()))
    }
}
