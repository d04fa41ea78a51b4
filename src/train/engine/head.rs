//! The head: global average pool and linear layer, which work in f32 whatever the type of activations.
#![forbid(unsafe_code)]

use super::backward::Chunk;
use super::graph::Id;
use super::kernel_weights::Trained;
use super::step::Step;
use super::visit::Visit;
use super::weight_gradient::clear_unwritten;
use super::weights::flat_length;
use crate::conv::pack::{PANEL, PackedWeights};
use crate::exec::tensor::Extent;
use crate::kernel::conv::ConvCall;
use crate::kernel::gradient::WeightGradientCall;
use crate::kernel::rows::Source;
use crate::kernel::target::Target;

impl<T: Trained> Step<'_, T> {
    /// The pooled pixel of an image, and its logits.
    pub(super) fn head(&self, from: Id, conv: Id, visit: Visit) {
        let tensor = &self.memory.tensors[from];
        let conv = &self.graph.convolutions[conv];
        let mut pooled = self.memory.pooled.write(visit.image..visit.image + 1);
        let pixel = &mut pooled[..tensor.extent.channels];
        self.elementwise().global_pool(&tensor.read(visit.image), pixel, 1.0 / tensor.extent.pixels() as f32);
        let mut logits = self.memory.logits.write(visit.image..visit.image + 1);
        self.linear(&conv.values, &pixel[..conv.inputs], &mut logits);
    }

    /// y = A x + b of one pixel.
    fn linear(&self, weights: &PackedWeights, x: &[f32], y: &mut [f32]) {
        let pixel = |channels| Extent::new(1, 1, channels).layout();
        let (from, to) = (pixel(x.len()), pixel(y.len()));
        let (x, y) = (Source { data: x, layout: from }, Target::new(y, to));
        self.kernels.f32.dense.run(&mut ConvCall::new(weights, x, y, (1, 1)));
    }

    /// Gradients of the linear layer's weights, and of every pixel before the pool.
    pub(super) fn head_backward(&self, from: Id, id: Id, (chunk, first): Chunk, visit: Visit) {
        let conv = &self.graph.convolutions[id];
        let pooled = self.memory.pooled.read(visit.image..visit.image + 1);
        let logits_gradient = self.memory.logits_gradient.read(visit.image..visit.image + 1);
        {
            let mut partial = self.memory.partial(id).write(chunk..chunk + 1);
            let partial = &mut partial[..flat_length(&conv.values)];
            if first {
                clear_unwritten(conv, partial);
            }
            let (matrix, bias) = partial.split_at_mut(conv.values.matrix.len());
            self.kernels.f32.weight_gradient.run(&mut WeightGradientCall {
                x: &pooled[..conv.inputs],
                x_step: conv.inputs,
                x_row: conv.inputs,
                g: &logits_gradient,
                g_step: conv.outputs(),
                g_row: conv.outputs(),
                dw: matrix,
                panel_step: conv.values.row_length * PANEL,
                offset: 0,
                rows: 1,
                pixels: 1,
                k: conv.values.row_length,
                channels: conv.outputs(),
                accumulate: !first,
                upcoming: Default::default(),
            });
            if conv.has_bias {
                let bias = &mut bias[..conv.outputs()];
                if first {
                    bias.copy_from_slice(&logits_gradient);
                } else {
                    self.kernels.f32.elementwise.accumulate(&logits_gradient, bias);
                }
            }
        }
        let mut channels = self.memory.channels(visit.worker);
        let extent = self.memory.tensors[from].extent;
        let pixel_gradient = &mut channels[..extent.channels];
        pixel_gradient.fill(0.0);
        for phase in &conv.phases {
            self.linear(&phase.weights, &logits_gradient, &mut pixel_gradient[..conv.inputs]);
        }
        let pixels = extent.pixels();
        let mut gradient = self.gradient_of(from).write(visit.image);
        self.elementwise().spread(pixel_gradient, &mut gradient, 1.0 / pixels as f32);
    }
}
