// SPDX-License-Identifier: GPL-2.0-only
//! The corpus, the seeds, and random mutations of them: the targets without a fuzzer, for any compiler.

mod common;

use std::fs;
use std::path::Path;

use common::Random;
use hippos_fuzz::{Target, TARGETS};

/// How many mutations of each seed are tried; the corpus already consists of such mutations.
const MUTATIONS: usize = 60;

fn mutate(random: &mut Random, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut input = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, random.below(256) as u8),
            2 => drop(input.drain(at..(at + random.below(5)).min(input.len()))),
            3 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().copied());
            }
            4 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = *b"\r\n \0 09az\x80\xff-"
                        .get(random.below(13))
                        .unwrap_or(&b' ');
                }
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    input.truncate(4096);
    input
}

#[test]
fn no_input_of_the_corpus_breaks_a_property() {
    for Target { name, run, seeds } in TARGETS {
        let mut inputs: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        if let Ok(entries) = fs::read_dir(&corpus) {
            for entry in entries {
                inputs.push(fs::read(entry.unwrap().path()).unwrap());
            }
        }
        inputs[seeds.len()..].sort();
        let mut random = Random(1);
        for number in 0..inputs.len() {
            let mutations = if number < seeds.len() { MUTATIONS } else { 0 };
            for round in 0..=mutations {
                let input = match round {
                    0 => inputs[number].clone(),
                    _ => mutate(&mut random, &inputs[number], &inputs),
                };
                let result = std::panic::catch_unwind(|| run(&input));
                assert!(
                    result.is_ok(),
                    "{name} fails with {:?}",
                    input.escape_ascii().to_string()
                );
            }
        }
    }
}
