//! Trace files: this project's own CSV, Twitter's cache-trace CSV, and
//! CacheLib's kvcache CSV, plain or compressed with gzip or zstd.
//!
//! Every value that is replayed must be derivable from its key, therefore
//! `append`, `prepend`, `cas`, `incr` and `decr` are replayed as `set` of the
//! recorded size: the write is kept, its kind is not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{anyhow, bail, ensure, Context, Result};
use csv::ByteRecord;

use crate::request::{Key, Request, Verb};
use crate::workload::KEY_MAX;

/// Header of this project's own format.
pub const HEADER: &str = "time,op,key,size,ttl";

/// A trace format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time,op,key,size,ttl`: microseconds, several keys with spaces between.
    Hippos,
    /// Twitter's cache-trace: `timestamp,key,key size,value size,client,operation,TTL`.
    Twitter,
    /// CacheLib's kvcache traces; the header names the columns.
    Cachelib,
}

impl Format {
    /// The unit of its times in nanoseconds.
    pub fn unit(self) -> u64 {
        match self {
            Format::Hippos => 1_000,
            Format::Twitter | Format::Cachelib => 1_000_000_000,
        }
    }
}

/// Columns of CacheLib's traces.
#[derive(Debug, Clone, Copy, Default)]
struct Columns {
    time: Option<usize>,
    key: usize,
    op: usize,
    size: usize,
    count: Option<usize>,
    key_size: Option<usize>,
    ttl: Option<usize>,
}

impl Columns {
    fn named(header: &str) -> Option<Self> {
        let at = |name: &str| {
            header
                .trim_end()
                .split(',')
                .position(|column| column.trim() == name)
        };
        Some(Self {
            time: at("op_time"),
            key: at("key")?,
            op: at("op")?,
            size: at("size")?,
            count: at("op_count"),
            key_size: at("key_size"),
            ttl: at("ttl"),
        })
    }
}

