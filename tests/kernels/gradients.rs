//! Gradients of matrices, stencils and biases.
#![forbid(unsafe_code)]

use crate::common::data::integers;
use crate::common::guard::{EDGES, Edge};
use crate::common::shapes::{channel_counts, image_sizes};
use crate::common::tolerance::{Case, Exact, compare_bits, compare_within_bound, magnitudes, widened};
use crate::convolution::title;
use crate::operators::convolution::{Convolution, Finish, Weights};
use crate::operators::fill::{Fill, ROUNDED};
use crate::operators::gradients::{self, Parts};
use crate::operators::{typed, unmapped};
use crate::subject::Subject;
use half::bf16;
use leanresnet::internals::kernel::element::Element;
use leanresnet::internals::kernel::gradient::{GRADIENT_FETCHES, WeightGradientCall};
use leanresnet::internals::pack::PANEL;
use leanresnet::internals::reference::{LeanWeights, Real, dense_weight_gradients, lean_weight_gradients};
use leanresnet::{Isa, Stencil};
use std::ops::Range;

fn is_bf16(subject: &Subject) -> bool {
    subject.dtype == "bf16"
}

/// Values that the kernel's type can hold.
fn held(subject: &Subject, mut values: Vec<f32>) -> Vec<f32> {
    if is_bf16(subject) {
        typed::rounded::<bf16>(&mut values);
    }
    values
}

/// Channels that the kernel's type takes.
pub(crate) fn taken(subject: &Subject, inputs: usize, outputs: usize) -> (usize, usize) {
    match subject.dtype {
        "bf16" => (inputs.next_multiple_of(bf16::INPUTS_TOGETHER), outputs.next_multiple_of(bf16::CHANNELS_TOGETHER)),
        _ => (inputs, outputs),
    }
}

/// The gradient of the matrix on tensors of the kernel's type.
pub(crate) fn matrix(subject: &Subject, problem: &Convolution, dy: &[f32], edge: Edge, parts: Parts) -> Result<Vec<f32>, String> {
    let run = if is_bf16(subject) { gradients::matrix::<bf16> } else { gradients::matrix::<f32> };
    run(subject.kernels, problem, dy, edge, parts)
}

/// The gradients of stencil and bias on tensors of the kernel's type.
pub(crate) fn stencil(
    subject: &Subject,
    problem: &Convolution,
    dy: &[f32],
    edge: Edge,
    parts: Parts,
) -> Result<(Vec<f32>, Vec<f32>), String> {
    let run = if is_bf16(subject) { gradients::stencil::<bf16> } else { gradients::stencil::<f32> };
    run(subject.kernels, problem, dy, edge, parts)
}

/// Every image size, with input and output channels around vectors, tiles and panels, as 1x1, dense and lean convolutions.
fn matrix_problems(subject: &Subject, fill: Fill, step: usize) -> Vec<Convolution> {
    let (sizes, outputs) = (image_sizes(subject.tile), channel_counts(subject.tile));
    let rows = subject.tile.pixels;
    let inputs = [1, 2, rows - 1, rows, rows + 1, 2 * rows, 2 * rows + 1, 3 * rows + 2];
    let geometries = [(1, 1), (3, 1), (3, 2), (1, 2), (7, 4), (7, 1), (3, 4)];
    let mut list = Vec::new();
    for (index, &size) in sizes.iter().chain(&sizes).chain(&sizes).enumerate() {
        let geometry = geometries[(index + index / sizes.len()) % geometries.len()];
        // Enough inputs for every remainder of the tile's rows; large kernels have few.
        let input = if geometry.0 == 7 { [1, 3][index % 2] } else { inputs[index % inputs.len()].max(1) };
        let output = outputs[(index / 3) % outputs.len()];
        list.push(Convolution::dense(geometry, size, taken(subject, input, output), Finish::NONE, fill, index as u64));
    }
    let lean = |(index, &c): (usize, &usize)| {
        let (_, c) = taken(subject, c, c);
        Convolution::lean(Stencil::Cross5, (2, 3, c), Finish::NONE, fill, index as u64)
    };
    list.extend(outputs.iter().enumerate().map(lean));
    // Every count of inputs that a block can have, for whole tiles of outputs and for the vectors after them.
    let most = (2 * rows + 1).max(NARROW_ROWS + 1);
    list.extend((1..=most).flat_map(|inputs| {
        [subject.tile.channels, 2 * subject.tile.channels - 1]
            .map(|outputs| Convolution::dense((1, 1), (2, 3), taken(subject, inputs, outputs), Finish::NONE, fill, inputs as u64))
    }));
    large_matrix_problems(subject, fill).chain(list.into_iter().step_by(step)).map(|problem| of_type(subject, problem)).collect()
}

