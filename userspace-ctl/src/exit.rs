// SPDX-License-Identifier: GPL-2.0-only
//! The exit statuses of `hippos-ctl`, and errors that carry one.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use nix::errno::Errno;
use serde_json::json;

/// The result of a command. The man page documents the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotLoaded = 3,
    NoPermission = 4,
    Refused = 5,
    Found = 6,
}

impl Status {
    /// Each status with its meaning.
    pub(crate) const ALL: [(Status, &'static str); 7] = [
        (Status::Done, "success"),
        (Status::Failed, "it failed for another reason than those below"),
        (Status::Usage, "the command line is wrong"),
        (
            Status::NotLoaded,
            "the module is not loaded, or the server does not answer",
        ),
        (Status::NoPermission, "this user may not do that"),
        (
            Status::Refused,
            "the module or the kernel refused, or would refuse, what was asked",
        ),
        (
            Status::Found,
            "the configuration has an error (every command that reads it), differs from what is in \
             force (diff), waits for a restart (reload), a dump left items out, or doctor found something to be mended",
        ),
    ];

    /// The status of a command that looks for something.
    pub(crate) fn found(is_found: bool) -> Self {
        if is_found {
            Status::Found
        } else {
            Status::Done
        }
    }

    /// The meanings of the statuses, for `--help` and the man page.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit status (the reason is on standard error):\n");
        for (status, meaning) in Self::ALL {
            text.push_str(&format!("  {}  {meaning}\n", status as u8));
        }
        text
    }

    /// The status for this error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if let Some(failure) = error.downcast_ref::<StatusError>() {
            return failure.status;
        }
        let of_cause = |cause: &(dyn std::error::Error + 'static)| {
            if let Some(errno) = cause.downcast_ref::<Errno>() {
                return Self::of_errno(*errno);
            }
            let io = cause.downcast_ref::<io::Error>()?;
            (io.kind() == ErrorKind::PermissionDenied).then_some(Status::NoPermission)
        };
        error.chain().find_map(of_cause).unwrap_or(Status::Failed)
    }

    /// Prints an error that has this status as JSON; an output that is closed or full is ignored.
    pub(crate) fn print_json(self, error: &str) {
        let report = json!({"error": error, "status": self as u8});
        drop(writeln!(io::stdout(), "{report}"));
    }

    fn of_errno(errno: Errno) -> Option<Self> {
        match errno {
            Errno::EPERM | Errno::EACCES => Some(Status::NoPermission),
            Errno::EINVAL | Errno::ERANGE | Errno::E2BIG | Errno::EBUSY => Some(Status::Refused),
            _ => None,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

/// An error with its exit status.
#[derive(Debug)]
pub(crate) struct StatusError {
    status: Status,
    message: String,
}

impl StatusError {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        StatusError {
            status,
            message: message.into(),
        }
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StatusError {}

/// Returns an error with a status.
macro_rules! end {
    ($status:ident, $($message:tt)+) => {
        return Err($crate::exit::StatusError::new($crate::exit::Status::$status, format!($($message)+)).into())
    };
}
pub(crate) use end;

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{anyhow, Context};

    #[test]
    fn numbers_are_those_of_the_man_page() {
        let numbers: Vec<u8> = Status::ALL
            .iter()
            .map(|(status, _)| *status as u8)
            .collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
        assert!(Status::help().contains("  3  the module is not loaded"));
    }

    #[test]
    fn an_error_keeps_its_status_under_added_context() {
        let failure: anyhow::Error = StatusError::new(Status::NotLoaded, "x").into();
        let around = Err::<(), _>(failure).context("y").context("z").unwrap_err();
        assert_eq!(Status::of(&around), Status::NotLoaded);
        for (errno, status) in [
            (Errno::EPERM, Status::NoPermission),
            (Errno::EINVAL, Status::Refused),
            (Errno::EIO, Status::Failed),
        ] {
            let error = Err::<(), _>(errno).context("asking").unwrap_err();
            assert_eq!(Status::of(&error), status, "{errno}");
        }
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        assert_eq!(Status::of(&denied.into()), Status::NoPermission);
        assert_eq!(Status::of(&anyhow!("other")), Status::Failed);
    }
}
