//! Data gradients out of forward kernels: a lean convolution's transpose, and a dense one's, phase by phase of the stride.
#![forbid(unsafe_code)]

use super::convolution::{Convolution, Weights, square};
use super::memory::{Gaps, Rows};
use super::setup::padded_band;
use crate::common::guard::{Edge, GuardedBuffer};
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::ConvCall;
use leanresnet::internals::kernel::rows::Layout;
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::PackedWeights;
use leanresnet::internals::pack::phases::{phase_first, phase_taps};
use leanresnet::internals::reference::Shape;

/// The gradient at the input of `problem`, from the gradient `dy` at its sums (no epilogue).
pub(crate) fn data_gradient(kernels: &Kernels, problem: &Convolution, dy: &[f32], edge: Edge) -> Result<Vec<f32>, String> {
    match &problem.weights {
        Weights::Lean(stencil, weights) => {
            let kernel = kernels.f32.fused(*stencil);
            let spatial = square(*stencil, 1, &weights.spatial);
            let packed = PackedWeights::lean_transposed(*stencil, problem.input.c, &spatial, &weights.pointwise);
            let Shape { h, w, c, .. } = problem.input;
            let layout = Gaps::default().layout(h, w, c);
            let (x, mut y) = (Rows::holding(dy, layout, w, c, edge), Rows::new(layout, w, c, edge));
            let weights = packed.map_err(|error| error.to_string())?;
            kernel.run(&mut ConvCall::new(&weights, x.source(), y.target(), (h, w)));
            x.check()?;
            y.check()?;
            Ok(y.rows(h))
        }
        Weights::Dense(_) => dense_data_gradient(kernels, problem, dy, edge),
    }
}

/// Every phase writes the pixels of its rows and columns, spread by the stride.
fn dense_data_gradient(kernels: &Kernels, problem: &Convolution, dy: &[f32], edge: Edge) -> Result<Vec<f32>, String> {
    let Weights::Dense(weights) = &problem.weights else { unreachable!("dense only") };
    let (side, stride) = (problem.side(), problem.stride);
    let (input, output) = (problem.input, problem.output());
    let mut dx = GuardedBuffer::new(input.elements(), edge);
    for (phase_row, phase_column) in (0..stride).flat_map(|row| (0..stride).map(move |column| (row, column))) {
        let (taps_down, taps_across) = (phase_taps(side, stride, phase_row).len(), phase_taps(side, stride, phase_column).len());
        let (height, width) =
            (input.h.saturating_sub(phase_row).div_ceil(stride), input.w.saturating_sub(phase_column).div_ceil(stride));
        if height == 0 || width == 0 {
            continue;
        }
        let geometry = (weights.inputs, weights.outputs, side, stride);
        let packed = PackedWeights::dense_phase(geometry, (phase_row, phase_column), &weights.weight);
        let packed = packed.map_err(|error| error.to_string())?;
        let extents = (height + taps_down.max(1) - 1, width + taps_across.max(1) - 1);
        let first = (phase_first(side, stride, phase_row), phase_first(side, stride, phase_column));
        let band = padded_band(dy, output, extents, first);
        let band = Rows::holding(&band, Gaps::default().layout(extents.0, extents.1, output.c), extents.1, output.c, edge);
        let layout = Layout {
            origin: input.index(0, phase_row, phase_column, 0),
            row_step: stride * input.w * input.c,
            pixel_step: stride * input.c,
            ring: height,
            first: 0,
        };
        let y = Target::new(&mut dx, layout);
        kernels.f32.dense.run(&mut ConvCall::new(&packed, band.source(), y, (height, width)));
        band.check()?;
    }
    dx.check()?;
    Ok(dx.to_vec())
}
