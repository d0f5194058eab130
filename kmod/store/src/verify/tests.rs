// SPDX-License-Identifier: GPL-2.0-only
//! Tests that each kind of damage is found, with the rule that it breaks.

use std::format;
use std::vec::Vec;

use crate::config::{Config, Eviction};
use crate::counters::ClassCounter;
use crate::eviction::Policy;
use crate::host::Host;
use crate::index::REFERENCE;
use crate::item::{Phase, Slot};
use crate::memory::pool::Use;
use crate::operations::commit::Commit;
use crate::operations::reservation::Reservation;
use crate::store::Store;
use crate::sync::Relaxed;
use crate::time::Expiry;
use crate::verify::{Rule, Violation};

const BLOCK: usize = 16 << 10;

fn set(store: &Store<Host>, key: &str, len: usize) {
    let key = key.as_bytes();
    let new = store.reserve(key, store.hash(key), 0, Expiry::NEVER, len);
    store.commit(new.unwrap(), &Commit::default()).unwrap();
}

/// A store with items of three classes, free slots in slabs and in magazines, retired slots, and overflow buckets.
fn filled(eviction: Eviction) -> Store<Host> {
    let config = Config {
        memory: 64 * BLOCK,
        block: BLOCK,
        item_max: 8 << 10,
        eviction,
        ..Config::default()
    };
    let store = Store::new(config, Host::new().cpus(2).poison()).unwrap();
    for round in 0..2 {
        for i in 0..3000 {
            set(&store, &format!("small-{i}"), 20);
            if i % 10 == 0 {
                set(&store, &format!("large-{i}"), 500 + 400 * round);
            }
        }
        for i in (0..3000).step_by(3) {
            let key = format!("small-{i}");
            store.delete(key.as_bytes(), store.hash(key.as_bytes()), None);
        }
    }
    store.verify().unwrap();
    store
}

/// The rule that the check reports after some damage.
fn found(damage: impl FnOnce(&Store<Host>)) -> Rule {
    let store = filled(Eviction::Clock);
    damage(&store);
    store.verify().unwrap_err().rule
}

/// The class of the small items.
fn class(store: &Store<Host>) -> usize {
    store.class_of("small-100".len(), 20).unwrap()
}

/// Any slot of a class in this phase.
fn slot_in(store: &Store<Host>, class: usize, phase: Phase) -> Slot {
    slots(store, class)
        .find(|slot| slot.phase() == phase)
        .unwrap()
}

fn slots(store: &Store<Host>, class: usize) -> impl Iterator<Item = Slot> + '_ {
    let size = store.slabs.get(class).unwrap().size();
    store
        .blocks_of(Use::Slab)
        .filter(move |(_, block)| usize::from(block.class.load(Relaxed)) == class)
        .flat_map(move |(_, block)| {
            (0u32..).map_while(move |i| {
                store
                    .slabs
                    .slot_at(block, crate::memory::class::HEAD as u32 + i * size)
            })
        })
}

/// Moves all of a class's free slots from the magazine to its slabs.
fn empty_magazine(store: &Store<Host>, class: usize) {
    let of = store.slabs.get(class).unwrap();
    let mut state = of.state.lock();
    store.slabs.flush_magazine(&store.pool, of, &mut state);
}

#[test]
fn a_store_in_use_is_sound_under_each_policy() {
    for eviction in [Eviction::Clock, Eviction::Sieve, Eviction::S3Fifo] {
        let store = filled(eviction);
        let census = store.verify().unwrap();
        let sum = census.free + census.reserved + census.live + census.retired + census.pinned;
        assert_eq!(census.carved, sum);
        assert!(census.free != 0 && census.retired != 0, "{census:?}");
        assert_eq!(census.live, store.snapshot().items);
        // The state that the damage below relies on.
        let state = store.slabs.get(class(&store)).unwrap().state.lock();
        assert!(state.magazine.len > 2);
        drop(state);
        assert!(store.snapshot().overflow != 0);
    }
}

