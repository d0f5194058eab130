// SPDX-License-Identifier: GPL-2.0-only
//! The list of a release's components (SBOM), as CycloneDX 1.5 in JSON. The same inputs give the same bytes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, Package};
use serde_json::{json, Value};

use super::licences;
use crate::workspace;

/// The component's property that names the programs and the module that link a crate.
const LINKED_INTO: &str = "hippos:linked-into";
/// The module's file, whose crates are those of [`workspace::PURE_CRATES`].
const MODULE: &str = "hippos.ko";

/// The document for a release of this version, made at `time`; `lock` is the text of Cargo.lock, for the digests.
pub(crate) fn document(
    metadata: &Metadata,
    lock: &str,
    version: &str,
    time: &str,
) -> Result<String> {
    let digests = digests(lock);
    let mut into: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for (program, roots) in products() {
        for key in licences::linked(metadata, roots)?.into_keys() {
            into.entry(key).or_default().push(program);
        }
    }
    let mut components = Vec::new();
    for ((name, crate_version), programs) in &into {
        let package = metadata
            .packages
            .iter()
            .find(|package| *name == *package.name && *crate_version == package.version.to_string())
            .context("a crate without a package")?;
        let digest = digests.get(&(name.as_str(), crate_version.as_str()));
        components.push(component(package, programs, digest.copied()));
    }
    let name = "hippos";
    let whole = format!("{name}@{version}");
    let depends: Vec<Value> = into.keys().map(|key| json!(reference(key))).collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application",
                "bom-ref": whole,
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": "GPL-2.0-only"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": whole, "dependsOn": depends}],
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The released files, with the packages of the workspace that each is linked from.
fn products() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let program = |at: usize| (licences::PROGRAMS[at], &licences::PROGRAMS[at..=at]);
    (0..licences::PROGRAMS.len())
        .map(program)
        .chain([(MODULE, workspace::PURE_CRATES)])
}

fn reference((name, version): &(String, String)) -> String {
    format!("pkg:cargo/{name}@{version}")
}

fn component(package: &Package, programs: &[&str], digest: Option<&str>) -> Value {
    let key = (package.name.to_string(), package.version.to_string());
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&key),
        "name": key.0,
        "version": key.1,
        "purl": reference(&key),
        "properties": programs
            .iter()
            .map(|program| json!({"name": LINKED_INTO, "value": program}))
            .collect::<Vec<_>>(),
    });
    if let Some(licence) = &package.license {
        // The slash is cargo's former notation.
        let expression = licence.replace(" / ", "/").replace('/', " OR ");
        component["licenses"] = json!([{"expression": expression}]);
    }
    if let Some(digest) = digest {
        component["hashes"] = json!([{"alg": "SHA-256", "content": digest}]);
    }
    let inside = licences::LIBRARIES
        .iter()
        .filter(|(of, _)| *of == key.0)
        // The crate's version is its own with the library's.
        .map(|(_, library)| {
            let version = key.1.split_once('+').map_or("", |(_, version)| version);
            json!({"type": "library", "name": library, "version": version})
        });
    let inside: Vec<Value> = inside.collect();
    if !inside.is_empty() {
        component["components"] = json!(inside);
    }
    component
}

/// The digests in Cargo.lock, by name and version.
fn digests(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let digest = |entry| {
        let key = (field(entry, "name")?, field(entry, "version")?);
        Some((key, field(entry, "checksum")?))
    };
    lock.split("[[package]]").filter_map(digest).collect()
}

fn field<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        line.strip_prefix(name)?
            .strip_prefix(" = \"")?
            .strip_suffix('"')
    };
    entry.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn digests_come_from_the_lock_file() {
        let lock =
            "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0\"\nchecksum = \"ab\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"2.0\"\n";
        let expected = BTreeMap::from([(("a", "1.0"), "ab")]);
        assert_eq!(digests(lock), expected);
    }

    #[test]
    fn every_linked_crate_is_listed_with_licence_digest_and_what_it_is_linked_into() {
        let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).unwrap();
        let metadata = licences::metadata().unwrap();
        let text = document(&metadata, &lock, "1.2.3", "2026-01-01T00:00:00Z").unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["metadata"]["component"]["version"], "1.2.3");
        let components = document["components"].as_array().unwrap();
        for component in components {
            let (digest, licence) = (
                &component["hashes"][0]["content"],
                &component["licenses"][0]["expression"],
            );
            assert_eq!(digest.as_str().map(str::len), Some(64), "{component}");
            assert!(licence.is_string(), "{component}");
        }
        let into = |name: &str| -> Vec<&str> {
            let component = components
                .iter()
                .find(|component| component["name"] == name);
            let properties = component.unwrap()["properties"].as_array().unwrap();
            let values = properties.iter().map(|property| &property["value"]);
            values.filter_map(Value::as_str).collect()
        };
        assert!(into("memchr").contains(&MODULE));
        assert_eq!(into("libbpf-rs"), ["hippos-ctl"]);
    }
}
