// SPDX-License-Identifier: GPL-2.0-only
//! A request that waits for its reply, and the check of the reply.

use crate::binary::{self, status};
use crate::element::Element;
use crate::payload;
use crate::request::{Request, Verb};
use crate::settings::Protocol;
use crate::stats::RequestKind;
use crate::versions::Versions;

/// A request in flight.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    /// The request, kept to compare keys with.
    pub request: Request,
    /// When it was scheduled to be sent, in nanoseconds since the start.
    pub due: u64,
    /// The version of the value that it stores.
    pub version: u32,
    /// The time that it had taken when the client gave it up; 0 while it waits.
    pub gave_up: u64,
    /// It belongs to a run that has ended.
    pub forgotten: bool,
    /// The CAS value of the last value received.
    pub cas: u64,
    /// Values are not verified: any value for a requested key is accepted.
    pub lenient: bool,
    /// The protocol that it was sent in.
    pub protocol: Protocol,
    /// A command of several (binary) was refused.
    refused: Option<u16>,
    /// Keys found so far.
    pub hits: u32,
    /// Keys missed so far (classic: known only at the end).
    pub misses: u32,
    /// For each key, the oldest version that may be returned.
    floors: Vec<u32>,
    /// For each key, whether its value was received.
    found: Vec<bool>,
}

