// SPDX-License-Identifier: GPL-2.0-only
//! Trace files: recorded requests in this project's own format and in those of public traces.
//!
//! Every value that is replayed must be derivable from its key. Therefore `append`, `prepend`, `cas`, `incr` and `decr`
//! are replayed as a `set` of the recorded size.

mod columns;
mod detect;
mod format;
mod input;
mod reader;
mod tokens;
mod writer;

pub use format::{Columns, Format, TimeUnit};
pub use reader::{Counts, Options, Reader};
pub use writer::{Writer, HEADER};
