//! Loss and every gradient against the oracle in double precision.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use leanresnet::net::{ParameterRole, parameters};
use leanresnet::train::{Executor, NetworkExecutor, TrainConfig};
use leanresnet::{Isa, Model, Pool};

use crate::bits::has_fused_multiply_add;
use crate::common::tolerance::widened;
use crate::networks::{Case, cases, groups};
use crate::oracle::{Mode, Oracle, Tensors, batch_shape};

/// Unit roundoff of f32.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;
pub(crate) fn executor(case: &Case, model: &Model, pool: Pool, isa: Isa) -> NetworkExecutor {
    let config = TrainConfig::default().with_label_smoothing(case.smoothing);
    let mut executor = NetworkExecutor::new(&case.network, &config, pool, isa).unwrap();
    executor.set_model(model).unwrap();
    executor
}

/// Mean loss and gradients of a batch.
fn engine(case: &Case, model: &Model, isa: Isa) -> (f64, BTreeMap<String, Vec<f32>>) {
    let mut executor = executor(case, model, Pool::inline(), isa);
    let loss = executor.forward_backward(&case.images(case.batch), &case.labels(case.batch)).unwrap();
    let mut gradients = BTreeMap::new();
    executor.visit_gradients(&mut |name, shape, values| {
        assert_eq!(model.tensor(name).expect("a tensor of the model").0, shape, "{name}");
        assert!(gradients.insert(name.to_string(), values.to_vec()).is_none(), "{name} came twice");
    });
    (loss.loss_sum / case.batch as f64, gradients)
}

/// Mean loss and gradients of the same batch on the oracle.
pub(crate) fn oracle<T: leanresnet::internals::reference::Real>(case: &Case, model: &Model) -> (f64, Tensors) {
    let oracle = Oracle::<T>::new(model, Mode::Training);
    let images: Vec<T> = case.images(case.batch).into_iter().map(|value| T::from_f64(f64::from(value))).collect();
    let shape = batch_shape(model, case.batch);
    let (loss, gradient) = oracle.network.backward(&images, shape, &case.classes_of(case.batch), case.smoothing);
    let mut gradients = oracle.tensors(&gradient);
    // Shifts are fixed.
    for spec in parameters(&case.network).into_iter().filter(|spec| spec.role == ParameterRole::ShiftWeight) {
        gradients.insert(spec.name, vec![0.0; spec.shape.iter().product()]);
    }
    (loss, gradients)
}

pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Largest difference; infinite where a value is not a number.
pub(crate) fn distance(values: &[f64], exact: &[f64]) -> f64 {
    assert_eq!(values.len(), exact.len());
    let differences = values.iter().zip(exact).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest, difference| if difference.is_nan() { f64::INFINITY } else { largest.max(difference) })
}

/// The layer of a tensor: its name without the last word.
fn layer(name: &str) -> &str {
    let name = name.rsplit_once('.').map_or(name, |(layer, _)| layer);
    name.strip_suffix(".spatial").or_else(|| name.strip_suffix(".pointwise")).unwrap_or(name)
}

/// The largest gradient in the layer of a tensor: a bias behind a norm has gradient 0 and still the rounding errors of what was summed.
fn scale(name: &str, exact: &Tensors) -> f64 {
    let same_layer = exact.iter().filter(|(other, _)| layer(other) == layer(name));
    same_layer.map(|(_, values)| largest(values)).fold(0.0, f64::max)
}

/// What is wrong with one case.
///
/// Errors spread from layer to layer, so the measure for all tensors is the worst one of the plain f32 computation, relative to its
/// layer: four times that, and four roundings. Not twice, since the engine takes the gradient of norms in closed form
/// (`dy p + (x q + r)`), where the plain computation centres x first. Without fused multiply-add there are twice as many roundings.
fn check(case: &Case, isa: Isa) -> Vec<String> {
    let model = case.model();
    let (loss, gradients) = engine(case, &model, isa);
    let (exact_loss, exact) = oracle::<f64>(case, &model);
    let (naive_loss, naive) = oracle::<f32>(case, &model);
    let names = |tensors: Vec<&String>| tensors.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(gradients.keys().collect()), names(exact.keys().collect()), "{}", case.name);

    let relative = |name: &str, values: &[f64]| distance(values, &exact[name]) / scale(name, &exact);
    let naive_error = naive.iter().map(|(name, values)| relative(name, values)).fold(0.0, f64::max);
    let roundings = if has_fused_multiply_add(isa) { 1.0 } else { 2.0 };
    let allowed = roundings * (4.0 * naive_error + 4.0 * UNIT);
    let mut errors: Vec<(&str, f64)> =
        gradients.iter().map(|(name, values)| (&name[..], relative(name, &widened(values)))).collect();
    let naive_loss_error = (naive_loss - exact_loss).abs();
    let loss_error = ((loss - exact_loss).abs() - 4.0 * naive_loss_error).max(0.0) / exact_loss.abs();
    errors.push(("loss", loss_error));
    let wrong = errors.into_iter().filter(|(_, error)| error.is_nan() || *error > allowed);
    wrong.map(|(what, error)| format!("{} on {isa}: {what}: error {error:.2e}, allowed {allowed:.2e}", case.name)).collect()
}

#[test]
fn gradients_are_those_of_the_oracle() {
    let mut failures = Vec::new();
    for case in cases() {
        for isa in [Isa::Portable, Isa::active().unwrap()] {
            failures.extend(check(&case, isa));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn groups_of_channels_are_refused() {
    for case in groups() {
        let executor = NetworkExecutor::new(&case.network, &TrainConfig::default(), Pool::inline(), Isa::Portable);
        let message = executor.map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with("network.block.group_size: not supported yet in training; expected 1, got "), "{message}");
    }
}
