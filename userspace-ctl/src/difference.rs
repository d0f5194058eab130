// SPDX-License-Identifier: GPL-2.0-only
//! How a file's settings differ from those in force.

use std::fmt;

/// A difference between a file and the configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: &'static str,
    pub(crate) now: String,
    pub(crate) wanted: String,
    /// Whether it can be changed in the loaded module.
    pub(crate) is_live: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &'_ str| match value {
            "" => "\"\"".to_owned(),
            value => value.to_owned(),
        };
        let (now, wanted) = (shown(&self.now), shown(&self.wanted));
        write!(f, "{}: {now} is in force, {wanted} in the file", self.key)?;
        if !self.is_live {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}
