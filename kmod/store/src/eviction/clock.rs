// SPDX-License-Identifier: GPL-2.0-only
//! CLOCK: a hand goes over the class's slots in memory order; a slot that was hit since the hand last passed gets a
//! second chance.

use hippos_invariant::Exact;

use crate::item::Slot;

use super::slots::{gets_second_chance, HandStep, Picked, Slots, SCAN_MAX};

pub(super) const CAP: u8 = 1;

pub(super) fn pick(
    class: &mut impl Slots,
    want: usize,
    dead: impl Fn(Slot) -> bool,
    picked: &mut Picked,
) -> usize {
    let mut scanned = 0usize;
    while scanned < SCAN_MAX && picked.len() < want && !picked.is_full() {
        let swept = class.advance_hand();
        if matches!(swept, HandStep::NoSlab) {
            break;
        }
        scanned = scanned.add_exact(1);
        let HandStep::Slot(slot) = swept else {
            continue;
        };
        if slot.is_live() && !gets_second_chance(slot, &dead) {
            picked.push(slot);
        }
    }
    scanned
}
