//! What a step leaves behind: running statistics and weights, against plain implementations.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use leanresnet::internals::reference::{ChannelStatistics, Real, update_running_statistics};
use leanresnet::net::parameters;
use leanresnet::train::{Executor, NetworkExecutor, StateKind, Update};
use leanresnet::{Error, Isa, Pool};

use crate::common::tolerance::widened;
use crate::gradients::{UNIT, distance, executor, largest};
use crate::networks::{Case, cases};
use crate::oracle::{Mode, Oracle, Tensors, batch_shape};

/// The numbers of the default optimiser.
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
const LEARNING_RATE: f32 = 0.05;

/// The weights and running statistics.
pub(crate) fn model_state(executor: &NetworkExecutor) -> BTreeMap<String, Vec<f32>> {
    let mut state = BTreeMap::new();
    executor.visit_state(&mut |kind, name, _, values| {
        if kind == StateKind::Model {
            state.insert(name.to_string(), values.to_vec());
        }
    });
    state
}

fn some_cases() -> Vec<Case> {
    let chosen = [
        "residual, 2 norms, box9, relu, scale 0.5",
        "symmetric, 1 norm, cross4, bias, relu, scale 0.5",
        "stem 7/2, bias",
        "35 images, dense",
        "separable, 2 norms, box9, relu",
        "shift, 1 norm",
    ];
    let cases: Vec<Case> = cases().into_iter().filter(|case| chosen.contains(&case.name)).collect();
    assert_eq!(cases.len(), chosen.len());
    cases
}

fn statistics<T: Real>(case: &Case) -> BTreeMap<String, (ChannelStatistics, usize)> {
    let model = case.model();
    let images: Vec<T> = case.images(case.batch).into_iter().map(|value| T::from_f64(f64::from(value))).collect();
    Oracle::<T>::new(&model, Mode::Training).statistics(&images, batch_shape(&model, case.batch))
}

#[test]
fn running_statistics_move_towards_those_of_the_batch() {
    let mut norms = 0;
    for case in cases() {
        let model = case.model();
        let mut executor = executor(&case, &model, Pool::inline(), Isa::active().unwrap());
        executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
        let state = model_state(&executor);
        let naive = statistics::<f32>(&case);
        for (name, (exact, count)) in statistics::<f64>(&case) {
            norms += 1;
            let held = |part: &str| widened(model.tensor(&format!("{name}.{part}")).unwrap().1);
            let moved = |batch: &ChannelStatistics| {
                let mut running = ChannelStatistics { mean: held("running_mean"), variance: held("running_var") };
                update_running_statistics(&mut running, batch, count, f64::from(case.network.norm_momentum()));
                running
            };
            let (exact, naive) = (moved(&exact), moved(&naive[&name].0));
            for (part, exact, naive) in
                [("running_mean", &exact.mean, &naive.mean), ("running_var", &exact.variance, &naive.variance)]
            {
                let error = distance(&widened(&state[&format!("{name}.{part}")]), exact);
                let allowed = 2.0 * distance(naive, exact) + 4.0 * UNIT * largest(exact).max(1.0);
                assert!(error <= allowed, "{}: {name}.{part}: error {error:e}, allowed {allowed:e}", case.name);
            }
        }
    }
    assert!(norms > 100, "only {norms} norms");
}

/// Stochastic gradient descent with Nesterov momentum and weight decay, number by number in double precision.
struct PlainOptimizer {
    weights: Tensors,
    velocity: Tensors,
    decays: BTreeMap<String, bool>,
}

impl PlainOptimizer {
    fn new(case: &Case, weights: Tensors) -> Self {
        let decays = parameters(&case.network).into_iter().map(|spec| (spec.name, spec.role.decays())).collect();
        let velocity = weights.iter().map(|(name, values)| (name.clone(), vec![0.0; values.len()])).collect();
        PlainOptimizer { weights, velocity, decays }
    }

