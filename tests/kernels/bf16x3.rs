//! Convolutions of f32 whose products are three of bf16: the error that this allows, exact data, special values.
//!
//! # The bound
//!
//! A factor x with 2^e <= |x| < 2^(e+1) is split into hi + lo + rest. hi has 8 significant bits, so |x - hi| <= 2^(e-8). What is left of such a
//! size loses at most 2^(e-17) when it is rounded to 8 bits, and stays below 2^(e-8): |rest| <= 2^-17 |x|, |lo| <= 2^-8 |x|, and less than that by
//! a part in 2^8 where it is that large, since |x| then is 2^e + 2^(e-8) at least. Of the product of two factors, the kernel computes
//! (hi + lo) (hi' + lo') - lo lo', so that it misses
//!
//! ```text
//! |rest| |x'| + |x| |rest'| + |rest| |rest'| + |lo| |lo'|  <=  (2^-17 + 2^-17 + 2^-34 + 2^-16 (1 - 2^-8)) |x| |x'|  <  2^-15 |x| |x'|
//! ```
//!
//! To that comes what f32 loses in any order of the same sums, gamma_m times the sum of the magnitudes, which the parts make larger by 2^-6 at
//! most. A term passes 16 roundings in the unit's chain, one where two chains meet and three for each 32 inputs, which is at most four more than
//! in one chain of all terms.
//!
//! The unit takes subnormal factors for zero, and so does the instruction that rounds to bf16: a factor loses 2^-126 at most by it, times the
//! other one; sums that are subnormal are zero as well.
//!
//! Where hi would round to infinity it is the largest finite number. |lo| then is up to 2^-8 (1 + 2^-24) |x|, and the other factor of a finite product
//! is not as large, so that all this holds up to the largest f32.
#![forbid(unsafe_code)]

use crate::common::data::integers;
use crate::common::tolerance::gamma;
use crate::convolution::{compare, dense_problems, lean_problems, title};
use crate::operators::convolution::{Added, Convolution, Finish, Weights};
use crate::operators::fill::{Fill, ROUNDED};
use crate::operators::setup::{Place, run_whole};
use crate::subject::Subject;

/// The part of a product that may be missing.
const PRODUCT: f64 = 1.0 / (1 << 15) as f64;

/// Below this, factors and sums are zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// More inputs than are split at a time, and panels whose sums wait in one group, in two, and alone.
fn large(subject: &Subject, fill: Fill) -> Vec<Convolution> {
    let finish = |index: usize| Finish::number(3 * index + 1);
    match subject.stencil {
        Some(stencil) => vec![Convolution::lean(stencil, (5, 7, 544), finish(1), fill, 1)],
        None => [((1, 2), 20), ((6, 6), 40), ((1, 3), 270), ((3, 11), 300)]
            .into_iter()
            .enumerate()
            .map(|(index, (image, outputs))| Convolution::dense((3, 1), image, (67, outputs), finish(index), fill, index as u64))
            .collect(),
    }
}

/// Shapes around every boundary, one in `step` of them, and large matrices.
fn problems(subject: &Subject, fill: Fill, step: usize) -> Vec<Convolution> {
    let large = large(subject, fill);
    match subject.stencil {
        Some(_) => lean_problems(subject, fill, step).chain(large).collect(),
        None => dense_problems(subject, fill, step).chain(large).collect(),
    }
}

/// T0: one factor of every product is an integer that bf16 can hold, the other one any that keeps sums exact: input and matrix in turn.
pub(crate) fn exact(subject: &Subject) -> Result<(), String> {
    const SMALL: usize = 4;
    for (index, mut problem) in problems(subject, Fill::Exact, 1).into_iter().enumerate() {
        // Scales are integers up to 4, and bias, shift and residual together stay below 2^14.
        let large = ((1 << 24) - (1 << 14)) / (4 * SMALL * (problem.terms() + 1));
        let sizes = if index % 2 == 0 { [large.min(1 << 15), SMALL] } else { [SMALL, large.min(1 << 15)] };
        problem.x = integers(1, problem.x.len(), sizes[0]);
        let refill = |seed: u64, values: &mut Vec<f32>| *values = integers(seed, values.len(), sizes[1]);
        match &mut problem.weights {
            Weights::Lean(_, weights) => {
                refill(2, &mut weights.pointwise);
                refill(3, &mut weights.spatial);
            }
            Weights::Dense(weights) => refill(2, &mut weights.weight),
        }
        let actual = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(index / 12 + index))?;
        let expected: Vec<f32> = problem.exact().iter().map(|&value| value as f32).collect();
        compare(subject, &problem, &actual, &expected)?;
    }
    Ok(())
}