/// Reads the requests of a trace.
pub struct Reader {
    path: PathBuf,
    csv: csv::Reader<Box<dyn Read + Send>>,
    record: ByteRecord,
    format: Format,
    columns: Columns,
    first: Option<u64>,
    /// Copies of the last request that are still to be given out.
    repeat: u64,
    last: (u64, Request),
    read: Arc<AtomicU64>,
    size: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a trace; its compression and, if none is given, its format are told from its first bytes.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("cannot read trace {name}"))?;
        let size = file.metadata().map_or(0, |meta| meta.len());
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            inner: file,
            read: read.clone(),
        };
        let mut plain = BufReader::with_capacity(
            1 << 20,
            decompress(counted).with_context(|| name.to_string())?,
        );
        let mut head = String::new();
        plain
            .read_line(&mut head)
            .with_context(|| format!("{name}: line 1"))?;
        ensure!(!head.is_empty(), "{name}: empty");
        let format = match format {
            Some(format) => format,
            None => detect(&head)
                .ok_or_else(|| anyhow!("{name}: line 1: no known trace format; try --format"))?,
        };
        let mut columns = Columns {
            key: 0,
            op: 1,
            size: 2,
            count: Some(3),
            key_size: Some(4),
            ttl: Some(5),
            time: None,
        };
        let mut has_header = format == Format::Hippos;
        if format == Format::Hippos {
            ensure!(
                head.trim_end() == HEADER,
                "{name}: line 1: want the header {HEADER}"
            );
        }
        if format == Format::Cachelib {
            if let Some(named) = Columns::named(&head) {
                columns = named;
                has_header = true;
            }
        }
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(head.into_bytes()).chain(plain));
        let csv = csv::ReaderBuilder::new()
            .has_headers(has_header)
            .flexible(true)
            .quoting(format == Format::Hippos)
            .comment(Some(b'#'))
            .from_reader(whole);
        let last = (0, Request::default());
        let (record, path) = (ByteRecord::new(), path.to_path_buf());
        Ok(Self {
            path,
            csv,
            record,
            format,
            columns,
            first: None,
            repeat: 0,
            last,
            read,
            size,
        })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the file, and how many of them have been read.
    pub fn progress(&self) -> (u64, u64) {
        (self.size, self.read.load(Ordering::Relaxed))
    }

    /// The trace says when each request came.
    pub fn has_times(&self) -> bool {
        self.format != Format::Cachelib || self.columns.time.is_some()
    }

    /// The next request with its time in nanoseconds since the first; none at
    /// the end. Errors name the file and the line; one may go on after them.
    pub fn read(&mut self) -> Result<Option<(u64, Request)>> {
        if self.repeat == 0 {
            let more = self.csv.read_byte_record(&mut self.record);
            let line = self.record.position().map_or(0, csv::Position::line);
            let context = || format!("{}: line {line}", self.path.display());
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("{}: after line {line}", self.path.display()))
                }
            }
            let (time, count, request) = self.parse().with_context(context)?;
            let first = *self.first.get_or_insert(time);
            let at = time
                .saturating_sub(first)
                .saturating_mul(self.format.unit());
            self.last = (at, request);
            self.repeat = count;
        }
        self.repeat -= 1;
        Ok(Some(self.last.clone()))
    }

    fn parse(&self) -> Result<(u64, u64, Request)> {
        let fields = &self.record;
        let field = |at: usize| {
            fields
                .get(at)
                .ok_or_else(|| anyhow!("it has {} fields, and wants more", fields.len()))
        };
        let text = |at: usize| Ok::<_, anyhow::Error>(std::str::from_utf8(field(at)?)?.trim());
        let number = |at: usize, what: &str| {
            let text = text(at)?;
            text.parse::<u64>()
                .map_err(|_| anyhow!("{what} is {text:?}, not a number"))
        };
        let mut request = Request::default();
        match self.format {
            Format::Hippos => {
                ensure!(
                    fields.len() == 5,
                    "it has {} fields, and wants 5: {HEADER}",
                    fields.len()
                );
                request.reset(verb(text(1)?)?);
                for key in field(2)?.split(|b| *b == b' ') {
                    push(&mut request, key, 0)?;
                }
                ensure!(
                    request.keys.len() == 1 || request.verb.reads(),
                    "several keys are for get and gets only"
                );
                sizes(&mut request, number(3, "size")?, number(4, "ttl")?)?;
                Ok((number(0, "time")?, 1, request))
            }
            Format::Twitter => {
                let n = fields.len();
                ensure!(n >= 7, "it has {n} fields, and Twitter's traces have 7");
                // Keys may hold commas; the other columns do not.
                let key = (1..n - 5)
                    .filter_map(|at| fields.get(at))
                    .collect::<Vec<_>>()
                    .join(&b","[..]);
                request.reset(verb(text(n - 2)?)?);
                push(&mut request, &key, number(n - 5, "key size")?)?;
                sizes(
                    &mut request,
                    number(n - 4, "value size")?,
                    number(n - 1, "TTL")?,
                )?;
                Ok((number(0, "timestamp")?, 1, request))
            }
            Format::Cachelib => {
                let c = &self.columns;
                let or = |at: Option<usize>, default: u64, what: &str| match at
                    .filter(|at| *at < fields.len())
                {
                    Some(at) => number(at, what),
                    None => Ok(default),
                };
                request.reset(verb(text(c.op)?)?);
                push(&mut request, field(c.key)?, or(c.key_size, 0, "key_size")?)?;
                sizes(&mut request, number(c.size, "size")?, or(c.ttl, 0, "ttl")?)?;
                let count = or(c.count, 1, "op_count")?;
                ensure!(count > 0, "op_count is 0");
                Ok((or(c.time, 0, "op_time")?, count, request))
            }
        }
    }
}

fn verb(word: &str) -> Result<Verb> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "get" | "get_lease" => Verb::Get,
        "gets" => Verb::Gets,
        "set" | "set_lease" | "cas" | "append" | "prepend" | "incr" | "decr" => Verb::Set,
        "add" => Verb::Add,
        "replace" => Verb::Replace,
        "delete" => Verb::Delete,
        "touch" => Verb::Touch,
        other => bail!("operation {other:?} is not known"),
    })
}

/// Adds a key, padded with zeros to the size that it had before it was anonymised.
fn push(request: &mut Request, key: &[u8], size: u64) -> Result<()> {
    let len = key.len().max(size.min(u64::from(KEY_MAX)) as usize);
    ensure!(!key.is_empty(), "the key is empty");
    ensure!(
        len <= KEY_MAX as usize,
        "the key has {len} bytes, more than {KEY_MAX}"
    );
    ensure!(
        key.iter().all(|b| *b > b' ' && *b != 0x7f),
        "the key holds a space or a control character"
    );
    request.push(Key::NO_ID, Key::UNKNOWN, |out| {
        let end = out.len() + len;
        out.extend_from_slice(key);
        out.resize(end, b'0');
    });
    Ok(())
}

