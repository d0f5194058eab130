// SPDX-License-Identifier: GPL-2.0-only
//! A test that runs in the store's own environment, the kernel, on a store made for it.
//!
//! Several threads call it at once, each with its own `lane`, while another calls `Store::maintain`. Process context,
//! may sleep. It leaves no items behind.

use hippos_invariant::Exact;
use hippos_semantics::StoreMode;

use crate::operations::commit::{Arith, Arithmetic, Commit, Deleted, Outcome};
use crate::platform::Platform;
use crate::store::Store;
use crate::time::Expiry;
use crate::verify::Violation;

/// Keys of a lane.
const KEYS: u64 = 128;
/// Bytes that are written and checked at a time.
const PIECE: usize = 32;

/// A defect that the test found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value differs from the one that was stored under its key.
    Value,
    /// An operation on a key of this lane had an impossible result.
    Outcome,
    /// An increment was lost.
    Count,
    /// The counters count items that do not exist.
    Books,
    /// A list or a count of the store does not match its memory.
    Structure(Violation),
    /// Slots are reserved or pinned, but no reservation and no pin exists.
    Lost,
}

/// A key: a lane and a number, 16 bytes.
fn key(lane: u32, n: u64) -> [u8; 16] {
    let word = u128::from(lane) << 64 | u128::from(n);
    word.to_be_bytes()
}

/// The bytes that a key's value repeats.
fn piece(lane: u32, n: u64) -> [u8; PIECE] {
    let mut out = [0; PIECE];
    let mut word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(lane);
    for byte in &mut out {
        word = word.rotate_left(7).wrapping_mul(5).wrapping_add(1);
        *byte = word as u8;
    }
    out
}

/// Stores, reads, deletes and increments, `rounds` times. Running out of memory is not a fault.
pub fn run<P: Platform>(store: &Store<P>, lane: u32, rounds: u32) -> Result<(), Fault> {
    let counter = key(lane, KEYS);
    let mut counted = None;
    for round in 0..rounds {
        let n = u64::from(round) % KEYS;
        let name = key(lane, n);
        let hash = store.hash(&name);
        let bytes = piece(lane, n);
        let pieces = (round / 7) % 64;
        let len = (pieces as usize).mul_exact(PIECE);
        if let Ok(mut new) = store.reserve(&name, hash, lane, Expiry::NEVER, len) {
            for _ in 0..pieces {
                new.write(&bytes);
            }
            match store.commit(new, &Commit::new(StoreMode::Set)) {
                Ok(Outcome::Stored { .. }) | Err(_) => {}
                Ok(_) => return Err(Fault::Outcome),
            }
        }
        {
            // A miss is correct: the item may have been evicted.
            let guard = store.read();
            if let Some(item) = store.get(&guard, &name, hash) {
                let whole = item.value().chunks(PIECE).all(|chunk| chunk == bytes);
                if item.key() != name || item.flags() != lane || !whole {
                    return Err(Fault::Value);
                }
            }
        }
        if round % 11 == 0 {
            if let Deleted::Exists { .. } = store.delete(&name, hash, None) {
                return Err(Fault::Outcome);
            }
            if store.get(&store.read(), &name, hash).is_some() {
                return Err(Fault::Outcome);
            }
        }
        count(store, &counter, &mut counted)?;
    }
    for n in 0..=KEYS {
        let name = key(lane, n);
        store.delete(&name, store.hash(&name), None);
    }
    Ok(())
}

/// Increments a counter, and starts it again if it was evicted.
fn count<P: Platform>(
    store: &Store<P>,
    name: &[u8],
    counted: &mut Option<u64>,
) -> Result<(), Fault> {
    let hash = store.hash(name);
    let how = Arith {
        by: 1,
        ..Arith::default()
    };
    match store.arith(name, hash, &how) {
        Ok(Arithmetic::Value { value, .. }) => {
            let expected = counted.map(|n| n.wrapping_add(1));
            if expected.is_some_and(|n| n != value) {
                return Err(Fault::Count);
            }
            *counted = Some(value);
        }
        Ok(Arithmetic::NotFound) => {
            *counted = None;
            let zero = b"0";
            if let Ok(mut new) = store.reserve(name, hash, 0, Expiry::NEVER, zero.len()) {
                new.write(zero);
                let _ = store.commit(new, &Commit::new(StoreMode::Set));
            }
        }
        Ok(_) => return Err(Fault::Outcome),
        Err(_) => {}
    }
    Ok(())
}

/// Checks the store after all lanes have ended. No other caller has stored items, and nothing else runs in the store.
pub fn check<P: Platform>(store: &Store<P>) -> Result<(), Fault> {
    let shot = store.snapshot();
    if shot.items != 0 || shot.bytes != 0 || shot.held > shot.limit {
        return Err(Fault::Books);
    }
    let census = store.verify().map_err(Fault::Structure)?;
    if census.reserved != 0 || census.pinned != 0 {
        return Err(Fault::Lost);
    }
    Ok(())
}

#[cfg(all(test, not(loom), feature = "host"))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::host::Host;
    use crate::memory::pool::NONE;
    use crate::verify::Rule;

    #[test]
    fn check_finds_a_lost_reservation_and_a_broken_list() {
        let store = Store::new(Config::default(), Host::new()).unwrap();
        assert_eq!(check(&store), Ok(()));
        let new = store.reserve(b"new", store.hash(b"new"), 0, Expiry::NEVER, 9);
        new.unwrap().into_published();
        assert_eq!(check(&store), Err(Fault::Lost));
        let class = store.slabs.classes().iter().find(|of| of.slabs() != 0);
        class.unwrap().state.lock().partial = NONE;
        let fault = check(&store).unwrap_err();
        assert!(matches!(fault, Fault::Structure(of) if of.rule == Rule::SlabLists));
    }
}
