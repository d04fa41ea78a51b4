//! Convolutions of bf16: exact data, rounded data, guard pages, special values, calls in parts.
//!
//! The oracle computes in double precision on the values that bf16 can hold; outputs are rounded once more, to nearest even.
#![forbid(unsafe_code)]

use crate::common::guard::{CANARY, EDGES, Edge, GuardedBuffer};
use crate::common::tolerance::bound;
use crate::operators::convolution::{Added, Convolution, Finish, Weights};
use crate::operators::fill::{Fill, ROUNDED};
use crate::operators::memory::Gaps;
use crate::operators::setup::padded_band;
use crate::subject::Subject;
use half::bf16;
use leanresnet::Stencil;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::element::Element;
use leanresnet::internals::kernel::rows::{Epilogue, Layout, Residual, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::kernel::upcoming::{Ahead, UPCOMING};
use leanresnet::internals::pack::panels;
use std::ops::Range;

/// Unit roundoff of bf16.
const UNIT: f64 = 1.0 / (1 << 8) as f64;

/// Exact data are integers that bf16 can hold.
const LARGEST: f32 = 256.0;

/// Rows of pixels of bf16 in guarded memory.
struct Rows {
    buffer: GuardedBuffer,
    layout: Layout,
    height: usize,
    width: usize,
    channels: usize,
}

impl Rows {
    /// Canaries, two values each.
    fn new((height, width, channels): (usize, usize, usize), gaps: Gaps, edge: Edge) -> Self {
        let layout = gaps.layout(height, width, channels);
        let length = layout.origin + (height - 1) * layout.row_step + (width - 1) * layout.pixel_step + channels;
        assert!(length.is_multiple_of(2), "whole canaries");
        Rows { buffer: GuardedBuffer::new(length / 2, edge), layout, height, width, channels }
    }

    fn holding(values: &[f32], extents: (usize, usize, usize), gaps: Gaps, edge: Edge) -> Self {
        let mut rows = Self::new(extents, gaps, edge);
        for (at, pixel) in values.chunks_exact(rows.channels).enumerate() {
            let first = rows.layout.row(at / rows.width) + at % rows.width * rows.layout.pixel_step;
            for (to, from) in rows.values_mut()[first..].iter_mut().zip(pixel) {
                *to = bf16::from_f32(*from);
            }
        }
        rows
    }

    fn values(&self) -> &[bf16] {
        bytemuck::cast_slice(&self.buffer)
    }

    fn values_mut(&mut self) -> &mut [bf16] {
        bytemuck::cast_slice_mut(&mut self.buffer)
    }

    fn source(&self) -> Source<'_, bf16> {
        Source { data: self.values(), layout: self.layout }
    }

    fn target(&mut self) -> Target<'_, bf16> {
        let layout = self.layout;
        Target::new(self.values_mut(), layout)
    }

    /// Where a value lies that belongs to a pixel.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let pixel = move |at: usize| self.layout.row(at / self.width) + at % self.width * self.layout.pixel_step;
        (0..self.height * self.width).flat_map(move |at| (0..self.channels).map(move |channel| pixel(at) + channel))
    }

    /// The values, after a look at the memory beside them.
    fn finish(&self) -> Result<Vec<f32>, String> {
        self.buffer.check()?;
        let mut beside = vec![true; self.values().len()];
        self.places().for_each(|at| beside[at] = false);
        let halves = [CANARY as u16, (CANARY >> 16) as u16];
        let damaged = |at: usize| beside[at] && self.values()[at].to_bits() != halves[at % 2];
        match (0..beside.len()).find(|&at| damaged(at)) {
            Some(at) => Err(format!("the gap at {at} of {:?} was overwritten", self.layout)),
            None => Ok(self.places().map(|at| self.values()[at].to_f32()).collect()),
        }
    }
}

/// The problem with everything in bf16 that kernels take in bf16.
fn rounded(mut problem: Convolution, fill: Fill) -> Convolution {
    let round = |values: &mut Vec<f32>| {
        for value in values {
            let limited = if fill == Fill::Exact { value.clamp(-LARGEST, LARGEST) } else { *value };
            *value = bf16::from_f32(limited).to_f32();
        }
    };
    round(&mut problem.x);
    match &mut problem.weights {
        Weights::Lean(_, weights) => round(&mut weights.pointwise),
        Weights::Dense(weights) => round(&mut weights.weight),
    }
    if let Some(residual) = &mut problem.residual {
        round(residual);
    }
    problem
}

