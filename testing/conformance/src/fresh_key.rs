// SPDX-License-Identifier: GPL-2.0-only
//! Keys that no other case has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::SystemTime;

/// Eight bytes for the keys of one play of one case.
pub(crate) fn fresh_key() -> Vec<u8> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static START: Mutex<Option<u64>> = Mutex::new(None);
    let now = || {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        since.as_nanos() as u64 / 1000
    };
    let start = START
        .lock()
        .map_or(0, |mut start| *start.get_or_insert_with(now));
    let mut n = start
        .wrapping_mul(64)
        .wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed) as u64);
    let mut key = vec![b'k'; 8];
    for digit in key.iter_mut().skip(1) {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize];
        n /= 36;
    }
    key
}
