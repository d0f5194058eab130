// SPDX-License-Identifier: MIT

//! What a worker counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        /// One worker's counts. Only the worker writes them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Counters {
            /// Name, help text and value of each count.
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
    cmd_get "Keys asked for by get and its kin";
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
    /// Replies that nobody waited for.
    udp_late "Datagrams from nodes that nobody waited for";
    /// Keys asked again by TCP.
    udp_retries "Keys asked again over TCP";
    /// Requests that failed with their node.
    node_errors "Requests that failed because of their node";
    /// Connections to nodes that were given up.
    node_disconnects "Connections to nodes that broke or timed out";
    /// Times that a node was taken out.
    ejections "Times that a node was taken out of use";
    /// Datagrams from clients.
    udp_requests "Datagrams from clients";
    /// Those that were not answered.
    udp_refused "Datagrams from clients that were not served";
}

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // One writer: no locked instruction is needed.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes one away.
    pub fn decrease(&self) {
        self.add(u64::MAX);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counts of all workers, summed.
pub fn sum(workers: &[std::sync::Arc<Counters>]) -> Vec<(&'static str, &'static str, u64)> {
    let mut sum = Counters::default().list();
    for worker in workers {
        for (total, (_, _, value)) in sum.iter_mut().zip(worker.list()) {
            total.2 = total.2.wrapping_add(value);
        }
    }
    sum
}
