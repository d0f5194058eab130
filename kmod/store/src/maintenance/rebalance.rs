// SPDX-License-Identifier: GPL-2.0-only
//! Decides which class gives memory to which: computed from statistics, without side effects.
//!
//! Classes come as iterators, not as slices: a table of all classes would be too large for a kernel stack.

use hippos_invariant::Exact;

/// A class needs memory when it has evicted a slab's worth of slots, divided by this.
pub(crate) const PRESSURE_DIVISOR: u32 = 4;
/// A slab moves if its worth to the receiving class is this many times its present worth.
const GAIN_MIN: u128 = 2;
/// One hit counts as much as this many evictions.
const HIT: u128 = 16;

/// The statistics of a class that the decision uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassStats {
    pub(super) class: usize,
    /// Bytes of a slot.
    pub(super) size: u32,
    pub(super) slots_per_slab: u32,
    pub(super) slabs: u32,
    /// Slabs that it does not use.
    pub(super) spare: u32,
    /// Free slots, and the number of them that should stay free.
    pub(super) free: u64,
    pub(super) reserve: u32,
    /// Slots that had to be evicted for new items since memory was last moved.
    pub(super) pressure: u32,
    /// Recent hits and evictions.
    pub(super) hits: u64,
    pub(super) evictions: u64,
}

impl ClassStats {
    fn is_under_pressure(&self) -> bool {
        self.pressure > self.slots_per_slab / PRESSURE_DIVISOR
    }

    /// The pressure in bytes, which is comparable between classes.
    fn pressure_bytes(&self) -> u64 {
        u64::from(self.pressure).mul_exact(u64::from(self.size))
    }

    /// The worth of memory to the class, from recent hits, and from recent evictions, because some of the evicted items
    /// might have been hit. At least 1.
    fn utility(&self) -> u128 {
        u128::from(self.hits)
            .mul_exact(HIT)
            .add_exact(u128::from(self.evictions))
            .add_exact(1)
    }

    /// Whether more than a slab's worth of slots is free.
    fn has_free_slab(&self) -> bool {
        self.free > u64::from(self.slots_per_slab).add_exact(u64::from(self.reserve))
    }
}

/// A class as one bit of a mask.
pub(super) fn bit(class: usize) -> u64 {
    1u64.shl_by(class as u32)
}

/// The class under the highest pressure, if that is worth a slab, and how many slabs it is worth.
pub(super) fn pick_receiver(classes: impl Iterator<Item = ClassStats>) -> Option<(usize, usize)> {
    let of = classes
        .filter(ClassStats::is_under_pressure)
        .max_by_key(ClassStats::pressure_bytes)?;
    let worth = of.pressure.saturating_mul(PRESSURE_DIVISOR);
    let slabs = worth.checked_div(of.slots_per_slab).unwrap_or(0);
    Some((of.class, slabs as usize))
}

/// The use for which a slab is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The index, or the platform.
    Memory,
    /// A class that evicts: it has to gain more than the other loses.
    Pressure(usize),
    /// A class that has nothing to evict: it gets a slab in any case.
    NothingToEvict(usize),
}

impl Purpose {
    pub(super) fn receiver(self) -> Option<usize> {
        match self {
            Self::Memory => None,
            Self::Pressure(class) | Self::NothingToEvict(class) => Some(class),
        }
    }
}