/// The state of a request after an element of its reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The reply is not complete.
    More,
    /// Answered.
    Done(Outcome<'a>),
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome<'a> {
    Got,
    Stored,
    NotStored,
    Deleted,
    Touched,
    NotFound,
    /// The CAS value had changed.
    Exists,
    /// The new number of an INCR.
    Counted,
    Error(&'a [u8]),
}

impl Pending {
    /// Copies the needed fields of a request that is about to be sent.
    pub fn start(
        &mut self,
        request: &Request,
        due: u64,
        version: u32,
        versions: &Versions,
        protocol: Protocol,
    ) {
        self.request.clone_from(request);
        self.protocol = protocol;
        self.refused = None;
        self.due = due;
        self.version = version;
        self.gave_up = 0;
        self.forgotten = false;
        self.cas = 0;
        self.hits = 0;
        self.misses = 0;
        self.floors.clear();
        self.found.clear();
        if request.verb.reads() {
            self.floors
                .extend(request.keys.iter().map(|key| versions.floor(key.id)));
            self.found.resize(request.keys.len(), false);
        }
    }

    /// The kind under which it is measured.
    pub fn kind(&self) -> RequestKind {
        match self.request.verb {
            Verb::Get | Verb::Gets if self.request.keys.len() > 1 => RequestKind::MultiGet,
            Verb::Get | Verb::Gets => RequestKind::Get,
            Verb::Set | Verb::Add | Verb::Replace => RequestKind::Set,
            Verb::Delete => RequestKind::Delete,
            Verb::Touch => RequestKind::Touch,
            Verb::Gat => RequestKind::Gat,
            Verb::Append => RequestKind::Append,
            Verb::Incr => RequestKind::Incr,
            Verb::Cas => RequestKind::Cas,
        }
    }

    /// Whether the client has given it up.
    pub fn expired(&self) -> bool {
        self.gave_up > 0
    }

    /// Gives it up at this time, which is at least the timeout after it was sent.
    pub fn give_up(&mut self, now: u64, timeout: u64) {
        self.gave_up = now.saturating_sub(self.due).max(timeout);
    }

    /// Whether the value of its key at this index was received.
    pub fn found(&self, at: usize) -> bool {
        self.found.get(at).copied().unwrap_or(false)
    }

    /// The keys whose values were not received.
    pub fn missed(&self) -> impl Iterator<Item = &crate::request::RequestKey> {
        self.request
            .keys
            .iter()
            .zip(&self.found)
            .filter(|(_, found)| !**found)
            .map(|(key, _)| key)
    }

    /// Takes the next element of the reply; fails if the reply is wrong.
    pub fn take<'a>(&mut self, element: Element<'a>) -> Result<Progress<'a>, String> {
        match element {
            Element::Value {
                key,
                flags,
                cas,
                data,
            } if self.request.verb.reads() => {
                self.value(key, flags, data)?;
                self.hits += 1;
                self.cas = cas;
                Ok(self.done_if_all_answered())
            }
            Element::End if self.request.verb.reads() => {
                self.misses = self.request.keys.len() as u32 - self.hits;
                Ok(Progress::Done(match self.refused {
                    None => Outcome::Got,
                    Some(status) => Outcome::Error(binary::error(status)),
                }))
            }
            Element::Miss if self.request.verb.reads() => {
                self.misses += 1;
                Ok(self.done_if_all_answered())
            }
            Element::Miss if self.request.verb == Verb::Touch => {
                Ok(Progress::Done(Outcome::NotFound))
            }
            Element::Status {
                opcode,
                status,
                opaque,
            } => self.status(opcode, status, opaque),
            Element::Line(line) => self.line(line).map(Progress::Done),
            Element::Malformed(why) => Err(format!("{}: {why}", self.what())),
            other => Err(format!(
                "{} was answered with {}",
                self.what(),
                brief(&format!("{other:?}"))
            )),
        }
    }

    fn done_if_all_answered<'a>(&self) -> Progress<'a> {
        let each_is_answered = match self.protocol {
            Protocol::Classic => false,
            Protocol::Meta => true,
            Protocol::Binary => self.request.keys.len() == 1,
        };
        if each_is_answered && self.hits + self.misses >= self.request.keys.len() as u32 {
            return Progress::Done(Outcome::Got);
        }
        Progress::More
    }

    fn status<'a>(&mut self, opcode: u8, status: u16, opaque: u32) -> Result<Progress<'a>, String> {
        let verb = self.request.verb;
        let several = verb.reads() && self.request.keys.len() > 1;
        let asked = match several {
            true => opcode == binary::opcode::GETKQ || opcode == binary::opcode::NOOP,
            false => opcode == binary::command(verb),
        };
        let key = self.request.keys.first().map_or(0, |key| key.hash);
        if !asked || opaque != binary::opaque(key) {
            return Err(format!(
                "{} was answered with opcode {opcode:#04x}, status {status:#04x}, opaque \
                 {opaque:#010x}, which it did not ask for",
                self.what()
            ));
        }
        let outcome = match (status, verb) {
            (status::OK, verb) if verb.stores() => Outcome::Stored,
            (status::OK, Verb::Delete) => Outcome::Deleted,
            (status::OK, Verb::Touch) => Outcome::Touched,
            (status::OK, Verb::Incr) => Outcome::Counted,
            (status::EXISTS, Verb::Cas) => Outcome::Exists,
            (status::EXISTS, Verb::Add) => Outcome::NotStored,
            (status::NOT_FOUND, Verb::Replace | Verb::Append) => Outcome::NotStored,
            (status::NOT_STORED, verb) if verb.stores() => Outcome::NotStored,
            (status::NOT_FOUND, verb) if !verb.reads() => Outcome::NotFound,
            (status, _) if status > status::NOT_STORED || (3..5).contains(&status) => {
                if several {
                    // The end of the reply follows.
                    self.refused = Some(status);
                    return Ok(Progress::More);
                }
                Outcome::Error(binary::error(status))
            }
            _ => {
                return Err(format!(
                    "{} was answered with status {status:#04x}",
                    self.what()
                ))
            }
        };
        Ok(Progress::Done(outcome))
    }

    fn line<'a>(&self, line: &'a [u8]) -> Result<Outcome<'a>, String> {
        let verb = self.request.verb;
        let outcome = match line {
            b"STORED" if verb.stores() => Outcome::Stored,
            b"NOT_STORED" if verb.stores() => Outcome::NotStored,
            b"DELETED" if verb == Verb::Delete => Outcome::Deleted,
            b"TOUCHED" if verb == Verb::Touch => Outcome::Touched,
            b"NOT_FOUND" if !verb.reads() && !verb.stores() => Outcome::NotFound,
            line if line.starts_with(b"HD") && verb.stores() => Outcome::Stored,
            line if line.starts_with(b"HD") && verb == Verb::Delete => Outcome::Deleted,
            line if line.starts_with(b"HD") && verb == Verb::Touch => Outcome::Touched,
            line if line.starts_with(b"HD") && verb == Verb::Incr => Outcome::Counted,
            line if verb == Verb::Incr && line.iter().all(u8::is_ascii_digit) => Outcome::Counted,
            b"EXISTS" if verb == Verb::Cas => Outcome::Exists,
            b"NOT_FOUND" if verb == Verb::Cas => Outcome::NotFound,
            line if line.starts_with(b"EX") && verb == Verb::Cas => Outcome::Exists,
            line if line.starts_with(b"NF") && verb == Verb::Cas => Outcome::NotFound,
            line if line.starts_with(b"NS") && verb.stores() => Outcome::NotStored,
            line if line.starts_with(b"NF") && verb == Verb::Delete => Outcome::NotFound,
            line if is_error(line) => Outcome::Error(line),
            line => {
                return Err(format!(
                    "{} was answered with {}",
                    self.what(),
                    brief(&format!("{:?}", String::from_utf8_lossy(line)))
                ))
            }
        };
        Ok(outcome)
    }

    /// Verifies a value that was received for one of the keys.
    fn value(&mut self, name: &[u8], flags: u32, data: &[u8]) -> Result<(), String> {
        let shown = || brief(&String::from_utf8_lossy(name));
        let mut waiting = self
            .request
            .keys
            .iter()
            .zip(&self.found)
            .map(|(key, found)| !found && self.request.key(key) == name);
        let Some(at) = waiting.position(|yes| yes) else {
            return Err(format!(
                "{} was answered with key {}, which it did not ask for",
                self.what(),
                shown()
            ));
        };
        let key = self.request.keys[at];
        self.found[at] = true;
        if self.lenient {
            return Ok(());
        }
        let shown = shown();
        if key.absent() {
            return Err(format!(
                "key {shown} was never stored, and yet it has a value of {} bytes",
                data.len()
            ));
        }
        if key.value_len != crate::request::RequestKey::UNKNOWN
            && key.value_len as usize != data.len()
        {
            return Err(format!(
                "key {shown}: value of {} bytes, not {}",
                data.len(),
                key.value_len
            ));
        }
        if flags != payload::flags(key.hash) {
            return Err(format!(
                "key {shown}: flags {flags}, not {}",
                payload::flags(key.hash)
            ));
        }
        match payload::check(data, key.hash) {
            Err(offset) => {
                let end = (offset + 16).min(data.len());
                Err(format!(
                    "key {shown}: value of {} bytes is wrong from byte {offset} on: {:02x?}",
                    data.len(),
                    &data[offset..end]
                ))
            }
            Ok(Some(version)) if version < self.floors[at] => Err(format!(
                "key {shown}: stale value, version {version}, after version {} was acknowledged",
                self.floors[at]
            )),
            Ok(_) => Ok(()),
        }
    }

    fn what(&self) -> String {
        let key = self
            .request
            .keys
            .first()
            .map(|key| String::from_utf8_lossy(self.request.key(key)));
        let more = match self.request.keys.len() {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        format!(
            "{} {}{more}",
            self.request.verb.word(),
            key.unwrap_or_default()
        )
    }
}

