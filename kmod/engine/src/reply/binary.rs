// SPDX-License-Identifier: GPL-2.0-only
//! Replies of the binary protocol.

use hippos_invariant::Exact;
use hippos_proto::binary::{non_quiet, op, Header, Response, Status};
use hippos_proto::reply::Out;
use hippos_store::{Outcome, StoreError};

use crate::reply::check_len;

/// The parts of a request that its reply repeats.
#[derive(Clone, Copy)]
pub(crate) struct BinaryRequest {
    /// The opcode as it was sent.
    opcode: u8,
    /// Neither success nor a miss gets a reply.
    pub(crate) quiet: bool,
    opaque: u32,
}

impl BinaryRequest {
    pub(crate) fn new(head: &Header) -> Self {
        Self {
            opcode: head.opcode,
            quiet: non_quiet(head.opcode).is_some(),
            opaque: head.opaque,
        }
    }

    /// The opcode's command, without its quiet form.
    pub(crate) fn command(&self) -> u8 {
        non_quiet(self.opcode).unwrap_or(self.opcode)
    }

    pub(crate) fn head(
        &self,
        status: Status,
        extras: usize,
        key: usize,
        value: usize,
        cas: u64,
    ) -> Response {
        Response {
            opcode: self.opcode,
            status,
            key: key as u16,
            extras: extras as u8,
            body: extras.add_exact(key).add_exact(value) as u32,
            opaque: self.opaque,
            cas,
        }
    }

    /// Reports success, with `value` as the body.
    pub(crate) fn done(&self, out: &mut impl Out, value: &[u8], cas: u64) {
        if !self.quiet {
            let head = self.head(Status::Success, 0, 0, value.len(), cas);
            put_response(out, &head, &[value], &[]);
        }
    }

    /// Reports an error, also for a quiet opcode.
    pub(crate) fn error(&self, out: &mut impl Out, status: Status) {
        self.error_text(out, status, status.text());
    }

    pub(crate) fn error_text(&self, out: &mut impl Out, status: Status, text: &[u8]) {
        let head = self.head(status, 0, 0, text.len(), 0);
        put_response(out, &head, &[text], &[]);
    }

    /// Reports the outcome of a store.
    pub(crate) fn stored(&self, outcome: Result<Outcome, StoreError>, out: &mut impl Out) {
        let status = match outcome {
            Ok(Outcome::Stored { cas, .. }) => return self.done(out, &[], cas),
            Ok(Outcome::Exists { .. }) => Status::Exists,
            Ok(Outcome::NotFound) => Status::NotFound,
            Ok(Outcome::NotStored) | Err(_) => match self.command() {
                op::ADD => Status::Exists,
                op::REPLACE => Status::NotFound,
                _ => Status::NotStored,
            },
        };
        self.error(out, status);
    }

    /// A packet of statistics.
    pub(crate) fn stat(&self, out: &mut impl Out, name: &[u8], value: &[u8]) {
        let head = self.head(Status::Success, 0, name.len(), value.len(), 0);
        put_response(out, &head, &[name, value], &[]);
    }

    /// Reports that there is no such key, with the key.
    pub(crate) fn missing_key(&self, out: &mut impl Out, key: &[u8]) {
        let head = self.head(Status::NotFound, 0, key.len(), 0, 0);
        put_response(out, &head, &[key], &[]);
    }
}

/// Writes the part before `value`, which the caller writes behind it.
pub(crate) fn put_found(out: &mut impl Out, head: &Response, flags: u32, key: &[u8], value: &[u8]) {
    put_response(out, head, &[&flags.to_be_bytes(), key], value);
}

/// Writes a header and the `parts` of the body; the body ends with `later`, which the caller writes.
#[inline(always)]
fn put_response<const N: usize>(
    out: &mut impl Out,
    head: &Response,
    parts: &[&[u8]; N],
    later: &[u8],
) {
    let body = |len: usize, part: &&[u8]| len.add_exact(part.len());
    check_len(parts.iter().fold(later.len(), body), || head.body as usize);
    out.put(&head.to_bytes());
    for part in parts {
        out.put(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hippos_proto::reply::Cursor;

    #[test]
    #[should_panic(expected = "broken invariant: 7 bytes of a reply of 8")]
    fn a_body_of_another_length_than_announced_panics() {
        let request = BinaryRequest {
            opcode: op::GETK,
            quiet: false,
            opaque: 0,
        };
        let mut buffer = [0; 64];
        let head = request.head(Status::Success, 4, 1, 3, 0);
        put_found(&mut Cursor::new(&mut buffer), &head, 0, b"k", b"va");
    }
}
