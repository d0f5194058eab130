// SPDX-License-Identifier: GPL-2.0-only
//! All plots and tables of reports on one self-contained page.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;

use crate::plot;
use crate::report::Report;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:940px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}pre{background:#f4f4f4;padding:1em;\
white-space:pre-wrap;font-size:13px}svg{max-width:100%;height:auto;display:block;margin:1.5em 0;border:1px solid #ddd}\
.bad{color:#b00020;font-weight:bold}";

/// The page.
pub fn page(reports: &[(String, Report)]) -> Result<String> {
    let mut names: Vec<&str> = reports.iter().map(|(_, r)| r.workload.as_str()).collect();
    names.dedup();
    let title = escape(&format!("hippos-load: {}", names.join(", ")));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n"
    );
    for (label, report) in reports {
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "<h2>{}: {} {}</h2>\n<p>{}, {} processors, started at {}</p>\n",
            escape(label),
            escape(&report.command),
            escape(&report.workload),
            escape(&report.tool),
            report.processors,
            started(report.started),
        );
        if report.outcome != "complete" {
            let _ = writeln!(
                out,
                "<p class=\"bad\">Not complete: {}</p>",
                escape(&report.outcome)
            );
        }
        let _ = writeln!(out, "<pre>{}</pre>", escape(&report.table()));
    }
    for (_, svg) in plot::all(reports)? {
        out += &svg;
        out.push('\n');
    }
    out += "</body></html>\n";
    Ok(out)
}

/// A time in UTC.
fn started(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|since| UNIX_EPOCH.checked_add(since));
    time.map_or("?".into(), |time| {
        humantime::format_rfc3339_seconds(time).to_string()
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
