// SPDX-License-Identifier: GPL-2.0-only
//! The sizes of the slots of each class.

use hippos_invariant::Exact;

use super::class::{CLASSES, HEAD};

/// Up to this size, classes are 8 bytes apart, whatever the factor: a cache has most slots in the small classes, where
/// waste costs most.
const FINE: u64 = 80;

/// The slot sizes of the classes. They grow by `factor` hundredths, each rounded up so that the slots, with `extra`
/// bytes for each elsewhere in the slab, fill a slab. The last slot size is a whole slab.
pub(super) fn sizes(
    slab: usize,
    smallest: usize,
    factor: u32,
    extra: u64,
) -> impl Iterator<Item = u32> {
    // The head holds the extra bytes of one slot.
    let room = (slab.sub_exact(HEAD) as u64).add_exact(extra);
    let mut next = (smallest as u64).checked_next_multiple_of(8);
    let fit = move |size: u64| {
        let slots = room.checked_div(size.add_exact(extra)).filter(|n| *n > 0)?;
        Some((room.checked_div(slots)? & !7).sub_exact(extra))
    };
    let mut left = CLASSES;
    core::iter::from_fn(move || {
        let last = room.checked_sub(extra)? & !7;
        left = left.checked_sub(1)?;
        let size = if left == 0 { last } else { fit(next?)? };
        let step = size.add_exact(8);
        let grown = match size {
            ..FINE => step,
            _ => (size.mul_exact(u64::from(factor)) / 100).max(step),
        };
        next = if size >= last {
            None
        } else {
            grown.min(last).checked_next_multiple_of(8)
        };
        if size >= last {
            left = 0;
        }
        u32::try_from(size).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn classes_grow_to_a_whole_slab_and_waste_little() {
        for factor in [102, 110, 125, 200, 1000] {
            for slab in [4096, 1 << 20, 4 << 20] {
                for extra in [0, 8] {
                    let sizes: Vec<u32> = sizes(slab, 48, factor, extra as u64).collect();
                    assert!(sizes.len() <= CLASSES);
                    assert!(
                        sizes.windows(2).all(|w| w[0] < w[1] && w[1] % 8 == 0),
                        "{sizes:?}"
                    );
                    assert_eq!(*sizes.last().unwrap() as usize, slab - HEAD);
                    for s in &sizes {
                        let slots = (slab - HEAD + extra) / (*s as usize + extra);
                        let waste = slab - HEAD + extra - slots * (*s as usize + extra);
                        assert!(waste < 8 * slots, "{s} of {slab}");
                    }
                }
            }
        }
    }
}
