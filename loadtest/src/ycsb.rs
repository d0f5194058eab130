// SPDX-License-Identifier: GPL-2.0-only
//! YCSB's workload properties as a [`Workload`]: `hippos-load run workloads/workloada`.

use std::collections::HashMap;

use anyhow::{bail, ensure, Context, Result};

use crate::dist::{Popularity, Sizes};
use crate::workload::{Keys, Mix, Values, Workload};

/// Exponent of YCSB's Zipf distribution.
const ZIPF: f64 = 0.99;
/// Bytes of YCSB's keys: "user" and a hash of 19 digits.
const KEY: u32 = 23;

/// Whether a file's text looks like YCSB's properties.
pub fn properties(text: &str) -> bool {
    text.lines().any(|line| {
        let name = line.split('=').next().unwrap_or_default().trim();
        matches!(
            name,
            "recordcount" | "readproportion" | "requestdistribution"
        )
    })
}

/// Reads properties. A record is one value of all its fields.
pub fn workload(text: &str, name: &str) -> Result<Workload> {
    let properties: HashMap<&str, &str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let number = |name: &str, default: f64| match properties.get(name) {
        None => Ok(default),
        Some(text) => text
            .parse::<f64>()
            .with_context(|| format!("{name} is {text:?}, not a number")),
    };
    ensure!(
        number("scanproportion", 0.0)? == 0.0,
        "scanproportion: memcached has no scans"
    );
    let popularity = match *properties.get("requestdistribution").unwrap_or(&"uniform") {
        "uniform" => Popularity::Uniform,
        // The newest records are the most popular; here the first ones are.
        "zipfian" | "latest" => Popularity::Zipf(ZIPF),
        "hotspot" => Popularity::Curve(vec![
            (
                number("hotspotdatafraction", 0.2)?,
                number("hotspotopnfraction", 0.8)?,
            ),
            (1.0, 1.0),
        ]),
        other => bail!("requestdistribution {other:?} is not known"),
    };
    let size = number("fieldcount", 10.0)? * number("fieldlength", 100.0)?;
    Ok(Workload {
        name: name.to_string(),
        about: "YCSB's workload of this name".to_string(),
        keys: Keys {
            count: number("recordcount", 1000.0)? as u64,
            count_source: String::new(),
            size: Sizes::Constant(KEY),
            size_source: "model: user and 19 digits".to_string(),
            popularity,
            popularity_source: String::new(),
        },
        values: Values {
            size: Sizes::Constant(size as u32),
            size_source: "model: all fields of a record are one value".to_string(),
            ttl: Sizes::Constant(0),
            ttl_source: String::new(),
        },
        mix: Mix {
            get: number("readproportion", 0.95)?,
            set: number("updateproportion", 0.05)? + number("insertproportion", 0.0)?,
            cas: number("readmodifywriteproportion", 0.0)?,
            ..Mix::default()
        },
        gets: Default::default(),
        deletes: Default::default(),
        variants: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_f_reads_and_modifies() {
        let text = "# Workload F\nrecordcount=1000\noperationcount=1000\n\
                    workload=site.ycsb.workloads.CoreWorkload\nreadallfields=true\n\
                    readproportion=0.5\nupdateproportion=0\nscanproportion=0\ninsertproportion=0\n\
                    readmodifywriteproportion=0.5\nrequestdistribution=zipfian\n";
        assert!(properties(text) && !properties("name = \"x\"\n[keys]\ncount = 3\n"));
        let workload = workload(text, "workloadf").unwrap();
        assert_eq!(
            (workload.mix.get, workload.mix.set, workload.mix.cas),
            (0.5, 0.0, 0.5)
        );
        assert_eq!(workload.keys.popularity, Popularity::Zipf(0.99));
        assert_eq!(workload.values.size, Sizes::Constant(1000));
        assert!(super::workload("scanproportion=0.9\n", "e").is_err());
    }
}
