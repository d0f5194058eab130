// SPDX-License-Identifier: GPL-2.0-only
//! Grafana's dashboard beside what the exporter says: each query must find something.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Context, Result};

const DASHBOARD: &str = include_str!("../../../userspace-ctl/grafana/hippos.json");

type Labels = BTreeMap<String, String>;

/// Fails unless each query of the dashboard selects samples of this page, groups by labels that they have, and is shown
/// by such labels.
pub(crate) fn check(page: &str) -> Result<()> {
    check_all(DASHBOARD, page)
}

fn check_all(dashboard: &str, page: &str) -> Result<()> {
    let samples = samples(page)?;
    let dashboard: serde_json::Value = serde_json::from_str(dashboard)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    for panel in panels {
        let targets = panel["targets"].as_array().context("no targets")?;
        for target in targets {
            let query = target["expr"].as_str().context("no query")?;
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            check_query(query, legend, &samples).with_context(|| query.to_owned())?;
        }
    }
    Ok(())
}

fn check_query(query: &str, legend: &str, samples: &BTreeMap<String, Vec<Labels>>) -> Result<()> {
    let selectors = selectors(query)?;
    ensure!(!selectors.is_empty(), "it selects nothing");
    // Prometheus adds these.
    let mut known: BTreeSet<&str> = ["instance", "job"].into();
    for (name, labels) in &selectors {
        let sets = samples.get(name);
        let sets = sets.with_context(|| format!("there is no {name}"))?;
        let matches = |set: &&Labels| {
            labels
                .iter()
                .all(|(name, value)| set.get(name) == Some(value))
        };
        let selected: Vec<_> = sets.iter().filter(matches).collect();
        ensure!(!selected.is_empty(), "no {name} has {labels:?}");
        known.extend(
            selected
                .iter()
                .flat_map(|set| set.keys())
                .map(String::as_str),
        );
    }
    let grouped = ["by (", "without (", "ignoring(", "on("].into_iter();
    let grouped = grouped.flat_map(|word| lists(query, word, ")"));
    let shown = lists(legend, "{{", "}}");
    for label in grouped.chain(shown) {
        ensure!(known.contains(label), "no {label} among {known:?}");
    }
    Ok(())
}

/// The words in the lists between `start` and `end`.
fn lists<'t>(text: &'t str, start: &'t str, end: &'t str) -> Vec<&'t str> {
    let rests = text.split(start).skip(1);
    let lists = rests.filter_map(|rest| rest.split(end).next());
    lists.flat_map(|list| list.split(", ")).collect()
}

/// The samples of a page: names, each with its sets of labels.
fn samples(page: &str) -> Result<BTreeMap<String, Vec<Labels>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let body = page.split_once("\r\n\r\n").map_or(page, |(_, body)| body);
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        value.parse::<f64>().with_context(|| line.to_owned())?;
        let (name, set) = sample.split_once('{').unwrap_or((sample, "}"));
        let set = set.strip_suffix('}').with_context(|| line.to_owned())?;
        all.entry(name.to_owned()).or_default().push(labels(set)?);
    }
    Ok(all)
}

/// `a="b",c="d"`; no value has a comma.
fn labels(text: &str) -> Result<Labels> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let label = |part: &str| {
        let (name, value) = part.split_once('=').with_context(|| part.to_owned())?;
        Ok((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    parts.map(label).collect()
}

/// The metrics that a query asks for, each with the labels that it must have.
fn selectors(query: &str) -> Result<Vec<(String, Labels)>> {
    let starts = query
        .match_indices("memcached_")
        .chain(query.match_indices("hippos_"));
    let selector = |(at, _): (usize, &str)| {
        let rest = query.get(at..).unwrap_or_default();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let inside = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'));
        Ok((
            name.to_owned(),
            labels(inside.map_or("", |(inside, _)| inside))?,
        ))
    };
    starts.map(selector).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# TYPE a gauge\nhippos_a 1.0\nmemcached_b_total{command=\"get\",status=\"hit\"} 1\n";

    fn checked(query: &str, legend: &str) -> Result<()> {
        let target = serde_json::json!({"expr": query, "legendFormat": legend});
        let dashboard = serde_json::json!({"panels": [{"targets": [target]}]});
        check_all(&dashboard.to_string(), PAGE)
    }

    #[test]
    fn queries_that_find_nothing_are_found() {
        for (query, legend) in [
            ("rate(hippos_a[1m])", "{{instance}}"),
            (
                "sum by (command, status) (rate(memcached_b_total[1m]))",
                "{{command}}: {{status}}",
            ),
            ("memcached_b_total{status=\"hit\"} / hippos_a", "a"),
        ] {
            checked(query, legend).unwrap();
        }
        for (query, legend) in [
            ("rate(hippos_b[1m])", ""),
            ("hippos_a + hippos_c", ""),
            ("memcached_b_total{status=\"miss\"}", ""),
            ("sum by (slab) (memcached_b_total)", ""),
            ("memcached_b_total", "{{slab}}"),
            ("1", ""),
        ] {
            assert!(checked(query, legend).is_err(), "{query} {legend}");
        }
    }

    #[test]
    fn the_dashboard_has_many_queries() {
        assert!(DASHBOARD.matches("\"expr\"").count() > 20);
        assert!(check("").is_err());
    }
}