#[test]
fn reservations_and_pins_are_counted() {
    let store = filled(Eviction::Clock);
    let key = b"small-1";
    let hash = store.hash(key);
    let new = store.reserve(b"new", store.hash(b"new"), 0, Expiry::NEVER, 9);
    let pin = {
        let guard = store.read();
        let item = store.get(&guard, key, hash).unwrap();
        store.pin(&item).unwrap()
    };
    store.delete(key, hash, None);
    for _ in 0..10 {
        store.maintain();
        crate::Platform::gp_wait(store.platform());
    }
    let census = store.verify().unwrap();
    assert_eq!((census.reserved, census.pinned), (1, 1));
    drop((new, pin));
    let census = store.verify().unwrap();
    assert_eq!((census.reserved, census.pinned), (0, 0));
}

/// A reserved slot whose reservation was forgotten.
#[test]
fn a_lost_reservation_shows_as_reserved() {
    let store = filled(Eviction::Clock);
    let new = store.reserve(b"new", store.hash(b"new"), 0, Expiry::NEVER, 9);
    new.unwrap().into_published();
    assert_eq!(store.verify().unwrap().reserved, 1);
}

#[test]
fn a_slot_lost_from_the_magazine_is_found() {
    let rule = found(|store| {
        let of = store.slabs.get(class(store)).unwrap();
        let mut state = of.state.lock();
        state.magazine.first = state.magazine.first.unwrap().next_free();
        state.magazine.len -= 1;
        of.free.store(of.free() - 1, Relaxed);
    });
    assert_eq!(rule, Rule::FreeSlots);
}

#[test]
fn a_slot_lost_from_a_slab_is_found() {
    let rule = found(|store| {
        empty_magazine(store, class(store));
        let slab = |(_, block): &(u32, &crate::memory::pool::Block)| {
            usize::from(block.class.load(Relaxed)) == class(store) && block.free.load(Relaxed) != 0
        };
        let (_, block) = store.blocks_of(Use::Slab).find(slab).unwrap();
        let free = slots(store, class(store)).find(|slot| {
            let offset = slot.address().get() % BLOCK;
            offset / 8 == block.free.load(Relaxed) as usize
        });
        let next = free.unwrap().header().expiry.load(Relaxed);
        block.free.store(next, Relaxed);
    });
    assert_eq!(rule, Rule::SlabUsed);
}

#[test]
fn a_slot_freed_twice_is_found() {
    // Freed into the magazine, which becomes a cycle.
    let rule = found(|store| {
        // The magazine is not full.
        let first = store.reserve(b"small-one", store.hash(b"small-one"), 0, Expiry::NEVER, 20);
        first.unwrap().into_published();
        let new = store.reserve(b"small-new", store.hash(b"small-new"), 0, Expiry::NEVER, 20);
        let new = new.unwrap();
        let again = Reservation::new(store, new.slot, b"small-new", 20);
        drop(new);
        drop(again);
    });
    assert_eq!(rule, Rule::Magazine);
    // Freed into its slab's list, while the magazine must stay empty.
    let store = filled(Eviction::Clock);
    let class = class(&store);
    empty_magazine(&store, class);
    store.slabs.get(class).unwrap().state.lock().failed += 1;
    let free = slot_in(&store, class, Phase::Free);
    drop(Reservation::new(&store, free, b"small-new", 20));
    let violation = store.verify().unwrap_err();
    assert!(
        matches!(violation.rule, Rule::SlabFreeList | Rule::SlabUsed),
        "{violation:?}"
    );
}

#[test]
fn a_live_slot_in_a_free_list_is_found() {
    let rule = found(|store| {
        let live = slot_in(store, class(store), Phase::Live);
        let of = store.slabs.get(class(store)).unwrap();
        let mut state = of.state.lock();
        // Its CAS number becomes a link.
        live.link_free(state.magazine.first);
        state.magazine.first = Some(live);
        state.magazine.len += 1;
    });
    assert_eq!(rule, Rule::Magazine);
}

