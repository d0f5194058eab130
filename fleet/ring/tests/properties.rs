// SPDX-License-Identifier: MIT

//! Properties of every pool.

use hippos_ring::{Distribution, Error, Hash, Node, Ring};
use proptest::prelude::*;

fn nodes(count: usize) -> Vec<Node> {
    (0..count)
        .map(|index| Node::address("10.0.0.1", 20000 + index as u16, 1))
        .collect()
}

const ALL: [Distribution; 6] = [
    Distribution::Ketama,
    Distribution::KetamaWeighted,
    Distribution::Modulo,
    Distribution::ModuloByName,
    Distribution::Jump,
    Distribution::Rendezvous,
];

fn keys() -> impl Iterator<Item = String> {
    (0..2000).map(|index| format!("key:{index}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_key_has_a_node(count in 1usize..40, key: Vec<u8>) {
        for distribution in ALL {
            for name in Hash::names() {
                let ring = Ring::new(&nodes(count), distribution, Hash::named(name).unwrap());
                prop_assert!(ring.unwrap().node(&key) < count);
            }
        }
    }

    /// A node that is added at the end takes keys, and moves none between other nodes.
    #[test]
    fn a_new_node_only_takes(count in 1usize..20) {
        for distribution in ALL {
            if matches!(distribution, Distribution::Modulo | Distribution::ModuloByName) {
                continue;
            }
            let old = Ring::new(&nodes(count), distribution, Hash::Md5).unwrap();
            let new = Ring::new(&nodes(count + 1), distribution, Hash::Md5).unwrap();
            for key in keys() {
                let (before, after) = (old.node(key.as_bytes()), new.node(key.as_bytes()));
                prop_assert!(after == before || after == count, "{:?}", distribution);
            }
        }
    }

    /// Removing a node from a ketama or rendezvous pool moves only its own keys.
    #[test]
    fn a_leaving_node_moves_its_own_keys(count in 2usize..20, gone in 0usize..20) {
        let gone = gone % count;
        for distribution in [Distribution::Ketama, Distribution::Rendezvous] {
            let all = nodes(count);
            let mut fewer = all.clone();
            fewer.remove(gone);
            let old = Ring::new(&all, distribution, Hash::Md5).unwrap();
            let new = Ring::new(&fewer, distribution, Hash::Md5).unwrap();
            for key in keys() {
                let before = old.node(key.as_bytes());
                if before != gone {
                    prop_assert_eq!(&all[before], &fewer[new.node(key.as_bytes())]);
                }
            }
        }
    }
}

#[test]
fn shares_follow_weights() {
    let mut pool = nodes(4);
    for (node, weight) in pool.iter_mut().zip([1, 2, 3, 4]) {
        node.weight = weight;
    }
    for (distribution, slack) in [
        (Distribution::KetamaWeighted, 0.25),
        (Distribution::Modulo, 0.15),
        (Distribution::Rendezvous, 0.15),
    ] {
        let ring = Ring::new(&pool, distribution, Hash::Md5).unwrap();
        let mut counts = [0u32; 4];
        for index in 0..40_000 {
            counts[ring.node(format!("key:{index}").as_bytes())] += 1;
        }
        for (count, weight) in counts.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            let want = 4000.0 * weight;
            let off = (f64::from(*count) - want).abs() / want;
            assert!(off < slack, "{distribution:?}: {counts:?}");
        }
    }
}

#[test]
fn pools_that_make_no_ring_are_refused() {
    let ring = |nodes: &[Node], distribution| Ring::new(nodes, distribution, Hash::Md5).err();
    let mut pool = nodes(3);
    assert_eq!(ring(&[], Distribution::Ketama), Some(Error::Empty));
    pool[1].weight = 2;
    assert_eq!(ring(&pool, Distribution::Jump), Some(Error::Unweighted));
    pool[1].weight = 0;
    assert_eq!(ring(&pool, Distribution::Ketama), Some(Error::NoWeight(1)));
    pool[1] = pool[0].clone();
    assert_eq!(ring(&pool, Distribution::Modulo), Some(Error::Duplicate(1)));
    let many = Ring::NODES_MAX + 1;
    assert_eq!(
        ring(&nodes(many), Distribution::Jump),
        Some(Error::TooLarge)
    );
}
