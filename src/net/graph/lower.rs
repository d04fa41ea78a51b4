//! The plan of a graph: which operators run on which tensors.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::conv::pack::{GROUP_SIZES, PackedWeights};
use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::activation::Activation;
use crate::exec::segment::{Convolution, InPlaceBlock, PooledConvolution};
use crate::exec::tensor::Extent;
use crate::exec::window_pool::{Reduction, WindowPool};
use crate::kernel::conv::ConvKernel;
use crate::net::fold;
use crate::net::graph::fusion::{Fused, Kind, fuse};
use crate::net::graph::sharing::share;
use crate::net::graph::{Graph, Node, Operation};
use crate::net::images::ByteMap;
use crate::net::model::Model;
use crate::net::op::{Op, Step, TensorId};
use crate::net::plan::{Plan, PlannedTensor};
use crate::net::taps::smallest_stencil;
use crate::stencil::Stencil;

/// The plan of a model with this graph on one instruction set.
pub(crate) fn lower<T: Activation>(model: &Model, graph: &Graph, kernels: &'static Kernels) -> Result<Arc<Plan<T>>> {
    let plan = Plan {
        kernels,
        tensors: Vec::new(),
        steps: Vec::new(),
        stages: Vec::new(),
        byte_map: ByteMap::new(model.preprocess()),
        input: graph.input(),
        classes: graph.classes(),
    };
    let mut readers = vec![0; graph.nodes().len() + 1];
    for value in graph.nodes().iter().flat_map(|node| &node.inputs) {
        readers[*value] += 1;
    }
    let mut lowering = Lowering { model, graph, plan, readers, tensors: vec![None; graph.nodes().len() + 1] };
    let fused = fuse(graph);
    lowering.load(&fused);
    for fused in &fused {
        lowering.step(fused)?;
    }
    lowering.output(&fused);
    share(&mut lowering.plan);
    Ok(Arc::new(lowering.plan))
}

struct Lowering<'a, T> {
    model: &'a Model,
    graph: &'a Graph,
    plan: Plan<T>,
    /// How often each value is still to be read.
    readers: Vec<usize>,
    /// Where each value is.
    tensors: Vec<Option<TensorId>>,
}

/// How a convolution runs: its weights, its kernel, and the pixels of zeros that it wants around the image (above, left, below, right).
struct Ready<T> {
    weights: PackedWeights<T>,
    kernel: ConvKernel<T>,
    stride: usize,
    padding: [usize; 4],
    products: usize,
}

