//! A network as training executes it: operators in forward order, each with the tensors it reads and writes.
#![forbid(unsafe_code)]

use super::kernel_weights::Trained;
use super::norm::TrainedNorm;
use super::weights::{Kind, TrainedConvolution};
use crate::dispatch::Kernels;
use crate::error::Result;
use crate::exec::tensor::Extent;
use crate::net::{Block, BlockForm, ConnectionForm, Network, Norm, Operator};

/// Index of a tensor, convolution or norm in its list.
pub(crate) type Id = usize;

/// What a convolution reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Input {
    /// The batch.
    Images,
    /// A tensor as it is.
    Tensor(Id),
    /// relu(norm(tensor)): computed again in the backward pass instead of kept.
    Activated { raw: Id, norm: Id },
    /// A 2x2 average pool of a tensor.
    Pooled(Id),
}

/// Where a convolution's result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    /// Into a tensor whose norm needs all of it first.
    Raw { raw: Id, norm: Id },
    /// to = x + scale * result, then ReLU if asked. `norm` is an identity that holds the scale per channel.
    Sum { norm: Id, x: Id, to: Id, scale: f32, relu: bool },
}

/// One operator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// A convolution, or with `transposed` its transpose (the symmetric form's second use of the same weights).
    Convolve { conv: Id, transposed: bool, input: Input, output: Output },
    /// to = relu(norm(raw)), average-pooled if asked.
    Activate { raw: Id, norm: Id, to: Id, pool: bool },
    /// to = x + scale * norm(raw), then ReLU if asked.
    AddNorm { raw: Id, norm: Id, x: Id, to: Id, scale: f32, relu: bool },
    /// Global average pool and linear layer.
    Head { from: Id, conv: Id },
}

/// A tensor that lives from the forward to the backward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphTensor {
    pub(crate) extent: Extent,
    /// The stage whose gradient buffer carries this tensor's gradient.
    pub(crate) stage: usize,
}

/// Operators, tensors, weights and norms of a network.
pub(crate) struct Graph<T: Trained> {
    pub(crate) ops: Vec<Op>,
    pub(crate) tensors: Vec<GraphTensor>,
    pub(crate) convolutions: Vec<TrainedConvolution<T>>,
    pub(crate) norms: Vec<TrainedNorm>,
}

impl<T: Trained> Graph<T> {
    /// The graph of a network on the kernels that train it.
    pub(crate) fn new(network: &Network, kernels: &Kernels) -> Result<Self> {
        let graph = Graph { ops: Vec::new(), tensors: Vec::new(), convolutions: Vec::new(), norms: Vec::new() };
        Builder { network, kernels, graph }.run()
    }

    /// True for the convolution of the stem or of a connection.
    pub(crate) fn enters_stage(&self, op: &Op) -> bool {
        match *op {
            Op::Convolve { input: Input::Images | Input::Pooled(_), .. } => true,
            Op::Convolve { input: Input::Tensor(from), output: Output::Raw { raw, .. }, .. } => {
                self.tensors[from].stage != self.tensors[raw].stage
            }
            _ => false,
        }
    }

    /// The operator that computes a tensor before a norm.
    pub(crate) fn producer(&self, raw: Id) -> Option<usize> {
        self.ops
            .iter()
            .position(|op| matches!(op, Op::Convolve { output: Output::Raw { raw: result, .. }, .. } if *result == raw))
    }
}

/// Channels that a tensor has for so many: those of a type come in groups.
fn taken<T: Trained>(channels: usize) -> usize {
    channels.next_multiple_of(T::CHANNELS_TOGETHER)
}

struct Builder<'a, T: Trained> {
    network: &'a Network,
    kernels: &'a Kernels,
    graph: Graph<T>,
}

