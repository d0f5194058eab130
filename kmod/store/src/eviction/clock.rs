// SPDX-License-Identifier: GPL-2.0-only
//! CLOCK: a hand goes over the class's slots as they lie; what was hit since it last came gets a
//! second chance.

use hippos_invariant::Exact;

use crate::item::Slot;

use super::slots::{gets_second_chance, Picked, Slots, Swept, LOOK};

pub(super) const CAP: u8 = 1;

pub(super) fn pick(
    class: &mut impl Slots,
    want: usize,
    dead: impl Fn(Slot) -> bool,
    picked: &mut Picked,
) -> usize {
    let mut looked = 0usize;
    while looked < LOOK && picked.len() < want && !picked.is_full() {
        let swept = class.sweep();
        if matches!(swept, Swept::NoSlab) {
            break;
        }
        looked = looked.add_exact(1);
        let Swept::Slot(slot) = swept else { continue };
        if slot.is_live() && !gets_second_chance(slot, &dead) {
            picked.push(slot);
        }
    }
    looked
}
