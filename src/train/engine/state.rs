//! The state of training as named tensors: weights, moments, average, and the gradients.
#![forbid(unsafe_code)]

use super::graph::Graph;
use super::kernel_weights::Trained;
use super::norm::{TrainedNorm, Values};
use super::weights::TrainedConvolution;
use crate::train::{GradientVisitor, StateKind, StateVisitor};

/// Calls `visit` with every tensor of the state, the average's only where one is kept.
pub(super) fn visit<T: Trained>(graph: &Graph<T>, keeps_average: bool, visit: &mut StateVisitor<'_>) {
    for kind in StateKind::ALL {
        if kind == StateKind::Ema && !keeps_average {
            continue;
        }
        graph.convolutions.iter().for_each(|conv| visit_convolution(conv, kind, visit));
        graph.norms.iter().filter(|norm| norm.active).for_each(|norm| visit_norm(norm, kind, visit));
    }
}

/// Calls `visit` with name, shape and values of every gradient.
pub(super) fn visit_gradients<T: Trained>(graph: &Graph<T>, visit: &mut GradientVisitor<'_>) {
    for conv in &graph.convolutions {
        for (name, shape, values) in conv.unpack(&conv.gradient.read(0..1)) {
            visit(&name, &shape, &values);
        }
    }
    for norm in graph.norms.iter().filter(|norm| norm.active) {
        for (part, values) in [("weight", Values::WeightGradient), ("bias", Values::BiasGradient)] {
            visit(&format!("{}.{part}", norm.name), &[norm.outputs], &norm.read(values)[..norm.outputs]);
        }
    }
}

/// Replaces one tensor of the state; false if there is none of this name, shape and number of values.
pub(super) fn restore<T: Trained>(graph: &mut Graph<T>, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> bool {
    if shape.iter().product::<usize>() != values.len() {
        return false;
    }
    let Some((layer, part)) = split_name(graph, name) else { return false };
    if let Some(conv) = graph.convolutions.iter_mut().find(|conv| conv.name == layer) {
        return restore_convolution(conv, kind, (name, shape), values);
    }
    let norm = graph.norms.iter_mut().find(|norm| norm.active && norm.name == layer);
    norm.is_some_and(|norm| shape == [norm.outputs] && restore_norm(norm, kind, part, values))
}

/// The layer of the graph and the rest of a tensor's name.
fn split_name<'a, T: Trained>(graph: &Graph<T>, name: &'a str) -> Option<(&'a str, &'a str)> {
    let mut layers = graph.convolutions.iter().map(|conv| &conv.name).chain(graph.norms.iter().map(|norm| &norm.name));
    let rest = |layer: &String| name.strip_prefix(layer.as_str()).and_then(|rest| rest.strip_prefix('.'));
    layers.find_map(|layer| rest(layer).map(|part| (&name[..layer.len()], part)))
}

/// A flat run of one kind of a convolution's state; `None` if its optimiser has no such kind.
fn flat_state<T: Trained>(conv: &TrainedConvolution<T>, kind: StateKind) -> Option<Vec<f32>> {
    match kind {
        StateKind::Model => Some(conv.flat_values()),
        StateKind::Ema => Some(conv.average.clone()),
        StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => conv.moments.of(kind).map(<[f32]>::to_vec),
    }
}

fn visit_convolution<T: Trained>(conv: &TrainedConvolution<T>, kind: StateKind, visit: &mut StateVisitor<'_>) {
    let Some(flat) = flat_state(conv, kind) else { return };
    for (name, shape, values) in conv.unpack(&flat) {
        visit(kind, &name, &shape, &values);
    }
}

fn restore_convolution<T: Trained>(
    conv: &mut TrainedConvolution<T>,
    kind: StateKind,
    (name, shape): (&str, &[usize]),
    values: &[f32],
) -> bool {
    let Some(mut flat) = flat_state(conv, kind) else { return false };
    if !conv.pack(&mut flat, name, shape, values) {
        return false;
    }
    match kind {
        StateKind::Model => conv.set_flat_values(&flat),
        StateKind::Ema => conv.average = flat,
        StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => match conv.moments.of_mut(kind) {
            Some(moments) => moments.copy_from_slice(&flat),
            None => return false,
        },
    }
    true
}

/// The running statistics that are part of a norm's state.
const RUNNING: [(&str, Values); 2] = [("running_mean", Values::RunningMean), ("running_var", Values::RunningVariance)];

fn visit_norm(norm: &TrainedNorm, kind: StateKind, visit: &mut StateVisitor<'_>) {
    let shape = [norm.outputs];
    for (part, parameter) in [("weight", &norm.weight), ("bias", &norm.bias)] {
        let values = match kind {
            StateKind::Model => Some(&parameter.values[..]),
            StateKind::Ema => Some(&parameter.average[..]),
            StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => parameter.moments.of(kind),
        };
        if let Some(values) = values {
            visit(kind, &format!("{}.{part}", norm.name), &shape, &values[..norm.outputs]);
        }
    }
    for (index, (part, values)) in RUNNING.into_iter().enumerate() {
        let name = format!("{}.{part}", norm.name);
        match kind {
            StateKind::Model => visit(kind, &name, &shape, &norm.read(values)[..norm.outputs]),
            StateKind::Ema => visit(kind, &name, &shape, &norm.running_average[index][..norm.outputs]),
            StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => {}
        }
    }
}

fn restore_norm(norm: &mut TrainedNorm, kind: StateKind, part: &str, values: &[f32]) -> bool {
    if let Some(index) = RUNNING.iter().position(|(name, _)| *name == part) {
        match kind {
            StateKind::Model => norm.change(RUNNING[index].1, |channel, old| values.get(channel).copied().unwrap_or(old)),
            StateKind::Ema => norm.running_average[index][..values.len()].copy_from_slice(values),
            StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => return false,
        }
        return true;
    }
    let parameter = match part {
        "weight" => &mut norm.weight,
        "bias" => &mut norm.bias,
        _ => return false,
    };
    match kind {
        StateKind::Model => parameter.values[..values.len()].copy_from_slice(values),
        StateKind::Momentum | StateKind::AdamMean | StateKind::AdamSquare => match parameter.moments.of_mut(kind) {
            Some(moments) => moments[..values.len()].copy_from_slice(values),
            None => return false,
        },
        StateKind::Ema => parameter.average[..values.len()].copy_from_slice(values),
    }
    true
}
