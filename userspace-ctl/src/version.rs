// SPDX-License-Identifier: GPL-2.0-only
//! The version of this tool, and whether the loaded module is the one that belongs to it.

/// The package's version, and a digest of the sources of the module that belongs to this tool (kmod/version.sh). A
/// module that was built from the same sources has the same.
pub(crate) const VERSION: &str = env!("HIPPOS_VERSION");

/// The remedy for another one.
pub(crate) const REMEDY: &str =
    "hippos-ctl stop, then hippos-ctl start, which loads the installed module: \
                                 modinfo -F version hippos shows whether that is this tool's";

/// That a module of this version is loaded, if it is not the tool's own.
pub(crate) fn difference(loaded: &str, tool: &str) -> Option<String> {
    (loaded != tool)
        .then(|| format!("the loaded module is of version {loaded}, this tool of {tool}"))
}