/// The beginning of a text that may be long.
pub(crate) fn brief(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_string(),
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
    }
}

fn is_error(line: &[u8]) -> bool {
    line == b"ERROR"
        || [&b"ERROR "[..], b"CLIENT_ERROR", b"SERVER_ERROR"]
            .iter()
            .any(|e| line.starts_with(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestKey;
    use crate::wire;

    fn pending(verb: Verb, keys: &[(&str, u64, u32)]) -> Pending {
        let mut request = Request::default();
        request.reset(verb);
        for (key, id, len) in keys {
            request.push(*id, *len, |out| out.extend_from_slice(key.as_bytes()));
        }
        let mut pending = Pending::default();
        pending.start(&request, 0, 1, &Versions::new(0, 0), Protocol::Classic);
        pending
    }

    fn reply(key: &str, len: usize, version: u32) -> Vec<u8> {
        let hash = payload::hash(key.as_bytes());
        let mut out = format!("VALUE {key} {} {len}\r\n", payload::flags(hash)).into_bytes();
        payload::append(&mut out, len, hash, version);
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Feeds a whole reply.
    fn feed(pending: &mut Pending, mut input: &[u8]) -> Result<bool, String> {
        let mut done = false;
        while let Some((element, len)) = wire::element(pending.protocol, input) {
            done = matches!(pending.take(element)?, Progress::Done(_));
            input = &input[len..];
        }
        Ok(done)
    }

    #[test]
    fn hits_and_misses_are_distinguished() {
        let mut get = pending(Verb::Get, &[("a", 0, 20), ("b", 1, 20), ("c", 2, 5)]);
        let all = [reply("a", 20, 3), reply("c", 5, 0), b"END\r\n".to_vec()].concat();
        assert_eq!(feed(&mut get, &all), Ok(true));
        assert_eq!((get.hits, get.misses), (2, 1));
        assert_eq!(get.missed().count(), 1);
    }

    #[test]
    fn meta_replies_end_with_the_last_key() {
        let hash = payload::hash(b"a");
        let mut hit = format!("VA 9 ka f{}\r\n", payload::flags(hash)).into_bytes();
        payload::append(&mut hit, 9, hash, 3);
        hit.extend_from_slice(b"\r\n");
        let mut get = pending(Verb::Get, &[("a", 0, 9), ("b", 1, 9)]);
        get.protocol = Protocol::Meta;
        assert_eq!(feed(&mut get, &hit), Ok(false));
        assert_eq!(feed(&mut get, b"EN kb\r\n"), Ok(true));
        let mut get = pending(Verb::Get, &[("a", 0, 9)]);
        get.protocol = Protocol::Meta;
        assert_eq!(feed(&mut get, &hit), Ok(true));
    }

    #[test]
    fn wrong_replies_are_refused() {
        let right = reply("a", 20, 3);
        let mut damaged = right.clone();
        let last = damaged.len() - 3;
        damaged[last] ^= 1;
        let cases: [(&str, Vec<u8>); 6] = [
            ("another key", reply("b", 20, 3)),
            ("another length", reply("a", 19, 3)),
            ("damaged", damaged),
            ("twice", [right.clone(), right.clone()].concat()),
            ("a line", b"HELLO\r\n".to_vec()),
            ("another command's line", b"STORED\r\n".to_vec()),
        ];
        for (name, input) in cases {
            assert!(
                feed(&mut pending(Verb::Get, &[("a", 0, 20)]), &input).is_err(),
                "{name}"
            );
        }
        let flags = String::from_utf8_lossy(&right[8..13]).into_owned();
        let mut other_flags = right.clone();
        other_flags[8] = if flags.starts_with('1') { b'2' } else { b'1' };
        assert!(
            feed(&mut pending(Verb::Get, &[("a", 0, 20)]), &other_flags).is_err(),
            "flags"
        );
        assert!(feed(
            &mut pending(Verb::Get, &[("a", RequestKey::ABSENT, 20)]),
            &right
        )
        .unwrap_err()
        .contains("never stored"));
        assert_eq!(
            feed(&mut pending(Verb::Get, &[("a", 0, 20)]), &right),
            Ok(false)
        );
    }

    fn status_of(opcode: u8, status: u16, opaque: u32) -> Element<'static> {
        Element::Status {
            opcode,
            status,
            opaque,
        }
    }

    #[test]
    fn binary_replies_have_their_outcome() {
        use binary::opcode::{ADD, APPEND, DELETE, INCR, REPLACE, SET, TOUCH};
        let opaque = binary::opaque(payload::hash(b"a"));
        let cases = [
            (Verb::Set, SET, 0, Outcome::Stored),
            (Verb::Set, SET, 3, Outcome::Error(binary::error(3))),
            (Verb::Set, SET, 0x82, Outcome::Error(binary::error(0x82))),
            (Verb::Add, ADD, 2, Outcome::NotStored),
            (Verb::Replace, REPLACE, 1, Outcome::NotStored),
            (Verb::Append, APPEND, 5, Outcome::NotStored),
            (Verb::Cas, SET, 2, Outcome::Exists),
            (Verb::Cas, SET, 1, Outcome::NotFound),
            (Verb::Delete, DELETE, 0, Outcome::Deleted),
            (Verb::Delete, DELETE, 1, Outcome::NotFound),
            (Verb::Touch, TOUCH, 0, Outcome::Touched),
            (Verb::Touch, TOUCH, 1, Outcome::NotFound),
            (Verb::Incr, INCR, 0, Outcome::Counted),
            (Verb::Incr, INCR, 1, Outcome::NotFound),
        ];
        for (verb, opcode, status, outcome) in cases {
            let mut pending = pending(verb, &[("a", 0, 1)]);
            pending.protocol = Protocol::Binary;
            for (opcode, opaque) in [(opcode, opaque ^ 1), (opcode ^ 0x40, opaque)] {
                let wrong = pending.take(status_of(opcode, status, opaque));
                assert!(wrong.is_err(), "{verb:?}: {wrong:?}");
            }
            assert_eq!(
                pending.take(status_of(opcode, status, opaque)),
                Ok(Progress::Done(outcome)),
                "{verb:?}"
            );
        }
    }

    #[test]
    fn one_refusal_of_several_binary_gets_does_not_end_the_reply() {
        let mut get = pending(Verb::Get, &[("a", 0, 20), ("b", 1, 20)]);
        get.protocol = Protocol::Binary;
        let opaque = binary::opaque(payload::hash(b"a"));
        let refused = status_of(binary::opcode::GETKQ, 0x82, opaque);
        assert_eq!(get.take(refused), Ok(Progress::More));
        assert_eq!(
            get.take(Element::End),
            Ok(Progress::Done(Outcome::Error(binary::error(0x82))))
        );
    }

    #[test]
    fn stale_values_are_refused() {
        let versions = Versions::new(1, 100);
        let mut get = pending(Verb::Get, &[("a", 0, 20)]);
        let old = versions.begin(0);
        versions.end(0, old, true);
        let new = versions.begin(0);
        versions.end(0, new, true);
        let request = get.request.clone();
        get.start(&request, 0, 0, &versions, Protocol::Classic);
        assert!(feed(&mut get.clone(), &reply("a", 20, old))
            .unwrap_err()
            .contains("stale"));
        assert_eq!(feed(&mut get.clone(), &reply("a", 20, new)), Ok(false));
        assert_eq!(feed(&mut get, &reply("a", 20, payload::NEWEST)), Ok(false));
    }

    #[test]
    fn other_replies_have_their_outcome() {
        let cases: [(Verb, &[u8], Outcome); 9] = [
            (Verb::Set, b"STORED", Outcome::Stored),
            (Verb::Set, b"HD", Outcome::Stored),
            (Verb::Add, b"NOT_STORED", Outcome::NotStored),
            (
                Verb::Set,
                b"SERVER_ERROR out",
                Outcome::Error(b"SERVER_ERROR out"),
            ),
            (Verb::Get, b"ERROR", Outcome::Error(b"ERROR")),
            (Verb::Delete, b"DELETED", Outcome::Deleted),
            (Verb::Delete, b"NF", Outcome::NotFound),
            (Verb::Touch, b"NOT_FOUND", Outcome::NotFound),
            (Verb::Touch, b"TOUCHED", Outcome::Touched),
        ];
        for (verb, line, outcome) in cases {
            assert_eq!(
                pending(verb, &[("a", 0, 1)]).take(Element::Line(line)),
                Ok(Progress::Done(outcome))
            );
        }
    }
}
