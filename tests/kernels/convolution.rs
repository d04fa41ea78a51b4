//! Whole convolutions: exact data, rounded data, guard pages.
#![forbid(unsafe_code)]

use crate::common::guard::CANARY;
use crate::common::shapes::{channel_counts, image_sizes, shapes};
use crate::common::tolerance::{Case, compare_bits, compare_within_bound};
use crate::operators::convolution::{Convolution, Finish};
use crate::operators::fill::{Fill, ROUNDED};
use crate::operators::setup::{Place, run_whole};
use crate::subject::Subject;
use leanresnet::Stencil;

/// Kernel side and stride of dense convolutions.
const GEOMETRIES: [(usize, usize); 9] = [(1, 1), (1, 2), (1, 4), (3, 1), (3, 2), (3, 4), (7, 1), (7, 2), (7, 4)];

/// Input channels of dense convolutions: an image's, and around the four that a kernel takes at once.
const INPUTS: [usize; 5] = [3, 1, 4, 5, 2];

/// Lean convolutions on both sides of every boundary, all epilogues in turn.
pub(crate) fn lean_problems(subject: &Subject, fill: Fill, step: usize) -> impl Iterator<Item = Convolution> {
    let stencil = subject.stencil();
    let mut shapes = shapes(subject.tile);
    // Every count of pixels that a tile can have, for whole tiles of channels and for the vectors after them.
    let channels = subject.tile.channels;
    shapes.extend((1..=subject.tile.pixels).flat_map(|pixels| [(1, pixels, channels + 1), (pixels, 1, 2 * channels - 1)]));
    // Several runs of pixels in one call, the last one of any length.
    shapes.extend([(13, 11, 3), (3, 61, 2), (1, 150, 1), (9, 29, channels + 3)]);
    let shapes: Vec<_> = shapes.into_iter().step_by(step).collect();
    let of_stride = move |stride: usize| {
        move |(index, shape)| Convolution::grouped(stencil, (1, stride), shape, Finish::number(index), fill, index as u64)
    };
    let strided = shapes.clone().into_iter().enumerate().step_by(3);
    let strided: Vec<_> = [2, 4].into_iter().flat_map(|stride| strided.clone().map(of_stride(stride))).collect();
    shapes.into_iter().enumerate().map(of_stride(1)).chain(strided)
}

/// Convolutions whose taps read groups of channels: every stencil, size of groups, stride and epilogue in turn, on both sides of every
/// boundary that whole groups can meet.
fn grouped_problems(subject: &Subject, fill: Fill, step: usize) -> impl Iterator<Item = Convolution> {
    let (lanes, pixels) = (subject.tile.lanes, subject.tile.pixels);
    let mut list = Vec::new();
    for group_size in [2, 4, 8, 16, 32] {
        for groups in [1, 2, 3, (lanes / group_size).max(1), 32 / group_size + 1, 64 / group_size + 3] {
            let channels = group_size * groups;
            for (h, w) in [(1, 1), (3, 4), (1, pixels), (2, pixels + 1), (5, 13)] {
                let index = list.len();
                let (stencil, stride) = (Stencil::ALL[index % Stencil::ALL.len()], [1, 1, 2, 1, 4][index / 6 % 5]);
                let finish = Finish::number(index / 5);
                list.push(Convolution::grouped(stencil, (group_size, stride), (h, w, channels), finish, fill, index as u64));
            }
        }
    }
    list.into_iter().step_by(step)
}

/// Dense convolutions whose outputs lie on both sides of every boundary, all epilogues, kernels and strides in turn.
pub(crate) fn dense_problems(subject: &Subject, fill: Fill, step: usize) -> impl Iterator<Item = Convolution> {
    let (sizes, counts) = (image_sizes(subject.tile), channel_counts(subject.tile));
    let mut list = Vec::new();
    for (index, &(h, w)) in sizes.iter().enumerate() {
        for (geometry_index, &(side, stride)) in GEOMETRIES.iter().enumerate() {
            // Inputs of stride s reach an output size with up to s - 1 pixels more than needed.
            let spare = index % stride;
            let input = ((h - 1) * stride + 1 + spare, (w - 1) * stride + 1 + (stride - 1 - spare));
            let outputs = counts[(index + geometry_index) % counts.len()];
            list.push(((side, stride), input, (INPUTS[list.len() % INPUTS.len()], outputs)));
        }
    }
    // Many input channels, as inner layers have them.
    list.extend(counts.iter().map(|&count| ((3, 1), (2, 3), (count, counts[counts.len() - 1]))));
    list.extend(counts.iter().map(|&count| ((1, 2), (5, 4), (count + 1, count))));
    // Every count of pixels that a tile can have, for whole tiles of channels and for the vectors after them.
    let channels = 2 * subject.tile.channels - 1;
    list.extend(
        (1..=subject.tile.pixels).flat_map(|pixels| [((1, 1), (pixels, 1), (7, channels)), ((3, 1), (1, pixels), (2, channels))]),
    );
    let list: Vec<_> = list.into_iter().step_by(step).collect();
    let problem = move |(index, (geometry, image, channels))| {
        Convolution::dense(geometry, image, channels, Finish::number(index), fill, index as u64)
    };
    list.into_iter().enumerate().map(problem)
}