fn sizes(request: &mut Request, size: u64, ttl: u64) -> Result<()> {
    ensure!(
        size <= u64::from(crate::workload::VALUE_MAX),
        "a value of {size} bytes is more than any server takes"
    );
    request.value_len = size as u32;
    // Far away is never.
    request.ttl = u32::try_from(ttl).unwrap_or(0);
    Ok(())
}

fn detect(head: &str) -> Option<Format> {
    let head = head.trim_end();
    let fields: Vec<&str> = head.split(',').collect();
    let numeric = |at: usize| {
        fields
            .get(at)
            .is_some_and(|f| f.trim().parse::<u64>().is_ok())
    };
    if head == HEADER {
        Some(Format::Hippos)
    } else if Columns::named(head).is_some() {
        Some(Format::Cachelib)
    } else if fields.len() >= 7
        && numeric(0)
        && numeric(fields.len() - 1)
        && verb(fields[fields.len() - 2].trim()).is_ok()
    {
        Some(Format::Twitter)
    } else if fields.len() >= 3 && verb(fields[1].trim()).is_ok() && numeric(2) {
        Some(Format::Cachelib)
    } else {
        None
    }
}

/// Counts what is read of a file.
struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

fn decompress(file: Counted) -> io::Result<Box<dyn Read + Send>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let head = file.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(file)?))
    } else {
        Ok(Box::new(file))
    }
}

/// Writes a trace in this project's own format, compressed if the file's name ends in `.gz` or `.zst`.
pub struct Writer {
    out: Out,
}

enum Out {
    Plain(io::BufWriter<File>),
    Gzip(flate2::write::GzEncoder<io::BufWriter<File>>),
    Zstd(zstd::Encoder<'static, io::BufWriter<File>>),
}

impl Writer {
    /// Makes the file and writes the header.
    pub fn create(path: &Path) -> Result<Self> {
        let context = || format!("cannot write {}", path.display());
        let file = io::BufWriter::new(File::create(path).with_context(context)?);
        let out = match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Out::Gzip(flate2::write::GzEncoder::new(
                file,
                flate2::Compression::best(),
            )),
            Some("zst") => Out::Zstd(zstd::Encoder::new(file, 19).with_context(context)?),
            _ => Out::Plain(file),
        };
        let mut writer = Self { out };
        writeln!(writer.sink(), "{HEADER}").with_context(context)?;
        Ok(writer)
    }

    fn sink(&mut self) -> &mut dyn Write {
        match &mut self.out {
            Out::Plain(out) => out,
            Out::Gzip(out) => out,
            Out::Zstd(out) => out,
        }
    }

    /// Adds a request that leaves at a time in nanoseconds since the first.
    pub fn add(&mut self, at: u64, request: &Request) -> io::Result<()> {
        let keys = request
            .keys
            .iter()
            .map(|key| String::from_utf8_lossy(request.key(key)));
        let keys = keys.collect::<Vec<_>>().join(" ");
        let size = match request.verb.reads() {
            true => request.keys.first().map_or(0, |key| key.value_len),
            false => request.value_len,
        };
        writeln!(
            self.sink(),
            "{},{},{keys},{size},{}",
            at / 1000,
            request.verb.word(),
            request.ttl
        )
    }

    /// Writes what is still buffered.
    pub fn finish(self) -> io::Result<()> {
        match self.out {
            Out::Plain(mut out) => out.flush(),
            Out::Gzip(out) => out.finish()?.flush(),
            Out::Zstd(out) => out.finish()?.flush(),
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    /// Time, operation, keys, size, TTL of a request.
    type Row = (u64, &'static str, String, u32, u32);

    fn all(path: &Path) -> Result<Vec<Row>> {
        let mut reader = Reader::open(path, None)?;
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
    fn own_format() {
        let text = "time,op,key,size,ttl\n# a remark\n5,set,a,10,0\n7,get,a b,10,0\n1007,delete,\"x,y\",0,0\n";
        let expected = vec![
            (0, "set", "a".to_string(), 10, 0),
            (2_000, "get", "a b".to_string(), 10, 0),
            (1_002_000, "delete", "x,y".to_string(), 0, 0),
        ];
        assert_eq!(texts(text).unwrap(), expected);
    }

    #[test]
    fn twitter_format() {
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
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        for bytes in [text.to_vec(), gz.finish().unwrap(), zst] {
            let (_dir, path) = write("any", &bytes);
            assert_eq!(all(&path).unwrap().len(), 1);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t.csv", "t.csv.gz", "t.csv.zst"] {
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
    fn bad_lines_are_named() {
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
            Reader::open(Path::new("/nowhere"), None).unwrap_err()
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
