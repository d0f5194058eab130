// SPDX-License-Identifier: GPL-2.0-only
//! Writes a dump, under another name until it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use zstd::bulk::Compressor;

use super::file::{BlockHeader, BlockKind, Header, Totals, BLOCK_HEADER, HEADER};
use super::reader::{Packed, Reader, Unpacker};
use crate::durable;
use crate::exit::end;

/// zstd's best level for its time; the values of a cache seldom gain from a higher one.
const LEVEL: i32 = 1;

/// Compresses records into blocks.
pub(crate) struct Packer {
    zstd: Compressor<'static>,
}

impl Packer {
    pub(crate) fn new() -> std::io::Result<Self> {
        let zstd = Compressor::new(LEVEL)?;
        Ok(Self { zstd })
    }

    /// A block, without its number.
    pub(crate) fn pack(&mut self, raw: &[u8], items: u32) -> Result<Packed> {
        let bytes = self.zstd.compress(raw)?;
        let header = BlockHeader {
            kind: BlockKind::Items,
            number: 0,
            made: now(),
            raw: u32::try_from(raw.len())?,
            packed: u32::try_from(bytes.len())?,
            items,
            sum: crc32fast::hash(&bytes),
        };
        Ok(Packed { header, bytes })
    }
}

/// Seconds since 1970 by this host's clock.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// A dump that is being written.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    header: Header,
    next: u64,
    pub(crate) totals: Totals,
    /// Bytes written.
    pub(crate) written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub(crate) fn new(mut out: W, header: Header) -> Result<Self> {
        out.write_all(&header.to_bytes())?;
        Ok(Self {
            out,
            header,
            next: 0,
            totals: Totals::default(),
            written: HEADER as u64,
        })
    }

    /// Assigns a block its number, and writes it.
    pub(crate) fn block(&mut self, block: Packed) -> Result<()> {
        let Packed { mut header, bytes } = block;
        header.number = self.next;
        self.put(header, &bytes)?;
        self.next += 1;
        self.totals.items += u64::from(header.items);
        self.totals.bytes += u64::from(header.raw);
        Ok(())
    }

    /// Writes the end block.
    pub(crate) fn end(mut self) -> Result<(W, Totals, u64)> {
        let bytes = self.totals.to_bytes();
        let header = BlockHeader {
            kind: BlockKind::End,
            number: self.next,
            made: now(),
            raw: Totals::BYTES as u32,
            packed: Totals::BYTES as u32,
            items: 0,
            sum: crc32fast::hash(&bytes),
        };
        self.put(header, &bytes)?;
        self.out.flush()?;
        Ok((self.out, self.totals, self.written))
    }

    fn put(&mut self, header: BlockHeader, bytes: &[u8]) -> Result<()> {
        self.out.write_all(&header.to_bytes(self.header.identity))?;
        self.out.write_all(bytes)?;
        self.written += (BLOCK_HEADER + bytes.len()) as u64;
        Ok(())
    }
}

/// A file that gets its name when it is complete; until then the previous file keeps the name.
#[derive(Debug)]
pub(crate) struct Partial {
    file: PathBuf,
    partial: PathBuf,
    /// The open partial file. Its lock keeps other dumps to the same file away until it is renamed.
    locked: Option<Flock<File>>,
}

impl Partial {
    pub(crate) fn of(file: &Path) -> Self {
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        Self {
            file: file.to_owned(),
            partial: partial.into(),
            locked: None,
        }
    }

