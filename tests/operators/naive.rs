//! The elementwise operators as plain loops over any number type: their definitions, written a second time.
#![forbid(unsafe_code)]

use super::elementwise::{Outputs, Problem, TURNS};
use crate::common::guard::CANARY;
use leanresnet::internals::pack::PANEL;
use leanresnet::internals::reference::{Real, relu};

/// How to read the problem's data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As it is.
    Values,
    /// Absolute values, differences as sums, everything passes: an upper bound of the terms' magnitudes.
    Magnitudes,
}

/// Values and sums; those of a pool's gradient that no output pixel reaches are canaries.
pub(crate) fn naive<T: Real>(problem: &Problem, reading: Reading) -> Outputs<T> {
    let sizes = reading == Reading::Magnitudes;
    let read = |value: f32| if sizes { T::from_f64(f64::from(value).abs()) } else { T::from_f64(f64::from(value)) };
    let inputs: Vec<Vec<T>> = problem.inputs.iter().map(|values| values.iter().map(|&value| read(value)).collect()).collect();
    let subtract = |a: T, b: T| if sizes { a + b } else { a - b };
    let subtract_f64 = |a: f64, b: f64| if sizes { a + b } else { a - b };
    let (pixels, channels) = (problem.pixels, problem.channels);
    let n = pixels * channels;
    let factors = problem.factors.map(read);
    let rectified = |value: T| if problem.relu && !sizes { relu(value) } else { value };
    let flush = |value: T| if value.abs().to_f64() < f64::from(1e-30_f32) { T::ZERO } else { value };
    let mut values = Vec::new();
    let mut sums = Vec::new();
    match (problem.word, &inputs[..]) {
        ("normalize", [x, residual, scale, shift]) => values.extend((0..n).map(|at| {
            let value = x[at].mul_add(scale[at % channels], shift[at % channels]);
            rectified(if problem.residual { value + residual[at] } else { value })
        })),
        ("statistics", [x, shift]) => {
            let difference = |at: usize, c: usize| subtract_f64(x[at].to_f64(), shift[c].to_f64());
            sums = per_channel(pixels, channels, |at, c, sum| sum + difference(at, c));
            sums.extend(per_channel(pixels, channels, |at, c, sum| difference(at, c).mul_add(difference(at, c), sum)));
        }
        ("gradientstatistics", [x, gradient, scale, shift, mean]) => {
            values.extend((0..n).map(|at| {
                let passes = sizes || !problem.relu || x[at].mul_add(scale[at % channels], shift[at % channels]) > T::ZERO;
                if passes { gradient[at] } else { T::ZERO }
            }));
            sums = per_channel(pixels, channels, |at, _, sum| sum + values[at].to_f64());
            sums.extend(per_channel(pixels, channels, |at, c, sum| {
                values[at].to_f64().mul_add(subtract_f64(x[at].to_f64(), mean[c].to_f64()), sum)
            }));
        }
        ("normgradient", [x, gradient, p, q, r]) => values.extend((0..n).map(|at| {
            let c = at % channels;
            gradient[at].mul_add(p[c], x[at].mul_add(q[c], r[c]))
        })),
        ("relugradient", [output, gradient, addend]) => values.extend((0..n).map(|at| {
            let value = if sizes || output[at] > T::ZERO { gradient[at] } else { T::ZERO };
            if problem.residual { value + addend[at] } else { value }
        })),
        ("accumulate", [x, y]) => values.extend((0..n).map(|at| y[at] + x[at])),
        ("scale", [x]) => values.extend(x.iter().map(|&x| x * factors[0])),
        ("pool", [x]) => {
            let row = Problem::pool_row(pixels, channels);
            values.extend((0..n).map(|at| {
                let left = at / channels * 2 * channels + at % channels;
                let right = left + channels;
                (x[left] + x[right] + x[row + left] + x[row + right]) * factors[0]
            }));
        }
        ("unpool", [gradient]) => {
            let row = Problem::pool_row(pixels, channels);
            let value = |at: usize| {
                let (down, across) = (at / row, at % row / channels);
                (down < 2 && across < 2 * pixels).then(|| gradient[across / 2 * channels + at % row % channels] * factors[0])
            };
            let untouched = T::from_f64(f64::from(f32::from_bits(CANARY)));
            values.extend((0..row + 2 * n).map(|at| value(at).unwrap_or(untouched)));
        }
        ("globalpool", [x]) => values.extend((0..channels).map(|c| {
            let sum = (0..pixels).fold(T::ZERO, |sum, pixel| sum + x[pixel * channels + c]);
            sum * factors[0]
        })),
        ("spread", [x]) => values.extend((0..n).map(|at| x[at % channels] * factors[0])),
        ("momentum", [gradient, weights, velocity]) => {
            let [rate, momentum, decay, scale] = factors;
            let direction = |at: usize| gradient[at].mul_add(scale, weights[at] * decay);
            let next_velocity: Vec<T> = (0..n).map(|at| flush(velocity[at].mul_add(momentum, direction(at)))).collect();
            values.extend((0..n).map(|at| {
                let velocity = next_velocity[at];
                let step = if problem.relu { velocity.mul_add(momentum, direction(at)) } else { velocity };
                flush(subtract(weights[at], rate * step))
            }));
            values.extend(next_velocity);
        }
        ("peak", [y]) => {
            let chain = |start: T| (0..pixels).fold(start, |sum, _| factors[0].mul_add(factors[1], sum));
            values.extend(y.iter().map(|&start| chain(start)));
        }
        ("loadpeak", [x, weights, y]) => {
            let product = |sum: T, row: usize, lane: usize| {
                (0..channels).fold(sum, |sum, k| x[row * channels + k].mul_add(weights[k * PANEL + lane], sum))
            };
            let turns = |at: usize| (0..TURNS).fold(y[at], |sum, _| product(sum, at / PANEL, at % PANEL));
            values.extend((0..y.len()).map(turns));
        }
        (word, _) => panic!("no operator `{word}`"),
    }
    Outputs { values, sums }
}

/// For every channel, a fold over the pixels in order; `add` gets the value's index, the channel and the sum so far.
fn per_channel(pixels: usize, channels: usize, add: impl Fn(usize, usize, f64) -> f64) -> Vec<f64> {
    (0..channels).map(|c| (0..pixels).fold(0.0, |sum, pixel| add(pixel * channels + c, c, sum))).collect()
}