/// Rows of the tiles of one panel beside those of two.
const NARROW_ROWS: usize = 14;

/// Of several chunks of pixels, so wide that a kernel packs columns of the gradient: as one run of pixels, in parts of rows, and in several rows.
/// And one of 1.6 MB, which goes through the second level of cache in bands of rows.
fn large_matrix_problems(subject: &Subject, fill: Fill) -> impl Iterator<Item = Convolution> {
    let problems =
        [((1, 1), (17, 19), (70, 300)), ((3, 1), (2, 133), (7, 300)), ((3, 1), (9, 30), (6, 352)), ((1, 1), (40, 160), (32, 32))];
    problems.into_iter().map(move |(geometry, size, (inputs, outputs))| {
        Convolution::dense(geometry, size, taken(subject, inputs, outputs), Finish::NONE, fill, 0)
    })
}

fn stencil_problems(subject: &Subject, fill: Fill, step: usize) -> Vec<Convolution> {
    let counts = channel_counts(subject.tile);
    let sizes = [(1, 1), (1, 2), (2, 1), (1, 5), (5, 1), (2, 2), (3, 3), (4, 7), (6, 5)];
    let shapes: Vec<_> = sizes.iter().flat_map(|&(h, w)| counts.iter().map(move |&c| (h, w, c))).collect();
    let problem = |(index, (h, w, c))| {
        let (_, c) = taken(subject, c, c);
        of_type(subject, Convolution::lean(subject.stencil(), (h, w, c), Finish::NONE, fill, index as u64))
    };
    shapes.into_iter().enumerate().map(problem).step_by(step).collect()
}

/// The problem with inputs that the kernel's type can hold.
pub(crate) fn of_type(subject: &Subject, problem: Convolution) -> Convolution {
    Convolution { x: held(subject, problem.x.clone()), ..problem }
}

/// The gradient at the output; exact data leaves room for a sum over all pixels.
pub(crate) fn output_gradient(subject: &Subject, problem: &Convolution, fill: Fill) -> Vec<f32> {
    let count = problem.output().elements();
    match fill {
        Fill::Exact => integers(31, count, 15),
        _ => held(subject, fill.weights(31, count, 1)),
    }
}

/// The oracle's gradients: of the matrix, of the stencil (empty for a dense convolution), of the bias.
pub(crate) fn oracle<T: Real>(problem: &Convolution, x: &[T], dy: &[T]) -> [Vec<T>; 3] {
    match &problem.weights {
        Weights::Lean(_, LeanWeights { taps, .. }) => {
            let gradients = lean_weight_gradients(x, dy, problem.input, taps);
            [gradients.pointwise, gradients.spatial, gradients.bias]
        }
        Weights::Dense(weights) => {
            let gradients = dense_weight_gradients(x, dy, problem.input, &weights.map(|value| T::from_f64(f64::from(value))));
            [gradients.weight, Vec::new(), gradients.bias]
        }
    }
}

/// All rows, row by row, and in halves, each at another edge than the call before.
fn parts(height: usize) -> [(Edge, Vec<Range<usize>>); 3] {
    let rows = |size: usize| (0..height).step_by(size).map(|start| start..(start + size).min(height)).collect();
    [(EDGES[1], rows(height)), (EDGES[0], rows(1)), (EDGES[1], rows(height.div_ceil(2)))]
}

