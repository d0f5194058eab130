// SPDX-License-Identifier: MIT

//! The metrics page.

use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{sum, Count, Histogram, NodeMeter, BUCKETS, LATENCY};
use crate::route::Class;
use crate::shared::Shared;

/// Generates the page.
#[derive(Debug)]
pub(crate) struct Collector(pub(crate) Arc<Shared>);

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for (name, help, value) in sum(&self.0.counters) {
            let kind = match name {
                "curr_connections" => MetricType::Gauge,
                _ => MetricType::Counter,
            };
            let name = name.trim_start_matches("total_");
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            match kind {
                MetricType::Gauge => metric.encode_gauge(&(value as i64))?,
                _ => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        let help = "From a command to its whole answer";
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor("request_seconds", help, None, kind)?;
        self.0.routes.each(|route, meters| {
            for (class, command) in Class::ALL {
                let parts = meters
                    .iter()
                    .map(|(_, meter)| &meter.latency[class as usize]);
                let labels = [("route", route), ("command", command)];
                histogram(&mut family, &labels, parts, LATENCY)?;
            }
            Ok(())
        })?;
        let help = "From a request to a node's answer";
        let mut family = encoder.encode_descriptor("node_seconds", help, None, kind)?;
        self.0.node_meters.each(|node, meters| {
            let tcp = meters.iter().map(|(_, meter)| &meter.tcp);
            histogram(
                &mut family,
                &[("node", node), ("transport", "tcp")],
                tcp,
                LATENCY,
            )?;
            let udp = meters.iter().map(|(_, meter)| &meter.udp);
            histogram(
                &mut family,
                &[("node", node), ("transport", "udp")],
                udp,
                LATENCY,
            )
        })?;
        let help = "Keys of a datagram to a node";
        let mut family = encoder.encode_descriptor("batch_keys", help, None, kind)?;
        self.0.node_meters.each(|node, meters| {
            let parts = meters.iter().map(|(_, meter)| &meter.batch);
            histogram(&mut family, &[("node", node)], parts, 0)
        })?;
        type Pick = fn(&NodeMeter) -> &Count;
        let counts: [(&str, &str, Pick); 3] = [
            ("node_retries", "Keys asked again over TCP", |meter| {
                &meter.retries
            }),
            (
                "node_ejections",
                "Times that a node was taken out",
                |meter| &meter.ejections,
            ),
            ("node_failures", "Requests that a node failed", |meter| {
                &meter.failures
            }),
        ];
        for (name, help, pick) in counts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            self.0.node_meters.each(|node, meters| {
                let total: u64 = meters.iter().map(|(_, meter)| pick(meter).get()).sum();
                let labels = [("node", node)];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&total, None)
            })?;
        }
        let help = "Whether a node is in use";
        let mut family = encoder.encode_descriptor("node_in", help, None, MetricType::Gauge)?;
        for (node, health) in self.0.nodes() {
            let labels = [("node", node.as_str())];
            family
                .encode_family(&labels)?
                .encode_gauge(&i64::from(health.is_in()))?;
        }
        Ok(())
    }
}

/// Writes the sum of `parts`, unless it is empty.
fn histogram<'h>(
    family: &mut prometheus_client::encoding::MetricEncoder<'_>,
    labels: &[(&str, &str)],
    parts: impl Iterator<Item = &'h Histogram>,
    first: u32,
) -> std::fmt::Result {
    let mut buckets = [0; BUCKETS + 1];
    let mut sum = 0;
    for part in parts {
        sum += part.sum.get();
        for (total, bucket) in buckets.iter_mut().zip(&part.buckets) {
            *total += bucket.get();
        }
    }
    let count: u64 = buckets.iter().sum();
    if count == 0 {
        return Ok(());
    }
    // Latencies in seconds, sizes unchanged.
    let unit = if first == 0 { 1.0 } else { 1e-6 };
    let bounds: Vec<_> = buckets
        .iter()
        .enumerate()
        .map(|(index, &count)| match index {
            BUCKETS => (f64::MAX, count),
            _ => ((1u64 << first << index) as f64 * unit, count),
        })
        .collect();
    let labels = labels.to_vec();
    let mut one = family.encode_family(&labels)?;
    one.encode_histogram::<NoLabelSet>(sum as f64 * unit, count, &bounds, None)
}
