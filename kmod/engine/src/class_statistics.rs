// SPDX-License-Identifier: GPL-2.0-only
//! The tables of `stats items` and `stats slabs`: the rows of each slab class, in the order in which they are shown. The
//! tables in the documentation are generated from them.

use hippos_store::{ClassCounter as Class, ClassSnapshot, Platform, Store};

use crate::statistics::StatisticKind;

/// A row for each slab class.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "kind and doc are the documentation's")
)]
pub(crate) struct ClassStatistic {
    pub(crate) name: &'static str,
    kind: StatisticKind,
    doc: &'static str,
    source: ClassSource,
}

/// The source of a value.
enum ClassSource {
    Zero,
    Counter(Class),
    /// The state of the class.
    State(fn(&ClassSnapshot) -> u64),
    /// How long the item was idle that was accessed longest ago.
    TailAge,
}

impl ClassStatistic {
    const fn row(
        name: &'static str,
        kind: StatisticKind,
        source: ClassSource,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            doc,
            source,
        }
    }

    /// The value of a class whose state is `shot`.
    pub(crate) fn value<P: Platform>(
        &self,
        store: &Store<P>,
        class: usize,
        shot: &ClassSnapshot,
    ) -> u64 {
        match self.source {
            ClassSource::Zero => 0,
            ClassSource::Counter(counter) => store.class_counted(class, counter),
            ClassSource::State(of) => of(shot),
            ClassSource::TailAge => u64::from(store.tail_age(class)),
        }
    }
}

const fn counter(name: &'static str, counter: Class, doc: &'static str) -> ClassStatistic {
    let source = ClassSource::Counter(counter);
    ClassStatistic::row(name, StatisticKind::Counter, source, doc)
}

const fn gauge(
    name: &'static str,
    of: fn(&ClassSnapshot) -> u64,
    doc: &'static str,
) -> ClassStatistic {
    ClassStatistic::row(name, StatisticKind::Gauge, ClassSource::State(of), doc)
}

const fn zero(name: &'static str) -> ClassStatistic {
    ClassStatistic::row(name, StatisticKind::Zero, ClassSource::Zero, "")
}

/// The rows of `stats items`.
#[rustfmt::skip]
pub(crate) const ITEMS: &[ClassStatistic] = &[
    gauge("number", |shot| shot.items, "Items now"),
    zero("number_hot"),
    zero("number_warm"),
    gauge("number_cold", |shot| shot.items, "The same as number: there is one list"),
    zero("age_hot"),
    zero("age_warm"),
    ClassStatistic::row("age", StatisticKind::Gauge, ClassSource::TailAge, "Idle time of the item that was accessed longest ago, of those that the eviction looks at next, seconds"),
    gauge("mem_requested", |shot| shot.bytes, "Bytes of the items, headers included"),
    counter("evicted", Class::Evicted, "Items evicted"),
    counter("evicted_nonzero", Class::EvictedNonzero, "Of those, items that had an expiry"),
    gauge("evicted_time", |shot| u64::from(shot.evicted_age), "Idle time of the last evicted item, seconds"),
    counter("outofmemory", Class::OutOfMemory, "Stores refused for lack of memory"),
    zero("tailrepairs"),
    counter("reclaimed", Class::Reclaimed, "Items found expired or flushed, whose slots were reclaimed"),
    counter("expired_unfetched", Class::ExpiredUnfetched, "Of those, items that were never hit"),
    counter("evicted_unfetched", Class::EvictedUnfetched, "Items evicted that were never hit"),
    zero("evicted_active"),
    zero("crawler_reclaimed"),
    zero("crawler_items_checked"),
    zero("lrutail_reflocked"),
    zero("moves_to_cold"),
    zero("moves_to_warm"),
    zero("moves_within_lru"),
    zero("direct_reclaims"),
    zero("hits_to_hot"),
    zero("hits_to_warm"),
    counter("hits_to_cold", Class::GetHits, "Lookups that found an item"),
    zero("hits_to_temp"),
];

/// The rows of `stats slabs`.
#[rustfmt::skip]
pub(crate) const SLABS: &[ClassStatistic] = &[
    gauge("chunk_size", |shot| shot.size as u64, "Bytes of a slot"),
    gauge("chunks_per_page", |shot| u64::from(shot.per_slab), "Slots of a slab"),
    gauge("total_pages", |shot| u64::from(shot.slabs), "Slabs"),
    gauge("total_chunks", |shot| shot.slots, "Slots"),
    // The two were read one after the other, while slots were made and freed.
    gauge("used_chunks", |shot| shot.slots.saturating_sub(shot.free), "Slots that are not free"),
    gauge("free_chunks", |shot| shot.free, "Free slots"),
    zero("free_chunks_end"),
    counter("get_hits", Class::GetHits, "Lookups that found an item"),
    counter("cmd_set", Class::CmdSet, "Requests to store"),
    counter("delete_hits", Class::DeleteHits, "Deletes that found an item"),
    counter("incr_hits", Class::IncrHits, "Increments that found an item"),
    counter("decr_hits", Class::DecrHits, "Decrements that found an item"),
    counter("cas_hits", Class::CasHits, "Compare-and-swaps whose number was right"),
    counter("cas_badval", Class::CasBadval, "Compare-and-swaps whose number was wrong"),
    counter("touch_hits", Class::TouchHits, "Touches that found an item"),
    gauge("hippos_retired", |shot| u64::from(shot.retired), "Slots that wait for a grace period"),
    gauge("hippos_reserve", |shot| u64::from(shot.reserve), "Slots that the store tries to keep free"),
];

/// The table of the documentation; `before` stands before each name.
#[cfg(test)]
pub(crate) fn documented(rows: &[ClassStatistic], before: &str) -> std::string::String {
    let mut table = std::string::String::from("\n| Name | Kind | Meaning |\n|---|---|---|\n");
    for row in rows {
        let kind = match row.kind {
            StatisticKind::Counter => "counter",
            StatisticKind::Gauge => "gauge",
            StatisticKind::Zero => continue,
        };
        let (name, doc) = (row.name, row.doc);
        table += &std::format!("| `{before}{name}` | {kind} | {doc} |\n");
    }
    table + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_class_statistic_has_one_row_and_a_meaning() {
        for table in [ITEMS, SLABS] {
            let mut names = HashSet::new();
            for row in table {
                assert!(names.insert(row.name), "{} twice", row.name);
                let zero = row.kind == StatisticKind::Zero;
                assert_eq!(row.doc.is_empty(), zero, "{}", row.name);
            }
        }
    }

    /// A counter that no row shows would count for nothing.
    #[test]
    fn each_counter_of_a_class_is_shown() {
        for at in 0..Class::Count as usize {
            let shown = |row: &ClassStatistic| match row.source {
                ClassSource::Counter(counter) => counter as usize == at,
                _ => false,
            };
            // Numbers now, which the state of the class has.
            let state = [Class::Items as usize, Class::Bytes as usize].contains(&at);
            let rows = ITEMS.iter().chain(SLABS);
            assert!(state || rows.into_iter().any(shown), "counter {at}");
        }
    }
}
