// SPDX-License-Identifier: GPL-2.0-only
//! Writes traces in this project's own format.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::output::AtomicFile;
use crate::request::Request;

/// Header of this project's own format.
pub const HEADER: &str = "time,op,key,size,ttl";

/// Writes a trace in this project's own format, compressed if the file's
/// name ends in `.gz`, `.zst`, `.xz` or `.lz4`; `-` is standard output.
pub struct Writer {
    out: Out,
}

enum Out {
    Plain(io::BufWriter<AtomicFile>),
    Gzip(flate2::write::GzEncoder<io::BufWriter<AtomicFile>>),
    Zstd(zstd::Encoder<'static, io::BufWriter<AtomicFile>>),
    Xz(liblzma::write::XzEncoder<io::BufWriter<AtomicFile>>),
    Lz4(lz4_flex::frame::FrameEncoder<io::BufWriter<AtomicFile>>),
}

impl Writer {
    /// Creates the file and writes the header.
    pub fn create(path: &Path) -> Result<Self> {
        let context = || format!("cannot write {}", path.display());
        let file = io::BufWriter::new(AtomicFile::create(path)?);
        let out = match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Out::Gzip(flate2::write::GzEncoder::new(
                file,
                flate2::Compression::best(),
            )),
            Some("zst") => Out::Zstd(zstd::Encoder::new(file, 19).with_context(context)?),
            Some("lz4") => Out::Lz4(lz4_flex::frame::FrameEncoder::new(file)),
            Some("xz") => Out::Xz(liblzma::write::XzEncoder::new(file, 6)),
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
            Out::Xz(out) => out,
            Out::Lz4(out) => out,
        }
    }

    /// Adds a request, with its time in nanoseconds since the first.
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

    /// Writes the bytes that are still buffered.
    pub fn finish(self) -> io::Result<()> {
        let file = match self.out {
            Out::Plain(out) => out,
            Out::Gzip(out) => out.finish()?,
            Out::Zstd(out) => out.finish()?,
            Out::Xz(out) => out.finish()?,
            Out::Lz4(out) => out.finish()?,
        };
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .finish()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}
