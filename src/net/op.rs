//! The operators of a plan.
#![forbid(unsafe_code)]

use crate::conv::pack::PackedWeights;
use crate::exec::activation::Activation;
use crate::exec::segment::{Convolution, InPlaceBlock, PooledConvolution};
use crate::exec::window_pool::WindowPool;

/// A tensor of the plan: an index of [`Plan::tensors`](super::plan::Plan::tensors).
pub(crate) type TensorId = usize;

/// One operator.
pub(crate) enum Op<T> {
    /// Images into the inside of a tensor.
    Load { to: TensorId },
    /// An image into the inside of a larger one, or one as large; its first pixel goes to this row and column, borders included.
    Pad { from: TensorId, to: TensorId, at: [usize; 2] },
    /// to (+)= convolution of from.
    Convolve { from: TensorId, to: TensorId, conv: Convolution<T>, weights: PackedWeights<T>, add_to_output: bool },
    /// y += second(first(y)), two lean convolutions; `middle` holds what lies between when they run apart.
    Block { y: TensorId, middle: TensorId, block: InPlaceBlock<T>, weights: Box<[PackedWeights<T>; 2]> },
    /// 2x2 average pool and 1x1 convolution, in the order that the network says.
    PooledConvolve { from: TensorId, to: TensorId, pair: PooledConvolution<T>, weights: PackedWeights<T> },
    /// Maximum or mean over windows.
    Pool { from: TensorId, to: TensorId, pool: WindowPool },
    /// Global average pool into an image of one pixel.
    GlobalPool { from: TensorId, to: TensorId },
    /// All values of the first so many channels as channels of one pixel, a channel after the other.
    Flatten { from: TensorId, to: TensorId, channels: usize },
    /// to += from, with a ReLU or without.
    Add { from: TensorId, to: TensorId, relu: bool },
    /// ReLU in place.
    Relu { y: TensorId },
    /// Global average pool and linear layer, in f32, into the logits; the extents are those of one image's pixel.
    Head { from: TensorId, conv: Convolution, weights: PackedWeights },
    /// An image of one pixel into the logits.
    Output { from: TensorId },
}

/// An operator with the name of its layer, which no other step has.
pub(crate) struct Step<T> {
    pub(crate) name: String,
    pub(crate) op: Op<T>,
    /// Multiply-adds for an image, of a block's convolutions each, as the network states them: folding may have saved some, moving a
    /// channel is none, and channels that are there for the kernels' sake do not count.
    pub(crate) macs: [u64; 2],
}

impl<T: Activation> Op<T> {
    /// The tensor that holds the result; none of those that write logits.
    pub(crate) fn output(&self) -> Option<TensorId> {
        match *self {
            Op::Load { to }
            | Op::Pad { to, .. }
            | Op::Convolve { to, .. }
            | Op::PooledConvolve { to, .. }
            | Op::Pool { to, .. }
            | Op::GlobalPool { to, .. }
            | Op::Flatten { to, .. }
            | Op::Add { to, .. }
            | Op::Block { y: to, .. }
            | Op::Relu { y: to } => Some(to),
            Op::Head { .. } | Op::Output { .. } => None,
        }
    }

    /// The tensors that are read or written.
    pub(crate) fn tensors_mut(&mut self) -> Vec<&mut TensorId> {
        match self {
            Op::Load { to: tensor } | Op::Relu { y: tensor } | Op::Head { from: tensor, .. } | Op::Output { from: tensor } => {
                vec![tensor]
            }
            Op::Block { y: from, middle: to, .. }
            | Op::Pad { from, to, .. }
            | Op::Convolve { from, to, .. }
            | Op::PooledConvolve { from, to, .. }
            | Op::Pool { from, to, .. }
            | Op::GlobalPool { from, to }
            | Op::Flatten { from, to, .. }
            | Op::Add { from, to, .. } => vec![from, to],
        }
    }

    /// Bytes of packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        match self {
            Op::Convolve { weights, .. } | Op::PooledConvolve { weights, .. } => weights.bytes(),
            Op::Block { weights, .. } => weights.iter().map(PackedWeights::bytes).sum(),
            Op::Head { weights, .. } => weights.bytes(),
            _ => 0,
        }
    }
}
