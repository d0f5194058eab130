// SPDX-License-Identifier: MIT

//! Values that are larger than a node's items: pieces, each an item, and a manifest under the value's key.
//!
//! A value is written under a new number each time, the pieces first: a reader finds all of the old value or all of the
//! new one, and `add`, `replace` and `cas` decide by the manifest. A manifest whose pieces are not complete, or do not
//! have its checksum, is a miss. Pieces do not expire, so that `touch` needs to change the manifest only; those of
//! values that were replaced are evicted.

use std::sync::Arc;

use hippos_proto::meta;
use hippos_proto::number::parse_u32;
use hippos_proto::reply;
use hippos_proto::text::StoreRequest;
use hippos_proto::token::Words;
use hippos_proto::StoreMode;

use crate::answer::OwnedAnswer;
use crate::config::Config;
use crate::framing::{self, Expect};
use crate::job_step::{JobStep, NodeRef, NodeRequest};
use crate::route::{PIECES_MAX, PIECE_MIN};

/// The start of a manifest. A client's own value with it is stored as a piece, so that it is none.
const MAGIC: &[u8] = b"\x01hippos-split ";

/// The nodes of a pool when a job starts; a reload does not change them for it.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) config: Arc<Config>,
    pub(crate) pool: usize,
    pub(crate) refs: Vec<NodeRef>,
}

impl Nodes {
    pub(crate) fn of(&self, key: &[u8]) -> NodeRef {
        let pool = &self.config.pools[self.pool];
        self.refs[pool.ring.node(pool.part.of(key))]
    }
}

/// The description of a value's pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    number: u64,
    len: usize,
    piece: usize,
    sum: u64,
}

impl Manifest {
    fn new(number: u64, value: &[u8], piece: usize) -> Self {
        Self {
            number,
            len: value.len(),
            piece,
            sum: checksum(value),
        }
    }

    /// A manifest for a value of at most `most` bytes.
    fn parse(data: &[u8], most: usize) -> Option<Self> {
        let mut words = Words::new(data.strip_prefix(MAGIC)?);
        let hex = |word: &[u8]| u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok();
        let number = hex(words.next()?)?;
        let len = parse_u32(words.next()?)? as usize;
        let piece = parse_u32(words.next()?)? as usize;
        let sum = hex(words.next()?)?;
        let manifest = Self {
            number,
            len,
            piece,
            sum,
        };
        let sound = piece >= PIECE_MIN as usize && len <= most;
        let whole = sound && manifest.count() <= PIECES_MAX && manifest.text() == data;
        whole.then_some(manifest)
    }

    fn text(&self) -> Vec<u8> {
        let Self {
            number,
            len,
            piece,
            sum,
        } = self;
        let words = format!("{number:016x} {len} {piece} {sum:016x}");
        [MAGIC, words.as_bytes()].concat()
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.piece).max(1)
    }

    /// The key of piece `index`.
    fn key(&self, index: usize) -> Vec<u8> {
        format!("hippos-split:{:016x}:{index}", self.number).into_bytes()
    }

    /// The length of piece `index`.
    fn piece_len(&self, index: usize) -> usize {
        (self.len - (index * self.piece).min(self.len)).min(self.piece)
    }

    /// Deletions of all pieces, whose replies are ignored.
    fn forget(&self, nodes: &Nodes) -> Vec<NodeRequest> {
        let keys = (0..self.count()).map(|index| self.key(index));
        keys.map(|key| NodeRequest {
            node_ref: nodes.of(&key),
            request: [&b"delete "[..], &key, b"\r\n"].concat(),
            expect: Expect::Line,
            part: None,
        })
        .collect()
    }
}

/// Finds pieces that belong to another value, or were damaged; it is no protection against forgery.
fn checksum(value: &[u8]) -> u64 {
    let mut sum = value.len() as u64;
    let mut mix = |word: u64| {
        sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^= sum >> 32;
    };
    let mut words = value.chunks_exact(8);
    for word in words.by_ref().filter_map(|word| word.try_into().ok()) {
        mix(u64::from_le_bytes(word));
    }
    let rest = words.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(u64::from_le_bytes(last));
    sum
}

/// Whether a value has to be stored in pieces of `piece` bytes.
pub(crate) fn is_split(value: &[u8], piece: usize) -> bool {
    value.len() > piece || value.starts_with(MAGIC)
}

/// The form of the reply to a GET.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GatherForm {
    /// `get` and its variants.
    Values { cas: bool },
    /// `mg` that returns the value, or its size alone.
    Meta { value: bool, quiet: bool },
}

