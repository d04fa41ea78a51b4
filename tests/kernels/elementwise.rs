//! Operators that work value by value: exact data, rounded data, at both edges of memory.
#![forbid(unsafe_code)]

use crate::common::guard::{EDGES, Edge};
use crate::common::tolerance::{Case, Exact, compare_bits, compare_within_bound};
use crate::operators::elementwise::{Outputs, Problem, WORDS};
use crate::operators::fill::{Fill, ROUNDED};
use crate::operators::naive::{Reading, naive};
use crate::operators::typed;
use crate::subject::Subject;
use half::bf16;
use leanresnet::internals::pack::PANEL;

/// Every remainder of a vector, and one more than the blocks of vectors that some kernels take at once; from no pixel on, in all
/// variants.
fn problems(subject: &Subject, fill: Fill) -> Vec<Problem> {
    let word = WORDS.into_iter().find(|word| *word == subject.op).expect("an elementwise operator");
    let mut list = Vec::new();
    let lanes = subject.tile.lanes;
    let counts: Vec<usize> = match subject.dtype {
        "bf16" => [1, 2, 3, 4, 13].map(|panels| panels * PANEL).to_vec(),
        _ => (1..=2 * lanes + 1).chain([25 * lanes + 1]).collect(),
    };
    for channels in counts {
        for pixels in [0, 1, 2, 5, 9] {
            let problem = |variant| Problem::new(word, pixels, channels, variant, fill, (channels + pixels) as u64);
            list.extend((0..4).map(|variant| of_type(subject, problem(variant))));
        }
    }
    list
}

/// The problem with tensors that the kernel's type can hold.
pub(crate) fn of_type(subject: &Subject, problem: Problem) -> Problem {
    if subject.dtype == "bf16" { problem.rounded::<bf16>() } else { problem }
}

/// The operator on tensors of the kernel's type.
pub(crate) fn run(subject: &Subject, problem: &Problem, edge: Edge) -> Result<Outputs<f32>, String> {
    match subject.dtype {
        "bf16" => problem.run(&subject.kernels.bf16.elementwise, edge),
        _ => problem.run(&subject.kernels.f32.elementwise, edge),
    }
}

/// Whether outputs are rounded to bf16.
fn rounds(subject: &Subject) -> bool {
    subject.dtype == "bf16" && subject.op != "globalpool"
}

/// The definition in single precision, rounded to the kernel's type.
pub(crate) fn expected(subject: &Subject, problem: &Problem) -> Outputs<f32> {
    let mut expected = naive::<f32>(problem, Reading::Values);
    if rounds(subject) {
        typed::rounded::<bf16>(&mut expected.values);
    }
    expected
}

pub(crate) fn exact(subject: &Subject) -> Result<(), String> {
    for problem in problems(subject, Fill::Exact) {
        let expected = expected(subject, &problem);
        for edge in EDGES {
            compare(subject, &problem, &run(subject, &problem, edge)?, &expected)?;
        }
    }
    Ok(())
}

/// Within the bounds of each operator, and with fused multiply-add the bits of the definition in single precision.
pub(crate) fn bound(subject: &Subject) -> Result<(), String> {
    for (index, problem) in ROUNDED.into_iter().flat_map(|fill| problems(subject, fill)).enumerate() {
        let actual = run(subject, &problem, EDGES[index % 2])?;
        within(subject, &problem, &actual)?;
        let sums_in_f32 = subject.dtype == "bf16" && subject.op.ends_with("statistics");
        if subject.is_fused && !sums_in_f32 {
            compare(subject, &problem, &actual, &expected(subject, &problem))?;
        }
    }
    Ok(())
}

fn within(subject: &Subject, problem: &Problem, actual: &Outputs<f32>) -> Result<(), String> {
    let name = format!("{}: {}", subject.name, problem.describe());
    let (values, sizes) = (naive::<f64>(problem, Reading::Values), naive::<f64>(problem, Reading::Magnitudes));
    // What an operator must not touch is NaN in both, and of no interest here.
    let written = |at: &usize| !(values.values[*at].is_nan() && actual.values[*at].is_nan());
    let kept: Vec<usize> = (0..values.values.len()).filter(written).collect();
    let of = |all: &[f64]| kept.iter().map(|&at| all[at]).collect::<Vec<_>>();
    let computed: Vec<f32> = kept.iter().map(|&at| actual.values[at]).collect();
    let (exact_values, exact_sizes) = (of(&values.values), of(&sizes.values));
    let terms = problem.terms();
    // Each factor is itself rounded to single precision in the definition and in the kernel alike.
    // One unit in the last place of bf16 takes as many roundings of f32 as it is wide.
    let last = if rounds(subject) { 1 << 16 } else { 0 };
    let exact = Exact { values: &exact_values, magnitudes: &exact_sizes, terms, roundings: terms + 3 + last };
    compare_within_bound(Case { kernel: &name, shape: &[kept.len()] }, &computed, &exact)?;
    for (at, (sum, size)) in values.sums.iter().zip(&sizes.sums).enumerate() {
        // Kernels of bf16 add up to 16 pixels in f32.
        let in_f32 = if subject.dtype == "bf16" { 20.0 * f64::from(f32::EPSILON) } else { 0.0 };
        let allowed = ((problem.pixels + 3) as f64 * f64::EPSILON + in_f32) * size;
        let error = (actual.sums[at] - sum).abs();
        if error > allowed || error.is_nan() {
            return Err(format!("{name}: sum {at}: got {}, expected {sum}, bound {allowed:e}", actual.sums[at]));
        }
    }
    Ok(())
}

/// The bits of values and sums, where all NaN count as one value.
pub(crate) fn compare(
    subject: &Subject,
    problem: &Problem,
    actual: &Outputs<f32>,
    expected: &Outputs<f32>,
) -> Result<(), String> {
    let name = format!("{}: {}", subject.name, problem.describe());
    compare_bits(Case { kernel: &name, shape: &[expected.values.len()] }, &actual.values, &expected.values)?;
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let different = (0..expected.sums.len()).find(|&at| !same(actual.sums[at], expected.sums[at]));
    match different {
        _ if actual.sums.len() != expected.sums.len() => Err(format!("{name}: {} sums", actual.sums.len())),
        None => Ok(()),
        Some(at) => Err(format!("{name}: sum {at}: got {:?}, expected {:?}", actual.sums[at], expected.sums[at])),
    }
}
