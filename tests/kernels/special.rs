//! NaN, infinities, negative zero and subnormal numbers: the same bits everywhere, up to sign and payload of NaN.
//!
//! All other data are small integers. Products then are exact or special, so that kernels without fused multiply-add owe the
//! oracle's bits too.
#![forbid(unsafe_code)]

use crate::common::guard::EDGES;
use crate::common::tolerance::{Case, compare_bits};
use crate::convolution::{compare, title};
use crate::elementwise;
use crate::gradients::{matrix, of_type, oracle, output_gradient, stencil, taken};
use crate::operators::convolution::{Convolution, Finish, Weights};
use crate::operators::elementwise::{Problem, WORDS};
use crate::operators::fill::Fill;
use crate::operators::setup::{Place, run_whole};
use crate::subject::Subject;
use leanresnet::Stencil;
use std::slice::from_ref;

/// NaN, infinities, zeros, subnormals of both signs.
const SPECIALS: [f32; 7] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 1e-40, -3e-45];

/// Those that kernels of a type keep: products of bf16 that are subnormal are zero.
fn specials(subject: &Subject) -> impl Iterator<Item = f32> {
    let is_kept = |value: &f32| value.is_nan() || value.is_infinite() || *value == 0.0;
    let all = subject.dtype == "f32";
    SPECIALS.into_iter().filter(move |value| all || is_kept(value))
}

/// Positions at the ends, inside a vector, at its last lane, in its tail.
fn positions(length: usize, lanes: usize) -> Vec<usize> {
    let mut all = vec![0, 1, length / 2, lanes.saturating_sub(1), lanes, length.saturating_sub(2), length.saturating_sub(1)];
    all.retain(|&at| at < length);
    all.sort_unstable();
    all.dedup();
    all
}

pub(crate) fn lean(subject: &Subject) -> Result<(), String> {
    let channels = subject.tile.lanes + 1;
    let images = [(3, 5, channels), (1, subject.tile.pixels, subject.tile.channels + 3)];
    let problem = |(index, shape): (usize, (usize, usize, usize))| {
        // Nothing but ReLU; residual and ReLU; scale; everything in place.
        [6, 8, 1, 11].map(|finish| Convolution::lean(subject.stencil(), shape, Finish::number(finish), Fill::Exact, index as u64))
    };
    convolution(subject, images.into_iter().enumerate().flat_map(problem))
}

pub(crate) fn grouped(subject: &Subject) -> Result<(), String> {
    let problems = [(Stencil::Cross4, 2, 18), (Stencil::Cross5, 8, 16), (Stencil::Row3, 16, 16), (Stencil::Col3, 32, 32)];
    let problem = |(stencil, group_size, channels)| {
        let finishes = [6, 11].map(Finish::number);
        finishes.map(|finish| Convolution::grouped(stencil, (group_size, 1), (2, 3, channels), finish, Fill::Exact, 3))
    };
    convolution(subject, problems.into_iter().flat_map(problem))
}

pub(crate) fn dense(subject: &Subject) -> Result<(), String> {
    let outputs = subject.tile.lanes + 1;
    let problems = [((3, 1), (3, 4), (5, outputs)), ((1, 1), (2, 5), (6, 3)), ((3, 2), (4, 5), (2, outputs))];
    let problem = |(geometry, image, channels)| {
        [6, 8, 1, 11].map(|finish| Convolution::dense(geometry, image, channels, Finish::number(finish), Fill::Exact, 3))
    };
    convolution(subject, problems.into_iter().flat_map(problem))
}

/// A special value at each position of each tensor in turn.
fn convolution(subject: &Subject, problems: impl Iterator<Item = Convolution>) -> Result<(), String> {
    for problem in problems {
        for tensor in 0..7 {
            let length = tensors(&mut problem.clone())[tensor].as_ref().map_or(0, |values| values.len());
            for at in positions(length, subject.tile.lanes) {
                for special in SPECIALS {
                    let mut changed = problem.clone();
                    if let Some(values) = &mut tensors(&mut changed)[tensor] {
                        values[at] = special;
                    }
                    let actual = run_whole(changed.kernel(subject.kernels), &changed, &Place::number(at))?;
                    compare(subject, &changed, &actual, &changed.expected())
                        .map_err(|message| format!("{special} at {at} of tensor {tensor}: {message}"))?;
                }
            }
        }
        zero_signs(subject, &problem)?;
    }
    Ok(())
}

