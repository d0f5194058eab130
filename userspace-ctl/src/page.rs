// SPDX-License-Identifier: GPL-2.0-only
//! The exporter's page for a browser: the figures of `top` in tables. It needs nothing from elsewhere, and reloads
//! itself.

use std::fmt::Write;

use crate::answer::duration;
use crate::latency::shown;
use crate::top::draw::{bytes, count};
use crate::top::model::Model;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
     <meta http-equiv=\"refresh\" content=\"2\">\n<title>Hippos</title>\n<style>\n\
     body { font-family: sans-serif; margin: 1em 2em; }\n\
     table { border-collapse: collapse; margin: 1em 2em 1em 0; display: inline-table; vertical-align: top; }\n\
     caption { text-align: left; font-weight: bold; }\n\
     th, td { padding: 0.1em 0.8em 0.1em 0; text-align: right; }\n\
     th:first-child, td:first-child { text-align: left; }\n\
     .degraded { color: #b00; } .serving { color: #860; } .healthy { color: #070; }\n\
     </style>\n</head>\n<body>\n";
const TAIL: &str = "<p><a href=\"/metrics\">metrics</a></p>\n</body>\n</html>\n";

/// The page with these figures.
pub(crate) fn page(model: &Model) -> String {
    let mut text = HEAD.to_owned();
    let health = model.health;
    put(
        &mut text,
        format_args!(
            "<h1 class=\"{health}\">{health}: {} on port {}</h1>\n",
            escaped(&model.version),
            model.port
        ),
    );
    let ratio = model
        .hit_ratio
        .map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
    for line in [
        format!(
            "up {}, {} of {} connections",
            duration(model.uptime),
            model.connections,
            model.connections_most
        ),
        format!(
            "gets {}/s, hits {ratio}, sets {}/s, evictions {}/s",
            count(model.gets),
            count(model.sets),
            count(model.evictions)
        ),
        format!(
            "memory {} MiB at most, {} MiB taken, {} MiB in {} items",
            model.memory_limit >> 20,
            model.memory_held >> 20,
            model.memory_items >> 20,
            model.items
        ),
    ] {
        put(&mut text, format_args!("<p>{line}</p>\n"));
    }
    let warnings = model.warnings.iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    let refused = model.refusals.iter().map(|refused| {
        let rate = count(refused.rate);
        format!(
            "refused: {rate}/s {}, {} in all",
            refused.what, refused.total
        )
    });
    for line in warnings.chain(refused) {
        put(&mut text, format_args!("<p>{}</p>\n", escaped(&line)));
    }
    tables(model, &mut text);
    text + TAIL
}

fn tables(model: &Model, text: &mut String) {
    let paths = model.paths.iter();
    let paths = paths.map(|path| vec![path.name.to_owned(), count(path.rate), path.state.clone()]);
    table(text, "Receive paths", &["path", "/s", "IPv4 IPv6"], paths);
    let cpus = model.cpus.iter().map(|cpu| {
        let rates = [cpu.fast, cpu.socket, cpu.tcp].map(count);
        [vec![cpu.number.to_string()], rates.to_vec()].concat()
    });
    let titles = ["CPU", "UDP fast /s", "UDP socket /s", "TCP /s"];
    table(text, "Commands by CPU", &titles, cpus);
    let times = model.latency.iter().map(|times| {
        let quantiles = [times.p50_ns, times.p99_ns].map(shown);
        let path = format!("{} {}", times.path, times.measure);
        [vec![path], quantiles.to_vec()].concat()
    });
    table(text, "Latency", &["path", "p50", "p99"], times);
    let classes = model.classes.iter().map(|class| {
        let used = class.used.saturating_mul(100) / class.slots.max(1);
        vec![
            class.number.to_string(),
            class.size.to_string(),
            (class.size.saturating_mul(class.slots) >> 20).to_string(),
            format!("{used} %"),
            count(class.evictions),
        ]
    });
    let titles = ["class", "bytes", "MiB", "used", "evicted /s"];
    table(text, "Slab classes", &titles, classes);
    let talkers = model.talkers.iter().map(|talker| {
        vec![
            talker.peer.clone(),
            bytes(talker.read),
            bytes(talker.written),
            talker.idle.to_string(),
        ]
    });
    let titles = ["connection", "in /s", "out /s", "idle s"];
    table(text, "Connections", &titles, talkers);
}

/// A table, if it has rows.
fn table(
    text: &mut String,
    caption: &str,
    titles: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let row = |text: &mut String, tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        text.push_str("<tr>");
        for cell in cells {
            put(text, format_args!("<{tag}>{}</{tag}>", escaped(cell)));
        }
        text.push_str("</tr>\n");
    };
    put(
        text,
        format_args!("<table>\n<caption>{caption}</caption>\n"),
    );
    row(text, "th", &mut titles.iter().copied());
    for cells in rows {
        row(text, "td", &mut cells.iter().map(String::as_str));
    }
    text.push_str("</table>\n");
}

/// The page of a server that does not answer.
pub(crate) fn failure(error: &anyhow::Error) -> String {
    let error = escaped(&format!("{error:#}"));
    format!("{HEAD}<h1 class=\"degraded\">no answer</h1>\n<p>{error}</p>\n{TAIL}")
}

fn put(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("a String takes all");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::{frame, tests::sample, Sort};

    #[test]
    fn the_page_has_the_figures_of_top_and_nothing_from_elsewhere() {
        let mut model = frame(&sample(1), &sample(2), None, Sort::Rate);
        model.warnings.push("<script>".into());
        let text = page(&model);
        for part in [
            "<h1 class=\"serving\">serving: hippos 0.1.0 on port 11211</h1>",
            "gets 100/s, hits 75.0 %",
            "64 MiB at most, 32 MiB taken",
            "<tr><td>XDP</td><td>30</td><td>open open</td></tr>",
            "<tr><td>PRE_ROUTING</td><td>20</td><td>nat open</td></tr>",
            "<tr><td>1</td><td>40</td>",
            "<tr><td>5</td><td>200</td><td>0</td><td>100 %</td><td>3.0</td></tr>",
            "<tr><td>[fd00::1]:5000</td><td>1000</td><td>2.0Ki</td>",
            "<tr><td>prerouting service</td><td>512 ns</td><td>1024 ns</td></tr>",
            "<p>refused: 2.0/s TCP connections",
            "<p>warning: the fast path for UDP is closed",
            "<p>warning: &lt;script&gt;</p>",
            "http-equiv=\"refresh\"",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        for outside in [
            "<script", "http:", "https:", "src=", "url(", "@import", "<link",
        ] {
            assert!(!text.contains(outside), "{outside:?} in\n{text}");
        }
        let opened = text.matches("<table>").count();
        assert_eq!((opened, text.matches("</table>").count()), (5, 5));
    }

    #[test]
    fn a_server_that_does_not_answer_has_a_page() {
        let text = failure(&anyhow::anyhow!("no <answer>"));
        assert!(text.contains("<p>no &lt;answer&gt;</p>"), "{text}");
        assert!(text.contains("http-equiv=\"refresh\""), "{text}");
    }
}