/// A GET of a value that may be split.
#[derive(Debug)]
pub(crate) struct Gather {
    nodes: Nodes,
    form: GatherForm,
    /// The largest value.
    most: usize,
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    manifest: Manifest,
    /// The start of the reply, without its line end.
    head: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    left: usize,
    missing: bool,
    failed: Option<OwnedAnswer>,
}

/// Flags, CAS value and data of a value.
fn parse(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let whole = framing::value(value)?.whole;
    let end = whole.iter().position(|&byte| byte == b'\n')?;
    let mut words = Words::new(whole[..end].strip_suffix(b"\r")?);
    let flags = words.nth(2)?;
    let cas = words.nth(1).unwrap_or_default();
    Some((flags, cas, whole[end + 1..].strip_suffix(b"\r\n")?))
}

/// The flags and the data of `VA LEN FLAGS`.
fn parse_meta(reply: &[u8]) -> Option<(Words<'_>, &[u8])> {
    let rest = reply.strip_prefix(b"VA ")?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let mut words = Words::new(rest[..end].strip_suffix(b"\r")?);
    words.next()?;
    Some((words, rest[end + 1..].strip_suffix(b"\r\n")?))
}

/// Flags of a reply, with the size of the whole value.
fn with_size(words: Words<'_>, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        out.push(b' ');
        match word {
            [b's', ..] => out.extend_from_slice(format!("s{size}").as_bytes()),
            _ => out.extend_from_slice(word),
        }
    }
    out
}

impl GatherForm {
    fn miss(self) -> OwnedAnswer {
        OwnedAnswer::Reply(match self {
            GatherForm::Meta { quiet: false, .. } => reply::EN.to_vec(),
            _ => Vec::new(),
        })
    }

    /// The data in the first answer.
    fn data(self, bytes: &[u8]) -> Option<&[u8]> {
        match self {
            GatherForm::Values { .. } => parse(bytes).map(|(_, _, data)| data),
            GatherForm::Meta { .. } => parse_meta(bytes).map(|(_, data)| data),
        }
    }

    /// The start of the reply with a value of `len` bytes.
    fn head(self, key: &[u8], bytes: &[u8], len: usize) -> Vec<u8> {
        match self {
            GatherForm::Values { cas } => {
                let (flags, number, _) = parse(bytes).unwrap_or_default();
                let mut head = [b"VALUE ", key, b" ", flags].concat();
                head.extend_from_slice(format!(" {len}").as_bytes());
                if cas {
                    head.push(b' ');
                    head.extend_from_slice(number);
                }
                head
            }
            GatherForm::Meta { value, .. } => {
                let start = if value {
                    format!("VA {len}")
                } else {
                    "HD".into()
                };
                let words = parse_meta(bytes).map(|(words, _)| with_size(words, len));
                [start.as_bytes(), &words.unwrap_or_default()].concat()
            }
        }
    }

    /// The client's answer, if the value is not split.
    fn whole(self, key: &[u8], answer: OwnedAnswer) -> OwnedAnswer {
        match (self, &answer) {
            (GatherForm::Meta { quiet: true, .. }, OwnedAnswer::Reply(bytes))
                if bytes.as_slice() == reply::EN =>
            {
                self.miss()
            }
            (GatherForm::Meta { value: false, .. }, OwnedAnswer::Reply(bytes)) => {
                match self.data(bytes) {
                    Some(data) => {
                        let head = self.head(key, bytes, data.len());
                        OwnedAnswer::Reply([&head[..], reply::CRLF].concat())
                    }
                    None => answer,
                }
            }
            _ => answer,
        }
    }
}

impl Gather {
    pub(crate) fn new(nodes: Nodes, form: GatherForm, most: usize) -> Self {
        Self {
            nodes,
            form,
            most,
            found: None,
        }
    }

