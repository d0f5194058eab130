// SPDX-License-Identifier: GPL-2.0-only
//! Authentication: whether clients have to authenticate, and the check of their credentials.

use core::sync::atomic::Ordering::{Acquire, Release};

use hippos_store::Platform;

use crate::credentials::{CredentialsError, CREDENTIALS_MAX};
use crate::Engine;

impl<P: Platform> Engine<P> {
    /// Sets the users that may authenticate, as lines of `user:password`; without any, authentication is not required.
    /// While there are users, each new TCP connection has to authenticate first and UDP is refused. Process context;
    /// sleeps.
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
        // Set before the text changes, so that no client is accepted because of an empty text in between.
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

    /// Requires authentication while no user is known: until credentials are set, no client is served.
    pub fn close(&self) {
        self.set_authentication(true);
    }

    /// Whether no client is served: authentication is required, and no user is known.
    pub(crate) fn is_closed(&self) -> bool {
        self.authentication() && self.settings.credentials.is_empty()
    }

    /// Whether a user with this password exists.
    pub(crate) fn authenticate(&self, user: &[u8], password: &[u8]) -> bool {
        let _guard = self.store.read();
        self.settings.credentials.verify(user, password)
    }
}
