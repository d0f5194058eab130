// SPDX-License-Identifier: GPL-2.0-only
//! The server's side of the binary protocol.

use super::{every, Answer, Contents, Server, Taken};
use crate::binary::{self, opcode, status, Header};

/// The CAS value of every item.
const CAS: u64 = 1;

impl Server {
    /// Answers the first packet of the input.
    pub(super) fn packet(&self, input: &[u8], out: &mut Answer) -> Taken {
        let Some(head) = input.first_chunk() else {
            return Taken::More;
        };
        let Some(asked) = Header::read(head) else {
            return Taken::Close;
        };
        let Some(body) = input.get(binary::HEADER..asked.packet()) else {
            return Taken::More;
        };
        let (extras, body) = body.split_at(asked.extras);
        let (key, value) = body.split_at(asked.key);
        let taken = Taken::Answered(asked.packet());
        if asked.opcode != opcode::VERSION {
            self.stall();
            if self.faults.garbage {
                out.line(&[b'?'; 2000]);
                return taken;
            }
        }
        let tell = |out: &mut Answer, status, extras: &[u8], key: &[u8], value: &[u8]| {
            let header = Header {
                opcode: asked.opcode,
                key: key.len(),
                extras: extras.len(),
                value: value.len(),
                status,
                opaque: asked.opaque,
                cas: CAS,
            };
            header.write(binary::REPLY, &mut out.bytes);
            out.parts(&[extras, key, value]);
            out.ends.push(out.bytes.len());
        };
        match asked.opcode {
            opcode::GETK | opcode::GETKQ if every(self.faults.refuse, &self.gets) => {
                tell(out, status::OUT_OF_MEMORY, b"", b"", b"refused")
            }
            opcode::GETK | opcode::GETKQ | opcode::GATK => {
                let hit = self.value(key, |flags, value| {
                    tell(out, status::OK, &flags.to_be_bytes(), key, value)
                });
                if !hit && asked.opcode != opcode::GETKQ {
                    tell(out, status::NOT_FOUND, b"", key, b"");
                }
            }
            opcode::TOUCH => {
                let hit = self.value(key, |_, _| {});
                let status = if hit { status::OK } else { status::NOT_FOUND };
                tell(out, status, b"", b"", b"");
            }
            opcode::INCR => match self.count(key) {
                Some(n) => tell(out, status::OK, b"", b"", &n.to_be_bytes()),
                None => tell(out, status::NOT_FOUND, b"", b"", b"Not found"),
            },
            opcode::SET | opcode::ADD | opcode::REPLACE | opcode::APPEND => {
                let (verb, refused): (&[u8], u16) = match asked.opcode {
                    opcode::ADD => (b"add", status::EXISTS),
                    opcode::REPLACE => (b"replace", status::NOT_FOUND),
                    opcode::APPEND => (b"append", status::NOT_STORED),
                    _ => (b"set", status::NOT_STORED),
                };
                let flags = extras.first_chunk().map_or(0, |f| u32::from_be_bytes(*f));
                let stored = self.store(verb, key, flags, value);
                let status = if stored { status::OK } else { refused };
                tell(out, status, b"", b"", b"");
            }
            opcode::DELETE => {
                let found = match &self.contents {
                    Contents::Kept(store) => store
                        .lock()
                        .is_ok_and(|mut store| store.remove(key).is_some()),
                    _ => true,
                };
                let status = if found { status::OK } else { status::NOT_FOUND };
                tell(out, status, b"", b"", b"");
            }
            opcode::NOOP => tell(out, status::OK, b"", b"", b""),
            opcode::VERSION => tell(out, status::OK, b"", b"", super::VERSION.as_bytes()),
            _ => tell(out, status::UNKNOWN, b"", b"", b"Unknown command"),
        }
        taken
    }
}