/// Lean or dense convolutions, as the kernel has it: tiles of every size, several runs in one call, strides, epilogues in turn.
fn problems(subject: &Subject, fill: Fill, step: usize) -> Vec<Convolution> {
    let pixels = subject.tile.pixels;
    let mut sizes: Vec<(usize, usize)> = vec![(1, 1), (2, 2), (3, 3), (5, 7), (9, 29), (1, 150), (13, 11), (3, 61), (150, 1)];
    sizes.extend((1..=pixels + 1).flat_map(|count| [(1, count), (count, 1), (2, count)]));
    let sizes = sizes.into_iter().step_by(step).enumerate();
    let problem = |(index, (h, w)): (usize, (usize, usize))| {
        let (finish, seed) = (Finish::number(index), index as u64);
        let problem = if let Some(stencil) = subject.stencil {
            let stride = [1, 1, 1, 2, 1, 4][index % 6];
            let lean = Convolution::grouped(stencil, (1, stride), (h, w, [32, 64, 96][index % 3]), finish, fill, seed);
            if index % 5 == 4 { lean.without_matrix() } else { lean }
        } else {
            let geometry = [(1, 1), (3, 1), (1, 2), (3, 2), (7, 4)][index % 5];
            let inputs = [2_usize, 4, 6, 32, 34][index / 2 % 5].next_multiple_of(bf16::INPUTS_TOGETHER);
            let channels = (inputs, [32, 64, 96][index % 3]);
            Convolution::dense(geometry, (h, w), channels, finish, fill, seed)
        };
        rounded(problem, fill)
    };
    let whole = subject.stencil.into_iter().flat_map(|stencil| whole_blocks(stencil, fill)).step_by(step);
    sizes.map(problem).chain(whole).collect()
}

/// Lean convolutions of whole blocks of 16 and 14 columns, which the tile unit's kernels unroll, with columns and rows that are left over.
fn whole_blocks(stencil: Stencil, fill: Fill) -> Vec<Convolution> {
    let mut problems = Vec::new();
    for (index, added) in [Added::Nothing, Added::Rows, Added::InPlace].into_iter().enumerate() {
        for (w, channels) in [(32, 32), (32, 64), (16, 128), (42, 64), (28, 128), (31, 64)] {
            let finish = Finish { scale: false, added, relu: (index + channels / 32).is_multiple_of(2) };
            problems.push(rounded(Convolution::lean(stencil, (5, w, channels), finish, fill, (w + index) as u64), fill));
        }
    }
    problems
}

fn kernel(subject: &Subject) -> ConvKernel<bf16> {
    subject.stencil.map_or(subject.kernels.bf16.dense, |stencil: Stencil| subject.kernels.bf16.fused(stencil))
}

/// Runs a problem in calls of some rows and panels each.
fn run(subject: &Subject, problem: &Convolution, edge: Edge, gaps: Gaps, parts: usize) -> Result<Vec<f32>, String> {
    let (input, output) = (problem.input, problem.output());
    let extents = (output.h, output.w, output.c);
    // Lean kernels read pixels that lie side by side, dense ones several columns of them at once.
    let x_gaps = Gaps { pixel: 0, ..gaps };
    let x = match &problem.weights {
        Weights::Lean(..) => Rows::holding(&problem.x, (input.h, input.w, input.c), x_gaps, edge),
        Weights::Dense(weights) => {
            let size = |output: usize| (output - 1) * problem.stride + weights.kernel;
            let padding = (weights.kernel as isize - 1) / 2;
            let (height, width) = (size(output.h), size(output.w));
            let band = padded_band(&problem.x, input, (height, width), (-padding, -padding));
            Rows::holding(&band, (height, width, input.c), x_gaps, edge)
        }
    };
    let beside = Gaps { before: gaps.row, pixel: gaps.before, row: gaps.pixel };
    let held = |gaps| problem.residual.as_ref().map(|values| Rows::holding(values, extents, gaps, edge));
    let (mut y, residual) = match problem.finish.added {
        Added::Nothing => (Rows::new(extents, gaps, edge), None),
        Added::Rows => (Rows::new(extents, gaps, edge), held(beside)),
        Added::InPlace => (held(gaps).ok_or("a residual")?, None),
    };
    let weights = problem.packed().to_bf16();
    let cut = |size: usize, part: usize| -> Range<usize> { size * part / parts..size * (part + 1) / parts };
    for (row_part, panel_part) in (0..parts).flat_map(|part| (0..parts).map(move |other| (part, other))) {
        kernel(subject).run(&mut ConvCall {
            weights: &weights,
            x: x.source(),
            residual: match (&residual, problem.finish.added) {
                (Some(rows), _) => Residual::Rows(rows.source()),
                (None, Added::InPlace) => Residual::Output,
                _ => Residual::None,
            },
            y: y.target(),
            epilogue: Epilogue { relu: problem.finish.relu, from_output: false },
            rows: cut(output.h, row_part),
            height: output.h,
            width: output.w,
            input: (input.h, input.w),
            stride: problem.stride,
            panels: cut(panels(output.c), panel_part),
            k: 0..weights.row_length(),
            // Without it, kernels that take rows of an image get more of them at a time.
            ahead: Ahead { output: parts != 1, upcoming: [crate::operators::unmapped(); UPCOMING] },
        });
    }
    for rows in [Some(&x), residual.as_ref()].into_iter().flatten() {
        rows.finish()?;
    }
    y.finish()
}

