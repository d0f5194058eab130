// SPDX-License-Identifier: GPL-2.0-only
//! The pools have the numbers stated in their files, and the samples match the pools.

use std::io::Read;
use std::path::{Path, PathBuf};

use hippos_load::arrival::Arrival;
use hippos_load::generate::generate;
use hippos_load::request::{RequestKey, Verb};
use hippos_load::workload::{Model, Sampler, Workload};
use sha2::{Digest, Sha256};

const POOLS: [&str; 5] = ["usr", "app", "etc", "var", "sys"];

fn model(name: &str) -> Model {
    Model::new(&Workload::named(name).unwrap()).unwrap()
}

fn percentile(mut sizes: Vec<u32>, q: f64) -> u32 {
    sizes.sort_unstable();
    sizes[(q * sizes.len() as f64) as usize]
}

fn key_sizes(model: &Model) -> Vec<u32> {
    (0..model.count())
        .map(|id| model.key_len(id) as u32)
        .collect()
}

fn value_sizes(model: &Model) -> Vec<u32> {
    (0..model.count()).map(|id| model.value_len(id)).collect()
}

#[test]
fn pools_have_the_published_ninety_ninth_percentiles() {
    // ETC's are those of the published fits.
    let expected = [
        ("usr", 21, 2),
        ("app", 45, 450),
        ("etc", 76, 1900),
        ("var", 30, 200),
        ("sys", 45, 640),
    ];
    for (name, key, value) in expected {
        let model = model(name);
        let close = |got: u32, want: u32| f64::from(got.abs_diff(want)) <= 0.05 * f64::from(want);
        let (keys, values) = (
            percentile(key_sizes(&model), 0.99),
            percentile(value_sizes(&model), 0.99),
        );
        assert!(close(keys, key), "{name}: keys of {keys} B, not {key} B");
        assert!(
            close(values, value),
            "{name}: values of {values} B, not {value} B"
        );
    }
}

#[test]
fn sampled_sizes_have_the_papers_shapes() {
    let usr = model("usr");
    assert!(key_sizes(&usr).iter().all(|size| [16, 21].contains(size)));
    assert!(value_sizes(&usr).iter().all(|size| *size == 2));

    let app = model("app");
    let mut sampler = Sampler::new(&app, 1);
    let sets: Vec<u64> = std::iter::repeat_with(|| sampler.draw().clone())
        .filter(|op| op.verb == Verb::Set)
        .map(|op| op.ids[0])
        .take(5000)
        .collect();
    let around = sets
        .iter()
        .filter(|id| (260..=280).contains(&app.value_len(**id)))
        .count();
    assert!(around > 1500, "{around} of 5000 SETs around 270 B");

    let etc = model("etc");
    let values = value_sizes(&etc);
    assert!(
        values.iter().any(|size| *size > 500_000) && values.iter().all(|size| *size <= 1_000_000)
    );
    let two = values.iter().filter(|size| **size == 2).count() as f64 / values.len() as f64;
    assert!((two - 0.1782).abs() < 0.005, "{two} of the values have 2 B");
}

#[test]
fn pools_have_the_request_mixes_of_table_3() {
    let expected = [
        ("usr", [99.7, 0.2, 0.1]),
        ("app", [83.4, 5.2, 11.4]),
        ("etc", [73.4, 2.3, 24.0]),
        ("var", [18.0, 82.0, 0.0]),
        ("sys", [67.5, 32.5, 0.0]),
    ];
    for (name, mix) in expected {
        let model = model(name);
        let mut sampler = Sampler::new(&model, 3);
        let mut drawn = [0u32; 3];
        let (mut gets, mut absent) = (0u32, 0u32);
        for _ in 0..100_000 {
            let op = sampler.draw();
            match op.verb {
                Verb::Get => {
                    drawn[0] += 1;
                    gets += op.ids.len() as u32;
                    absent += op
                        .ids
                        .iter()
                        .filter(|id| **id & RequestKey::ABSENT != 0)
                        .count() as u32;
                }
                Verb::Set => drawn[1] += 1,
                _ => drawn[2] += 1,
            }
        }
        let total: f64 = mix.iter().sum();
        for (got, want) in drawn.iter().zip(mix) {
            let got = f64::from(*got) / 1000.0;
            assert!(
                (got - 100.0 * want / total).abs() < 0.4,
                "{name}: {got} %, not {want} %"
            );
        }
        let absent = f64::from(absent) / f64::from(gets);
        assert!(
            (absent - model.workload.gets.absent).abs() < 0.01,
            "{name}: {absent} absent"
        );
    }
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/samples")
}

#[test]
fn samples_have_their_checksums() {
    let sums = std::fs::read_to_string(samples().join("SHA256SUMS")).unwrap();
    let mut names = Vec::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let digest = Sha256::digest(std::fs::read(samples().join(name)).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, sum, "{name}");
        names.push(name);
    }
    for pool in POOLS {
        assert!(
            names.contains(&format!("{pool}.csv.zst").as_str()),
            "{pool}"
        );
    }
}

#[test]
fn samples_are_what_gen_makes_of_the_pools() {
    let dir = tempfile::tempdir().unwrap();
    for pool in POOLS {
        let path = dir.path().join(format!("{pool}.csv"));
        generate(
            &model(pool),
            Arrival::Poisson,
            1000.0,
            2000,
            1,
            &path,
            |_| {},
        )
        .unwrap();
        let file = std::fs::File::open(samples().join(format!("{pool}.csv.zst"))).unwrap();
        let mut sample = String::new();
        zstd::Decoder::new(file)
            .unwrap()
            .read_to_string(&mut sample)
            .unwrap();
        // Do not print whole texts in the message.
        assert!(
            std::fs::read_to_string(&path).unwrap() == sample,
            "{pool}: make its sample again"
        );
    }
}