/// Input, matrix, bias, stencil, scale, shift, residual: those that there are.
fn tensors(problem: &mut Convolution) -> [Option<&mut Vec<f32>>; 7] {
    let (matrix, bias, stencil) = match &mut problem.weights {
        Weights::Lean(_, weights) => (&mut weights.pointwise, &mut weights.bias, Some(&mut weights.spatial)),
        Weights::Dense(weights) => (&mut weights.weight, &mut weights.bias, None),
    };
    let (scale, shift) = match &mut problem.scale_shift {
        Some((scale, shift)) => (Some(scale), Some(shift)),
        None => (None, None),
    };
    [Some(&mut problem.x), Some(matrix), Some(bias), stencil, scale, shift, problem.residual.as_mut()]
}

/// Everything zero, of both signs: the sign of a sum of zeros is specified too.
fn zero_signs(subject: &Subject, problem: &Convolution) -> Result<(), String> {
    for signs in 0..32_usize {
        let mut zeros = problem.clone();
        for (bit, tensor) in tensors(&mut zeros).into_iter().enumerate() {
            let zero = if signs >> (bit % 5) & 1 == 1 { -0.0 } else { 0.0 };
            if let Some(values) = tensor {
                values.fill(zero);
            }
        }
        let actual = run_whole(zeros.kernel(subject.kernels), &zeros, &Place::number(signs))?;
        compare(subject, &zeros, &actual, &zeros.expected()).map_err(|message| format!("zeros, signs {signs:05b}: {message}"))?;
    }
    Ok(())
}

pub(crate) fn weight_gradient(subject: &Subject) -> Result<(), String> {
    let channels = taken(subject, subject.tile.pixels + 1, subject.tile.lanes + 1);
    let problem = of_type(subject, Convolution::dense((1, 1), (2, 3), channels, Finish::NONE, Fill::Exact, 1));
    let proof = |problem: &Convolution, dy: &[f32], edge| {
        let actual = matrix(subject, problem, dy, edge, from_ref(&(0..2)))?;
        let [expected, ..] = oracle(problem, &problem.x, dy);
        compare_bits(Case { kernel: &title(subject, problem), shape: &[expected.len()] }, &actual, &expected)
    };
    each_special(subject, &problem, proof)
}

/// A tap outside the image adds nothing, so that a NaN there reaches no sum: the oracle's padding is left out by zero gradients.
pub(crate) fn stencil_gradient(subject: &Subject) -> Result<(), String> {
    let (_, channels) = taken(subject, 1, subject.tile.lanes + 1);
    let problem = of_type(subject, Convolution::lean(subject.stencil(), (4, 4, channels), Finish::NONE, Fill::Exact, 1));
    let proof = |problem: &Convolution, dy: &[f32], edge| {
        let (spatial, bias) = stencil(subject, problem, dy, edge, from_ref(&(0..4)))?;
        let (expected, expected_bias) = inside_only(problem, dy);
        let name = title(subject, problem);
        compare_bits(Case { kernel: &name, shape: &[expected.len()] }, &spatial, &expected)?;
        compare_bits(Case { kernel: &name, shape: &[bias.len()] }, &bias, &expected_bias)
    };
    each_special(subject, &problem, proof)
}

