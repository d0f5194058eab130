// SPDX-License-Identifier: GPL-2.0-only
//! The rates of `status`: by protocol, receive path and CPU.

use std::fmt::Write;

use serde_json::{json, Value};

use crate::top::model::Model;

/// CPUs that are named; the others are summed up.
const CPUS: usize = 8;

/// Their lines, and the same as JSON.
pub(crate) fn rates(model: &Model) -> (String, Value) {
    let mut text = String::new();
    let mut put = |line: String| writeln!(text, "{line}").expect("a String takes all");
    let seconds = model.seconds;
    let hits = model.hit_ratio.map_or_else(String::new, |ratio| {
        format!(" ({:.1} % hits)", ratio * 100.0)
    });
    put(format!(
        "in the last {seconds:.1} s: {:.0} gets a second{hits}, {:.0} sets, {:.0} evictions",
        model.gets, model.sets, model.evictions
    ));
    // TCP is one of the receive paths; it counts commands, the others count datagrams.
    let is_tcp = |name: &str| name == "TCP";
    let sum = |tcp: bool| -> f64 {
        let paths = model.paths.iter().filter(|path| is_tcp(path.name) == tcp);
        paths.map(|path| path.rate).sum()
    };
    let (tcp, udp) = (sum(true), sum(false));
    if !model.paths.is_empty() {
        let paths: Vec<_> = model
            .paths
            .iter()
            .filter(|path| !is_tcp(path.name))
            .map(|path| format!("{} {:.0}", path.name, path.rate))
            .collect();
        put(format!(
            "  by protocol: TCP {tcp:.0} commands a second, UDP {udp:.0} datagrams ({})",
            paths.join(", ")
        ));
    }
    if !model.cpus.is_empty() {
        let (named, others) = model.cpus.split_at(model.cpus.len().min(CPUS));
        let mut cpus: Vec<_> = named
            .iter()
            .map(|cpu| format!("{}: {:.0}", cpu.number, cpu.rate()))
            .collect();
        if !others.is_empty() {
            let rate: f64 = others.iter().map(|cpu| cpu.rate()).sum();
            cpus.push(format!("{} others: {rate:.0}", others.len()));
        }
        put(format!("  by CPU, busiest first: {}", cpus.join(", ")));
    }
    let all = model.json();
    let json = json!({
        "seconds": seconds, "gets": model.gets, "hit_ratio": model.hit_ratio, "sets": model.sets,
        "evictions": model.evictions,
        "protocols": {"tcp": tcp, "udp": udp},
        "receive_paths": all["receive_paths"], "cpus": all["cpus"],
    });
    (text, json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::{frame, tests::sample, Sort};

    #[test]
    fn rates_are_by_protocol_path_and_cpu() {
        let model = frame(&sample(1), &sample(3), None, Sort::Rate);
        let (text, json) = rates(&model);
        assert_eq!(
            text,
            "in the last 2.0 s: 100 gets a second (75.0 % hits), 10 sets, 4 evictions\n  \
             by protocol: TCP 7 commands a second, UDP 55 datagrams (XDP 30, PRE_ROUTING 20, UDP socket 5)\n  \
             by CPU, busiest first: 1: 47, 0: 15\n"
        );
        assert_eq!(json["protocols"]["udp"], 55.0);
        assert_eq!(json["cpus"][0]["cpu"], 1);
    }

    #[test]
    fn many_cpus_are_summed_up() {
        let mut now = sample(2);
        let rows: Vec<_> = (0..20)
            .map(|n| format!("{n}:hippos_tcp_commands 9"))
            .collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        now.cpus = crate::stats::Stats::of(&rows);
        let (text, _) = rates(&frame(&sample(1), &now, None, Sort::Rate));
        assert!(text.contains("12 others: "), "{text}");
    }
}
