// SPDX-License-Identifier: GPL-2.0-only
//! The bytes of a trace: files one after another, `-` for standard input, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::output;

/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// An open file: its decompressed bytes.
pub(super) type Input = BufReader<Box<dyn Read + Send>>;

/// Opens a file. The number of compressed bytes read is added to `read`. `long` allows zstd windows of up to 2 GB.
pub(super) fn open(path: &Path, long: bool, read: &Arc<AtomicU64>) -> Result<Input> {
    let name = path.display();
    let file: Box<dyn Read + Send> = if output::standard(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot read trace {name}"))?)
    };
    let counted = Counted {
        inner: file,
        read: read.clone(),
    };
    let plain = decompress(counted, long).with_context(|| name.to_string())?;
    Ok(BufReader::with_capacity(BUFFER, plain))
}

/// Counts the bytes read from a file.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const LZ4: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Whether these are the first bytes of a frame that zstd and lz4 skip.
fn skippable(head: &[u8]) -> bool {
    head.len() >= 8 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18]
}

fn decompress(file: Counted, long: bool) -> io::Result<Box<dyn Read + Send>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    while skippable(fill(&mut file)?) {
        skip_frame(&mut file)?;
    }
    let head = fill(&mut file)?;
    if head.starts_with(GZIP) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)))
    } else if head.starts_with(XZ) {
        Ok(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(
            file,
        )))
    } else if head.starts_with(LZ4) {
        Ok(Box::new(Lz4 {
            frame: Some(lz4_flex::frame::FrameDecoder::new(file)),
        }))
    } else if head.starts_with(ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(file)?;
        decoder.window_log_max(if long { 31 } else { 27 })?;
        Ok(Box::new(WindowHint(decoder)))
    } else {
        Ok(Box::new(file))
    }
}

/// The first unread bytes.
fn fill<R: Read>(file: &mut BufReader<R>) -> io::Result<&[u8]> {
    file.fill_buf()
}

fn skip_frame(file: &mut impl BufRead) -> io::Result<()> {
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let [.., a, b, c, d] = head;
    let len = u64::from(u32::from_le_bytes([a, b, c, d]));
    io::copy(&mut file.take(len), &mut io::sink()).map(drop)
}

/// Frames of lz4, one after another.
struct Lz4<R: BufRead> {
    frame: Option<lz4_flex::frame::FrameDecoder<R>>,
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut frame) = self.frame.take() {
            let n = frame.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                self.frame = Some(frame);
                return Ok(n);
            }
            let mut file = frame.into_inner();
            while skippable(file.fill_buf()?) {
                skip_frame(&mut file)?;
            }
            if !file.fill_buf()?.is_empty() {
                self.frame = Some(lz4_flex::frame::FrameDecoder::new(file));
            }
        }
        Ok(0)
    }
}

/// Adds a hint to the error for a frame that was made with a large window.
struct WindowHint<R>(R);

impl<R: Read> Read for WindowHint<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| {
            if e.to_string().contains("too much memory") {
                return io::Error::other(format!(
                    "{e}: it was compressed with a long window; --long takes up to 2 GB for it"
                ));
            }
            e
        })
    }
}
