//! Everything that a training step writes besides weights and norms.
#![forbid(unsafe_code)]

use super::graph::{Graph, Id, Op};
use super::kernel_weights::Trained;
use super::slots::Slots;
use super::step::CHUNKS;
use super::weights::{TrainedConvolution, flat_length};
use crate::conv::pack::PANEL;
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
    /// What lies between the stencil and the matrix of a separable convolution.
    Between,
    /// The gradient of that.
    BetweenGradient,
}

/// Scratch images of a worker; the last two only where there are separable convolutions.
fn scratch_images<T: Trained>(graph: &Graph<T>) -> usize {
    if graph.convolutions.iter().any(|conv| conv.separated.is_some()) { 6 } else { 4 }
}

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
    fn new<T: Trained>(graph: &Graph<T>, [channels, height, width]: [usize; 3]) -> Self {
        let side = |op: &Op| match *op {
            Op::Convolve { conv, .. } => graph.convolutions[conv].kind.side(),
            _ => 1,
        };
        let border = graph.ops.iter().map(side).max().unwrap_or(1);
        let taken = channels.next_multiple_of(T::INPUTS_TOGETHER);
        let input = Extent::new(height, width, taken).with_border(side(&graph.ops[0]) / 2);
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

/// Convolutions whose partial gradients are there at the same time: those of one phase, which follow each other in the graph's list (a
/// head or connection and the last one of a block, or two of a block), and one of the symmetric form whose second use comes later.
const PARTIALS: usize = 3;

/// Elements of the longest flat run of weights.
fn longest_run<T: Trained>(graph: &Graph<T>) -> usize {
    graph.convolutions.iter().map(|conv| flat_length(&conv.values)).max().unwrap_or(0)
}

/// The tensors of a slot with their extents.
fn extents_of<T: Trained>(graph: &Graph<T>, slots: &Slots, slot: usize) -> Vec<(usize, Extent)> {
    let tensors = graph.tensors.iter().enumerate().filter(|(tensor, _)| slots.of(*tensor) == slot);
    tensors.map(|(tensor, description)| (tensor, description.extent)).collect()
}

/// The graph's tensors, those of a slot in the same memory.
fn tensors<T: Trained>(graph: &Graph<T>, slots: &Slots, images: usize) -> Vec<Activations<T>> {
    let mut made = Vec::new();
    for slot in 0..slots.len() {
        let (ids, extents): (Vec<usize>, Vec<Extent>) = extents_of(graph, slots, slot).into_iter().unzip();
        made.extend(ids.into_iter().zip(Activations::sharing(images, &extents)));
    }
    made.sort_by_key(|(tensor, _)| *tensor);
    made.into_iter().map(|(_, activations)| activations).collect()
}

/// Elements for a number per channel or class, in whole panels.
fn channels(widest: usize, classes: usize) -> usize {
    widest.max(classes).next_multiple_of(PANEL)
}

/// Buffers for a batch.
pub(crate) struct Memory<T> {
    /// The graph's tensors.
    pub(crate) tensors: Vec<Activations<T>>,
    /// Gradient of the tensors that go from block to block, one per stage.
    pub(crate) gradients: Vec<Activations<T>>,
    /// Partial gradients of weights, a flat run per chunk of the batch. Those of a convolution are added up in the phase after they are
    /// complete, so that few convolutions need them at a time; they take turns.
    partials: [SharedBuffer<f32>; PARTIALS],
    /// Gradient of the raw tensor whose norm is being differentiated, before the norm's part: one flat image each.
    pub(crate) raw_gradient: SharedBuffer<T>,
    /// Per image: two sums per channel.
    pub(crate) sums: SharedBuffer<f64>,
    /// Per image: the pooled pixel before the head.
    pub(crate) pooled: SharedBuffer<f32>,
    pub(crate) logits: SharedBuffer<f32>,
    pub(crate) logits_gradient: SharedBuffer<f32>,
    scratch: SharedBuffer<T>,
    scratch_images: usize,
    /// Per worker: a number per channel or class.
    channels: SharedBuffer<f32>,
    /// Extent of the batch's images with the border that the stem reads.
    pub(crate) input: Extent,
}

impl<T: Trained> Memory<T> {
    pub(crate) fn new(graph: &Graph<T>, slots: &Slots, input: [usize; 3], images: usize, workers: usize) -> Self {
        let Sizes { input, padded, largest, widest, classes, stages } = Sizes::new(graph, input);
        Memory {
            tensors: tensors(graph, slots, images),
            gradients: stages.into_iter().map(|extent| Activations::new(images, extent)).collect(),
            partials: std::array::from_fn(|_| SharedBuffer::new(CHUNKS, longest_run(graph))),
            raw_gradient: SharedBuffer::new(images, largest),
            sums: SharedBuffer::new(images, 2 * widest),
            pooled: SharedBuffer::new(images, widest),
            logits: SharedBuffer::new(images, classes),
            logits_gradient: SharedBuffer::new(images, classes),
            scratch: SharedBuffer::new(workers * scratch_images(graph), padded),
            scratch_images: scratch_images(graph),
            channels: SharedBuffer::new(workers, channels(widest, classes)),
            input,
        }
    }

    /// Bytes that [`Memory::new`] takes, without the few that mark who borrows what.
    pub(crate) fn bytes(graph: &Graph<T>, slots: &Slots, input: [usize; 3], images: usize, workers: usize) -> usize {
        let Sizes { padded, largest, widest, classes, stages, .. } = Sizes::new(graph, input);
        let most = |extents: Vec<(usize, Extent)>| extents.iter().map(|(_, extent)| extent.elements()).max().unwrap_or(0);
        let tensors: usize = (0..slots.len()).map(|slot| most(extents_of(graph, slots, slot))).sum();
        let gradients: usize = stages.iter().map(Extent::elements).sum();
        let typed = images * (tensors + gradients + largest) + workers * scratch_images(graph) * padded;
        let partials = PARTIALS * CHUNKS * longest_run(graph);
        let single = images * (widest + 2 * classes) + workers * channels(widest, classes) + partials;
        size_of::<T>() * typed + size_of::<f32>() * single + size_of::<f64>() * images * 2 * widest
    }

    /// The partial gradients of a convolution, while its part of the backward pass is under way.
    pub(crate) fn partial(&self, conv: Id) -> &SharedBuffer<f32> {
        &self.partials[conv % PARTIALS]
    }

    /// One scratch image of a worker.
    pub(crate) fn scratch(&self, worker: usize, scratch: Scratch) -> Write<'_, T> {
        let tile = worker * self.scratch_images + scratch as usize;
        self.scratch.write(tile..tile + 1)
    }

    /// A number per channel or class, of a worker; whole panels.
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
    use crate::train::Recompute;

    #[test]
    fn bytes_are_those_that_are_taken() {
        let network = Network::preset("small").unwrap();
        let graph = Graph::<f32>::new(&network, Kernels::of(Isa::Portable).unwrap()).unwrap();
        let modes = [Recompute::None, Recompute::Block, Recompute::Stage];
        for (recompute, (images, workers)) in modes.into_iter().flat_map(|mode| [(1, 1), (5, 3)].map(|sizes| (mode, sizes))) {
            let slots = Slots::new(&graph, recompute);
            let memory = Memory::new(&graph, &slots, network.input(), images, workers);
            let first = |slot| (0..graph.tensors.len()).find(|tensor| slots.of(*tensor) == slot).unwrap();
            let tensors = (0..slots.len()).map(|slot| &memory.tensors[first(slot)]);
            let activations: usize = tensors.chain(&memory.gradients).map(Activations::bytes).sum();
            let Memory { partials, raw_gradient, sums, pooled, logits, logits_gradient, scratch, channels, .. } = &memory;
            let images_of = [raw_gradient, pooled, logits, logits_gradient, scratch, channels].map(SharedBuffer::<f32>::bytes);
            let partials: usize = partials.iter().map(SharedBuffer::bytes).sum();
            let taken = activations + partials + sums.bytes() + images_of.iter().sum::<usize>();
            let told = Memory::bytes(&graph, &slots, network.input(), images, workers);
            assert!((taken - taken / 500..=taken).contains(&told), "{recompute:?}: {told} of {taken} bytes");
        }
    }
}
