//! The gradients of one convolution's weights from one image, added to those of its chunk of the batch.
#![forbid(unsafe_code)]

use super::backward::Chunk;
use super::forward::pad;
use super::graph::{Id, Input};
use super::kernel_weights::Trained;
use super::memory::Scratch;
use super::step::Step;
use super::timing::Part;
use super::visit::Visit;
use super::weights::{Kind, TrainedConvolution, flat_length};
use crate::conv::pack::PANEL;
use crate::exec::tensor::Extent;
use crate::kernel::gradient::{StencilGradientCall, WeightGradientCall};

/// The gradient at a convolution's output, and of a separable one that of what lies between its parts.
#[derive(Clone, Copy)]
pub(super) struct OutputGradient<'a, T> {
    pub(super) values: &'a [T],
    pub(super) extent: Extent,
    pub(super) between: Option<&'a [T]>,
}

/// Sets to 0 what no kernel writes: the padding of panels, a fixed stencil, and the place of a bias that is not there.
pub(super) fn clear_unwritten<T: Trained>(conv: &TrainedConvolution<T>, partial: &mut [f32]) {
    if !conv.outputs().is_multiple_of(PANEL) {
        partial.fill(0.0);
    } else if let Kind::Dense { .. } | Kind::Separable { .. } | Kind::Linear = conv.kind {
        partial[conv.values.matrix.len()..].fill(0.0);
    }
}

/// Gradients of a stencil that is trained, and the sum of the gradient, from input and gradient of the output.
fn stencil_gradient<T: Trained>(
    conv: &TrainedConvolution<T>,
    (x, g): (&[T], &[T]),
    extent: Extent,
    (dstencil, dbias): (&mut [f32], &mut [f32]),
    accumulate: bool,
) {
    let Some(kernel) = conv.stencil_gradient else { return };
    let Extent { height, width, channels, .. } = extent;
    let (stencil, rows) = (kernel.stencil, 0..height);
    kernel.run(&mut StencilGradientCall { stencil, x, g, dstencil, dbias, rows, height, width, channels, accumulate });
}

impl<T: Trained> Step<'_, T> {
    /// Partial weight gradients of a convolution whose output has this gradient.
    pub(super) fn weight_gradients(
        &self,
        conv: Id,
        transposed: bool,
        input: Input,
        gradient: OutputGradient<'_, T>,
        chunk: Chunk,
        visit: Visit,
    ) {
        self.with_input(input, visit, |x, from| {
            self.lap(visit.worker, Part::InputAgain);
            if transposed {
                // y = L^T x is <g, L^T x> = <L g, x>: the gradient plays the input's part, and the input the gradient's.
                let input = OutputGradient { values: x, extent: from, between: None };
                self.weight_gradient(conv, (gradient.values, gradient.extent), input, chunk, visit);
                // The bias takes no part in the transpose; what the kernel summed there is not its gradient. Its own use comes later.
                let values = &self.graph.convolutions[conv].values;
                let bias = values.matrix.len() + values.stencil.len();
                self.memory.partial(conv).write(chunk.0..chunk.0 + 1)[bias..].fill(0.0);
            } else {
                // The symmetric form's first use adds to what its second use, earlier in this pass, has put there.
                let first = chunk.1 && !self.graph.convolutions[conv].is_shared;
                self.weight_gradient(conv, (x, from), gradient, (chunk.0, first), visit);
            }
            self.lap(visit.worker, Part::Weights);
        });
    }

    /// Adds one image's part to the partial gradients of matrix, stencil and bias.
    pub(super) fn weight_gradient(
        &self,
        conv: Id,
        (x, from): (&[T], Extent),
        OutputGradient { values: gradient, extent, between }: OutputGradient<'_, T>,
        (chunk, first): Chunk,
        visit: Visit,
    ) {
        let mut partial = self.memory.partial(conv).write(chunk..chunk + 1);
        let conv = &self.graph.convolutions[conv];
        let partial = &mut partial[..flat_length(&conv.values)];
        if first {
            clear_unwritten(conv, partial);
        }
        let (matrix, rest) = partial.split_at_mut(conv.values.matrix.len());
        let (stencil, bias) = rest.split_at_mut(conv.values.stencil.len());
        let accumulate = !first;
        let mut call = WeightGradientCall {
            x,
            x_step: from.channels,
            x_row: from.row(),
            g: gradient,
            g_step: extent.channels,
            g_row: extent.row(),
            dw: matrix,
            panel_step: conv.values.rows * conv.values.row_length * PANEL,
            offset: 0,
            rows: extent.height,
            pixels: extent.width,
            k: conv.values.row_length,
            channels: extent.channels,
            accumulate,
            upcoming: visit.at_weights(),
        };
        match conv.kind {
            Kind::Lean(_) => {
                T::kernels(self.kernels).weight_gradient.run(&mut call);
                stencil_gradient(conv, (x, gradient), extent, (stencil, bias), accumulate);
            }
            Kind::Separable { .. } => {
                let mut scratch = self.memory.scratch(visit.worker, Scratch::Between);
                if let Some(separated) = &conv.separated {
                    separated.stencil(x, &mut scratch[..from.elements()], from);
                }
                call.x = &scratch;
                T::kernels(self.kernels).weight_gradient.run(&mut call);
                if let Some(between) = between {
                    // The sum of the gradient between the parts is no gradient of anything.
                    let mut unused = self.memory.channels(visit.worker);
                    stencil_gradient(conv, (x, between), extent, (stencil, &mut unused), accumulate);
                }
                if conv.has_bias {
                    self.bias_gradient(gradient, &mut bias[..extent.channels], accumulate, visit);
                }
            }
            // The head has a file of its own.
            Kind::Linear => {}
            Kind::Dense { side, stride } => {
                let padded_extent = from.with_border((side - 1) / 2);
                let mut scratch = self.memory.scratch(visit.worker, Scratch::Padded);
                if side > 1 {
                    let padded = &mut scratch[..padded_extent.elements()];
                    pad(x, padded, padded_extent);
                    call.x = padded;
                }
                call.x_step = stride * from.channels;
                call.x_row = stride * padded_extent.row();
                let x = call.x;
                for row in 0..side {
                    call.x = &x[row * padded_extent.row()..];
                    call.offset = row * conv.values.row_length * PANEL;
                    T::kernels(self.kernels).weight_gradient.run(&mut call);
                    call.upcoming = Default::default();
                }
                if conv.has_bias {
                    self.bias_gradient(gradient, &mut bias[..extent.channels], accumulate, visit);
                }
            }
        }
    }

    /// Sum of a gradient over its pixels.
    fn bias_gradient(&self, gradient: &[T], bias: &mut [f32], accumulate: bool, visit: Visit) {
        if accumulate {
            let mut channels = self.memory.channels(visit.worker);
            let sum = &mut channels[..bias.len()];
            self.elementwise().global_pool(gradient, sum, 1.0);
            self.kernels.f32.elementwise.accumulate(sum, bias);
        } else {
            self.elementwise().global_pool(gradient, bias, 1.0);
        }
    }
}