    fn step(&mut self, gradients: &Tensors, scale: f64) {
        for (name, weights) in &mut self.weights {
            let decay = if self.decays[name] { WEIGHT_DECAY } else { 0.0 };
            let velocity = self.velocity.get_mut(name).unwrap();
            for ((weight, velocity), gradient) in weights.iter_mut().zip(velocity).zip(&gradients[name]) {
                let direction = scale * gradient + decay * *weight;
                *velocity = MOMENTUM * *velocity + direction;
                *weight -= f64::from(LEARNING_RATE) * (direction + MOMENTUM * *velocity);
            }
        }
    }
}

fn gradients(executor: &NetworkExecutor) -> Tensors {
    let mut gradients = Tensors::new();
    executor.visit_gradients(&mut |name, _, values| {
        gradients.insert(name.to_string(), widened(values));
    });
    gradients
}

fn trained(state: &BTreeMap<String, Vec<f32>>) -> Tensors {
    let is_trained = |name: &str| !name.ends_with("running_mean") && !name.ends_with("running_var");
    state.iter().filter(|(name, _)| is_trained(name)).map(|(name, values)| (name.clone(), widened(values))).collect()
}

#[test]
fn updates_are_those_of_the_plain_optimizer() {
    for case in some_cases() {
        let mut executor = executor(&case, &case.model(), Pool::inline(), Isa::active().unwrap());
        let mut plain = PlainOptimizer::new(&case, trained(&model_state(&executor)));
        for step in 1..=10_u32 {
            // Every other gradient is clipped.
            let clip = if step % 2 == 0 { 0.25_f32 } else { 1.0 };
            executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
            plain.step(&gradients(&executor), f64::from(clip));
            let mut update = Update::new(LEARNING_RATE);
            update.gradient_scale = clip;
            executor.update(&update).unwrap();
            let weights = trained(&model_state(&executor));
            for (name, exact) in &plain.weights {
                // Each step rounds the weight, and the velocity that later steps use again.
                let scale = largest(exact) + f64::from(LEARNING_RATE) * largest(&plain.velocity[name]) / (1.0 - MOMENTUM);
                let (error, allowed) = (distance(&weights[name], exact), 2.0 * f64::from(step) * UNIT * scale);
                assert!(error <= allowed, "{}: step {step}: {name}: error {error:e}, allowed {allowed:e}", case.name);
            }
        }
    }
}

/// Weights after ten steps on the oracle.
fn oracle_training<T: Real>(case: &Case) -> Tensors {
    let model = case.model();
    let mut oracle = Oracle::<T>::new(&model, Mode::Training);
    let images: Vec<T> = case.images(case.batch).into_iter().map(|value| T::from_f64(f64::from(value))).collect();
    let (shape, classes) = (batch_shape(&model, case.batch), case.classes_of(case.batch));
    let trained = parameters(&case.network).into_iter().filter(|spec| spec.role.is_trainable());
    let decays: BTreeMap<String, bool> = trained.map(|spec| (spec.name, spec.role.decays())).collect();
    let names = oracle.parameter_names();
    let mut velocity: Vec<Vec<T>> = oracle.network.parameters().iter().map(|values| vec![T::ZERO; values.len()]).collect();
    let number = |value: f64| T::from_f64(value);
    for _ in 0..10 {
        let (_, mut gradient) = oracle.network.backward(&images, shape, &classes, case.smoothing);
        let gradients = gradient.parameters();
        for (((name, weights), velocity), gradients) in
            names.iter().zip(oracle.network.parameters()).zip(&mut velocity).zip(gradients)
        {
            // A layer without bias has a bias of 0 on the oracle, which stays, and shifts are fixed.
            let Some(decays) = decays.get(name) else { continue };
            let decay = number(if *decays { WEIGHT_DECAY } else { 0.0 });
            for ((weight, velocity), gradient) in weights.iter_mut().zip(velocity).zip(gradients) {
                let direction = weight.mul_add(decay, *gradient);
                *velocity = velocity.mul_add(number(MOMENTUM), direction);
                *weight = *weight - number(f64::from(LEARNING_RATE)) * velocity.mul_add(number(MOMENTUM), direction);
            }
        }
    }
    oracle.tensors(&oracle.network)
}

