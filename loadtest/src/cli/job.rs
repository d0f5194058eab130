// SPDX-License-Identifier: GPL-2.0-only
//! One command that generates load: a session, its report, and the output of the report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use hippos_load::live::Line;
use hippos_load::report::Report;
use hippos_load::session::Session;
use hippos_load::settings::Failure;
use hippos_load::workload::Model;
use hippos_load::{hgrm, html, output as files, plot};

use super::args::{OutputArgs, PrepareArgs, TargetArgs};

/// A session in progress, with its report.
pub(crate) struct Job<'a> {
    pub(crate) session: Session,
    pub(crate) report: Report,
    output: &'a OutputArgs,
    pub(crate) line: Option<Line>,
}

impl<'a> Job<'a> {
    pub(crate) fn start(
        command: &str,
        name: &str,
        model: &Model,
        target: &TargetArgs,
        output: &'a OutputArgs,
    ) -> Result<Self> {
        check(output)?;
        let settings = target.settings()?;
        let interrupt = Arc::new(AtomicBool::new(false));
        let flag = interrupt.clone();
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
            .context("cannot watch for Ctrl-C")?;
        let mut report = Report::new(command, name, &settings);
        let session = match Session::connect(&settings, model, interrupt) {
            Ok(session) => session,
            Err(failure) => {
                report.outcome = failure.to_string();
                keep(&report, output)?;
                return Err(failure.into());
            }
        };
        report.servers = session.servers().to_vec();
        let line = (!output.quiet).then(|| Line::new(command));
        Ok(Self {
            session,
            report,
            output,
            line,
        })
    }

    /// Fills, unless that is disabled; returns the failure, if any. The length of the part that follows, if known, is
    /// for the progress line.
    pub(crate) fn fill(
        &mut self,
        prepare: &PrepareArgs,
        then: Option<Duration>,
    ) -> Option<Failure> {
        let mut failure = None;
        if !prepare.no_fill && !self.report.settings.mirror {
            self.title("fill", None);
            let (run, failed) = self.session.fill(&mut self.line);
            self.report.fill = Some(run);
            failure = failed;
        }
        let command = self.report.command.clone();
        self.title(&command, then);
        failure
    }

    fn title(&mut self, title: &str, length: Option<Duration>) {
        if let Some(line) = &mut self.line {
            line.title(title, length);
        }
    }

    /// Ends the job: table, JSON, plots, and the failure if there was one.
    pub(crate) fn end(mut self, failure: Option<Failure>) -> Result<()> {
        self.line = None;
        if let Some(failure) = &failure {
            self.report.outcome = failure.to_string();
        }
        // An error while writing the results hides neither the results nor the failure.
        let kept = keep(&self.report, self.output);
        let shown = show(&self.report, self.output);
        match failure {
            Some(failure) => {
                if let Err(e) = kept.and(shown) {
                    files::tell(&format!("hippos-load: {e:#}\n"));
                }
                Err(failure.into())
            }
            None => kept.and(shown),
        }
    }
}

/// Prints the table, on standard error if the JSON has standard output.
pub(crate) fn show(report: &Report, output: &OutputArgs) -> Result<()> {
    if output.quiet {
        return Ok(());
    }
    match &output.json {
        Some(path) if files::standard(path) => files::tell(&report.table()),
        _ => files::print(&report.table())?,
    }
    Ok(())
}

/// Writes the report and its plots to the requested places.
pub(crate) fn keep(report: &Report, output: &OutputArgs) -> Result<()> {
    if let Some(path) = &output.json {
        report.write(path)?;
    }
    if let (Some(path), Some(run)) = (&output.hgrm, report.runs.last()) {
        files::write(path, hgrm::percentiles(run)?.as_bytes())?;
    }
    if report.runs.is_empty() {
        return Ok(());
    }
    let named = [(report.workload.clone(), report.clone())];
    if let Some(path) = &output.html {
        files::write(path, html::page(&named)?.as_bytes())?;
    }
    if let Some(dir) = &output.svg {
        plot::save(&plot::all(&named)?, dir, output.force)?;
    }
    Ok(())
}

/// Fails before the run if a result could not be written, or if a plot already exists.
pub(crate) fn check(output: &OutputArgs) -> Result<()> {
    for path in [&output.json, &output.html, &output.hgrm]
        .into_iter()
        .flatten()
    {
        files::check(path)?;
    }
    match &output.svg {
        Some(dir) if !output.force => plot::free(dir),
        _ => Ok(()),
    }
}
