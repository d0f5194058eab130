// SPDX-License-Identifier: GPL-2.0-only
//! Trace files: recorded requests in this project's own format and in those that others publish.
//!
//! Every value that is replayed must be derivable from its key, therefore
//! `append`, `prepend`, `cas`, `incr` and `decr` are replayed as `set` of the
//! recorded size: the write is kept, its kind is not.

mod columns;
mod format;
mod input;
mod reader;
mod tokens;
mod writer;

pub use format::{Columns, Format, TimeUnit};
pub use reader::{Counts, Options, Reader};
pub use writer::{Writer, HEADER};
