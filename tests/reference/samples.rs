//! Stencils, shapes and random weights for the proofs.
#![forbid(unsafe_code)]

use crate::common::data::{integers, uniform};
use crate::common::tolerance::widened;
use leanresnet::internals::reference::{DenseWeights, LeanWeights, Norm, Operator, Shape, Tap};

pub(crate) const CROSS4: &[Tap] = &[(-1, 0), (0, -1), (0, 1), (1, 0)];
pub(crate) const CROSS5: &[Tap] = &[(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)];
pub(crate) const BOX9: &[Tap] = &[(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)];
pub(crate) const ROW3: &[Tap] = &[(0, -1), (0, 0), (0, 1)];
pub(crate) const COL3: &[Tap] = &[(-1, 0), (0, 0), (1, 0)];
/// A stencil that reaches two pixels, further along rows than along columns.
pub(crate) const WIDE: &[Tap] = &[(-1, -2), (-1, 2), (0, -2), (0, 0), (0, 2), (1, -2), (1, 2)];

/// Stencils that fit a 3x3 kernel.
pub(crate) const STENCILS_3X3: [&[Tap]; 5] = [CROSS4, CROSS5, BOX9, ROW3, COL3];

/// Random numbers for one tensor, from a seed and a count.
pub(crate) type Fill = fn(u64, usize) -> Vec<f64>;

/// Integers up to 9, so that sums are exact.
pub(crate) fn small_integers(seed: u64, count: usize) -> Vec<f64> {
    widened(&integers(seed, count, 9))
}

/// Uniform in [-1, 1).
pub(crate) fn reals(seed: u64, count: usize) -> Vec<f64> {
    widened(&uniform(seed, count))
}

pub(crate) fn lean(seed: u64, taps: &[Tap], channels: usize, fill: Fill) -> LeanWeights<f64> {
    LeanWeights {
        taps: taps.to_vec(),
        group_size: 1,
        spatial: fill(seed, taps.len() * channels),
        pointwise: fill(seed + 1, channels * channels),
        bias: fill(seed + 2, channels),
    }
}

pub(crate) fn dense(seed: u64, kernel: usize, stride: usize, channels: (usize, usize), fill: Fill) -> DenseWeights<f64> {
    let (inputs, outputs) = channels;
    let weight = fill(seed, outputs * inputs * kernel * kernel);
    DenseWeights { kernel, stride, inputs, outputs, weight, bias: fill(seed + 1, outputs) }
}

/// A norm with weights around 1 and small biases.
pub(crate) fn norm(seed: u64, channels: usize) -> Norm<f64> {
    let weight = reals(seed, channels).iter().map(|value| 1.0 + value / 2.0).collect();
    Norm { weight, bias: reals(seed + 1, channels), epsilon: 1e-5, running: None }
}

/// Lean convolutions with all stencils, over images of every small size and a few channel counts.
pub(crate) fn lean_cases(fill: Fill) -> impl Iterator<Item = (Shape, Operator<f64>)> {
    let stencils = STENCILS_3X3.into_iter().chain([WIDE]);
    stencils.flat_map(move |taps| {
        shapes().map(move |shape| (shape, Operator::Lean(lean(shape.elements() as u64, taps, shape.c, fill))))
    })
}

/// Dense convolutions with all kernels and strides, over images of every small size and a few channel counts.
pub(crate) fn dense_cases(fill: Fill) -> impl Iterator<Item = (Shape, Operator<f64>)> {
    let geometries = [1, 3, 7].into_iter().flat_map(|kernel| [1, 2, 4].map(|stride| (kernel, stride)));
    geometries.flat_map(move |(kernel, stride)| {
        shapes().zip([1, 3, 2, 4, 5].into_iter().cycle()).map(move |(shape, outputs)| {
            let weights = dense(shape.elements() as u64, kernel, stride, (shape.c, outputs), fill);
            (shape, Operator::Dense(weights))
        })
    })
}

fn shapes() -> impl Iterator<Item = Shape> {
    let extents = [1, 2, 3, 4, 5, 9];
    let sizes = extents.into_iter().flat_map(move |h| extents.map(|w| (h, w)));
    sizes.flat_map(|(h, w)| [1, 2, 3, 5].map(|c| Shape::new(1 + (h + w) % 2, h, w, c)))
}