/// Side by side.
const FLAT: Gaps = Gaps { before: 0, pixel: 0, row: 0 };
/// Gaps everywhere.
const APART: Gaps = Gaps { before: 2, pixel: 4, row: 6 };

fn title(subject: &Subject, problem: &Convolution) -> String {
    format!("{}, {}", subject.name, problem.describe())
}

/// The first output that differs, in words.
fn compare(subject: &Subject, problem: &Convolution, actual: &[f32], expected: &[f32]) -> Result<(), String> {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    match actual.iter().zip(expected).position(|pair| !same(pair)) {
        None if actual.len() == expected.len() => Ok(()),
        None => Err(format!("{}: {} values, expected {}", title(subject, problem), actual.len(), expected.len())),
        Some(at) => Err(format!("{}: output {at} is {}, expected {}", title(subject, problem), actual[at], expected[at])),
    }
}

/// T0: integers whose sums are exact in any order, rounded once.
pub(crate) fn exact(subject: &Subject) -> Result<(), String> {
    for (index, problem) in problems(subject, Fill::Exact, 1).iter().enumerate() {
        let gaps = if index % 4 < 2 { FLAT } else { APART };
        let actual = run(subject, problem, EDGES[index % 2], gaps, 1)?;
        let expected: Vec<f32> = problem.exact().iter().map(|&value| bf16::from_f64(value).to_f32()).collect();
        compare(subject, problem, &actual, &expected)?;
    }
    Ok(())
}

/// T1 on the values that bf16 can hold, and the rounding of the output.
pub(crate) fn within_bound(subject: &Subject) -> Result<(), String> {
    for (fill, problem) in ROUNDED.into_iter().flat_map(|fill| problems(subject, fill, 3).into_iter().map(move |one| (fill, one)))
    {
        let actual = run(subject, &problem, Edge::End, FLAT, 1)?;
        problem.bounded(|exact| {
            for (at, &value) in actual.iter().enumerate() {
                let in_f32 = bound(exact.magnitudes[at], exact.terms, exact.roundings);
                let allowed = in_f32 + UNIT * (exact.values[at].abs() + in_f32);
                let error = (f64::from(value) - exact.values[at]).abs();
                if error > allowed || error.is_nan() {
                    let expected = exact.values[at];
                    let name = title(subject, &problem);
                    return Err(format!(
                        "{name}, {fill:?}: output {at} is {value}, expected {expected}; error {error:e}, bound {allowed:e}"
                    ));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Every buffer flush against an unmapped page, at both edges, without and with gaps, in one call and in parts: no access outside, no
/// canary left, and the same bits.
pub(crate) fn guard(subject: &Subject) -> Result<(), String> {
    for problem in problems(subject, Fill::Uniform, 1) {
        let first = run(subject, &problem, Edge::End, FLAT, 1)?;
        if let Some(at) = first.iter().position(|value| value.is_nan()) {
            return Err(format!("{}: output {at} was not written", title(subject, &problem)));
        }
        for (edge, gaps, parts) in [(Edge::Start, FLAT, 1), (Edge::End, APART, 2), (Edge::Start, APART, 3), (Edge::End, FLAT, 3)]
        {
            compare(subject, &problem, &run(subject, &problem, edge, gaps, parts)?, &first)?;
        }
    }
    Ok(())
}

/// NaN and infinities come out where the oracle has them, and a ReLU keeps NaN.
pub(crate) fn special(subject: &Subject) -> Result<(), String> {
    // The oracle's matrix of zeros makes NaN of infinities, where there is a kernel without a matrix.
    let problems = problems(subject, Fill::Uniform, 4).into_iter().filter(|problem| problem.has_matrix);
    for (index, mut problem) in problems.enumerate() {
        let at = problem.x.len() / 2;
        problem.x[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][index % 3];
        let class = |value: f64| if value.is_nan() { 2 } else { value.is_infinite() as i32 * value.signum() as i32 };
        let actual = run(subject, &problem, Edge::End, FLAT, 1)?;
        for (at, (&actual, exact)) in actual.iter().zip(problem.exact()).enumerate() {
            if class(f64::from(actual)) != class(exact) {
                return Err(format!("{}: output {at} is {actual}, expected {exact}", title(subject, &problem)));
            }
        }
    }
    Ok(())
}
