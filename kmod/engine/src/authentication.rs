// SPDX-License-Identifier: GPL-2.0-only
//! Logging in: whether clients have to, and whether they may.

use core::sync::atomic::Ordering::{Acquire, Release};

use hippos_store::Platform;

use crate::credentials::{CredentialsError, CREDENTIALS_MAX};
use crate::Engine;

impl<P: Platform> Engine<P> {
    /// Sets who may log in, lines of `user:password`; with none nobody has
    /// to. While there are some, a new TCP connection has to log in first and
    /// UDP is refused. Process context; sleeps.
    pub fn set_credentials(&self, lines: &[u8]) -> Result<(), CredentialsError> {
        if lines.len() > CREDENTIALS_MAX {
            return Err(CredentialsError::TooLong);
        }
        let mut words = lines.split(|byte| matches!(byte, b'\n' | b'\r'));
        if !words.all(|line| line.is_empty() || line.contains(&b':')) {
            return Err(CredentialsError::Line);
        }
        let credentials = self.settings.credentials;
        if credentials.changing.swap(true, Acquire) {
            return Err(CredentialsError::Busy);
        }
        let needed = lines.contains(&b':');
        // Nobody gets in by an empty text in between.
        if needed {
            credentials.replace(lines, || self.store.platform().gp_wait());
            self.set_authentication(true);
        } else {
            self.set_authentication(false);
            credentials.replace(b"", || self.store.platform().gp_wait());
        }
        credentials.changing.store(false, Release);
        Ok(())
    }

    /// Has all clients log in while none is known: until credentials are set, nobody is served.
    pub fn close(&self) {
        self.set_authentication(true);
    }

    /// Whether these are known.
    pub(crate) fn authenticate(&self, user: &[u8], password: &[u8]) -> bool {
        let _guard = self.store.read();
        self.settings.credentials.verify(user, password)
    }
}
