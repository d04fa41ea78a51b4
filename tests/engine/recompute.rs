//! Activations that are computed again instead of kept: the same bits, in less memory.
#![forbid(unsafe_code)]

use leanresnet::net::Network;
use leanresnet::train::{Executor, NetworkExecutor, Recompute, StateKind, TrainConfig, Update};
use leanresnet::{Isa, Pool};

use crate::networks::{Case, cases};

/// Losses, gradients and state of two steps, as bits.
fn two_steps(case: &Case, recompute: Recompute, threads: usize) -> Vec<(String, Vec<u64>)> {
    let config = TrainConfig::default().with_label_smoothing(case.smoothing).with_recompute(recompute);
    let pool = Pool::new(threads).unwrap();
    let mut executor = NetworkExecutor::new(&case.network, &config, pool, Isa::active().unwrap()).unwrap();
    executor.set_model(&case.model()).unwrap();
    let mut bits = Vec::new();
    let single = |values: &[f32]| values.iter().map(|value| u64::from(value.to_bits())).collect();
    for _ in 0..2 {
        let loss = executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
        bits.push(("loss".to_owned(), vec![loss.loss_sum.to_bits(), loss.correct]));
        executor.visit_gradients(&mut |name, _, values| bits.push((format!("gradient of {name}"), single(values))));
        executor.update(&Update::new(0.05)).unwrap();
    }
    executor.visit_state(&mut |kind, name, _, values| {
        if kind == StateKind::Model {
            bits.push((name.to_owned(), single(values)));
        }
    });
    bits
}

#[test]
fn what_is_computed_again_has_the_same_bits() {
    for case in cases() {
        let expected = two_steps(&case, Recompute::None, 1);
        for (recompute, threads) in [(Recompute::Block, 1), (Recompute::Block, 2), (Recompute::Stage, 1), (Recompute::Stage, 3)] {
            let actual = two_steps(&case, recompute, threads);
            assert_eq!(actual.len(), expected.len());
            for (actual, expected) in actual.iter().zip(&expected) {
                assert!(actual == expected, "{}, {recompute}, {threads} threads: {}", case.name, expected.0);
            }
        }
    }
}

/// Of `base` with 128 images, for which whole tensors are far larger than the weights.
#[test]
fn less_is_kept() {
    let network = Network::preset("base").unwrap();
    let config = |recompute| TrainConfig::default().with_batch(128).with_recompute(recompute);
    let bytes = |recompute| NetworkExecutor::training_bytes(&network, &config(recompute), 2).unwrap() as f64;
    let kept = bytes(Recompute::None);
    let (block, stage) = (bytes(Recompute::Block) / kept, bytes(Recompute::Stage) / kept);
    assert!(block <= 0.65, "block takes {block} of what none takes");
    assert!(stage <= 0.52, "stage takes {stage} of what none takes");
}
