// SPDX-License-Identifier: MIT

//! A worker's counters and measurements. Only the worker writes them; the metrics page is computed from those of all
//! workers when it is requested.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::route::Class;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        /// One worker's counters. Only the worker writes them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Counters {
            /// Name, help text and value of each counter.
            pub fn list(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $text, self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections now.
    curr_connections "Client connections now";
    /// Connections ever.
    total_connections "Client connections since the start";
    /// Refused connections.
    rejected_connections "Client connections over the limit";
    /// Keys asked for.
    cmd_get "Keys asked for by get and its variants";
    /// Other commands sent to a node.
    cmd_forward "Other commands sent to a node";
    /// Datagrams sent to nodes.
    batches "Datagrams of GETs sent to nodes";
    /// Keys in them.
    batched_keys "Keys in those datagrams";
    /// Keys that another client's request carried.
    collapsed_keys "Keys that were in a datagram already";
    /// Datagrams that were not answered in time.
    udp_lost "Datagrams of GETs that were not answered in time";
    /// Datagrams without a pending request.
    udp_late "Datagrams from nodes without a pending request";
    /// Keys of sparse batches, asked by TCP.
    piped_keys "Keys asked over TCP because few fit a datagram";
    /// Keys asked again by TCP.
    udp_retries "Keys asked again over TCP";
    /// Requests that failed with their node.
    node_errors "Requests that failed because of their node";
    /// Connections to nodes that were given up.
    node_disconnects "Connections to nodes that broke or timed out";
    /// Requests over a route's limit.
    limited "Commands refused because of their route's limit";
    /// Commands that a shadow got too.
    shadowed "Commands sent to a shadow too";
    /// Values brought from a warm pool.
    warmed "Values brought from a warm pool";
    /// Commands about a key whose node was out.
    failovers "Commands sent to a failover pool";
    /// Values of hot keys that were kept.
    l1_hits "Values of hot keys that the proxy had kept";
    /// Times that a node was taken out.
    ejections "Times that a node was taken out of use";
    /// Datagrams from clients.
    udp_requests "Datagrams from clients";
    /// Those that were not answered.
    udp_refused "Datagrams from clients that were not served";
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // With one writer no locked instruction is needed.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts one.
    pub fn decrease(&self) {
        self.add(u64::MAX);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The sums of all workers' counters.
pub fn sum(workers: &[std::sync::Arc<Counters>]) -> Vec<(&'static str, &'static str, u64)> {
    let mut sum = Counters::default().list();
    for worker in workers {
        for (total, (_, _, value)) in sum.iter_mut().zip(worker.list()) {
            total.2 = total.2.wrapping_add(value);
        }
    }
    sum
}

/// The buckets of a histogram, besides the one above the last bound.
pub(crate) const BUCKETS: usize = 16;

/// A histogram with bounds that double.
#[derive(Debug, Default)]
pub struct Histogram {
    pub(crate) buckets: [Count; BUCKETS + 1],
    pub(crate) sum: Count,
}

/// The first bound of latencies is this power of two, in microseconds.
pub(crate) const LATENCY: u32 = 6;

impl Histogram {
    fn observe(&self, value: u64, first: u32) {
        let over = value.saturating_sub(1) >> first;
        let bucket = (u64::BITS - over.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS)].add(1);
        self.sum.add(value);
    }

    /// Adds a latency in microseconds.
    pub fn latency(&self, micros: u64) {
        self.observe(micros, LATENCY);
    }

    /// Adds a size.
    pub fn size(&self, size: u64) {
        self.observe(size, 0);
    }
}

/// The measurements of a route, by class of commands.
#[derive(Debug, Default)]
pub struct RouteMeter {
    /// From the command to its complete reply.
    pub latency: [Histogram; Class::ALL.len()],
}

/// The measurements of a node.
#[derive(Debug, Default)]
pub struct NodeMeter {
    /// From a request over TCP to its reply.
    pub tcp: Histogram,
    /// From a datagram to its reply.
    pub udp: Histogram,
    /// Keys per datagram.
    pub batch: Histogram,
    /// Keys that were requested again over TCP.
    pub retries: Count,
    /// How often it was ejected.
    pub ejections: Count,
    /// Failed requests.
    pub failures: Count,
}

/// The meters of one name, each with its worker's number.
type OfWorkers<T> = Vec<(usize, Arc<T>)>;

/// All workers' meters of a kind, by name.
#[derive(Debug)]
pub(crate) struct Meters<T>(Mutex<BTreeMap<String, OfWorkers<T>>>);

impl<T> Default for Meters<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Meters<T> {
    /// The worker's meter of that name.
    pub(crate) fn of(&self, worker: usize, name: &str) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meters = all.entry(name.to_owned()).or_default();
        match meters.iter().find(|(known, _)| *known == worker) {
            Some((_, meter)) => meter.clone(),
            None => {
                let meter = Arc::<T>::default();
                meters.push((worker, meter.clone()));
                meter
            }
        }
    }

    pub(crate) fn each(
        &self,
        mut f: impl FnMut(&str, &[(usize, Arc<T>)]) -> std::fmt::Result,
    ) -> std::fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().try_for_each(|(name, meters)| f(name, meters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_below_its_bound() {
        let sizes = Histogram::default();
        for (size, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (16, 4), (17, 5)] {
            let before = sizes.buckets[bucket].get();
            sizes.size(size);
            assert_eq!(sizes.buckets[bucket].get(), before + 1, "{size}");
        }
        let latencies = Histogram::default();
        for (micros, bucket) in [(64, 0), (65, 1), (128, 1), (129, 2), (u64::MAX, BUCKETS)] {
            let before = latencies.buckets[bucket].get();
            latencies.latency(micros);
            assert_eq!(latencies.buckets[bucket].get(), before + 1, "{micros}");
        }
    }
}
