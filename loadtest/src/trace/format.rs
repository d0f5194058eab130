// SPDX-License-Identifier: GPL-2.0-only
//! The trace formats.

use std::str::FromStr;

/// A trace format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time,op,key,size,ttl`: microseconds, several keys separated by spaces.
    Hippos,
    /// Twitter's cache-trace: `timestamp,key,key size,value size,client,operation,TTL`.
    Twitter,
    /// CacheLib's kvcache traces; the header names the columns.
    Cachelib,
    /// libCacheSim's csv: `time,object,size`, or as named by a header.
    LibcachesimCsv,
    /// libCacheSim's txt: one object a line.
    LibcachesimTxt,
    /// libCacheSim's binary oracleGeneral: 24 bytes a request.
    OracleGeneral,
    /// Wikimedia's CDN traces: tab-separated, named by a header.
    Wikimedia,
    /// The output of memcached's `watch fetchers mutations deletions`.
    Watch,
    /// The output of memcached's `lru_crawler metadump`: one SET for each item.
    Metadump,
    /// memtier's `--data-import` file: one SET for each row.
    Memtier,
    /// Columns named by number: see `--columns`.
    Columns,
}

/// All formats with an example of a line, for messages.
const SHAPES: [(&str, &str); 10] = [
    ("hippos", "time,op,key,size,ttl"),
    (
        "twitter",
        "timestamp,key,key size,value size,client,operation,TTL",
    ),
    (
        "cachelib",
        "key,op,size,op_count,key_size or a header with key, op and size",
    ),
    ("libcachesim-csv", "time,object,size"),
    ("libcachesim-txt", "object"),
    ("oracle-general", "24 bytes a request"),
    (
        "wikimedia",
        "relative_unix<tab>hashed_path_query<tab>image_type<tab>response_size<tab>time_firstbyte",
    ),
    ("watch", "ts=... gid=... type=item_get key=..."),
    ("metadump", "key=... exp=... la=... cas=... size=..."),
    (
        "memtier",
        "dumpflags, time, exptime, nbytes, nsuffix, it_flags, clsid, nkey, key, data",
    ),
];

impl Format {
    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value()
            .map_or(String::new(), |value| value.get_name().to_string())
    }

    /// The unit of its times in nanoseconds.
    pub(super) fn unit(self) -> u64 {
        match self {
            Format::Hippos | Format::Watch => 1_000,
            _ => 1_000_000_000,
        }
    }

    /// Whether its lines are words with `=` in them.
    pub(super) fn tokens(self) -> bool {
        matches!(self, Format::Watch | Format::Metadump)
    }

    /// Whether fields may be quoted.
    pub(super) fn quotes(self) -> bool {
        matches!(self, Format::Hippos | Format::Memtier | Format::Columns)
    }

    /// The columns of a file without a header.
    pub(super) fn columns(self) -> Columns {
        let at = |text: &str| text.parse().unwrap_or_default();
        match self {
            Format::Hippos => at("time=1,op=2,key=3,size=4,ttl=5"),
            Format::Twitter => at("time=1,key=2,key-size=3,size=4,op=6,ttl=7"),
            Format::Cachelib => at("key=1,op=2,size=3,count=4,key-size=5,ttl=6"),
            Format::LibcachesimCsv => at("time=1,key=2,size=3"),
            Format::Wikimedia => at("time=1,key=2,size=4"),
            Format::Memtier => at("key=9,size=4"),
            _ => at("key=1"),
        }
    }

    /// The operation of all lines, if the lines do not name one.
    pub(super) fn default_op(self) -> &'static str {
        match self {
            Format::Memtier | Format::Metadump => "set",
            _ => "get",
        }
    }

    /// The formats with their examples, for a message.
    pub(super) fn shapes() -> String {
        let shapes: Vec<String> = SHAPES
            .iter()
            .map(|(name, shape)| format!("{name} ({shape})"))
            .collect();
        shapes.join("; ")
    }
}

/// The contents of each column, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Columns {
    pub time: Option<usize>,
    pub key: usize,
    pub op: Option<usize>,
    pub size: Option<usize>,
    pub ttl: Option<usize>,
    pub count: Option<usize>,
    pub key_size: Option<usize>,
}

impl FromStr for Columns {
    type Err = String;

    /// `time=1,key=2,op=3,size=4,ttl=5,count=6,key-size=7`, in any order; only the key is required.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut columns = Self::default();
        let mut key = None;
        for part in text.split(',') {
            let (name, number) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: want name=number"))?;
            let number: usize = number
                .trim()
                .parse()
                .ok()
                .filter(|n| (1..=1000).contains(n))
                .ok_or_else(|| format!("{part:?}: columns are numbered from 1"))?;
            let place = match name.trim() {
                "time" => &mut columns.time,
                "key" => &mut key,
                "op" => &mut columns.op,
                "size" => &mut columns.size,
                "ttl" => &mut columns.ttl,
                "count" => &mut columns.count,
                "key-size" => &mut columns.key_size,
                other => {
                    return Err(format!(
                        "{other:?}: want time, key, op, size, ttl, count or key-size"
                    ))
                }
            };
            *place = Some(number - 1);
        }
        columns.key = key.ok_or("no column holds the key")?;
        Ok(columns)
    }
}

/// Unit of a trace's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum TimeUnit {
    S,
    Ms,
    Us,
    Ns,
}

impl TimeUnit {
    /// In nanoseconds.
    pub(super) fn nanos(self) -> u64 {
        match self {
            TimeUnit::S => 1_000_000_000,
            TimeUnit::Ms => 1_000_000,
            TimeUnit::Us => 1_000,
            TimeUnit::Ns => 1,
        }
    }
}
