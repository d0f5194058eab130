// SPDX-License-Identifier: GPL-2.0-only
//! Reads the requests of a trace, in any format.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{anyhow, bail, ensure, Context, Result};

use super::columns::{self, Fields, Named};
use super::detect::detect;
use super::format::{Columns, Format, TimeUnit};
use super::input::{self, Input};
use super::tokens::{self, Item};
use crate::request::{Request, RequestKey, Verb};
use crate::workload::{KEY_MAX, VALUE_MAX};

/// The longest line, or quoted record of several lines.
const LINE_MAX: usize = 64 << 20;
/// A record of libCacheSim's oracleGeneral.
const ORACLE: usize = 24;
/// The byte-order mark that some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// How to read a trace.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The format, if it is not to be detected from the first line.
    pub format: Option<Format>,
    /// The meaning of each column ([`Format::Columns`]).
    pub columns: Option<Columns>,
    /// The delimiter between fields, if it is not the format's.
    pub delimiter: Option<u8>,
    /// The first line is a header, and skipped.
    pub header: bool,
    /// Unit of the times, if not the format's.
    pub time_unit: Option<TimeUnit>,
    /// zstd windows of up to 2 GB.
    pub long: bool,
    /// The prefix of every key.
    pub prefix: String,
}

/// Events while reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that were cut to memcached's maximum length.
    pub cut_keys: u64,
    /// The last line was incomplete, and skipped.
    pub truncated: bool,
}