#[test]
fn wrong_counts_are_found() {
    type Damage = fn(&Store<Host>, usize);
    let cases: [(Rule, Damage); 16] = [
        (Rule::Items, |s, c| s.count_class(c, ClassCounter::Items, 1)),
        (Rule::Bytes, |s, c| s.count_class(c, ClassCounter::Bytes, 8)),
        (Rule::FreeCount, |s, c| {
            s.slabs.get(c).unwrap().free.fetch_add(1, Relaxed);
        }),
        (Rule::SlabCount, |s, c| {
            s.slabs.get(c).unwrap().slabs.fetch_add(1, Relaxed);
        }),
        (Rule::EmptyCount, |s, c| {
            s.slabs.get(c).unwrap().state.lock().empties += 1
        }),
        // More than the class has left unused, and a sum that is not the classes'.
        (Rule::SpareCount, |s, c| {
            let of = s.slabs.get(c).unwrap();
            of.spare.store(of.state.lock().empties + 1, Relaxed);
            s.slabs.spare.store(of.spare.load(Relaxed), Relaxed);
        }),
        (Rule::SpareCount, |s, _| {
            s.slabs.spare.fetch_add(1, Relaxed);
        }),
        (Rule::RetiredCount, |s, c| {
            s.slabs.get(c).unwrap().retired.fetch_sub(1, Relaxed);
        }),
        (Rule::DrainingCount, |s, c| {
            s.slabs.get(c).unwrap().state.lock().draining += 1
        }),
        (Rule::SlabUsed, |s, c| {
            let slab = slot_in(s, c, Phase::Live);
            let (block, _) = s.block_at(slab.address().get()).unwrap();
            block.used.fetch_add(1, Relaxed);
        }),
        (Rule::RingCount, |s, _| {
            let shard = &s.retire.shards[0];
            shard.count.fetch_add(1, Relaxed);
        }),
        (Rule::PinnedCount, |s, c| {
            let retired = slot_in(s, c, Phase::Retired);
            // Its class does not count on it any more, and no ring holds it.
            retired.defer_free();
            s.slabs.get(c).unwrap().retired.fetch_sub(1, Relaxed);
            for shard in s.retire.shards.iter() {
                forget(s, shard, retired);
            }
        }),
        (Rule::IdleBlocks, |s, _| {
            s.pool.uses[Use::Idle as usize].fetch_add(1, Relaxed);
        }),
        (Rule::BlockUses, |s, _| {
            s.pool.uses[Use::Index as usize].fetch_add(1, Relaxed);
        }),
        (Rule::StripeItems, |s, _| {
            s.index.stripes[7].state.lock().items += 1
        }),
        (Rule::OverflowBuckets, |s, _| {
            s.index.locks.overflow.lock().count += 1
        }),
    ];
    for (rule, damage) in cases {
        let store = filled(Eviction::Clock);
        damage(&store, class(&store));
        let violation = store.verify().unwrap_err();
        assert_eq!(violation.rule, rule, "{violation:?}");
    }
}

/// Removes a slot from a ring of retired ones.
fn forget(
    store: &Store<Host>,
    shard: &crate::memory::retire::Shard<<Host as crate::Platform>::Lock>,
    slot: Slot,
) {
    let at = store
        .retire
        .shards
        .iter()
        .position(|other| core::ptr::eq(other, shard))
        .unwrap();
    let mut ring = shard.ring.lock();
    for batch in ring.tail..=ring.head {
        let batch_at = store.retire.batch(at, batch).unwrap();
        let most = if batch == ring.head {
            ring.filled
        } else {
            batch_at.references.len()
        };
        let words: Vec<u64> = batch_at.references[..most]
            .iter()
            .map(|word| word.load(Relaxed))
            .take_while(|word| *word != 0)
            .collect();
        let kept: Vec<u64> = words
            .iter()
            .copied()
            .filter(|word| *word != slot.address().get() as u64)
            .collect();
        if kept.len() == words.len() {
            continue;
        }
        for (i, word) in batch_at.references.iter().enumerate().take(words.len()) {
            word.store(kept.get(i).copied().unwrap_or(0), Relaxed);
        }
        if batch == ring.head {
            ring.filled -= 1;
        }
        shard.count.fetch_sub(1, Relaxed);
    }
}

#[test]
fn a_retired_slot_that_no_ring_holds_is_found() {
    let rule = found(|store| {
        let retired = slot_in(store, class(store), Phase::Retired);
        for shard in store.retire.shards.iter() {
            forget(store, shard, retired);
        }
    });
    assert_eq!(rule, Rule::RetiredSlots);
}

