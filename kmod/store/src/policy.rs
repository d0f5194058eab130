//! Which slot goes next.

use crate::item::Slot;
use crate::platform::RawLock;
use crate::pool::{Pool, NONE};
use crate::slab::{Class, Hand, Slabs, State, HEAD};
use crate::sync::Relaxed;

/// Slots picked at a time.
pub(crate) const PICK: usize = 16;
/// Slots looked at while a class's lock is held.
const LOOK: usize = 64;

pub(crate) type Picked = heapless::Vec<Slot, PICK>;

/// CLOCK: the hand goes over the class's slots; what was hit since it last came gets a second
/// chance, what is `dead` does not. Picks up to `want` and returns how many it looked at.
pub(crate) fn clock<L: RawLock>(
    slabs: &Slabs<L>,
    pool: &Pool<L>,
    of: &Class<L>,
    state: &mut State,
    want: usize,
    dead: impl Fn(Slot) -> bool,
    picked: &mut Picked,
) -> usize {
    let mut looked = 0usize;
    while looked < LOOK && picked.len() < want && !picked.is_full() {
        looked = looked.wrapping_add(1);
        let hand = state.hand;
        let Some(block) = pool.get(hand.block) else {
            state.hand = Hand {
                block: state.ring,
                offset: HEAD as u32,
            };
            if state.ring == NONE {
                break;
            }
            continue;
        };
        let Some(slot) = slabs.slot_at(block, hand.offset) else {
            state.hand = Hand {
                block: block.after.load(Relaxed),
                offset: HEAD as u32,
            };
            continue;
        };
        state.hand.offset = hand.offset.wrapping_add(of.size());
        if !slot.is_live() {
            continue;
        }
        let refs = &slot.header().refs;
        if refs.load(Relaxed) != 0 && !dead(slot) {
            refs.store(0, Relaxed);
            continue;
        }
        let _ = picked.push(slot);
    }
    looked
}