/// Within the bound of a sum over all output pixels.
fn within(subject: &Subject, problem: &Convolution, which: usize, actual: &[f32], dy: &[f32]) -> Result<(), String> {
    let values = &oracle(problem, &widened(&problem.x), &widened(dy))[which];
    let sizes = &oracle(problem, &magnitudes(&problem.x), &magnitudes(dy))[which];
    let terms = problem.output().pixels();
    // Roundings to odd count double, but there is one for two pixels of a row; of an odd number, the last pixel has its own.
    let alone = if is_bf16(subject) { problem.output().h } else { 0 };
    let exact = Exact { values, magnitudes: sizes, terms, roundings: terms + alone + 2 };
    compare_within_bound(Case { kernel: &title(subject, problem), shape: &[actual.len()] }, actual, &exact).map(|_| ())
}

fn same(name: &str, actual: &[f32], expected: &[f32]) -> Result<(), String> {
    compare_bits(Case { kernel: name, shape: &[expected.len()] }, actual, expected)
}

/// Scaled down, so that sums over all pixels stay exact.
fn exact_problems(problems: Vec<Convolution>) -> impl Iterator<Item = Convolution> {
    problems.into_iter().map(|mut problem| {
        problem.x = integers(77, problem.x.len(), 200);
        problem
    })
}

pub(crate) fn matrix_exact(subject: &Subject) -> Result<(), String> {
    for (index, problem) in exact_problems(matrix_problems(subject, Fill::Exact, 1)).enumerate() {
        let dy = output_gradient(subject, &problem, Fill::Exact);
        let whole = 0..problem.output().h;
        let actual = matrix(subject, &problem, &dy, EDGES[index % 2], &[whole])?;
        let [expected, ..] = oracle(&problem, &widened(&problem.x), &widened(&dy));
        same(&title(subject, &problem), &actual, &expected.iter().map(|&value| value as f32).collect::<Vec<_>>())?;
    }
    Ok(())
}

pub(crate) fn matrix_bound(subject: &Subject) -> Result<(), String> {
    for fill in ROUNDED {
        for (index, problem) in matrix_problems(subject, fill, 4).into_iter().enumerate() {
            let dy = output_gradient(subject, &problem, fill);
            let whole = 0..problem.output().h;
            let actual = matrix(subject, &problem, &dy, EDGES[index % 2], &[whole])?;
            within(subject, &problem, 0, &actual, &dy)?;
            if subject.is_fused && !is_bf16(subject) {
                let [expected, ..] = oracle(&problem, &problem.x, &dy);
                same(&title(subject, &problem), &actual, &expected)?;
            }
        }
    }
    Ok(())
}

/// Band by band with accumulation: the bits of one call, at both edges. A tile unit takes pixels in steps of 32 that run on from row to row, so
/// that bands have sums of their own there, within the same bound.
pub(crate) fn matrix_parts(subject: &Subject) -> Result<(), String> {
    for problem in matrix_problems(subject, Fill::Uniform, 3) {
        let dy = output_gradient(subject, &problem, Fill::Uniform);
        let height = problem.output().h;
        let whole = matrix(subject, &problem, &dy, EDGES[0], std::slice::from_ref(&(0..height)))?;
        for (edge, parts) in parts(height) {
            let actual = matrix(subject, &problem, &dy, edge, &parts)?;
            if subject.kernels.isa == Isa::Amx {
                within(subject, &problem, 0, &actual, &dy)?;
            } else {
                same(&format!("{} in parts {parts:?}", title(subject, &problem)), &actual, &whole)?;
            }
        }
    }
    Ok(())
}