/// The gradients of stencil and bias with nothing added outside the image.
fn inside_only(problem: &Convolution, dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let shape = problem.input;
    let Weights::Lean(stencil, _) = problem.weights else { return Default::default() };
    let taps = stencil.taps();
    let (mut spatial, mut bias) = (vec![0.0_f32; taps.len() * shape.c], vec![0.0_f32; shape.c]);
    for (h, w) in (0..shape.h).flat_map(|h| (0..shape.w).map(move |w| (h, w))) {
        for c in 0..shape.c {
            let gradient = dy[shape.index(0, h, w, c)];
            bias[c] += gradient;
            for (tap, &(down, right)) in taps.iter().enumerate() {
                let (row, column) = (h.checked_add_signed(down as isize), w.checked_add_signed(right as isize));
                if let (Some(row), Some(column)) = (row.filter(|row| *row < shape.h), column.filter(|column| *column < shape.w)) {
                    let sum = &mut spatial[tap * shape.c + c];
                    *sum = gradient.mul_add(problem.x[shape.index(0, row, column, c)], *sum);
                }
            }
        }
    }
    (spatial, bias)
}

/// A special value at each position of input and gradient in turn.
fn each_special(
    subject: &Subject,
    problem: &Convolution,
    proof: impl Fn(&Convolution, &[f32], crate::common::guard::Edge) -> Result<(), String>,
) -> Result<(), String> {
    let lanes = subject.tile.lanes;
    let dy = output_gradient(subject, problem, Fill::Exact);
    for special in specials(subject) {
        for at in positions(problem.x.len(), lanes) {
            let mut changed = problem.clone();
            changed.x[at] = special;
            proof(&changed, &dy, EDGES[at % 2]).map_err(|message| format!("{special} at {at} of x: {message}"))?;
        }
        for at in positions(dy.len(), lanes) {
            let mut changed = dy.clone();
            changed[at] = special;
            proof(problem, &changed, EDGES[at % 2]).map_err(|message| format!("{special} at {at} of dy: {message}"))?;
        }
    }
    Ok(())
}

/// A special value at each position of each input in turn, in all variants; and zeros of both signs everywhere.
pub(crate) fn elementwise(subject: &Subject) -> Result<(), String> {
    let word = WORDS.into_iter().find(|word| *word == subject.op).ok_or("no elementwise operator")?;
    let proof = |changed: &Problem, at: usize, what: &str| {
        let actual = elementwise::run(subject, changed, EDGES[at % 2])?;
        elementwise::compare(subject, changed, &actual, &elementwise::expected(subject, changed))
            .map_err(|message| format!("{what}: {message}"))
    };
    for variant in 0..4 {
        let (_, channels) = taken(subject, 1, subject.tile.lanes + 2);
        let problem = elementwise::of_type(subject, Problem::new(word, 3, channels, variant, Fill::Exact, 5));
        for input in 0..problem.inputs.len() {
            for at in positions(problem.inputs[input].len(), subject.tile.lanes) {
                let flushed = [1e-30, -9.9e-31].into_iter().filter(|_| subject.dtype == "f32");
                for special in specials(subject).chain(flushed) {
                    let mut changed = problem.clone();
                    changed.inputs[input][at] = special;
                    proof(&changed, at, &format!("{special} at {at} of input {input}"))?;
                }
            }
        }
        for signs in 0..1 << problem.inputs.len() {
            let mut zeros = problem.clone();
            for (bit, input) in zeros.inputs.iter_mut().enumerate() {
                input.fill(if signs >> bit & 1 == 1 { -0.0 } else { 0.0 });
            }
            proof(&zeros, signs, &format!("zeros, signs {signs:b}"))?;
        }
    }
    Ok(())
}

/// The ReLU's mask comes from the very value that the forward pass rectified: one rounding, where two give zero.
pub(crate) fn mask(subject: &Subject) -> Result<(), String> {
    let near_one = 1.0 + 1.0 / 4096.0;
    let channels = subject.tile.lanes + 1;
    let mut problem = Problem::new("gradientstatistics", 2, channels, 2, Fill::Exact, 5);
    problem.inputs[0].fill(near_one);
    problem.inputs[2].fill(near_one);
    problem.inputs[3].fill(-(1.0 + 2.0 / 4096.0));
    let actual = problem.run(&subject.kernels.f32.elementwise, EDGES[0])?;
    let passes = actual.values.iter().all(|value| *value != 0.0);
    if passes == subject.is_fused {
        return Ok(());
    }
    Err(format!("{}: passes {passes}: the mask is not that of the normalisation", subject.name))
}