impl<T: Activation> Lowering<'_, T> {
    /// A tensor of its own for an image of this shape.
    fn tensor(&mut self, [channels, height, width]: [usize; 3]) -> TensorId {
        self.planned(Extent::new(height, width, channels.next_multiple_of(T::CHANNELS_TOGETHER)))
    }

    fn planned(&mut self, extent: Extent) -> TensorId {
        self.plan.tensors.push(PlannedTensor { extent, between_stages: false, is_scratch: false });
        self.plan.tensors.len() - 1
    }

    fn extent(&self, tensor: TensorId) -> Extent {
        self.plan.tensors[tensor].extent
    }

    fn node(&self, index: usize) -> &Node {
        &self.graph.nodes()[index]
    }

    fn name(&self, node: usize) -> String {
        self.node(node).name.clone()
    }

    /// The tensor of a value, which is read once less from then on.
    fn read(&mut self, value: usize) -> TensorId {
        self.readers[value] -= 1;
        self.tensors[value].expect("nodes come after those that they read")
    }

    fn push(&mut self, name: String, op: Op<T>, macs: [u64; 2]) {
        self.plan.steps.push(Step { name, op, macs });
    }

    /// Multiply-adds of a node for an image.
    fn macs(&self, node: usize, products: usize) -> u64 {
        self.graph.shape(node + 1).iter().product::<usize>() as u64 * products as u64
    }

    /// The image: with the border that the first convolution wants, if nothing else reads it.
    fn load(&mut self, fused: &[Fused]) {
        let [channels, height, width] = self.graph.input();
        let first = match fused.first() {
            Some(Fused { kind: Kind::Node(node), .. }) if self.readers[0] == 1 => Some(&self.node(*node).operation),
            _ => None,
        };
        let border = match first {
            Some(Operation::Conv { groups: 1, padding: [top, rest @ ..], .. }) if *rest == [*top; 3] => *top,
            _ => 0,
        };
        let held = channels.next_multiple_of(if border > 0 { T::INPUTS_TOGETHER } else { T::CHANNELS_TOGETHER });
        let to = self.planned(Extent::new(height, width, held).with_border(border));
        self.tensors[0] = Some(to);
        self.push("input".to_owned(), Op::Load { to }, [0; 2]);
    }

    fn step(&mut self, fused: &Fused) -> Result<()> {
        let Fused { ref kind, relu, output } = *fused;
        let to = match *kind {
            Kind::Node(node) => match self.node(node).operation {
                Operation::Conv { .. } | Operation::Lean { .. } => self.convolve(node, None, relu)?,
                _ => self.plain(node, relu),
            },
            Kind::AddedTo { conv, value } => self.convolve(conv, Some(value), relu)?,
            Kind::Block { first, second, relu_between } => self.block([first, second], [relu_between, relu])?,
            Kind::PooledConvolve { pool, conv } => self.pooled(pool, conv, relu)?,
            Kind::Head { pool, linear } => return self.head(pool, linear),
        };
        self.tensors[output] = Some(to);
        Ok(())
    }

    /// A tensor that holds a value and may be overwritten: the value's own if nobody reads it any more, otherwise a copy.
    fn owned(&mut self, value: usize, name: &str, also_read_by_step: Option<TensorId>) -> TensorId {
        let from = self.read(value);
        if self.readers[value] == 0 && also_read_by_step != Some(from) && self.extent(from).border == 0 {
            return from;
        }
        let to = self.tensor(self.graph.shape(value));
        let border = self.extent(from).border;
        assert_eq!(border, 0, "only convolutions read an image with a border");
        self.push(format!("{name}.copy"), Op::Pad { from, to, at: [0; 2] }, [0; 2]);
        to
    }

    fn convolve(&mut self, node: usize, add: Option<usize>, relu: bool) -> Result<TensorId> {
        let (name, value) = (self.name(node), self.node(node).inputs[0]);
        let image = self.read(value);
        let Ready { weights, kernel, stride, padding, products } = self.ready(node, self.extent(image))?;
        let from = self.padded(&name, image, padding);
        let to = match add {
            Some(value) => self.owned(value, &name, Some(from)),
            None => self.tensor(self.graph.shape(node + 1)),
        };
        let conv = Convolution { kernel, input: self.extent(from), output: self.extent(to), stride, relu };
        let op = Op::Convolve { from, to, conv, weights, add_to_output: add.is_some() };
        let macs = self.macs(node, products);
        self.push(name, op, [macs, 0]);
        Ok(to)
    }

    /// The image with pixels of zeros around it; itself if there are none or it has them.
    fn padded(&mut self, name: &str, image: TensorId, padding: [usize; 4]) -> TensorId {
        let extent = self.extent(image);
        let border = padding.into_iter().max().unwrap_or(0);
        if extent.border == border {
            return image;
        }
        let to = self.planned(extent.with_border(border));
        let at = [padding[0], padding[1]];
        self.push(format!("{name}.pad"), Op::Pad { from: image, to, at }, [0; 2]);
        to
    }

    /// A convolution for images of an extent.
    fn ready(&self, node: usize, from: Extent) -> Result<Ready<T>> {
        let inputs = self.graph.shape(self.node(node).inputs[0])[0];
        let tensor = |part: &str| fold::values(self.model, &format!("{}.{part}", self.node(node).name));
        match self.node(node).operation {
            Operation::Lean { stencil, group_size, .. } => {
                let pointwise = tensor("pointwise.weight").to_vec();
                let weights =
                    fold::lean(stencil, inputs, group_size, tensor("spatial.weight"), pointwise, tensor("pointwise.bias"))?;
                let kernel = self.lean_kernel(weights.stencil().unwrap_or(stencil), group_size)?;
                let products = inputs + group_size * stencil.taps().len();
                let weights = T::packed(&kernel, weights.with_inputs(inputs, from.channels));
                Ok(Ready { weights, kernel, stride: 1, padding: [0; 4], products })
            }
            ref operation @ Operation::Conv { outputs, kernel, stride, padding, dilation, groups, .. } => {
                let (weight, bias) = (tensor("weight"), tensor("bias"));
                let products = inputs / groups * kernel[0] * kernel[1];
                if let Some((stencil, spatial)) = as_stencil(operation, inputs, weight)
                    && let Some(kernel) = T::lean(self.plan.kernels, stencil, inputs / groups)
                {
                    let weights = PackedWeights::depthwise_grouped(stencil, inputs, inputs / groups, &spatial, bias)?;
                    let weights = T::packed(&kernel, weights);
                    return Ok(Ready { weights, kernel, stride, padding: [0; 4], products });
                }
                let (reach, full) = full_kernel(weight, [outputs, inputs], kernel, dilation, groups);
                let weights = PackedWeights::rectangular(inputs, outputs, reach, &full, bias)?;
                let kernel = T::kernels(self.plan.kernels).dense;
                let weights = T::packed(&kernel, weights.with_inputs(inputs, from.channels));
                Ok(Ready { weights, kernel, stride, padding, products })
            }
            _ => unreachable!("only convolutions are made ready"),
        }
    }

    fn lean_kernel(&self, stencil: Stencil, group_size: usize) -> Result<ConvKernel<T>> {
        let groups = || Error::invalid("precision", "f32 for stencils that read groups of channels", "bf16");
        T::lean(self.plan.kernels, stencil, group_size).ok_or_else(groups)
    }

    fn block(&mut self, nodes: [usize; 2], relu: [bool; 2]) -> Result<TensorId> {
        let (name, value) = (self.name(nodes[0]), self.node(nodes[0]).inputs[0]);
        // The block reads it twice: in the first convolution and in the sum.
        self.readers[value] -= 1;
        let y = self.owned(value, &name, None);
        let extent = self.extent(y);
        let middle = self.tensor(self.graph.shape(value));
        let ready = [self.ready(nodes[0], extent)?, self.ready(nodes[1], extent)?];
        let macs = [0, 1].map(|index| self.macs(nodes[index], ready[index].products));
        let convolution = |index: usize| Convolution {
            kernel: ready[index].kernel,
            input: extent,
            output: extent,
            stride: 1,
            relu: relu[index],
        };
        let block = InPlaceBlock { first: convolution(0), second: convolution(1) };
        let weights = Box::new(ready.map(|ready| ready.weights));
        self.push(name, Op::Block { y, middle, block, weights }, macs);
        Ok(y)
    }

    fn pooled(&mut self, pool: usize, conv: usize, relu: bool) -> Result<TensorId> {
        let name = self.name(conv);
        let from = self.read(self.node(pool).inputs[0]);
        let to = self.tensor(self.graph.shape(conv + 1));
        let (input, output) = (self.extent(from), self.extent(to));
        let middle = Extent { channels: input.channels, ..output };
        let Ready { weights, kernel, products, .. } = self.ready(conv, middle)?;
        let conv_on_pooled = Convolution { kernel, input: middle, output, stride: 1, relu };
        let elementwise = T::kernels(self.plan.kernels).elementwise;
        let pair = PooledConvolution { conv: conv_on_pooled, pool_first: true, elementwise, input, output };
        let macs = self.macs(conv, products);
        self.push(name, Op::PooledConvolve { from, to, pair, weights }, [macs, 0]);
        Ok(to)
    }

    fn head(&mut self, pool: usize, linear: usize) -> Result<()> {
        let value = self.node(pool).inputs[0];
        let (name, inputs, from) = (self.name(linear), self.graph.shape(value)[0], self.read(value));
        let tensor = |part: &str| fold::values(self.model, &format!("{name}.{part}"));
        let (held, classes) = (self.extent(from).channels, self.plan.classes);
        let kernel = self.plan.kernels.f32.dense;
        let weights = PackedWeights::dense(inputs, classes, 1, tensor("weight"), tensor("bias"))?.with_inputs(inputs, held);
        let weights = kernel.packed(weights);
        let pixel = |channels| Extent::new(1, 1, channels);
        let conv = Convolution { kernel, input: pixel(held), output: pixel(classes), stride: 1, relu: false };
        let macs = self.macs(linear, inputs);
        self.push(name, Op::Head { from, conv, weights }, [macs, 0]);
        Ok(())
    }

    /// A node without weights.
    fn plain(&mut self, node: usize, relu: bool) -> TensorId {
        let (name, shape) = (self.name(node), self.graph.shape(node + 1));
        let inputs = self.node(node).inputs.clone();
        let operation = self.node(node).operation.clone();
        let window = |kernel: [usize; 2], stride: usize, padding: [usize; 4], reduction: Reduction| WindowPool {
            reduction,
            kernel,
            stride,
            padding,
        };
        let pool = match operation {
            Operation::Add => {
                let from = self.read(inputs[1]);
                let to = self.owned(inputs[0], &name, Some(from));
                self.push(name, Op::Add { from, to, relu }, [0; 2]);
                return to;
            }
            Operation::Relu => {
                let y = self.owned(inputs[0], &name, None);
                self.push(name, Op::Relu { y }, [0; 2]);
                return y;
            }
            Operation::MaxPool { kernel, stride, padding } => window(kernel, stride, padding, Reduction::Maximum),
            Operation::AveragePool { kernel, stride, padding, counts_padding } => {
                window(kernel, stride, padding, Reduction::Mean { counts_padding })
            }
            _ => {
                let (from, to) = (self.read(inputs[0]), self.tensor(shape));
                let op = match operation {
                    Operation::Flatten => Op::Flatten { from, to, channels: self.graph.shape(inputs[0])[0] },
                    _ => Op::GlobalPool { from, to },
                };
                self.push(name, op, [0; 2]);
                return to;
            }
        };
        let (from, to) = (self.read(inputs[0]), self.tensor(shape));
        self.push(name, Op::Pool { from, to, pool }, [0; 2]);
        to
    }

    /// The logits, where no head wrote them.
    fn output(&mut self, fused: &[Fused]) {
        if let Some(Fused { kind: Kind::Head { .. }, .. }) = fused.last() {
            return;
        }
        let value = self.graph.nodes().len();
        let from = self.tensors[value].expect("the last node has run");
        self.push("output".to_owned(), Op::Output { from }, [0; 2]);
    }
}