    /// Takes the answer to the request for the key, or to a `get` of a piece: its value, empty for a miss.
    pub(crate) fn take(&mut self, key: &[u8], part: u16, answer: OwnedAnswer) -> JobStep {
        let form = self.form;
        let Some(found) = &mut self.found else {
            let data = match &answer {
                OwnedAnswer::Reply(bytes) => form.data(bytes),
                _ => None,
            };
            let (Some(data), OwnedAnswer::Reply(bytes)) = (data, &answer) else {
                return JobStep::end(form.whole(key, answer));
            };
            if !data.starts_with(MAGIC) {
                return JobStep::end(form.whole(key, answer));
            }
            let Some(manifest) = Manifest::parse(data, self.most) else {
                return JobStep::end(form.miss());
            };
            let head = form.head(key, bytes, manifest.len);
            if let GatherForm::Meta { value: false, .. } = form {
                let line = [&head[..], reply::CRLF].concat();
                return JobStep::end(OwnedAnswer::Reply(line));
            }
            let count = manifest.count();
            let send = (0..count).map(|index| {
                let key = manifest.key(index);
                NodeRequest {
                    node_ref: self.nodes.of(&key),
                    request: [&b"get "[..], &key, b"\r\n"].concat(),
                    expect: Expect::Values,
                    part: Some(index as u16),
                }
            });
            let step = JobStep {
                send: send.collect(),
                hold: manifest.len,
                ..JobStep::default()
            };
            self.found = Some(Found {
                head,
                pieces: vec![Vec::new(); count],
                left: count,
                missing: false,
                failed: None,
                manifest,
            });
            return step;
        };
        found.left -= 1;
        match &answer {
            OwnedAnswer::Reply(bytes) => {
                let index = usize::from(part);
                let want = found.manifest.piece_len(index);
                let value = bytes.strip_suffix(reply::END);
                let data = value.and_then(parse).map(|(_, _, data)| data);
                let own = framing::value(bytes)
                    .is_some_and(|value| value.key == found.manifest.key(index));
                match (data, found.pieces.get_mut(index)) {
                    (Some(data), Some(place)) if own && data.len() == want => {
                        *place = data.to_vec();
                    }
                    _ if bytes.as_slice() == reply::END || own => found.missing = true,
                    // An error line.
                    _ => found.failed = Some(OwnedAnswer::Error(bytes.clone())),
                }
            }
            _ => found.failed = Some(answer),
        }
        if found.left > 0 {
            return JobStep::default();
        }
        if let Some(failed) = found.failed.take() {
            return JobStep::end(failed);
        }
        let data = std::mem::take(&mut found.pieces).concat();
        if found.missing || checksum(&data) != found.manifest.sum {
            return JobStep::end(form.miss());
        }
        let value = [&found.head[..], b"\r\n", &data, b"\r\n"].concat();
        JobStep::end(OwnedAnswer::Reply(value))
    }
}

/// The command that stores a manifest.
#[derive(Debug)]
pub(crate) struct StoreLine {
    /// Its line before the value's length, and after it.
    before: Vec<u8>,
    after: Vec<u8>,
    /// The request that deletes the old value, as memcached does when it cannot store the new one.
    undo: Option<Vec<u8>>,
    expect: Expect,
    quiet: bool,
}

impl StoreLine {
    pub(crate) fn text(store: &StoreRequest<'_>) -> Self {
        let (verb, cas) = match (store.mode, store.compare) {
            (_, Some(cas)) => ("cas", format!(" {cas}")),
            (StoreMode::Add, _) => ("add", String::new()),
            (StoreMode::Replace, _) => ("replace", String::new()),
            _ => ("set", String::new()),
        };
        let rest = format!(" {} {} ", store.flags, store.exptime);
        Self {
            before: [verb.as_bytes(), b" ", store.key, rest.as_bytes()].concat(),
            after: format!("{cas}\r\n").into_bytes(),
            undo: (verb == "set").then(|| [b"delete ", store.key, b"\r\n"].concat()),
            expect: Expect::Line,
            quiet: store.noreply,
        }
    }

    /// Of `ms`: the proxy leaves out the reply itself if the client wants none.
    pub(crate) fn meta(command: &meta::Command<'_>) -> Self {
        let mut after = Vec::new();
        for word in command.words().iter().filter(|word| !is_quiet(word)) {
            after.push(b' ');
            after.extend_from_slice(word);
        }
        after.extend_from_slice(reply::CRLF);
        let has = |letter| {
            command
                .words()
                .iter()
                .any(|word| word.first() == Some(&letter))
        };
        let plain = matches!(
            command.verb,
            meta::MetaVerb::Set {
                mode: StoreMode::Set,
                ..
            }
        );
        let base64: &[u8] = if has(b'b') { b" b" } else { b"" };
        let undo = [b"md ", command.key, base64, b"\r\n"].concat();
        Self {
            before: [b"ms ", command.key, b" "].concat(),
            after,
            undo: (plain && !has(b'C')).then_some(undo),
            expect: Expect::Meta,
            quiet: command.flags.quiet(),
        }
    }

    fn is_stored(&self, answer: &OwnedAnswer) -> bool {
        matches!(answer, OwnedAnswer::Reply(line) if line.starts_with(b"HD") || line.as_slice() == reply::STORED)
    }

    /// The client's answer, after a value of `len` bytes.
    fn answer(&self, answer: OwnedAnswer, len: usize) -> OwnedAnswer {
        let stored = self.is_stored(&answer);
        match answer {
            OwnedAnswer::Reply(_) if self.quiet && (stored || self.expect == Expect::Line) => {
                OwnedAnswer::Reply(Vec::new())
            }
            OwnedAnswer::Reply(line) if stored && self.expect == Expect::Meta => {
                let words = Words::new(line.trim_ascii_end());
                let mut flags = words;
                flags.next();
                OwnedAnswer::Reply([&b"HD"[..], &with_size(flags, len), reply::CRLF].concat())
            }
            answer => answer,
        }
    }
}