/// The bound above, on data of the usual size, and on data so small that half of it is subnormal.
pub(crate) fn within_bound(subject: &Subject) -> Result<(), String> {
    for (index, problem) in ROUNDED.into_iter().flat_map(|fill| problems(subject, fill, 5)).enumerate() {
        let mut small = problem.clone();
        small.x.iter_mut().for_each(|x| *x *= 1.0e-36);
        for problem in [problem, small] {
            let actual = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(index))?;
            is_within_bound(subject, &problem, &actual)?;
        }
    }
    Ok(())
}

fn is_within_bound(subject: &Subject, problem: &Convolution, actual: &[f32]) -> Result<(), String> {
    let largest = |values: &[f32]| values.iter().fold(0.0, |largest: f64, &value| largest.max(f64::from(value).abs()));
    let matrix = match &problem.weights {
        Weights::Lean(_, weights) => &weights.pointwise,
        Weights::Dense(weights) => &weights.weight,
    };
    let scale = problem.scale_shift.as_ref().map_or(1.0, |(scale, _)| 1.0 + largest(scale));
    problem.bounded(|exact| {
        let flushed = scale * SMALLEST * exact.terms as f64 * (4.0 + largest(&problem.x) + largest(matrix));
        for (at, &value) in actual.iter().enumerate() {
            let magnitude = exact.magnitudes[at] * (1.0 + 1.0 / 64.0);
            let allowed = PRODUCT * exact.magnitudes[at] + gamma(exact.roundings + 4) * magnitude + flushed;
            let error = (f64::from(value) - exact.values[at]).abs();
            if error > allowed || error.is_nan() {
                let (name, expected) = (title(subject, problem), exact.values[at]);
                return Err(format!("{name}: output {at} is {value}, expected {expected}; error {error:e}, bound {allowed:e}"));
            }
        }
        Ok(())
    })
}

/// NaN and infinities of inputs, matrix and what is added come out where they do in double precision, and a ReLU keeps NaN.
pub(crate) fn special(subject: &Subject) -> Result<(), String> {
    let class = |value: f64| if value.is_nan() { 2 } else { i32::from(value.is_infinite()) * value.signum() as i32 };
    for (index, problem) in problems(subject, Fill::Uniform, 9).into_iter().enumerate() {
        for tensor in 0..4 {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xffff_ffff)] {
                let mut changed = problem.clone();
                let values = match (&mut changed.weights, tensor) {
                    (_, 0) => Some(&mut changed.x),
                    (_, 1) => changed.residual.as_mut(),
                    (Weights::Lean(_, weights), 2) => Some(&mut weights.pointwise),
                    (Weights::Dense(weights), 2) => Some(&mut weights.weight),
                    (Weights::Lean(_, weights), _) => Some(&mut weights.bias),
                    (Weights::Dense(weights), _) => Some(&mut weights.bias),
                };
                let Some(values) = values else { continue };
                let at = values.len() * (index % 7) / 7;
                values[at] = value;
                let actual = run_whole(changed.kernel(subject.kernels), &changed, &Place::number(0))?;
                for (output, (&actual, exact)) in actual.iter().zip(changed.exact()).enumerate() {
                    if class(f64::from(actual)) != class(exact) {
                        let name = title(subject, &changed);
                        return Err(format!(
                            "{name}: {value} at {at} of tensor {tensor}: output {output} is {actual}, not {exact}"
                        ));
                    }
                }
            }
        }
    }
    nearly_infinite(subject)
}

/// Finite inputs that round to infinity in bf16 stay finite.
fn nearly_infinite(subject: &Subject) -> Result<(), String> {
    let finish = Finish { scale: false, added: Added::Nothing, relu: false };
    let mut problem = match subject.stencil {
        Some(stencil) => Convolution::lean(stencil, (3, 4, 40), finish, Fill::Uniform, 1),
        None => Convolution::dense((1, 1), (3, 4), (40, 40), finish, Fill::Uniform, 1),
    };
    problem.x.iter_mut().enumerate().for_each(|(at, x)| *x = if at % 2 == 0 { f32::MAX } else { f32::MIN });
    let scale = |values: &mut Vec<f32>| values.iter_mut().for_each(|value| *value /= 128.0);
    match &mut problem.weights {
        Weights::Lean(_, weights) => {
            scale(&mut weights.pointwise);
            scale(&mut weights.spatial);
        }
        Weights::Dense(weights) => scale(&mut weights.weight),
    }
    let actual = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(0))?;
    is_within_bound(subject, &problem, &actual)
}