/// The stencil and its weights `[channels, channels of a group, side, side]`, if a convolution in groups is one: as many outputs as inputs,
/// a kernel of 1, 3 or 5 with as much padding as keeps the pixels, small groups.
fn as_stencil(operation: &Operation, inputs: usize, weight: &[f32]) -> Option<(Stencil, Vec<f32>)> {
    let Operation::Conv { outputs, kernel: [rows, columns], stride, padding, dilation: 1, groups, .. } = *operation else {
        return None;
    };
    let is_stencil = groups > 1
        && outputs == inputs
        && GROUP_SIZES.contains(&(inputs / groups))
        && rows == columns
        && [1, 3, 5].contains(&rows)
        && [1, 2, 4].contains(&stride)
        && padding == [(rows - 1) / 2; 4];
    if !is_stencil {
        return None;
    }
    let side = rows.max(3);
    let square = |values: &[f32]| {
        let mut square = vec![0.0; side * side];
        if rows == 1 {
            square[side * side / 2] = values[0];
        } else {
            square.copy_from_slice(values);
        }
        square
    };
    let spatial: Vec<f32> = weight.chunks_exact(rows * rows).flat_map(square).collect();
    let mut used = vec![false; side * side];
    spatial.iter().enumerate().for_each(|(index, value)| used[index % (side * side)] |= *value != 0.0);
    Some((smallest_stencil(&used)?, spatial))
}

/// The kernel `[outputs, inputs, rows, columns]` for all pairs of channels and without gaps between its taps, and its rows and columns.
fn full_kernel(
    weight: &[f32],
    [outputs, inputs]: [usize; 2],
    kernel: [usize; 2],
    dilation: usize,
    groups: usize,
) -> ([usize; 2], Vec<f32>) {
    let [rows, columns] = kernel.map(|taps| (taps - 1) * dilation + 1);
    if dilation == 1 && groups == 1 {
        return (kernel, weight.to_vec());
    }
    let (of_group, taps) = (inputs / groups, kernel[0] * kernel[1]);
    let mut full = vec![0.0; outputs * inputs * rows * columns];
    for (index, value) in weight.iter().enumerate() {
        let (output, member, tap) = (index / (of_group * taps), index / taps % of_group, index % taps);
        let input = output / (outputs / groups) * of_group + member;
        let (row, column) = (tap / kernel[1] * dilation, tap % kernel[1] * dilation);
        full[((output * inputs + input) * rows + row) * columns + column] = *value;
    }
    ([rows, columns], full)
}