#[test]
fn ten_steps_stay_as_near_to_the_oracle_as_the_plain_computation() {
    for case in some_cases() {
        let (exact, naive) = (oracle_training::<f64>(&case), oracle_training::<f32>(&case));
        let mut executor = executor(&case, &case.model(), Pool::inline(), Isa::active().unwrap());
        for _ in 0..10 {
            executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
            executor.update(&Update::new(LEARNING_RATE)).unwrap();
        }
        let weights = trained(&model_state(&executor));
        // Errors spread from layer to layer, so the worst tensor of the plain computation is the measure for all.
        let relative = |values: &[f64], exact: &[f64]| distance(values, exact) / largest(exact);
        let naive_error = exact.iter().map(|(name, exact)| relative(&naive[name], exact)).fold(0.0, f64::max);
        for (name, exact) in &exact {
            let error = relative(&weights[name], exact);
            let allowed = 4.0 * naive_error + 16.0 * UNIT;
            assert!(error <= allowed, "{}: {name}: error {error:e}, allowed {allowed:e}", case.name);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let case = some_cases().swap_remove(0);
    let mut executor = executor(&case, &case.model(), Pool::inline(), Isa::active().unwrap());
    let (images, before) = (case.images(3), model_state(&executor));
    let refused = |executor: &mut NetworkExecutor, images: &[f32], class: u32, count: usize| {
        let labels = vec![leanresnet::data::SoftLabel::hard(class); count];
        executor.forward_backward(images, &labels).unwrap_err()
    };
    let error = refused(&mut executor, &images, 7, 3);
    assert_eq!(error.to_string(), "label; expected a class below 7, got 7");
    let error = refused(&mut executor, &images, 0, 2);
    assert_eq!(error.to_string(), "shape of images; expected 378 values (2 x 9 x 7 x 3), got 567 values");
    let error = refused(&mut executor, &[], 0, 0);
    assert_eq!(error.to_string(), "shape of images; expected at least one image, got 0 values");
    assert!(matches!(error, Error::Shape { .. }));
    let error = executor.forward(&images, 3, &mut [0.0; 20]).unwrap_err();
    assert_eq!(error.to_string(), "shape of logits; expected 21, got 20");
    assert_eq!(model_state(&executor), before);
    for (kind, name, shape) in [
        (StateKind::Model, "stages.0.0.conv1.pointwise.bias", vec![12]),
        (StateKind::Model, "stages.0.0.conv1.pointwise.weight", vec![12, 12]),
        (StateKind::Momentum, "stem.norm.running_mean", vec![12]),
        (StateKind::Ema, "head.bias", vec![7]),
        (StateKind::Model, "elsewhere", vec![1]),
    ] {
        let values = vec![1.0; shape.iter().product()];
        let error = executor.restore_state(kind, name, &shape, &values).unwrap_err();
        assert!(matches!(&error, Error::Model { .. }) && error.to_string().contains(name), "{error}");
    }
    let error = executor.restore_state(StateKind::Model, "head.bias", &[7], &[1.0; 6]).unwrap_err();
    assert!(matches!(error, Error::Model { .. }));
    assert_eq!(model_state(&executor), before);
}

#[test]
fn kernels_of_training_are_listed() {
    let case = some_cases().swap_remove(0);
    for isa in Isa::available() {
        let kernels = executor(&case, &case.model(), Pool::inline(), isa).kernels();
        let layers: Vec<&str> = kernels.iter().map(|(layer, _)| layer.as_str()).collect();
        assert_eq!(layers[..3], ["stem.conv", "stages.0.0.conv1", "stages.0.0.conv2"]);
        assert_eq!(layers[layers.len() - 1], "head");
        for (layer, names) in &kernels {
            let operators: &[&str] = if layer.starts_with("stages") {
                &["fused", "weightgradient", "stencilgradient"]
            } else {
                &["dense", "weightgradient"]
            };
            let starts: Vec<String> = operators.iter().map(|operator| format!("lean_{operator}_f32_{}_", isa.base())).collect();
            assert_eq!(names.len(), starts.len(), "{layer}: {names:?}");
            assert!(names.iter().zip(&starts).all(|(name, start)| name.starts_with(start)), "{layer}: {names:?}");
        }
    }
}
