// SPDX-License-Identifier: GPL-2.0-only
//! The exporter's pages, as Prometheus would read them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The page of an exporter that runs for this one request.
pub(crate) fn scrape() -> Result<String> {
    let mut exporter = Command::new("hippos-ctl")
        .arg("exporter")
        .stdout(Stdio::piped())
        .spawn()?;
    let out = exporter.stdout.take().context("no output")?;
    let mut line = String::new();
    let scraped = BufReader::new(out).read_line(&mut line).and_then(|_| {
        let mut stream = TcpStream::connect("127.0.0.1:9150")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    });
    exporter.kill()?;
    exporter.wait()?;
    Ok(scraped?)
}
