// SPDX-License-Identifier: GPL-2.0-only
//! The exporter's page in a browser: Chromium, whose program `HIPPOS_CHROMIUM` names.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{exporter, fill};
use hippos_process::Process;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 900;

/// A browser with a profile of its own.
struct Browser {
    program: String,
    folder: PathBuf,
}

impl Browser {
    fn new(program: String) -> Self {
        let name = format!("hippos-ctl-page-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Browser { program, folder }
    }

    /// Opens the page with these options; returns standard output.
    fn open(&self, options: &[&str], page: &str) -> String {
        let profile = format!("--user-data-dir={}", self.folder.display());
        let size = format!("--window-size={WIDTH},{HEIGHT}");
        let output = Command::new(&self.program)
            // Root has no sandbox. The page may fetch nothing from elsewhere.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                &profile,
                &size,
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .args(options)
            .arg(page)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", self.program);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The page as a PNG image of that name.
    fn image(&self, file: &Path, page: &str) -> Vec<u8> {
        self.open(&[&format!("--screenshot={}", file.display())], page);
        let image = fs::read(file).unwrap();
        assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
        let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!((number(16), number(20)), (WIDTH, HEIGHT));
        image
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The text of a document without its tags.
fn text(document: &str) -> String {
    let mut text = String::new();
    for part in document.split('<') {
        text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
        text.push(' ');
    }
    text
}

#[test]
fn a_browser_shows_the_figures_in_tables_and_a_server_that_is_gone() {
    let Ok(program) = std::env::var("HIPPOS_CHROMIUM") else {
        println!("skipped: HIPPOS_CHROMIUM is not set");
        return;
    };
    let browser = Browser::new(program);
    let server = Process::engine(&["--port", "0"]);
    fill(&server.address().to_string());
    let (_exporter, address) = exporter(&server.address().to_string());
    let page = format!("http://{address}/");

    let document = browser.open(&["--dump-dom"], &page);
    // Browsers add these to tables.
    assert!(document.contains("<tbody>"), "not parsed: {document}");
    let shown = text(&document);
    for part in [
        "healthy: hippos ",
        " in 6 items",
        "Receive paths",
        "Commands by CPU",
        "Slab classes",
        "metrics",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    let blank = browser.image(&browser.folder.join("blank.png"), "about:blank");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    let image = browser.image(&file, &page);
    println!("{}", file.display());
    assert!(
        image.len() > 2 * blank.len(),
        "{} bytes, {} of a blank page",
        image.len(),
        blank.len()
    );

    drop(server);
    // Pages shortly after each other are the same.
    let gone = (0..100).any(|_| {
        let document = browser.open(&["--dump-dom"], &page);
        text(&document).contains("no answer")
    });
    assert!(gone, "the page shows a server that is gone");
}
