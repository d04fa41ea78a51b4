//! A network as a list of operators on named tensors: what inference executes.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use crate::conv::pack::PackedWeights;
use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::activation::Activation;
use crate::exec::segment::{Convolution, InPlaceBlock, PooledConvolution};
use crate::exec::tensor::Extent;
use crate::kernel::conv::ConvKernel;
use crate::net::architecture::{Block, ConnectionForm, Operator};
use crate::net::fold;
use crate::net::graph;
use crate::net::images::ByteMap;
use crate::net::model::{Description, Model};
use crate::net::network::Network;
use crate::net::op::{Op, Step, TensorId};
use crate::stencil::Stencil;

/// A tensor of activations.
pub(crate) struct PlannedTensor {
    pub(crate) extent: Extent,
    /// True if it carries activations from one stage to the next; others live within a stage, one image at a time.
    pub(crate) between_stages: bool,
    /// True if every step that writes it is followed by those that read it: other steps may use its memory after that.
    pub(crate) is_scratch: bool,
}

/// Activations of a group of images that go through a stage together, in bytes: what stays in the second level of cache.
pub(crate) const GROUP_BYTES: usize = 1 << 20;

/// What a session executes; shared by forks.
pub(crate) struct Plan<T> {
    pub(crate) kernels: &'static Kernels,
    pub(crate) tensors: Vec<PlannedTensor>,
    pub(crate) steps: Vec<Step<T>>,
    /// First step of every stage: a stage is the blocks of one width with the stem before or the connection after them, so that what
    /// goes from one to the next is small.
    pub(crate) stages: Vec<usize>,
    pub(crate) byte_map: ByteMap,
    pub(crate) input: [usize; 3],
    pub(crate) classes: usize,
}

impl<T: Activation> Plan<T> {
    /// The plan of a model on one instruction set.
    pub(crate) fn new(model: &Model, kernels: &'static Kernels) -> Result<Arc<Self>> {
        let network = match model.description() {
            Description::Network(network) => network,
            Description::Graph(graph) => return graph::lower(model, graph, kernels),
        };
        let plan = Plan {
            kernels,
            tensors: Vec::new(),
            steps: Vec::new(),
            stages: Vec::new(),
            byte_map: ByteMap::new(model.preprocess()),
            input: network.input(),
            classes: network.classes(),
        };
        Lowering { model, network, plan }.run().map(Arc::new)
    }

    /// The steps of a stage.
    pub(crate) fn stage(&self, stage: usize) -> Range<usize> {
        let end = self.stages.get(stage + 1).copied().unwrap_or(self.steps.len());
        self.stages[stage]..end
    }

    /// Images that go through a stage together, when `threads` threads share `count` images.
    pub(crate) fn group(&self, stage: usize, count: usize, threads: usize) -> usize {
        let largest = self.steps[self.stage(stage)]
            .iter()
            .map(|step| size_of::<T>() * self.output_extent(&step.op).elements())
            .max()
            .unwrap_or(1);
        (GROUP_BYTES / largest.max(1)).clamp(1, count.div_ceil(threads).max(1))
    }

    /// The output image of an operator.
    pub(crate) fn output_extent(&self, op: &Op<T>) -> Extent {
        match (op, op.output()) {
            (Op::Head { conv, .. }, _) => conv.output,
            (Op::Output { from }, _) => self.tensors[*from].extent,
            (_, Some(tensor)) => self.tensors[tensor].extent,
            (_, None) => unreachable!("all operators but the last one write a tensor"),
        }
    }
}

struct Lowering<'a, T> {
    model: &'a Model,
    network: &'a Network,
    plan: Plan<T>,
}