#[test]
fn wrong_back_references_are_found() {
    let rule = found(|store| {
        let live = slot_in(store, class(store), Phase::Live);
        live.header().class.store(0x3f, Relaxed);
    });
    assert_eq!(rule, Rule::SlotClass);
    let rule = found(|store| {
        // The slab's ring skips it.
        let (_, block) = store.blocks_of(Use::Slab).last().unwrap();
        let before = store.pool.get(block.ring_prev.load(Relaxed)).unwrap();
        before
            .ring_next
            .store(block.ring_next.load(Relaxed), Relaxed);
    });
    assert_eq!(rule, Rule::SlabRing);
    let rule = found(|store| {
        let of = store.slabs.get(class(store)).unwrap();
        of.state.lock().partial = crate::memory::pool::NONE;
    });
    assert_eq!(rule, Rule::SlabLists);
}

/// The first bucket that has overflow buckets.
fn crowded(store: &Store<Host>) -> &crate::index::Bucket {
    (0..store.index.buckets())
        .filter_map(|at| store.index.bucket(at))
        .find(|bucket| bucket.head.load(Relaxed) & REFERENCE != 0)
        .unwrap()
}

#[test]
fn damage_to_the_index_is_found() {
    let rule = found(|store| {
        let head = &crowded(store).head;
        head.store(head.load(Relaxed) & REFERENCE, Relaxed);
    });
    assert_eq!(rule, Rule::Filter);
    // An entry that is missing, one that exists twice, and one with another tag.
    let rule = found(|store| {
        let key = b"small-1";
        let chain = store.index.lock(store.hash(key)).unwrap();
        let place = chain.find(|slot| slot.key() == key).unwrap();
        place.entry.store(0, Relaxed);
    });
    assert_eq!(rule, Rule::StripeItems);
    let rule = found(|store| {
        let bucket = crowded(store);
        let [first, second, ..] = &bucket.entries;
        second.store(first.load(Relaxed), Relaxed);
    });
    assert_eq!(rule, Rule::Entries);
    let rule = found(|store| {
        let [first, ..] = &crowded(store).entries;
        first.fetch_xor(1 << 50, Relaxed);
    });
    assert_eq!(rule, Rule::Lookup);
    // A chain that leads to no bucket, and a cyclic one.
    let rule = found(|store| {
        let head = &crowded(store).head;
        head.store(head.load(Relaxed) ^ 1 << 30, Relaxed);
    });
    assert_eq!(rule, Rule::Chain);
    let rule = found(|store| {
        let first = crowded(store);
        let next = store.index.follow(first.head.load(Relaxed)).unwrap();
        next.entries
            .iter()
            .for_each(|entry| entry.store(0, Relaxed));
        next.head.store(first.head.load(Relaxed), Relaxed);
    });
    assert_eq!(rule, Rule::Chain);
}

/// The same key in two live slots.
#[test]
fn a_key_that_is_there_twice_is_found() {
    let store = filled(Eviction::Clock);
    let key = b"small-1";
    let hash = store.hash(key);
    let new = store.reserve(key, hash, 0, Expiry::NEVER, 20).unwrap();
    let slot = new.slot;
    new.into_published();
    slot.publish(0);
    let mut chain = store.index.lock(hash).unwrap();
    let vacancy = chain.vacancy().unwrap();
    chain.insert(vacancy, slot);
    drop(chain);
    store.count_class(slot.class(), ClassCounter::Items, 1);
    store.count_class(slot.class(), ClassCounter::Bytes, slot.size() as u64);
    assert_eq!(store.verify().unwrap_err().rule, Rule::Key);
}

#[test]
fn damage_to_queues_is_found() {
    for eviction in [Eviction::Sieve, Eviction::S3Fifo] {
        let store = filled(eviction);
        let class = class(&store);
        {
            let of = store.slabs.get(class).unwrap();
            let mut state = of.state.lock();
            match &mut state.policy {
                Policy::Sieve(sieve) => sieve.queue.len += 1,
                Policy::S3Fifo(queues) => queues.main.len += 1,
                Policy::Clock => unreachable!(),
            }
        }
        let Violation {
            rule, class: of, ..
        } = store.verify().unwrap_err();
        assert_eq!((rule, of), (Rule::Queue, Some(class)));
    }
}
