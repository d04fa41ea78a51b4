//! Everything that a training step writes besides weights and norms.
#![forbid(unsafe_code)]

use super::graph::{Graph, Op};
use super::weights::{Kind, TrainedConvolution};
use crate::exec::shared::{SharedBuffer, Write};
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

/// The extents that decide how much memory a batch takes.
struct Sizes {
    /// An image with the border that the stem reads.
    input: Extent,
    /// The largest image with the widest border, in elements.
    padded: usize,
    /// The largest tensor of one image, in elements.
    largest: usize,
    /// The largest number of channels.
    widest: usize,
    classes: usize,
    /// The tensors that go from block to block, one per stage.
    stages: Vec<Extent>,
}

impl Sizes {
    fn new(graph: &Graph, [channels, height, width]: [usize; 3]) -> Self {
        let side = |op: &Op| match *op {
            Op::Convolve { conv, .. } => match graph.convolutions[conv].kind {
                Kind::Dense { side, .. } => side,
                Kind::Lean(_) => 1,
            },
            _ => 1,
        };
        let border = graph.ops.iter().map(side).max().unwrap_or(1);
        let input = Extent::new(height, width, channels).with_border(side(&graph.ops[0]) / 2);
        let largest = |size: &dyn Fn(Extent) -> usize| graph.tensors.iter().map(|tensor| size(tensor.extent)).max().unwrap_or(0);
        let stages = graph.tensors.iter().map(|tensor| tensor.stage).max().map_or(0, |last| last + 1);
        // The last tensor of a stage is one that goes from block to block; raw ones of a connection can be larger.
        let stage = |stage| graph.tensors.iter().rfind(|tensor| tensor.stage == stage).map(|tensor| tensor.extent);
        Sizes {
            input,
            padded: largest(&|extent| extent.with_border(border).elements()).max(input.elements()),
            largest: largest(&|extent| extent.elements()),
            widest: largest(&|extent| extent.channels),
            classes: graph.convolutions.last().map_or(0, TrainedConvolution::outputs),
            stages: (0..stages).filter_map(stage).collect(),
        }
    }
}

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
    /// Per worker: a number per channel or class.
    channels: SharedBuffer<f32>,
    /// Extent of the batch's images with the border that the stem reads.
    pub(crate) input: Extent,
}

impl Memory {
    pub(crate) fn new(graph: &Graph, input: [usize; 3], images: usize, workers: usize) -> Self {
        let Sizes { input, padded, largest, widest, classes, stages } = Sizes::new(graph, input);
        Memory {
            tensors: graph.tensors.iter().map(|tensor| Activations::new(images, tensor.extent)).collect(),
            gradients: stages.into_iter().map(|extent| Activations::new(images, extent)).collect(),
            raw_gradient: SharedBuffer::new(images, largest),
            sums: SharedBuffer::new(images, 2 * widest),
            pooled: SharedBuffer::new(images, widest),
            logits: SharedBuffer::new(images, classes),
            logits_gradient: SharedBuffer::new(images, classes),
            scratch: SharedBuffer::new(workers * SCRATCH, padded),
            channels: SharedBuffer::new(workers, widest.max(classes)),
            input,
        }
    }

    /// Bytes that [`Memory::new`] takes, without the few that mark who borrows what.
    pub(crate) fn bytes(graph: &Graph, input: [usize; 3], images: usize, workers: usize) -> usize {
        let Sizes { padded, largest, widest, classes, stages, .. } = Sizes::new(graph, input);
        let tensors: usize = graph.tensors.iter().map(|tensor| tensor.extent).chain(stages).map(|extent| extent.elements()).sum();
        let image = tensors + largest + widest + 2 * classes;
        let worker = SCRATCH * padded + widest.max(classes);
        size_of::<f32>() * (images * image + workers * worker) + size_of::<f64>() * images * 2 * widest
    }

    /// One scratch image of a worker.
    pub(crate) fn scratch(&self, worker: usize, scratch: Scratch) -> Write<'_, f32> {
        let tile = worker * SCRATCH + scratch as usize;
        self.scratch.write(tile..tile + 1)
    }

    /// A number per channel or class, of a worker.
    pub(crate) fn channels(&self, worker: usize) -> Write<'_, f32> {
        self.channels.write(worker..worker + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::net::Network;
    use crate::train::engine::step::CHUNKS;

    #[test]
    fn bytes_are_those_that_are_taken() {
        let network = Network::preset("small").unwrap();
        let graph = Graph::new(&network, CHUNKS, Kernels::of(Isa::Portable).unwrap()).unwrap();
        for (images, workers) in [(1, 1), (5, 3)] {
            let memory = Memory::new(&graph, network.input(), images, workers);
            let activations: usize = memory.tensors.iter().chain(&memory.gradients).map(Activations::bytes).sum();
            let Memory { raw_gradient, sums, pooled, logits, logits_gradient, scratch, channels, .. } = &memory;
            let images_of = [raw_gradient, pooled, logits, logits_gradient, scratch, channels].map(SharedBuffer::bytes);
            let taken = activations + sums.bytes() + images_of.iter().sum::<usize>();
            let told = Memory::bytes(&graph, network.input(), images, workers);
            assert!((taken - taken / 500..=taken).contains(&told), "{told} of {taken} bytes");
        }
    }
}