/// Whether a flag of a meta command asks for no reply.
pub(crate) fn is_quiet(word: &[u8]) -> bool {
    word.first() == Some(&b'q')
}

/// A SET of a value that is split.
#[derive(Debug)]
pub(crate) struct SplitWrite {
    nodes: Nodes,
    manifest: Manifest,
    line: StoreLine,
    left: usize,
    failed: Option<OwnedAnswer>,
}

impl SplitWrite {
    /// The job, and what it begins with.
    pub(crate) fn start(
        nodes: Nodes,
        line: StoreLine,
        value: &[u8],
        number: u64,
        piece: usize,
    ) -> (Self, Vec<NodeRequest>) {
        let manifest = Manifest::new(number, value, piece);
        let send = (0..manifest.count())
            .map(|index| {
                let key = manifest.key(index);
                let data = value.chunks(piece).nth(index).unwrap_or_default();
                let head = format!(" 0 0 {}\r\n", data.len());
                NodeRequest {
                    node_ref: nodes.of(&key),
                    request: [b"set ", &key[..], head.as_bytes(), data, b"\r\n"].concat(),
                    expect: Expect::Line,
                    part: Some(index as u16),
                }
            })
            .collect();
        let write = Self {
            left: manifest.count(),
            failed: None,
            nodes,
            manifest,
            line,
        };
        (write, send)
    }

    pub(crate) fn take(&mut self, key: &[u8], answer: OwnedAnswer) -> JobStep {
        let is_stored = self.line.is_stored(&answer);
        if self.left == 0 {
            let send = match is_stored {
                true => Vec::new(),
                false => self.manifest.forget(&self.nodes),
            };
            return JobStep {
                send,
                ..JobStep::end(self.line.answer(answer, self.manifest.len))
            };
        }
        self.left -= 1;
        if !is_stored {
            self.failed.get_or_insert(answer);
        }
        if self.left > 0 {
            return JobStep::default();
        }
        let node_ref = self.nodes.of(key);
        let mut step = JobStep::default();
        let Some(failed) = self.failed.take() else {
            let text = self.manifest.text();
            let StoreLine { before, after, .. } = &self.line;
            let len = text.len().to_string();
            step.send.push(NodeRequest {
                node_ref,
                request: [before, len.as_bytes(), after, &text, b"\r\n"].concat(),
                expect: self.line.expect,
                part: Some(0),
            });
            return step;
        };
        step = JobStep::end(failed);
        step.send = self.manifest.forget(&self.nodes);
        if let Some(request) = self.line.undo.take() {
            step.send.push(NodeRequest {
                node_ref,
                request,
                expect: self.line.expect,
                part: None,
            });
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_not_otherwise() {
        let value = vec![b'v'; 5000];
        let manifest = Manifest::new(7, &value, 2000);
        assert_eq!((manifest.count(), manifest.piece_len(2)), (3, 1000));
        let text = manifest.text();
        assert_eq!(Manifest::parse(&text, 5000), Some(manifest));
        assert_eq!(Manifest::parse(&text, 4999), None);
        for (from, to) in [
            (" 5000 ", " 4294967295 "),
            (" 2000 ", " 0 "),
            (" 2000 ", " 02000 "),
        ] {
            let text = String::from_utf8(text.clone()).unwrap().replace(from, to);
            assert_eq!(Manifest::parse(text.as_bytes(), 1 << 30), None, "{text:?}");
        }
        assert_eq!(Manifest::parse(&text[..text.len() - 1], 5000), None);
        assert_eq!(Manifest::parse(b"\x01hippos-split", 5000), None);
        // The empty value has a piece too.
        assert_eq!(Manifest::new(1, b"", 2000).count(), 1);
    }

    #[test]
    fn the_checksum_depends_on_each_byte_its_place_and_the_length() {
        let value: Vec<u8> = (0..100).collect();
        let sum = checksum(&value);
        for index in 0..value.len() {
            let mut other = value.clone();
            other[index] ^= 1;
            assert_ne!(checksum(&other), sum, "{index}");
            other.swap(index, (index + 8) % 100);
            assert_ne!(checksum(&other), sum, "{index}");
        }
        assert_ne!(checksum(&[0; 7]), checksum(&[0; 8]));
        assert_ne!(checksum(&[0; 16]), checksum(&[0; 8]));
    }
}