impl<T: Trained> Builder<'_, T> {
    fn run(mut self) -> Result<Graph<T>> {
        let sizes = self.network.stage_sizes();
        let stages = self.network.stages();
        let mut x = self.stem(sizes[0], stages[0].width)?;
        let mut width = stages[0].width;
        for (index, stage) in stages.iter().enumerate() {
            if index > 0 {
                x = self.connection(index, x, sizes[index], (width, stage.width))?;
                width = stage.width;
            }
            for block in 0..stage.blocks {
                x = self.block(&format!("stages.{index}.{block}"), &stage.block, x, width)?;
            }
        }
        let conv = self.convolution("head", Kind::Linear, (width, self.network.classes()), true, true)?;
        self.graph.ops.push(Op::Head { from: x, conv });
        Ok(self.graph)
    }

    fn tensor_of(&self, id: Id) -> GraphTensor {
        self.graph.tensors[id]
    }

    fn tensor(&mut self, extent: Extent, stage: usize) -> Id {
        self.graph.tensors.push(GraphTensor { extent, stage });
        self.graph.tensors.len() - 1
    }

    fn convolution(
        &mut self,
        name: &str,
        kind: Kind,
        channels: (usize, usize),
        bias: bool,
        needs_data_gradient: bool,
    ) -> Result<Id> {
        let conv = TrainedConvolution::new(name, kind, channels, bias, needs_data_gradient, self.kernels)?;
        self.graph.convolutions.push(conv);
        Ok(self.graph.convolutions.len() - 1)
    }

    fn norm(&mut self, name: &str, kind: Norm, channels: usize) -> Id {
        self.branch_norm(name, kind, channels, 1.0)
    }

    /// A norm before a sum that takes it `scale` times.
    fn branch_norm(&mut self, name: &str, kind: Norm, channels: usize, scale: f32) -> Id {
        let (epsilon, momentum) = (self.network.norm_epsilon(), self.network.norm_momentum());
        self.graph.norms.push(TrainedNorm::new(
            name,
            kind == Norm::Batch,
            (channels, taken::<T>(channels)),
            (epsilon, momentum),
            scale,
        ));
        self.graph.norms.len() - 1
    }

    fn stem(&mut self, [height, width]: [usize; 2], outputs: usize) -> Result<Id> {
        let stem = self.network.stem();
        let extent = Extent::new(height, width, taken::<T>(outputs));
        let kind = Kind::Dense { side: stem.kernel, stride: stem.stride };
        let conv = self.convolution("stem.conv", kind, (self.network.input()[0], outputs), stem.bias, false)?;
        let norm = self.norm("stem.norm", stem.norm, outputs);
        let (raw, to) = (self.tensor(extent, 0), self.tensor(extent, 0));
        self.graph.ops.push(Op::Convolve { conv, transposed: false, input: Input::Images, output: Output::Raw { raw, norm } });
        self.graph.ops.push(Op::Activate { raw, norm, to, pool: false });
        Ok(to)
    }

    fn connection(&mut self, stage: usize, x: Id, [height, width]: [usize; 2], (inputs, outputs): (usize, usize)) -> Result<Id> {
        let (connection, from) = (self.network.connection(), self.tensor_of(x).extent);
        let name = format!("connections.{}", stage - 1);
        let stride = if connection.form == ConnectionForm::StridedConv { 2 } else { 1 };
        let kind = Kind::Dense { side: connection.form.kernel(), stride };
        let conv = self.convolution(&format!("{name}.conv"), kind, (inputs, outputs), connection.bias, true)?;
        let norm = self.norm(&format!("{name}.norm"), connection.norm, outputs);
        let extent = Extent::new(height, width, taken::<T>(outputs));
        let pool_last = connection.form == ConnectionForm::ConvPool;
        let raw_extent = if pool_last { Extent { channels: extent.channels, ..from } } else { extent };
        let raw = self.tensor(raw_extent, stage);
        let to = self.tensor(extent, stage);
        let input = if connection.form == ConnectionForm::PoolConv { Input::Pooled(x) } else { Input::Tensor(x) };
        self.graph.ops.push(Op::Convolve { conv, transposed: false, input, output: Output::Raw { raw, norm } });
        self.graph.ops.push(Op::Activate { raw, norm, to, pool: pool_last });
        Ok(to)
    }

    fn block(&mut self, name: &str, block: &Block, x: Id, width: usize) -> Result<Id> {
        let GraphTensor { extent, stage } = self.tensor_of(x);
        let kind = |index: usize| match (block.operator, block.stencil_of(index)) {
            (_, None) => Kind::Dense { side: 3, stride: 1 },
            (Operator::Lean | Operator::Dense, Some(stencil)) => Kind::Lean(stencil),
            (operator, Some(stencil)) => Kind::Separable { stencil, is_shift: operator == Operator::Shift },
        };
        let norm_kind = |index: usize| if block.norms >= index { block.norm } else { Norm::None };
        let first = self.convolution(&format!("{name}.conv1"), kind(0), (width, width), block.bias, true)?;
        let norm1 = self.norm(&format!("{name}.norm1"), norm_kind(1), width);
        let middle = self.tensor(extent, stage);
        self.graph.ops.push(Op::Convolve {
            conv: first,
            transposed: false,
            input: Input::Tensor(x),
            output: Output::Raw { raw: middle, norm: norm1 },
        });
        let (conv, transposed, scale) = match block.form {
            BlockForm::Residual => {
                (self.convolution(&format!("{name}.conv2"), kind(1), (width, width), block.bias, true)?, false, block.scale)
            }
            BlockForm::Symmetric => (first, true, -block.scale),
        };
        if transposed {
            self.graph.convolutions[conv].share();
        }
        let (input, relu) = (Input::Activated { raw: middle, norm: norm1 }, block.relu_after_sum);
        let norm = self.branch_norm(&format!("{name}.norm2"), norm_kind(2), width, scale);
        if block.norms == 2 {
            let raw = self.tensor(extent, stage);
            let to = self.tensor(extent, stage);
            self.graph.ops.push(Op::Convolve { conv, transposed, input, output: Output::Raw { raw, norm } });
            self.graph.ops.push(Op::AddNorm { raw, norm, x, to, scale, relu });
            return Ok(to);
        }
        let to = self.tensor(extent, stage);
        self.graph.ops.push(Op::Convolve { conv, transposed, input, output: Output::Sum { norm, x, to, scale, relu } });
        Ok(to)
    }
}
