//! Training in bf16: gradients against the oracle, equal bits on any number of threads and however memory is saved, and runs that go on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use half::bf16;
use leanresnet::net::{ParameterRole, parameters};
use leanresnet::train::{Dtype, Executor, NetworkExecutor, Recompute, TrainConfig, Update};
use leanresnet::{Isa, Model, Pool, Precision};

use crate::common::hash::Hash;
use crate::gradients::oracle;
use crate::networks::{Case, cases, wide};

/// Unit roundoff of bf16.
const UNIT: f64 = 1.0 / (1 << 8) as f64;

/// Portable code, and the best tier of this machine.
fn isas() -> [Isa; 2] {
    [Isa::Portable, Precision::Bf16.isa().unwrap()]
}

fn executor(case: &Case, recompute: Recompute, pool: Pool, isa: Isa) -> NetworkExecutor {
    let config = TrainConfig::default().with_label_smoothing(case.smoothing).with_recompute(recompute).with_ema(0.9);
    let mut executor = NetworkExecutor::new(&case.network, &config.with_dtype(Dtype::Bf16), pool, isa).unwrap();
    executor.set_model(&case.model()).unwrap();
    executor
}

fn norm<'a>(values: impl Iterator<Item = f64> + 'a) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The same model with all weights rounded to bf16, as one of the roundings of a step does it: to nearest, or towards zero.
fn rounded(case: &Case, model: &Model, round: fn(f32) -> f32) -> Model {
    let held = parameters(&case.network).into_iter().filter(|spec| spec.role != ParameterRole::NumBatchesTracked);
    let tensors = held.map(|spec| {
        let (shape, values) = model.tensor(&spec.name).expect("a tensor of the network");
        (spec.name, shape.to_vec(), values.iter().map(|value| round(*value)).collect())
    });
    Model::from_tensors(&case.network, tensors).unwrap()
}

/// The measure is what the rounding of all weights alone does to the exact gradient of the same batch: few images and their norms make some of
/// these networks 30 times as sensitive as others. The engine rounds activations and their gradients too. The largest error of these cases is
/// two thirds of what is allowed.
#[test]
fn gradients_are_as_near_as_roundings_to_bf16_allow() {
    let mut failures = Vec::new();
    for case in cases().into_iter().chain(wide()) {
        let model = case.model();
        let (exact_loss, exact) = oracle::<f64>(&case, &model);
        let scale = norm(exact.values().flatten().copied());
        let roundings: [fn(f32) -> f32; 2] =
            [|value| bf16::from_f32(value).to_f32(), |value| f32::from_bits(value.to_bits() & 0xffff_0000)];
        let change = |round| {
            let (_, of_rounded) = oracle::<f64>(&case, &rounded(&case, &model, round));
            let pairs = of_rounded.iter().flat_map(|(name, values)| values.iter().zip(&exact[name]));
            norm(pairs.map(|(value, exact)| value - exact)) / scale
        };
        let sensitivity = roundings.map(change).into_iter().fold(0.0, f64::max);
        for isa in isas() {
            let mut executor = executor(&case, Recompute::None, Pool::inline(), isa);
            let loss = executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
            let mut gradients = BTreeMap::new();
            executor.visit_gradients(&mut |name, shape, values| {
                assert_eq!(model.tensor(name).expect("a tensor of the model").0, shape, "{name}");
                gradients.insert(name.to_owned(), values.to_vec());
            });
            assert!(gradients.keys().eq(exact.keys()), "{}", case.name);
            let pairs = gradients.iter().flat_map(|(name, values)| values.iter().zip(&exact[name]));
            let error = norm(pairs.map(|(value, exact)| f64::from(*value) - exact)) / scale;
            let loss_error = (loss.loss_sum / case.batch as f64 - exact_loss).abs() / exact_loss;
            let allowed = 8.0 * (sensitivity + UNIT);
            if error > allowed || error < UNIT / 64.0 || loss_error > 2.0 * UNIT || error.is_nan() || loss_error.is_nan() {
                let found = format!("relative error {error:.2e}, allowed {allowed:.2e}, of the loss {loss_error:.2e}");
                failures.push(format!("{} on {isa}: {found}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A hash of gradients and state after two steps.
fn two_steps(case: &Case, recompute: Recompute, threads: usize, isa: Isa) -> u64 {
    let mut executor = executor(case, recompute, Pool::new(threads).unwrap(), isa);
    let mut hash = Hash::new();
    for _ in 0..2 {
        let loss = executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
        hash.add_values(&[loss.loss_sum as f32]);
        executor.visit_gradients(&mut |_, _, values| hash.add_values(values));
        let mut update = Update::new(0.02);
        update.average_decay = Some(0.5);
        executor.update(&update).unwrap();
    }
    assert_eq!(executor.first_non_finite(), None, "{}", case.name);
    executor.visit_state(&mut |_, _, _, values| hash.add_values(values));
    hash.value()
}

#[test]
fn threads_and_recompute_do_not_matter() {
    let isa = Precision::Bf16.isa().unwrap();
    for case in cases().into_iter().chain(wide()) {
        let expected = two_steps(&case, Recompute::None, 1, isa);
        for (recompute, threads) in [(Recompute::None, 2), (Recompute::None, 3), (Recompute::Block, 2), (Recompute::Stage, 3)] {
            let found = two_steps(&case, recompute, threads, isa);
            assert_eq!(found, expected, "{}, {recompute}, {threads} threads", case.name);
        }
    }
}

/// What lies behind the channels of a network whose widths are no whole panels stays 0: the state has the network's own shapes, and
/// restoring it gives the same next step.
#[test]
fn state_moves_to_another_executor() {
    let isa = Precision::Bf16.isa().unwrap();
    for case in cases() {
        let step = |executor: &mut NetworkExecutor| {
            executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
            executor.update(&Update::new(0.02)).unwrap();
        };
        let hash = |executor: &NetworkExecutor| {
            let mut hash = Hash::new();
            executor.visit_state(&mut |_, _, _, values| hash.add_values(values));
            hash.value()
        };
        let mut first = executor(&case, Recompute::None, Pool::inline(), isa);
        step(&mut first);
        let mut second = executor(&case, Recompute::None, Pool::inline(), isa);
        first.visit_state(&mut |kind, name, shape, values| second.restore_state(kind, name, shape, values).unwrap());
        assert_eq!(hash(&second), hash(&first), "{}", case.name);
        step(&mut first);
        step(&mut second);
        assert_eq!(hash(&second), hash(&first), "{}: after a step", case.name);
    }
}

#[test]
fn half_the_memory_is_taken_by_activations() {
    let network = leanresnet::Network::preset("base").unwrap();
    let bytes = |dtype| {
        let config = TrainConfig::default().with_batch(128).with_dtype(dtype);
        NetworkExecutor::training_bytes(&network, &config, 2).unwrap() as f64
    };
    let ratio = bytes(Dtype::Bf16) / bytes(Dtype::F32);
    assert!((0.5..0.58).contains(&ratio), "{ratio}");
}