impl<T: Activation> Lowering<'_, T> {
    fn run(mut self) -> Result<Plan<T>> {
        let network = self.network;
        let sizes = network.stage_sizes();
        let mut x = self.stem(sizes[0])?;
        for (index, stage) in network.stages().iter().enumerate() {
            if index > 0 {
                x = self.connection(index - 1, x, sizes[index], stage.width)?;
                self.plan.stages.push(self.plan.steps.len());
            }
            for block in 0..stage.blocks {
                self.block(&format!("stages.{index}.{block}"), &stage.block, stage.width, x)?;
            }
        }
        self.head(x)?;
        Ok(self.plan)
    }

    /// Memory for what one step hands to the next.
    fn scratch(&mut self, extent: Extent) -> TensorId {
        self.scratch_beside(extent, None)
    }

    /// The same while `taken` is in use.
    fn scratch_beside(&mut self, extent: Extent, taken: Option<TensorId>) -> TensorId {
        // Steps can share memory only where its border stays zero: equal extents do.
        let same = |(id, tensor): (TensorId, &PlannedTensor)| Some(id) != taken && tensor.is_scratch && tensor.extent == extent;
        if let Some(found) = self.plan.tensors.iter().enumerate().position(same) {
            return found;
        }
        self.plan.tensors.push(PlannedTensor { extent, between_stages: false, is_scratch: true });
        self.plan.tensors.len() - 1
    }

    /// The activations that the blocks of a stage change in place.
    fn activations(&mut self, extent: Extent, between_stages: bool) -> TensorId {
        self.plan.tensors.push(PlannedTensor { extent, between_stages, is_scratch: false });
        self.plan.tensors.len() - 1
    }

    /// `products`: multiply-adds of one output of `outputs` channels, for each convolution of the operator.
    fn push(&mut self, name: &str, op: Op<T>, outputs: usize, products: [usize; 2]) {
        let pixels = match &op {
            Op::PooledConvolve { pair, .. } => pair.conv.output.pixels(),
            Op::Head { .. } => 1,
            op => self.plan.output_extent(op).pixels(),
        };
        let macs = products.map(|products| (pixels * outputs * products) as u64);
        self.plan.steps.push(Step { name: name.to_string(), op, macs });
    }

    fn extent(&self, tensor: TensorId) -> Extent {
        self.plan.tensors[tensor].extent
    }

    /// Bytes of the weights of a stage's blocks.
    fn weight_bytes(&self, stage: usize) -> usize {
        let stage = &self.network.stages()[stage];
        size_of::<T>() * stage.blocks * stage.width * stage.block.products(stage.width).iter().sum::<usize>()
    }

    fn stem(&mut self, [height, width]: [usize; 2]) -> Result<TensorId> {
        let network = self.network;
        let (stem, [channels, input_height, input_width]) = (network.stem(), network.input());
        let outputs = network.stages()[0].width;
        let border = (stem.kernel - 1) / 2;
        let held = channels.next_multiple_of(T::INPUTS_TOGETHER);
        let input = self.scratch(Extent::new(input_height, input_width, held).with_border(border));
        // Images go through the first stage one at a time if its weights stay in the second level of cache meanwhile.
        let output = self.activations(Self::extent_of([height, width], outputs), self.weight_bytes(0) > GROUP_BYTES / 2);
        let weights = fold::dense_with_norm(self.model, "stem", stem.norm, channels, outputs, stem.kernel)?;
        self.plan.stages.push(0);
        self.push("input", Op::Load { to: input }, 0, [0; 2]);
        self.convolve("stem.conv", input, output, weights, (stem.stride, true), false);
        Ok(output)
    }

    fn connection(&mut self, index: usize, x: TensorId, [height, width]: [usize; 2], outputs: usize) -> Result<TensorId> {
        let connection = self.network.connection();
        let (name, from) = (format!("connections.{index}"), self.extent(x));
        let inputs = self.network.stages()[index].width;
        let weights = fold::dense_with_norm(self.model, &name, connection.norm, inputs, outputs, connection.form.kernel())?;
        let output = self.activations(Self::extent_of([height, width], outputs), true);
        match connection.form {
            ConnectionForm::PoolConv | ConnectionForm::ConvPool => {
                let pool_first = connection.form == ConnectionForm::PoolConv;
                let (height, width) = if pool_first { (height, width) } else { (from.height, from.width) };
                let extent = |channels| Self::extent_of([height, width], channels);
                let conv = self.dense(extent(from.channels), extent(outputs), 1, true);
                let elementwise = T::kernels(self.plan.kernels).elementwise;
                let pair = PooledConvolution { conv, pool_first, elementwise, input: from, output: self.extent(output) };
                let weights = T::packed(&conv.kernel, weights.with_inputs(inputs, from.channels));
                self.push(&name, Op::PooledConvolve { from: x, to: output, pair, weights }, outputs, [inputs, 0]);
            }
            ConnectionForm::StridedConv => {
                let padded = self.scratch(from.with_border(1));
                self.push(&format!("{name}.pad"), Op::Pad { from: x, to: padded, at: [1; 2] }, 0, [0; 2]);
                self.convolve(&format!("{name}.conv"), padded, output, weights, (2, true), false);
            }
        }
        Ok(output)
    }

    fn block(&mut self, name: &str, block: &Block, width: usize, x: TensorId) -> Result<()> {
        let extent = self.extent(x);
        let middle = self.scratch(extent);
        if let Operator::Separable | Operator::Shift = block.operator {
            self.separable(name, (block, width), 0, (x, middle))?;
            return self.separable(name, (block, width), 1, (middle, x));
        }
        let [first, second] =
            fold::block(self.model, name, block, width)?.map(|weights| weights.with_inputs(width, extent.channels));
        let (name1, name2) = (format!("{name}.conv1"), format!("{name}.conv2"));
        if block.operator == Operator::Dense {
            let padded = self.scratch(extent.with_border(1));
            self.push(&format!("{name1}.pad"), Op::Pad { from: x, to: padded, at: [1; 2] }, 0, [0; 2]);
            self.convolve(&name1, padded, middle, first, (1, true), false);
            self.push(&format!("{name2}.pad"), Op::Pad { from: middle, to: padded, at: [1; 2] }, 0, [0; 2]);
            self.convolve(&name2, padded, x, second, (1, block.relu_after_sum), true);
            return Ok(());
        }
        let convolution = |weights: &PackedWeights, relu| {
            let kernel = self.lean(weights.stencil().unwrap_or(block.stencils[0]), weights.group_size())?;
            Ok(Convolution { kernel, input: extent, output: extent, stride: 1, relu })
        };
        let pair = InPlaceBlock { first: convolution(&first, true)?, second: convolution(&second, block.relu_after_sum)? };
        let weights = Box::new([T::packed(&pair.first.kernel, first), T::packed(&pair.second.kernel, second)]);
        self.push(name, Op::Block { y: x, middle, block: pair, weights }, width, block.products(width));
        Ok(())
    }

    /// A separable or shift convolution of a block, the second one added to its output.
    fn separable(
        &mut self,
        name: &str,
        (block, width): (&Block, usize),
        index: usize,
        (from, to): (TensorId, TensorId),
    ) -> Result<()> {
        let extent = self.extent(from);
        let [spatial, pointwise] = fold::separable(self.model, name, block, index, width)?;
        let name = format!("{name}.conv{}", index + 1);
        let between = self.scratch_beside(extent, Some(if index == 0 { to } else { from }));
        let kernel = self.lean(block.stencil_of(index).unwrap_or(block.stencils[index]), block.group_size)?;
        let conv = Convolution { kernel, input: extent, output: extent, stride: 1, relu: false };
        let products = if block.operator == Operator::Shift { 0 } else { spatial.products() };
        let weights = T::packed(&kernel, spatial);
        let op = Op::Convolve { from, to: between, conv, weights, add_to_output: false };
        self.push(&format!("{name}.spatial"), op, width, [products, 0]);
        let (relu, add) = (index == 0 || block.relu_after_sum, index == 1);
        self.convolve(&format!("{name}.pointwise"), between, to, pointwise, (1, relu), add);
        Ok(())
    }

    fn head(&mut self, x: TensorId) -> Result<()> {
        let (classes, held) = (self.plan.classes, self.extent(x).channels);
        let channels = self.network.stages().last().map_or(0, |stage| stage.width);
        let (weight, bias) = (fold::values(self.model, "head.weight"), fold::values(self.model, "head.bias"));
        let weights = PackedWeights::dense(channels, classes, 1, weight, bias)?;
        let pixel = |channels| Extent::new(1, 1, channels);
        let kernel = self.plan.kernels.f32.dense;
        let conv = Convolution { kernel, input: pixel(held), output: pixel(classes), stride: 1, relu: false };
        let weights = kernel.packed(weights.with_inputs(channels, held));
        self.push("head", Op::Head { from: x, conv, weights }, classes, [channels, 0]);
        Ok(())
    }

    fn convolve(
        &mut self,
        name: &str,
        from: TensorId,
        to: TensorId,
        weights: PackedWeights,
        (stride, relu): (usize, bool),
        add_to_output: bool,
    ) {
        let (input, output) = (self.extent(from), self.extent(to));
        let conv = self.dense(input, output, stride, relu);
        let (inputs, outputs, products) = (weights.row_length / weights.rows, weights.channels, weights.products());
        let weights = T::packed(&conv.kernel, weights.with_inputs(inputs, input.channels));
        self.push(name, Op::Convolve { from, to, conv, weights, add_to_output }, outputs, [products, 0]);
    }

    /// An image of so many channels, with room for those that kernels want together.
    fn extent_of([height, width]: [usize; 2], channels: usize) -> Extent {
        Extent::new(height, width, channels.next_multiple_of(T::CHANNELS_TOGETHER))
    }

    fn lean(&self, stencil: Stencil, group_size: usize) -> Result<ConvKernel<T>> {
        let groups = || Error::invalid("precision", "f32 for stencils that read groups of channels", "bf16");
        T::lean(self.plan.kernels, stencil, group_size).ok_or_else(groups)
    }

    fn dense(&self, input: Extent, output: Extent, stride: usize, relu: bool) -> Convolution<T> {
        Convolution { kernel: T::kernels(self.plan.kernels).dense, input, output, stride, relu }
    }
}