/// The panel's padding stays zero: updates run over it. No pixels at all give zeros, or leave what is accumulated.
pub(crate) fn matrix_padding(subject: &Subject) -> Result<(), String> {
    let (pixels, k) = (3, subject.tile.pixels + 1);
    for channels in channel_counts(subject.tile) {
        // An infinity, since its product with a padding lane's zero would be NaN.
        let (mut x, g) = (vec![1.0; pixels * k], vec![1.0; pixels * channels]);
        x[0] = f32::INFINITY;
        let panel_step = k * PANEL;
        let mut dw = vec![0.0; channels.div_ceil(PANEL) * panel_step];
        let mut run = |pixels: usize, accumulate: bool| {
            subject.kernels.f32.weight_gradient.run(&mut WeightGradientCall {
                x: &x,
                x_step: k,
                x_row: 0,
                g: &g,
                g_step: channels,
                g_row: 0,
                dw: &mut dw,
                panel_step,
                offset: 0,
                rows: 1,
                pixels,
                k,
                channels,
                accumulate,
                upcoming: [unmapped(); GRADIENT_FETCHES],
            });
            dw.clone()
        };
        let full = run(pixels, false);
        let is_padding = |at: usize| at / panel_step * PANEL + at % PANEL >= channels;
        if let Some(at) = (0..full.len()).find(|&at| is_padding(at) == (full[at] != 0.0)) {
            return Err(format!("{}: {channels} channels: at {at} lies {}", subject.name, full[at]));
        }
        same("no pixels, accumulated", &run(0, true), &full)?;
        same("no pixels", &run(0, false), &vec![0.0; full.len()])?;
    }
    Ok(())
}

pub(crate) fn stencil_exact(subject: &Subject) -> Result<(), String> {
    for (index, problem) in exact_problems(stencil_problems(subject, Fill::Exact, 1)).enumerate() {
        let dy = output_gradient(subject, &problem, Fill::Exact);
        let (spatial, bias) = stencil(subject, &problem, &dy, EDGES[index % 2], std::slice::from_ref(&(0..problem.input.h)))?;
        let [_, expected_spatial, expected_bias] = oracle(&problem, &widened(&problem.x), &widened(&dy));
        for (actual, expected) in [(spatial, expected_spatial), (bias, expected_bias)] {
            same(&title(subject, &problem), &actual, &expected.iter().map(|&value| value as f32).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

pub(crate) fn stencil_bound(subject: &Subject) -> Result<(), String> {
    for fill in ROUNDED {
        for (index, problem) in stencil_problems(subject, fill, 3).into_iter().enumerate() {
            let dy = output_gradient(subject, &problem, fill);
            let (spatial, bias) = stencil(subject, &problem, &dy, EDGES[index % 2], std::slice::from_ref(&(0..problem.input.h)))?;
            within(subject, &problem, 1, &spatial, &dy)?;
            within(subject, &problem, 2, &bias, &dy)?;
            if subject.is_fused && !is_bf16(subject) {
                let name = title(subject, &problem);
                let [_, expected_spatial, expected_bias] = oracle(&problem, &problem.x, &dy);
                same(&name, &spatial, &expected_spatial)?;
                same(&name, &bias, &expected_bias)?;
            }
        }
    }
    Ok(())
}

/// Ranges of rows with accumulation: the bits of one call; the rows beside a range are read, not summed.
pub(crate) fn stencil_parts(subject: &Subject) -> Result<(), String> {
    for problem in stencil_problems(subject, Fill::Uniform, 1) {
        let dy = output_gradient(subject, &problem, Fill::Uniform);
        let height = problem.input.h;
        let whole = stencil(subject, &problem, &dy, EDGES[0], std::slice::from_ref(&(0..height)))?;
        for (edge, parts) in parts(height) {
            let (spatial, bias) = stencil(subject, &problem, &dy, edge, &parts)?;
            let name = format!("{} in parts {parts:?}", title(subject, &problem));
            same(&name, &spatial, &whole.0)?;
            same(&name, &bias, &whole.1)?;
        }
    }
    Ok(())
}
