//! Everything that a training step writes besides weights and norms.
#![forbid(unsafe_code)]

use super::graph::{Graph, Op};
use super::weights::Kind;
use crate::exec::shared::SharedBuffer;
use crate::exec::tensor::{Activations, Extent};

/// Scratch images of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scratch {
    /// A convolution's input, computed again.
    Input,
    /// The gradient of a convolution's output.
    OutputGradient,
    /// The gradient of a convolution's input.
    InputGradient,
    /// An image with a border.
    Padded,
}

const SCRATCH: usize = 4;

/// Buffers for a batch.
pub(crate) struct Memory {
    /// The graph's tensors.
    pub(crate) tensors: Vec<Activations>,
    /// Gradient of the tensors that go from block to block, one per stage.
    pub(crate) gradients: Vec<Activations>,
    /// Gradient of the raw tensor whose norm is being differentiated, before the norm's part: one flat image each.
    pub(crate) raw_gradient: SharedBuffer<f32>,
    /// Per image: two sums per channel.
    pub(crate) sums: SharedBuffer<f64>,
    /// Per image: the pooled pixel before the head.
    pub(crate) pooled: SharedBuffer<f32>,
    pub(crate) logits: SharedBuffer<f32>,
    pub(crate) logits_gradient: SharedBuffer<f32>,
    scratch: SharedBuffer<f32>,
    /// Extent of the batch's images with the border that the stem reads.
    pub(crate) input: Extent,
}

impl Memory {
    pub(crate) fn new(graph: &Graph, [channels, height, width]: [usize; 3], images: usize, workers: usize) -> Self {
        let side = |op: &Op| match *op {
            Op::Convolve { conv, .. } => match graph.convolutions[conv].kind {
                Kind::Dense { side, .. } => side,
                Kind::Lean(_) => 1,
            },
            _ => 1,
        };
        let input = Extent::new(height, width, channels).with_border(side(&graph.ops[0]) / 2);
        let border = graph.ops.iter().map(side).max().unwrap_or(1);
        let largest = |size: &dyn Fn(Extent) -> usize| graph.tensors.iter().map(|tensor| size(tensor.extent)).max().unwrap_or(0);
        let padded = largest(&|extent| extent.with_border(border).elements()).max(input.elements());
        let stages = graph.tensors.iter().map(|tensor| tensor.stage).max().unwrap_or(0) + 1;
        let stage_extent = |stage| {
            // The last tensor of a stage is one that goes from block to block; raw ones of a connection can be larger.
            graph.tensors.iter().rfind(|tensor| tensor.stage == stage).map_or(Extent::new(0, 0, 0), |tensor| tensor.extent)
        };
        let widest = largest(&|extent| extent.channels);
        let classes = graph.convolutions.last().map_or(0, |head| head.outputs());
        Memory {
            tensors: graph.tensors.iter().map(|tensor| Activations::new(images, tensor.extent)).collect(),
            gradients: (0..stages).map(|stage| Activations::new(images, stage_extent(stage))).collect(),
            raw_gradient: SharedBuffer::new(images, largest(&|extent| extent.elements())),
            sums: SharedBuffer::new(images, 2 * widest),
            pooled: SharedBuffer::new(images, widest),
            logits: SharedBuffer::new(images, classes),
            logits_gradient: SharedBuffer::new(images, classes),
            scratch: SharedBuffer::new(workers * SCRATCH, padded),
            input,
        }
    }

    /// One scratch image of a worker.
    pub(crate) fn scratch(&self, worker: usize, scratch: Scratch) -> crate::exec::shared::Write<'_, f32> {
        let tile = worker * SCRATCH + scratch as usize;
        self.scratch.write(tile..tile + 1)
    }
}