    /// Starts it; the partial file of an earlier dump is replaced.
    pub(crate) fn create(&mut self, header: Header) -> Result<Writer<BufWriter<File>>> {
        let context = || format!("can't write {}", self.partial.display());
        // The file of a dump that still runs is locked.
        let earlier = match self.open() {
            Ok(file) => Some(self.lock(file)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(context),
        };
        if earlier.is_some() {
            fs::remove_file(&self.partial).with_context(context)?;
        }
        // The values of a cache are private, and symbolic links are not followed.
        let open = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.partial);
        let file = match open {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return self.busy(),
            other => other.with_context(context)?,
        };
        let locked = self.lock(file)?;
        let file = locked.try_clone().with_context(context)?;
        self.locked = Some(locked);
        Writer::new(BufWriter::with_capacity(1 << 20, file), header)
            .with_context(|| format!("can't write {}", self.partial.display()))
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.partial)
    }

    /// Locks the open partial file, unless another dump writes it or has replaced it since.
    fn lock(&self, file: File) -> Result<Flock<File>> {
        let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return self.busy(),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("can't lock {}", self.partial.display()))
            }
        };
        if !self.has_name(&locked)? {
            return self.busy();
        }
        Ok(locked)
    }

    /// Whether the partial file's name is still that of this open file.
    fn has_name(&self, file: &File) -> Result<bool> {
        let open = file.metadata()?;
        let named = fs::symlink_metadata(&self.partial);
        Ok(named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
    }

    fn busy<T>(&self) -> Result<T> {
        end!(
            Refused,
            "{}: another dump writes it",
            self.partial.display()
        )
    }

    /// Continues an interrupted dump after its last complete block; calls `each` with each of its keys.
    pub(crate) fn resume(
        &mut self,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Writer<BufWriter<File>>> {
        let context = || format!("can't go on with {}", self.partial.display());
        let locked = self.lock(self.open().with_context(context)?)?;
        let file = locked.try_clone().with_context(context)?;
        let mut unpacker = Unpacker::new()?;
        let mut reader = Reader::new(std::io::BufReader::new(&file)).with_context(context)?;
        let mut writer = Writer {
            out: (),
            header: reader.header,
            next: 0,
            totals: Totals::default(),
            written: HEADER as u64,
        };
        loop {
            match reader.block() {
                Ok(Some(block)) => {
                    for record in unpacker.unpack(&block).with_context(context)? {
                        match record {
                            Ok(record) => each(record.key),
                            Err(what) => end!(Failed, "{}: {what}", context()),
                        }
                    }
                    writer.next = reader.next;
                    writer.totals = reader.totals;
                    writer.written = reader.read;
                }
                // It is complete and only lacks its name: its end is written again.
                Ok(None) => break,
                Err(_) => break,
            }
        }
        file.set_len(writer.written).with_context(context)?;
        (&file).seek(SeekFrom::End(0)).with_context(context)?;
        self.locked = Some(locked);
        Ok(Writer {
            out: BufWriter::with_capacity(1 << 20, file),
            header: writer.header,
            next: writer.next,
            totals: writer.totals,
            written: writer.written,
        })
    }

    /// Renames it to its final name, after all of it is on the disk.
    pub(crate) fn complete(&self, out: BufWriter<File>) -> Result<()> {
        let context = || format!("can't complete {}", self.file.display());
        let file = out.into_inner().map_err(|error| error.into_error());
        file.with_context(context)?
            .sync_all()
            .with_context(context)?;
        // Its lock is held until the end, but another program may have renamed or replaced it.
        let is_ours = match &self.locked {
            Some(file) => self.has_name(file).with_context(context)?,
            None => false,
        };
        if !is_ours {
            end!(
                Failed,
                "{} was replaced meanwhile: nothing is renamed",
                self.partial.display()
            );
        }
        durable::rename(&self.partial, &self.file).with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;
    use crate::system::tests::Folder;

    fn header() -> Header {
        Header {
            made: 1,
            identity: 2,
        }
    }

    #[test]
    fn second_dump_to_the_same_file_is_refused_and_leaves_the_first_one_whole() {
        let folder = Folder::new("partial", &[("/d/x", "")]);
        let file = folder.system().path("/d/cache.dump");
        let mut first = Partial::of(&file);
        let writer = first.create(header()).unwrap();
        let mut second = Partial::of(&file);
        for refused in [second.create(header()), second.resume(|_| {})] {
            assert_eq!(Status::of(&refused.unwrap_err()), Status::Refused);
        }
        let (out, _, written) = writer.end().unwrap();
        first.complete(out).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), written);
        drop(first);
        // The next dump replaces the partial file of one that was interrupted.
        drop(Partial::of(&file).create(header()).unwrap());
        assert!(Partial::of(&file).create(header()).is_ok());
    }

    #[test]
    fn partial_file_that_was_replaced_is_not_renamed() {
        let folder = Folder::new("replaced", &[("/d/x", "")]);
        let file = folder.system().path("/d/cache.dump");
        let mut partial = Partial::of(&file);
        let writer = partial.create(header()).unwrap();
        fs::remove_file(&partial.partial).unwrap();
        fs::write(&partial.partial, "other").unwrap();
        let (out, ..) = writer.end().unwrap();
        assert!(partial.complete(out).is_err());
        assert!(!file.exists());
    }
}