/// Reads the requests of a trace.
pub struct Reader {
    paths: Vec<PathBuf>,
    /// The index of the file that is being read.
    at: usize,
    options: Options,
    input: Input,
    line: Vec<u8>,
    number: u64,
    fields: Fields,
    format: Format,
    columns: Columns,
    delimiter: u8,
    /// A header may occur again.
    named: bool,
    /// The current line is the first one and has been read, but not parsed.
    ahead: bool,
    /// The time of the first request, and the offset that is added to later ones.
    first: Option<u64>,
    shift: u64,
    latest: u64,
    /// Copies of the last request that are still to be returned.
    repeat: u64,
    last: (u64, Request),
    /// A GET of the `watch` log, which may turn out to be the lookup of a following store.
    look_up: Option<Item>,
    item: Option<Item>,
    counts: Counts,
    read: Arc<AtomicU64>,
    size: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("paths", &self.paths)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a trace of one or more files. The compression of each and, if it is not given, the format are detected
    /// from its first bytes.
    pub fn open(paths: &[PathBuf], options: &Options) -> Result<Self> {
        let first = paths.first().context("no trace is named")?;
        let read = Arc::new(AtomicU64::new(0));
        let size = paths
            .iter()
            .map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()))
            .sum();
        let mut reader = Self {
            paths: paths.to_vec(),
            at: 0,
            options: options.clone(),
            input: input::open(first, options.long, &read)?,
            line: Vec::new(),
            number: 0,
            fields: Fields::default(),
            format: Format::Hippos,
            columns: Columns::default(),
            delimiter: b',',
            named: false,
            ahead: false,
            first: None,
            shift: 0,
            latest: 0,
            repeat: 0,
            last: (0, Request::default()),
            look_up: None,
            item: None,
            counts: Counts::default(),
            read,
            size,
        };
        reader.begin()?;
        Ok(reader)
    }

    /// Opens the trace again from its first file; times continue.
    pub fn rewind(&mut self) -> Result<()> {
        self.at = 0;
        self.shift = self.latest + 1;
        self.first = None;
        self.input = input::open(&self.paths[0], self.options.long, &self.read)?;
        self.begin()
    }

    fn name(&self) -> std::path::Display<'_> {
        self.paths[self.at].display()
    }

    /// Reads the first line of a file, and detects the format from it.
    fn begin(&mut self) -> Result<()> {
        self.number = 0;
        self.ahead = false;
        let place = |reader: &Self| format!("{}: line 1", reader.name());
        let head = match self.input.fill_buf() {
            Ok(head) => head,
            Err(e) => return Err(e).with_context(|| place(self)),
        };
        ensure!(!head.is_empty(), "{}: empty", self.name());
        let binary = head[..head.len().min(ORACLE)].contains(&0);
        if self.options.format == Some(Format::OracleGeneral)
            || (self.options.format.is_none() && self.options.columns.is_none() && binary)
        {
            self.format = Format::OracleGeneral;
            return Ok(());
        }
        if head.starts_with(BYTE_ORDER_MARK) {
            self.input.consume(BYTE_ORDER_MARK.len());
        }
        // Comments before the header are a feature of this project's own format.
        loop {
            ensure!(
                self.next_line(false).with_context(|| place(self))?,
                "{}: it holds no request",
                self.name()
            );
            let remark = self.line.starts_with(b"#") && Named::read(&self.line, b',').is_none();
            let greeting = self.line.trim_ascii() == b"OK";
            let first = greeting || self.line.is_empty() || (remark && self.number < 100);
            if !first {
                break;
            }
        }
        let given = match self.options.columns {
            Some(_) => Some(Format::Columns),
            None => self.options.format,
        };
        self.delimiter = self.options.delimiter.unwrap_or_else(|| {
            let has = |delimiter: &&u8| self.line.contains(delimiter);
            match given {
                Some(Format::Wikimedia) => b'\t',
                Some(Format::Hippos | Format::Twitter | Format::Cachelib | Format::Memtier) => b',',
                _ => *b",\t|;".iter().find(has).unwrap_or(&b','),
            }
        });
        self.format = match given.or_else(|| detect(&self.line, self.delimiter)) {
            Some(format) => format,
            None => bail!(
                "{}: line {}: {:?} is of no known format; there are {}; name one with --format, or the columns with --columns",
                self.name(),
                self.number,
                crate::pending::brief(String::from_utf8_lossy(&self.line).trim_end()),
                Format::shapes()
            ),
        };
        self.columns = self.options.columns.unwrap_or(self.format.columns());
        self.named = false;
        self.ahead = true;
        let header = Named::read(&self.line, self.delimiter);
        if self.options.header || self.options.columns.is_some() && header.is_some() {
            self.ahead = false;
        } else if let Some(named) = header {
            self.columns = named.columns;
            self.ahead = false;
        }
        self.named = !self.ahead && self.options.columns.is_none();
        ensure!(
            self.format != Format::Hippos || self.options.format.is_none() || self.named,
            "{}: line 1: want the header {}",
            self.name(),
            super::HEADER
        );
        Ok(())
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The events so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether times are whole seconds, so that many requests have the same.
    pub fn coarse(&self) -> bool {
        self.unit() == TimeUnit::S.nanos()
    }

    fn unit(&self) -> u64 {
        self.options
            .time_unit
            .map_or(self.format.unit(), TimeUnit::nanos)
    }

    /// The size of the files, and how many bytes have been read.
    pub fn progress(&self) -> (u64, u64) {
        (self.size, self.read.load(Ordering::Relaxed))
    }

    /// Whether the trace has the time of each request.
    pub fn has_times(&self) -> bool {
        match self.format {
            Format::OracleGeneral | Format::Watch => true,
            Format::Metadump | Format::LibcachesimTxt => false,
            _ => self.columns.time.is_some(),
        }
    }

    /// The next request with its time in nanoseconds since the first; `None` at the end. Errors name the file and the
    /// line; reading may continue after them.
    pub fn read(&mut self) -> Result<Option<(u64, Request)>> {
        while self.repeat == 0 {
            let Some((time, count, request)) = self.record()? else {
                return Ok(None);
            };
            let mut first = *self.first.get_or_insert(time);
            if time < first {
                // The next file's times start again.
                self.shift = self.latest;
                self.first = Some(time);
                first = time;
            }
            let at = self.shift + (time - first);
            self.latest = self.latest.max(at);
            self.last = (at, request);
            self.repeat = count;
        }
        self.repeat -= 1;
        if self.repeat == 0 {
            return Ok(Some(std::mem::take(&mut self.last)));
        }
        Ok(Some(self.last.clone()))
    }

    /// The next record of all files: time, count, request.
    fn record(&mut self) -> Result<Option<(u64, u64, Request)>> {
        loop {
            if let Some(item) = self.item.take() {
                return self.item(item).map(Some);
            }
            if self.format == Format::OracleGeneral {
                if let Some(record) = self.oracle()? {
                    return Ok(Some(record));
                }
            } else if self.ahead || self.line_of_file()? {
                self.ahead = false;
                if let Some(record) = self.parse_or_remap()? {
                    return Ok(Some(record));
                }
                continue;
            } else if let Some(item) = self.look_up.take() {
                return self.item(item).map(Some);
            }
            if self.at + 1 == self.paths.len() {
                return Ok(None);
            }
            self.at += 1;
            self.input = input::open(&self.paths[self.at], self.options.long, &self.read)?;
            self.begin()?;
        }
    }

    fn line_of_file(&mut self) -> Result<bool> {
        let quotes = self.format.quotes();
        let number = self.number;
        self.next_line(quotes)
            .with_context(|| format!("{}: after line {number}", self.name()))
    }

    /// Reads a line, without its end; with `quotes`, as many lines as a quoted field has.
    fn next_line(&mut self, quotes: bool) -> Result<bool> {
        self.line.clear();
        loop {
            self.number += 1;
            let before = self.line.len();
            let limit = (LINE_MAX - before) as u64;
            if (&mut self.input)
                .take(limit)
                .read_until(b'\n', &mut self.line)?
                == 0
            {
                ensure!(self.line.len() < LINE_MAX, "a line of more than 64 MB");
                return Ok(before > 0);
            }
            let odd = quotes && memchr::memchr_iter(b'"', &self.line).count() % 2 == 1;
            if !odd || !self.line.ends_with(b"\n") {
                break;
            }
        }
        Ok(true)
    }

    fn parse_or_remap(&mut self) -> Result<Option<(u64, u64, Request)>> {
        let whole = self.line.ends_with(b"\n");
        while let [.., b'\n' | b'\r'] = self.line.as_slice() {
            self.line.pop();
        }
        if self.line.is_empty() || (self.line[0] == b'#' && self.format == Format::Hippos) {
            return Ok(None);
        }
        let error = match self.parse() {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        // Concatenated files have a header in the middle.
        if self.options.columns.is_none() && !self.format.tokens() {
            if let Some(named) = Named::read(&self.line, self.delimiter) {
                self.columns = named.columns;
                return Ok(None);
            }
        }
        let last = !whole && self.at + 1 == self.paths.len();
        if last && self.first.is_some() {
            self.counts.truncated = true;
            return Ok(None);
        }
        Err(error.context(format!("{}: line {}", self.name(), self.number)))
    }

    fn parse(&mut self) -> Result<Option<(u64, u64, Request)>> {
        match self.format {
            Format::Watch => {
                let Some(item) = tokens::watch(&self.line)? else {
                    return Ok(None);
                };
                // Every store and delete is logged with a lookup of its own.
                let before = self.look_up.take();
                if item.verb == Verb::Get {
                    self.look_up = Some(item);
                } else {
                    let own = before.as_ref().is_some_and(|before| before.key == item.key);
                    if let (false, Some(before)) = (own, before) {
                        self.item = Some(item);
                        return self.item(before).map(Some);
                    }
                    return self.item(item).map(Some);
                }
                before.map(|before| self.item(before)).transpose()
            }
            Format::Metadump => match tokens::metadump(&self.line)? {
                Some(item) => self.item(item).map(Some),
                None => Ok(None),
            },
            _ => self.row(),
        }
    }

    fn item(&mut self, item: Item) -> Result<(u64, u64, Request)> {
        let mut request = Request::default();
        request.reset(item.verb);
        self.push(&mut request, &item.key, 0)?;
        sizes(&mut request, item.size, item.ttl)?;
        Ok((item.time * 1000, 1, request))
    }

    fn row(&mut self) -> Result<Option<(u64, u64, Request)>> {
        let line = std::mem::take(&mut self.line);
        let row = self.row_of(&line);
        self.line = line;
        row
    }

    fn row_of(&mut self, line: &[u8]) -> Result<Option<(u64, u64, Request)>> {
        let mut fields = std::mem::take(&mut self.fields);
        if self.format.quotes() && line.contains(&b'"') {
            fields.unquote(line, self.delimiter)?;
        } else {
            fields.split(line, self.delimiter);
        }
        let row = self.row_in(line, &fields);
        self.fields = fields;
        row
    }

    fn row_in(&mut self, line: &[u8], fields: &Fields) -> Result<Option<(u64, u64, Request)>> {
        let n = fields.len();
        let c = self.columns;
        let few = || anyhow!("it has {n} fields, and wants more");
        // Keys of Twitter's traces may hold commas; the other columns do not.
        let extra = match self.format {
            Format::Twitter if n > 7 => n - 7,
            _ => 0,
        };
        let field = |at: usize| {
            let at = if at > c.key { at + extra } else { at };
            fields.get(line, at).ok_or_else(few)
        };
        let or = |at: Option<usize>| at.map(field).transpose();
        match self.format {
            Format::Hippos => ensure!(n == 5, "it has {n} fields, and wants 5: {}", super::HEADER),
            Format::Twitter => ensure!(n >= 7, "it has {n} fields, and Twitter's traces have 7"),
            _ => {}
        }
        let verb = match or(c.op)? {
            Some(word) => columns::known_verb(word)?,
            None => columns::known_verb(self.format.default_op().as_bytes())?,
        };
        // Optional at the end of CacheLib's lines.
        let optional = |at: Option<usize>| at.filter(|at| at + extra < n).map(field).transpose();
        let count = match optional(c.count)? {
            Some(count) => columns::whole(count, "op_count")?,
            None => 1,
        };
        if count == 0 {
            return Ok(None);
        }
        let mut request = Request::default();
        request.reset(verb);
        let key_size = match optional(c.key_size)? {
            Some(size) => columns::whole(size, "key size")?,
            None => 0,
        };
        let key = match extra {
            0 => field(c.key)?,
            _ => fields.range(line, c.key, c.key + extra),
        };
        if self.format == Format::Hippos && key.contains(&b' ') {
            for key in key.split(|b| *b == b' ') {
                self.push(&mut request, key, 0)?;
            }
            ensure!(verb.reads(), "several keys are for get and gets only");
        } else {
            self.push(&mut request, key, key_size)?;
        }
        let size = match or(c.size)? {
            Some(size) => columns::whole(size, "size")?,
            None => 0,
        };
        let ttl = match optional(c.ttl)? {
            Some(ttl) => columns::number(ttl, "TTL")?,
            None => 0.0,
        };
        sizes(&mut request, size, ttl)?;
        let time = match or(c.time)? {
            Some(time) => columns::time(time, self.unit(), "time")?,
            None => 0,
        };
        Ok(Some((time, count, request)))
    }

    fn oracle(&mut self) -> Result<Option<(u64, u64, Request)>> {
        let mut record = [0; ORACLE];
        let mut have = 0;
        while have < ORACLE {
            match self.input.read(&mut record[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) => {
                    let place = format!("{}: record {}", self.name(), self.number + 1);
                    return Err(e).context(place);
                }
            }
        }
        self.number += 1;
        if have < ORACLE {
            self.counts.truncated |= have > 0;
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        let time = columns::time(word(0).to_string().as_bytes(), self.unit(), "time")?;
        let id = u64::from(word(8)) << 32 | u64::from(word(4));
        let mut request = Request::default();
        request.reset(Verb::Get);
        self.push(&mut request, id.to_string().as_bytes(), 0)?;
        let place = format!("{}: record {}", self.name(), self.number);
        sizes(&mut request, u64::from(word(12)), 0.0).context(place)?;
        Ok(Some((time, 1, request)))
    }

    /// Adds a key, padded with zeros to its size before anonymisation, and cut to memcached's maximum length.
    fn push(&mut self, request: &mut Request, key: &[u8], size: u64) -> Result<()> {
        ensure!(!key.is_empty(), "the key is empty");
        ensure!(
            key.iter().all(|b| *b > b' ' && *b != 0x7f),
            "the key holds a space or a control character"
        );
        let prefix = self.options.prefix.as_bytes();
        let room = KEY_MAX as usize - prefix.len();
        let len = key.len().max(size.min(u64::from(KEY_MAX)) as usize);
        self.counts.cut_keys += u64::from(len > room || size > u64::from(KEY_MAX));
        let len = len.min(room);
        request.push(RequestKey::NO_ID, RequestKey::UNKNOWN, |out| {
            out.extend_from_slice(prefix);
            let end = out.len() + len;
            out.extend_from_slice(&key[..key.len().min(len)]);
            out.resize(end, b'0');
        });
        Ok(())
    }
}

fn sizes(request: &mut Request, size: u64, ttl: f64) -> Result<()> {
    ensure!(
        size <= u64::from(VALUE_MAX),
        "a value of {size} bytes is more than any server takes"
    );
    request.value_len = size as u32;
    // Negative and very large values mean never; a fraction of a second counts as one.
    request.ttl = match ttl.ceil() {
        ttl if ttl > 0.0 && ttl <= f64::from(u32::MAX) => ttl as u32,
        _ => 0,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use std::io::Write;
    use std::path::Path;

    fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    /// Time, operation, keys, size, TTL of a request.
    type Row = (u64, &'static str, String, u32, u32);

    fn all(path: &Path) -> Result<Vec<Row>> {
        let mut reader = Reader::open(&[path.to_path_buf()], &Options::default())?;
        let mut out = Vec::new();
        while let Some((at, request)) = reader.read()? {
            let keys = request
                .keys
                .iter()
                .map(|key| String::from_utf8_lossy(request.key(key)).into_owned());
            let keys = keys.collect::<Vec<_>>().join(" ");
            out.push((
                at,
                request.verb.word(),
                keys,
                request.value_len,
                request.ttl,
            ));
        }
        Ok(out)
    }

    fn texts(text: &str) -> Result<Vec<Row>> {
        let (_dir, path) = write("trace.csv", text.as_bytes());
        all(&path)
    }

    #[test]
    fn our_own_format_is_parsed() {
        let text = "time,op,key,size,ttl\n# a remark\n5,set,a,10,0\n7,get,a b,10,0\n1007,delete,\"x,y\",0,0\n";
        let expected = vec![
            (0, "set", "a".to_string(), 10, 0),
            (2_000, "get", "a b".to_string(), 10, 0),
            (1_002_000, "delete", "x,y".to_string(), 0, 0),
        ];
        assert_eq!(texts(text).unwrap(), expected);
    }

    #[test]
    fn twitter_s_format_is_parsed() {
        let text = "100,nz:u:abc,10,0,7,get,0\n100,a,b,3,25,7,set,3600\n102,k,1,4,7,incr,0\n";
        let expected = vec![
            (0, "get", "nz:u:abc00".to_string(), 0, 0),
            (0, "set", "a,b".to_string(), 25, 3600),
            (2_000_000_000, "set", "k".to_string(), 4, 0),
        ];
        assert_eq!(texts(text).unwrap(), expected);
    }

    #[test]
    fn cachelib_formats_by_header_and_without() {
        let old = "key,op,size,op_count,key_size\n1668757755,SET,82,1,12\n1668757755,GET,0,2,10\n";
        let rows = texts(old).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], (0, "set", "166875775500".to_string(), 82, 0));
        assert_eq!(rows[1], rows[2]);
        let new = "op_time,key,key_size,op,op_count,size,cache_hits,ttl,usecase,sub_usecase\n\
                   604038471,82131353f9ddc8c6,18,GET,1,87,1,0,3,4\n604038473,ab,2,SET_LEASE,1,65,0,7200,2,6\n";
        let rows = texts(new).unwrap();
        assert_eq!(rows[0], (0, "get", "82131353f9ddc8c600".to_string(), 87, 0));
        assert_eq!(rows[1], (2_000_000_000, "set", "ab".to_string(), 65, 7200));
        assert_eq!(
            texts("17,GET,9,1,3\n").unwrap(),
            vec![(0, "get", "170".to_string(), 9, 0)]
        );
    }

    #[test]
    fn compressed_files_are_read_directly() {
        let text = b"time,op,key,size,ttl\n5,set,a,10,0\n";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        let lz4 = |text: &[u8]| {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(text).unwrap();
            lz4.finish().unwrap()
        };
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        let skipped = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zst].concat();
        let within = [
            zstd::encode_all(&text[..25], 1).unwrap(),
            skipped[..11].to_vec(),
            zstd::encode_all(&text[25..], 1).unwrap(),
        ];
        let mut cases = vec![text.to_vec(), gz.finish().unwrap(), xz.finish().unwrap()];
        cases.extend([zst, skipped.clone(), within.concat()]);
        cases.push(lz4(text));
        cases.push([lz4(&text[..25]), skipped[..11].to_vec(), lz4(&text[25..])].concat());
        for (i, bytes) in cases.into_iter().enumerate() {
            let (_dir, path) = write("any", &bytes);
            assert_eq!(all(&path).unwrap().len(), 1, "case {i}");
        }
    }

    #[test]
    fn a_long_window_is_taken_when_asked_for() {
        let text = b"time,op,key,size,ttl\n5,set,a,10,0\n";
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(text).unwrap();
        encoder
            .write_all(&b"6,get,a,10,0\n".repeat(20_000))
            .unwrap();
        let (_dir, path) = write("long.zst", &encoder.finish().unwrap());
        let error = format!("{:#}", all(&path).unwrap_err());
        assert!(error.contains("--long"), "{error}");
        let options = Options {
            long: true,
            ..Options::default()
        };
        let mut reader = Reader::open(&[path], &options).unwrap();
        assert!(reader.read().unwrap().is_some());
    }

    #[test]
    fn traces_of_other_programs_are_read() {
        let rows = |text: &str| texts(text).unwrap();
        let set = |key: &str| vec![(0, "set", key.to_string(), 82, 0)];
        // A byte-order mark, Windows' line ends, spaces after commas.
        assert_eq!(
            rows("\u{feff}time,op,key,size,ttl\r\n5,set,a,82,0\r\n"),
            set("a")
        );
        assert_eq!(rows("\u{feff}a,SET,82,1,1\n"), set("a"), "no header");
        assert_eq!(rows("key, op, size\na, SET, 82\n"), set("a"));
        // A key that begins with #, where # does not start a comment.
        assert_eq!(rows("key,op,size\n#a,SET,82\n"), set("#a"));
        // A header in Twitter's format, which normally has none.
        let header = "timestamp,anonymized key,key size,value size,client id,operation,TTL\n";
        assert_eq!(rows(&format!("{header}7,a,1,82,1,set,0\n")), set("a"));
        // A count of 0, no expiry, times with a decimal point.
        let old = "key,op,size,op_count,key_size,ttl\nz,GET,1,0,1,0\na,SET,82,1,1,-1\n";
        assert_eq!(rows(old), set("a"));
        assert_eq!(rows("op_time,key,op,size\n1.5,a,SET,82\n"), set("a"));
        // GAT.
        assert_eq!(
            rows("key,op,size,ttl\na,GAT,82,9\n"),
            [(0, "gat", "a".into(), 82, 9)]
        );
    }

    #[test]
    fn long_keys_are_cut() {
        let key = "k".repeat(300);
        let (_dir, path) = write("t.csv", format!("key,op,size\n{key},SET,82\n").as_bytes());
        let mut reader = Reader::open(&[path], &Options::default()).unwrap();
        let (_, request) = reader.read().unwrap().unwrap();
        assert_eq!(request.key(&request.keys[0]).len(), 250);
        assert_eq!(reader.counts().cut_keys, 1);
    }

    #[test]
    fn a_header_that_comes_again_names_the_columns_anew() {
        let text = "key,op,size,ttl\na,SET,82,0\nop,ttl,size,key\nSET,9,33,b\nkey,op,size,ttl\nc,SET,1,0\n";
        let rows = texts(text).unwrap();
        assert_eq!(rows[1], (0, "set", "b".to_string(), 33, 9));
        assert_eq!(rows[2], (0, "set", "c".to_string(), 1, 0));
    }

    #[test]
    fn an_incomplete_last_line_is_passed_over() {
        let text = b"time,op,key,size,ttl\n1,get,a,0,0\n2,get,b,0";
        let (_dir, path) = write("t.csv", text);
        let mut reader = Reader::open(&[path], &Options::default()).unwrap();
        assert!(reader.read().unwrap().is_some());
        assert!(reader.read().unwrap().is_none());
        assert!(reader.counts().truncated);
    }

    #[test]
    fn an_unknown_format_is_reported_with_its_line_and_the_known_ones() {
        let error = format!("{:#}", texts("what,is,this\n").unwrap_err());
        for part in [
            "what,is,this",
            "line 1",
            "twitter",
            "oracle-general",
            "--columns",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn times_go_on_in_further_files_and_rounds() {
        let (_one, one) = write("1", b"time,op,key,size,ttl\n5,get,a,0,0\n15,get,a,0,0\n");
        let (_two, two) = write("2", b"time,op,key,size,ttl\n1,get,b,0,0\n4,get,b,0,0\n");
        let mut reader = Reader::open(&[one, two], &Options::default()).unwrap();
        let mut times = Vec::new();
        for _ in 0..2 {
            while let Some((at, _)) = reader.read().unwrap() {
                times.push(at / 1000);
            }
            reader.rewind().unwrap();
        }
        assert_eq!(times, [0, 10, 10, 13, 13, 23, 23, 26]);
    }

    #[test]
    fn a_written_trace_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t.csv", "t.csv.gz", "t.csv.zst", "t.csv.xz", "t.csv.lz4"] {
            let path = dir.path().join(name);
            let mut writer = Writer::create(&path).unwrap();
            let mut request = Request::default();
            request.reset(Verb::Get);
            request.push(0, 9, |out| out.extend_from_slice(b"one"));
            request.push(1, 9, |out| out.extend_from_slice(b"two"));
            writer.add(3_000, &request).unwrap();
            writer.add(9_000, &request).unwrap();
            writer.finish().unwrap();
            let row = |at| (at, "get", "one two".to_string(), 9, 0);
            assert_eq!(all(&path).unwrap(), vec![row(0), row(6_000)], "{name}");
        }
    }

    #[test]
    fn bad_lines_are_reported_with_their_numbers() {
        let head = "time,op,key,size,ttl\n1,get,a,0,0\n";
        for (line, why) in [
            ("x,get,a,0,0", "time"),
            ("1,fetch,a,0,0", "fetch"),
            ("1,get,a,0", "fields"),
            ("1,get,,0,0", "empty"),
            ("1,set,a b,0,0", "several keys"),
            ("1,set,a,-3,0", "size"),
            ("1,get,a\tb,0,0", "control"),
        ] {
            let error = format!("{:#}", texts(&format!("{head}{line}\n")).unwrap_err());
            assert!(
                error.contains("trace.csv: line 3") && error.contains(why),
                "{line}: {error}"
            );
        }
        assert!(format!("{:#}", texts("what,is,this\n").unwrap_err()).contains("line 1"));
        assert!(format!(
            "{:#}",
            Reader::open(&[PathBuf::from("/nowhere")], &Options::default()).unwrap_err()
        )
        .contains("/nowhere"));
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let zst =
            zstd::encode_all(&b"time,op,key,size,ttl\n5,set,a,10,0\n".repeat(1000)[..], 1).unwrap();
        let (_dir, path) = write("cut.zst", &zst[..zst.len() - 8]);
        assert!(all(&path).is_err());
    }
}
