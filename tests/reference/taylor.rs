//! The loss of a whole network against its first-order expansion.
#![forbid(unsafe_code)]

use crate::samples::{BOX9, CROSS5, dense, lean, norm, reals};
use leanresnet::internals::reference::{Block, HeadWeights, Layer, Network, Operator, Shape, cross_entropy};

const SHAPE: Shape = Shape { n: 3, h: 6, w: 6, c: 3 };
const LABELS: [usize; 3] = [4, 0, 2];
const SMOOTHING: f64 = 0.1;

/// Stem, residual block, connection, symmetric block, head: every kind of layer.
fn network() -> Network<f64> {
    let residual = Block {
        conv1: Operator::Lean(lean(11, CROSS5, 4, reals)),
        norm1: Some(norm(14, 4)),
        conv2: Some(Operator::Lean(lean(16, CROSS5, 4, reals))),
        norm2: Some(norm(19, 4)),
        scale: 1.0,
        relu_after_sum: true,
    };
    let symmetric = Block {
        conv1: Operator::Lean(lean(21, BOX9, 6, reals)),
        norm1: Some(norm(24, 6)),
        conv2: None,
        norm2: None,
        scale: 0.25,
        relu_after_sum: false,
    };
    Network {
        layers: vec![
            Layer::Convolution(Operator::Dense(dense(1, 3, 1, (3, 4), reals))),
            Layer::Norm(norm(3, 4)),
            Layer::Relu,
            Layer::Block(Box::new(residual)),
            Layer::AveragePool,
            Layer::Convolution(Operator::Dense(dense(5, 1, 1, (4, 6), reals))),
            Layer::Norm(norm(7, 6)),
            Layer::Relu,
            Layer::Block(Box::new(symmetric)),
            Layer::GlobalAveragePool,
            Layer::Head(HeadWeights { weight: reals(9, 5 * 6), bias: reals(10, 5) }),
        ],
    }
}

/// A direction in parameter space, short enough that no rectifier changes its sign within the largest step.
fn direction() -> Vec<Vec<f64>> {
    let mut network = network();
    let short = |(seed, tensor): (usize, &mut Vec<f64>)| -> Vec<f64> {
        reals(seed as u64, tensor.len()).iter().map(|value| value / 256.0).collect()
    };
    network.parameters().into_iter().enumerate().map(short).collect()
}

/// The loss after a step of `h` along the direction.
fn loss(h: f64) -> f64 {
    let mut network = network();
    for (tensor, direction) in network.parameters().into_iter().zip(direction()) {
        for (parameter, change) in tensor.iter_mut().zip(direction) {
            *parameter += h * change;
        }
    }
    let logits = network.forward(&reals(50, SHAPE.elements()), SHAPE);
    cross_entropy(&logits, &LABELS, SMOOTHING).value
}

/// Slopes of `log |loss(h) - loss(0) - h derivative|` over `log h` between h = 2^-4, 2^-5, ..., 2^-10.
fn remainder_slopes(derivative: f64) -> Vec<f64> {
    let at_start = loss(0.0);
    let remainders: Vec<f64> = (4..=10)
        .map(|exponent| {
            let h = 0.5_f64.powi(exponent);
            (loss(h) - at_start - h * derivative).abs()
        })
        .collect();
    remainders.windows(2).map(|pair| (pair[0] / pair[1]).log2()).collect()
}

/// The loss's derivative along the direction, from the backward pass.
fn derivative() -> f64 {
    let (value, mut gradients) = network().backward(&reals(50, SHAPE.elements()), SHAPE, &LABELS, SMOOTHING);
    assert_eq!(value, loss(0.0), "forward and backward disagree on the loss");
    let products =
        |(gradient, direction): (&mut Vec<f64>, Vec<f64>)| -> f64 { gradient.iter().zip(direction).map(|(g, d)| g * d).sum() };
    gradients.parameters().into_iter().zip(direction()).map(products).sum()
}

#[test]
fn the_remainder_of_a_whole_network_is_of_second_order() {
    let slopes = remainder_slopes(derivative());
    assert!(slopes.iter().all(|slope| (slope - 2.0).abs() <= 0.1), "slopes {slopes:?}");
}

#[test]
fn a_derivative_off_by_a_hundredth_is_noticed() {
    let slopes = remainder_slopes(derivative() * 1.01);
    assert!(slopes.iter().any(|slope| (slope - 2.0).abs() > 0.1), "slopes {slopes:?}");
}
