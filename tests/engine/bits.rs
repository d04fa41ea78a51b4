//! Training has the same bits on any number of threads, on every instruction set with fused multiply-add, and on every machine.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use leanresnet::train::{Executor, NetworkExecutor, TrainConfig, Update, average_decay};
use leanresnet::{Isa, Pool};

use crate::common::hash::Hash;
use crate::networks::{Case, cases};

/// True if a tier rounds a multiplication and the addition after it once.
pub(crate) fn has_fused_multiply_add(isa: Isa) -> bool {
    isa != Isa::Portable || cfg!(any(target_arch = "aarch64", target_feature = "fma"))
}

/// The tiers whose results have equal bits; the first is what the others are compared with.
pub(crate) fn equal_tiers() -> Vec<Isa> {
    let tiers: Vec<Isa> = Isa::available().filter(|isa| has_fused_multiply_add(*isa)).collect();
    if tiers.is_empty() { vec![Isa::Portable] } else { tiers }
}

/// A hash of the whole state, average and momentum too.
fn hash(executor: &NetworkExecutor) -> u64 {
    let mut hash = Hash::new();
    executor.visit_state(&mut |_, _, _, values| hash.add_values(values));
    hash.value()
}

/// The state after three steps on batches of `batch` images.
fn train(case: &Case, batch: usize, pool: &Pool, isa: Isa) -> NetworkExecutor {
    let config = TrainConfig::default().with_label_smoothing(case.smoothing).with_ema(0.9);
    let mut executor = NetworkExecutor::new(&case.network, &config, pool.clone(), isa).unwrap();
    executor.set_model(&case.model()).unwrap();
    let (images, labels) = (case.images(batch), case.labels(batch));
    for step in 0..3 {
        let loss = executor.forward_backward(&images, &labels).unwrap();
        assert!(loss.loss_sum.is_finite() && executor.gradient_norm().is_finite(), "{}, {batch} images", case.name);
        let mut update = Update::new(0.02);
        update.average_decay = Some(average_decay(0.9, step));
        executor.update(&update).unwrap();
    }
    assert_eq!(executor.first_non_finite(), None);
    executor
}

#[test]
fn threads_and_instruction_sets_do_not_matter() {
    let pools: Vec<Pool> = (1..=3).map(|threads| Pool::new(threads).unwrap()).collect();
    let tiers = equal_tiers();
    for (number, case) in cases().into_iter().enumerate() {
        // Every network with its own batch, and with one of the others: a single image, two, and more than there are chunks.
        for batch in [case.batch, [1, 2, 17][number % 3]] {
            let expected = hash(&train(&case, batch, &pools[0], tiers[0]));
            for (isa, pool) in tiers.iter().flat_map(|isa| pools.iter().map(move |pool| (*isa, pool))) {
                let found = hash(&train(&case, batch, pool, isa));
                assert_eq!(found, expected, "{}, {batch} images on {isa}, {} threads", case.name, pool.threads());
            }
        }
    }
}

#[test]
fn a_smaller_batch_after_a_larger_one_is_as_if_it_were_alone() {
    for case in cases() {
        let isa = Isa::active().unwrap();
        let fresh = train(&case, 2, &Pool::inline(), isa);
        let mut used = NetworkExecutor::new(&case.network, &TrainConfig::default().with_ema(0.9), Pool::inline(), isa).unwrap();
        used.forward_backward(&case.images(19), &case.labels(19)).unwrap();
        used.set_model(&case.model()).unwrap();
        used.forward_backward(&case.images(2), &case.labels(2)).unwrap();
        let mut other = NetworkExecutor::new(&case.network, &TrainConfig::default().with_ema(0.9), Pool::inline(), isa).unwrap();
        other.set_model(&case.model()).unwrap();
        other.forward_backward(&case.images(2), &case.labels(2)).unwrap();
        assert_eq!(hash(&used), hash(&other), "{}", case.name);
        assert_ne!(hash(&used), hash(&fresh), "{}: the state does not matter", case.name);
        let gradients = |executor: &NetworkExecutor| {
            let mut hash = Hash::new();
            executor.visit_gradients(&mut |_, _, values| hash.add_values(values));
            hash.value()
        };
        assert_eq!(gradients(&used), gradients(&other), "{}", case.name);
    }
}

fn golden_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/training.txt")
}

/// One line per network: 16 hexadecimal digits and the name.
fn stored() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(golden_path()).expect("the goldens are part of the repository");
    let line = |line: &str| {
        let (hash, name) = line.split_once(' ').expect("a hash and a name");
        (name.to_string(), u64::from_str_radix(hash, 16).expect("sixteen hexadecimal digits"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// `LEANRESNET_BLESS=1` writes the goldens anew.
#[test]
fn three_steps_have_the_stored_bits() {
    let isa = equal_tiers()[0];
    if !has_fused_multiply_add(isa) {
        return;
    }
    let computed: BTreeMap<String, u64> =
        cases().iter().map(|case| (case.name.to_string(), hash(&train(case, case.batch, &Pool::inline(), isa)))).collect();
    if std::env::var_os("LEANRESNET_BLESS").is_some_and(|value| value == "1") {
        let mut text = format!("# Written on {isa} by LEANRESNET_BLESS=1 cargo test --test engine; see tests/engine/bits.rs.\n");
        for (name, hash) in &computed {
            let _ = writeln!(text, "{hash:016x} {name}");
        }
        std::fs::write(golden_path(), text).expect("the repository can be written");
    }
    let stored = stored();
    let different: Vec<&String> = computed.keys().filter(|name| stored.get(*name) != computed.get(*name)).collect();
    assert!(different.is_empty(), "{isa} has other bits for {different:#?}");
    assert_eq!(computed.len(), stored.len(), "goldens of networks that are gone; write them anew");
}
