// SPDX-License-Identifier: GPL-2.0-only
//! No package mirror's address in the repository: it comes from the tools' own configuration.

use anyhow::Result;

use super::{tracked, Finding};
use crate::workspace;

/// Hosts of packages, each as its parts, so that this file passes its own rule. A first part is
/// missing where every host of the domain serves packages.
const HOSTS: &[(&[&str], &str, &str)] = &[
    (
        &[
            "deb",
            "ftp",
            "security",
            "archive",
            "snapshot",
            "cdn-fastly",
            "httpredir",
        ],
        "debian",
        "org",
    ),
    (&["archive", "security", "ports"], "ubuntu", "com"),
    (&["", "index", "static"], "crates", "io"),
    (&["", "files"], "pypi", "org"),
    (&["files"], "pythonhosted", "org"),
    (&["registry"], "npmjs", "org"),
    (&["static"], "rust-lang", "org"),
];

/// Every finding in the work tree.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in tracked()? {
        // A file that is not text has no address to check.
        let bytes = std::fs::read(workspace::root().join(&file))?;
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        findings.extend(addresses(&file, &text));
    }
    Ok(findings)
}

fn addresses(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Cargo's own name for its registry, which it writes itself.
        if file == "Cargo.lock" && line.starts_with("source = \"registry+") {
            continue;
        }
        for host in
            line.split(|part: char| !part.is_ascii_alphanumeric() && part != '.' && part != '-')
        {
            if is_mirror(host.trim_matches('.')) {
                let what = format!("{host} is a package mirror: its address is the tools' to know");
                findings.push(Finding::new(file, number + 1, what));
            }
        }
    }
    findings
}

fn is_mirror(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    let Some((rest, [domain, top])) = parts.split_last_chunk::<2>() else {
        return false;
    };
    HOSTS.iter().any(|(firsts, wanted, end)| {
        let first = rest.last().copied().unwrap_or("");
        // ftp.XX and mirrors by country, for example.
        let of_country =
            rest.len() == 2 && rest.first().is_some_and(|first| firsts.contains(first));
        domain == wanted && top == end && (firsts.contains(&first) || of_country)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_and_other_hosts_are_not() {
        let debian = ["deb", "debian", "org"].join(".");
        let country = ["ftp", "de", "debian", "org"].join(".");
        let registry = ["crates", "io"].join(".");
        for host in [debian, country, registry] {
            let text = format!("fine\ndeb http://{host}/debian trixie main\n");
            let findings = addresses("README.md", &text);
            assert_eq!(findings.len(), 1, "{host}");
            assert_eq!(findings[0].line, 2);
        }
        let fine = "see https://www.debian.org/ and https://docs.kernel.org/, mirror.test\n";
        assert!(addresses("README.md", fine).is_empty());
    }
}