pub(crate) fn lean_exact(subject: &Subject) -> Result<(), String> {
    exact(subject, lean_problems(subject, Fill::Exact, 1))
}

pub(crate) fn dense_exact(subject: &Subject) -> Result<(), String> {
    exact(subject, dense_problems(subject, Fill::Exact, 1))
}

pub(crate) fn grouped_exact(subject: &Subject) -> Result<(), String> {
    exact(subject, grouped_problems(subject, Fill::Exact, 1))
}

pub(crate) fn lean_bound(subject: &Subject) -> Result<(), String> {
    bound(subject, ROUNDED.into_iter().flat_map(|fill| lean_problems(subject, fill, 5)))
}

pub(crate) fn dense_bound(subject: &Subject) -> Result<(), String> {
    bound(subject, ROUNDED.into_iter().flat_map(|fill| dense_problems(subject, fill, 5)))
}

pub(crate) fn grouped_bound(subject: &Subject) -> Result<(), String> {
    bound(subject, ROUNDED.into_iter().flat_map(|fill| grouped_problems(subject, fill, 7)))
}

pub(crate) fn lean_guard(subject: &Subject) -> Result<(), String> {
    guard(subject, lean_problems(subject, Fill::Uniform, 1))
}

pub(crate) fn grouped_guard(subject: &Subject) -> Result<(), String> {
    guard(subject, grouped_problems(subject, Fill::Uniform, 1))
}

pub(crate) fn dense_guard(subject: &Subject) -> Result<(), String> {
    guard(subject, dense_problems(subject, Fill::Uniform, 1))
}

/// Matrices that take a large part of any processor's second level of cache: kernels go through all rows once per panel.
pub(crate) fn dense_large(subject: &Subject) -> Result<(), String> {
    let problem = |(index, ((h, w), outputs))| {
        Convolution::dense((3, 1 + index % 2), (h, w), (256, outputs), Finish::number(index), Fill::Exact, index as u64)
    };
    exact(subject, [((4, 15), 200), ((5, 7), 170), ((3, 9), 256)].into_iter().enumerate().map(problem))
}

/// T0: integers whose sums are exact in any order, so that the bits are those of the oracle in double precision.
fn exact(subject: &Subject, problems: impl Iterator<Item = Convolution>) -> Result<(), String> {
    for (index, problem) in problems.enumerate() {
        let actual = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(index / 12 + index))?;
        let expected: Vec<f32> = problem.exact().iter().map(|&value| value as f32).collect();
        compare(subject, &problem, &actual, &expected)?;
    }
    Ok(())
}

/// T1: rounded data within the a-priori bound, and with fused multiply-add the very bits of the oracle in single precision.
fn bound(subject: &Subject, problems: impl Iterator<Item = Convolution>) -> Result<(), String> {
    for (index, problem) in problems.enumerate() {
        let actual = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(index))?;
        let (name, shape) = (title(subject, &problem), extents(&problem));
        problem.bounded(|exact| compare_within_bound(Case { kernel: &name, shape: &shape }, &actual, exact))?;
        if subject.is_fused {
            compare(subject, &problem, &actual, &problem.expected())?;
        }
    }
    Ok(())
}

/// Every buffer flush against an unmapped page, after and before it, without and with gaps: no access outside, no canary left
/// in the output, nothing beside it written, and the same bits wherever the tensors lie.
fn guard(subject: &Subject, problems: impl Iterator<Item = Convolution>) -> Result<(), String> {
    for problem in problems {
        let first = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(0))?;
        if let Some(at) = first.iter().position(|value| value.to_bits() == CANARY || value.is_nan()) {
            return Err(format!("{}: output {at} was not written", title(subject, &problem)));
        }
        for place in 1..8 {
            let again = run_whole(problem.kernel(subject.kernels), &problem, &Place::number(place))?;
            compare(subject, &problem, &again, &first)?;
        }
    }
    Ok(())
}

/// Bit by bit, with the whole problem in the message.
pub(crate) fn compare(subject: &Subject, problem: &Convolution, actual: &[f32], expected: &[f32]) -> Result<(), String> {
    compare_bits(Case { kernel: &title(subject, problem), shape: &extents(problem) }, actual, expected)
}

pub(crate) fn title(subject: &Subject, problem: &Convolution) -> String {
    format!("{}, {}", subject.name, problem.describe())
}

fn extents(problem: &Convolution) -> [usize; 3] {
    let output = problem.output();
    [output.h, output.w, output.c]
}
