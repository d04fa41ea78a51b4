//! Gradients of a convolution's weights: the matrix by the weight-gradient kernel, stencil and bias by the stencil-gradient kernel.
#![forbid(unsafe_code)]

use super::convolution::{Convolution, Weights};
use super::setup::padded_band;
use super::typed::{Typed, holding, of};
use super::unmapped;
use crate::common::guard::{Edge, GuardedBuffer};
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::gradient::{GRADIENT_FETCHES, StencilGradientCall, WeightGradientCall};
use leanresnet::internals::pack::{PANEL, panels};
use std::ops::Range;

/// Rows of the output whose gradient takes part, one call each.
pub(crate) type Parts<'a> = &'a [Range<usize>];

/// Gradient of the matrix, in the oracle's layout: lean [C out][C in], dense [outputs][inputs][kernel][kernel].
pub(crate) fn matrix<T: Typed>(
    kernels: &Kernels,
    problem: &Convolution,
    dy: &[f32],
    edge: Edge,
    parts: Parts,
) -> Result<Vec<f32>, String> {
    let (input, output) = (problem.input, problem.output());
    let (side, stride) = match &problem.weights {
        Weights::Lean(..) => (1, 1),
        Weights::Dense(weights) => (weights.kernel, weights.stride),
    };
    let (height, width) = ((output.h - 1) * stride + side, (output.w - 1) * stride + side);
    let padding = -((side as isize - 1) / 2);
    let band = holding::<T>(&padded_band(&problem.x, input, (height, width), (padding, padding)), edge);
    let g = holding::<T>(dy, edge);
    let row_length = side * input.c;
    let panel_step = side * row_length * PANEL;
    let mut dw = GuardedBuffer::new(panels(output.c) * panel_step, edge);
    let (band_row, g_row) = (width * input.c, output.w * output.c);
    for (index, part) in parts.iter().enumerate() {
        for kernel_row in 0..side {
            T::kernels(kernels).weight_gradient.run(&mut WeightGradientCall {
                x: &of::<T>(&band)[(part.start * stride + kernel_row) * band_row..],
                x_step: stride * input.c,
                x_row: stride * band_row,
                g: &of(&g)[part.start * g_row..part.end * g_row],
                g_step: output.c,
                g_row,
                dw: &mut dw,
                panel_step,
                offset: kernel_row * row_length * PANEL,
                rows: part.len(),
                pixels: output.w,
                k: row_length,
                channels: output.c,
                accumulate: index > 0,
                upcoming: [unmapped(); GRADIENT_FETCHES],
            });
        }
    }
    [&band, &g, &dw].into_iter().try_for_each(GuardedBuffer::check)?;
    let packed = |o: usize, k: usize| dw[o / PANEL * panel_step + k * PANEL + o % PANEL];
    let mut weight = Vec::with_capacity(output.c * side * row_length);
    for o in 0..output.c {
        for i in 0..input.c {
            // A packed row runs over kernel rows, kernel columns, inputs.
            weight.extend((0..side * side).map(|at| packed(o, at * input.c + i)));
        }
    }
    Ok(weight)
}

/// Gradients of the stencil, [taps][C], and of the bias, [C].
pub(crate) fn stencil<T: Typed>(
    kernels: &Kernels,
    problem: &Convolution,
    dy: &[f32],
    edge: Edge,
    parts: Parts,
) -> Result<(Vec<f32>, Vec<f32>), String> {
    let Weights::Lean(stencil, _) = problem.weights else { return Err("a dense convolution has no stencil".into()) };
    let kernel = T::kernels(kernels).stencil_gradient(stencil);
    let (shape, taps) = (problem.input, stencil.taps().len());
    let (x, g) = (holding::<T>(&problem.x, edge), holding::<T>(dy, edge));
    let padded = panels(shape.c) * PANEL;
    let (mut dstencil, mut dbias) = (GuardedBuffer::new(padded * taps, edge), GuardedBuffer::new(padded, edge));
    for (index, rows) in parts.iter().enumerate() {
        kernel.run(&mut StencilGradientCall {
            stencil,
            x: of::<T>(&x),
            g: of(&g),
            dstencil: &mut dstencil,
            dbias: &mut dbias,
            rows: rows.clone(),
            height: shape.h,
            width: shape.w,
            channels: shape.c,
            accumulate: index > 0,
        });
    }
    [&x, &g, &dstencil, &dbias].into_iter().try_for_each(GuardedBuffer::check)?;
    let packed = |tap: usize, c: usize| dstencil[(c / PANEL * taps + tap) * PANEL + c % PANEL];
    let spatial = (0..taps).flat_map(|tap| (0..shape.c).map(move |c| (tap, c))).map(|(tap, c)| packed(tap, c)).collect();
    Ok((spatial, dbias[..shape.c].to_vec()))
}