/// The class that makes the least use of its slabs, apart from the receiver and the classes in the mask `except`: one
/// that has a spare slab, one that has more than a slab's worth of free slots, or the one to which a slab is worth least.
pub(super) fn pick_victim(
    classes: impl Iterator<Item = ClassStats> + Clone,
    purpose: Purpose,
    except: u64,
) -> Option<usize> {
    let receiver = purpose.receiver();
    let candidates = || {
        classes
            .clone()
            .filter(|of| of.slabs != 0 && Some(of.class) != receiver && except & bit(of.class) == 0)
    };
    let spare = || candidates().find(|of| of.spare != 0);
    if let Some(victim) = spare().or_else(|| candidates().find(ClassStats::has_free_slab)) {
        return Some(victim.class);
    }
    // Compares the worth per slab of two classes, by cross-multiplication.
    let less = |a: &ClassStats, b: &ClassStats| {
        a.utility().mul_exact(u128::from(b.slabs)) < b.utility().mul_exact(u128::from(a.slabs))
    };
    let of = candidates().reduce(|a, b| if less(&b, &a) { b } else { a })?;
    if let Purpose::Pressure(receiver) = purpose {
        let to = classes.clone().find(|of| of.class == receiver)?;
        let gains = to.utility().mul_exact(u128::from(of.slabs));
        let loses = of.utility().mul_exact(u128::from(to.slabs.max(1)));
        if to.slabs != 0 && gains < loses.mul_exact(GAIN_MIN) {
            return None;
        }
    }
    Some(of.class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(slabs: u32, hits: u64, pressure: u32) -> ClassStats {
        ClassStats {
            size: 100,
            slots_per_slab: 40,
            slabs,
            hits,
            pressure,
            ..ClassStats::default()
        }
    }

    /// Numbers the classes by their position.
    fn numbered(classes: &[ClassStats]) -> impl Iterator<Item = ClassStats> + Clone + '_ {
        let all = classes.iter().enumerate();
        all.map(|(class, of)| ClassStats { class, ..*of })
    }

    fn victim(classes: &[ClassStats], receiver: Option<usize>, except: u64) -> Option<usize> {
        let purpose = receiver.map_or(Purpose::Memory, Purpose::Pressure);
        pick_victim(numbered(classes), purpose, except)
    }

    #[test]
    fn receiver_is_the_class_with_most_bytes_evicted() {
        let receiver = |classes: &[ClassStats]| pick_receiver(numbered(classes));
        assert_eq!(receiver(&[class(1, 0, 10), class(1, 0, 0)]), None);
        assert_eq!(receiver(&[class(1, 0, 11), class(1, 0, 40)]), Some((1, 4)));
        let mut larger = class(1, 0, 11);
        larger.size = 1000;
        assert_eq!(receiver(&[larger, class(1, 0, 40)]), Some((0, 1)));
    }

    #[test]
    fn victim_has_fewest_hits_a_slab() {
        let classes = [class(1, 100, 0), class(10, 200, 0), class(1, 30, 0)];
        assert_eq!(victim(&classes, None, 0), Some(1));
        assert_eq!(victim(&classes, None, bit(1)), Some(2));
        assert_eq!(victim(&classes, Some(1), 0), None);
        assert_eq!(victim(&classes, Some(0), 0), Some(1));
        assert_eq!(victim(&[class(0, 0, 0)], None, 0), None);
    }

    #[test]
    fn victim_keeps_a_slab_that_is_worth_more_than_half_to_it() {
        let classes = [class(1, 100, 0), class(1, 51, 0)];
        assert_eq!(victim(&classes, Some(0), 0), None);
        let classes = [class(1, 100, 0), class(1, 49, 0)];
        assert_eq!(victim(&classes, Some(0), 0), Some(1));
        // A class that has nothing to evict, or no slab at all, gets one in any case.
        let purpose = Purpose::NothingToEvict(0);
        assert_eq!(
            pick_victim(numbered(&[class(1, 0, 0), class(1, 51, 0)]), purpose, 0),
            Some(1)
        );
        let classes = [class(0, 0, 0), class(1, 1000, 0)];
        assert_eq!(victim(&classes, Some(0), 0), Some(1));
    }

    #[test]
    fn victim_is_first_a_class_with_a_spare_slab() {
        let mut unused = class(2, 1000, 0);
        unused.spare = 1;
        let mut scattered = class(2, 0, 0);
        scattered.free = 41;
        assert_eq!(
            victim(&[class(2, 0, 0), scattered, unused], None, 0),
            Some(2)
        );
    }

    #[test]
    fn victim_is_then_a_class_with_a_slabs_worth_of_free_slots() {
        let mut spare = class(2, 1000, 0);
        spare.free = 41;
        assert_eq!(victim(&[class(2, 0, 0), spare], None, 0), Some(1));
        spare.reserve = 1;
        assert_eq!(victim(&[class(2, 0, 0), spare], None, 0), Some(0));
    }
}
