//! What a convolution is, apart from its weights and the size of its images.
#![forbid(unsafe_code)]

use crate::conv::pack::{self, PackedWeights, check_groups};
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::stencil::Stencil;

/// The kind of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvOperator {
    /// A stencil plus a 1x1 convolution of the same input.
    Lean(Stencil),
    /// The stencil alone.
    Depthwise(Stencil),
    /// A square kernel of this side (1, 3 or 7) over all channels.
    Dense(usize),
}

/// A convolution without its weights. Plain data: [`ConvPlan::new`](super::ConvPlan::new) checks it.
///
/// ```
/// use leanresnet::Stencil;
/// use leanresnet::conv::ConvDesc;
///
/// let lean = ConvDesc::lean(64, Stencil::Box9).with_relu(true);
/// let stem = ConvDesc::dense(3, 64, 7).with_stride(4);
/// assert_eq!((lean.inputs, lean.outputs, stem.inputs, stem.outputs), (64, 64, 3, 64));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConvDesc {
    /// The kind of convolution.
    pub operator: ConvOperator,
    /// Input channels; at least 1.
    pub inputs: usize,
    /// Output channels; at least 1, and those of the input unless the operator is dense.
    pub outputs: usize,
    /// Channels that a tap of the stencil reads: 1, the default, is a depth-wise stencil; 2, 4, 8, 16 or 32 a divisor of the channels.
    pub group_size: usize,
    /// Input pixels from an output pixel to the next, in both directions: 1, 2 or 4. Default 1.
    pub stride: usize,
    /// ReLU at the end, which keeps NaN. Default false.
    pub relu: bool,
    /// Adds another tensor of the output's shape before the ReLU. Default false.
    pub residual: bool,
    /// The instruction set; `None`, the default, is [`Isa::active`].
    pub isa: Option<Isa>,
}

impl ConvDesc {
    /// A lean convolution of `channels` channels.
    pub fn lean(channels: usize, stencil: Stencil) -> Self {
        Self::new(ConvOperator::Lean(stencil), channels, channels)
    }

    /// A depth-wise convolution of `channels` channels: the stencil of a lean one without its 1x1 part.
    pub fn depthwise(channels: usize, stencil: Stencil) -> Self {
        Self::new(ConvOperator::Depthwise(stencil), channels, channels)
    }

    /// A dense convolution from `inputs` to `outputs` channels with a `kernel` x `kernel` kernel and padding (`kernel` - 1) / 2.
    pub fn dense(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self::new(ConvOperator::Dense(kernel), inputs, outputs)
    }

    fn new(operator: ConvOperator, inputs: usize, outputs: usize) -> Self {
        ConvDesc { operator, inputs, outputs, group_size: 1, stride: 1, relu: false, residual: false, isa: None }
    }

    /// The same with or without a ReLU at the end.
    #[must_use]
    pub fn with_relu(mut self, relu: bool) -> Self {
        self.relu = relu;
        self
    }

    /// The same with or without a residual.
    #[must_use]
    pub fn with_residual(mut self, residual: bool) -> Self {
        self.residual = residual;
        self
    }

    /// The same with a stencil whose taps read groups of channels.
    #[must_use]
    pub fn with_group_size(mut self, group_size: usize) -> Self {
        self.group_size = group_size;
        self
    }

    /// The same with another stride.
    #[must_use]
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// The same on a given instruction set.
    #[must_use]
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Side of a dense kernel; 1 for the matrix of a lean convolution.
    pub(super) fn kernel(&self) -> usize {
        match self.operator {
            ConvOperator::Lean(_) | ConvOperator::Depthwise(_) => 1,
            ConvOperator::Dense(kernel) => kernel,
        }
    }

    /// Checks everything but the instruction set and whether the stencil has kernels.
    pub(super) fn validate(&self) -> Result<()> {
        for (what, channels) in [("input channels", self.inputs), ("output channels", self.outputs)] {
            if channels == 0 {
                return Err(Error::invalid(what, "at least 1", 0));
            }
        }
        let name = match self.operator {
            ConvOperator::Lean(_) => "lean",
            ConvOperator::Depthwise(_) => "depth-wise",
            ConvOperator::Dense(_) => "dense",
        };
        match self.operator {
            ConvOperator::Lean(_) | ConvOperator::Depthwise(_) if self.outputs != self.inputs => {
                let what = format!("output channels of a {name} convolution");
                Err(Error::invalid(what, format!("{}, as inputs", self.inputs), self.outputs))
            }
            ConvOperator::Dense(kernel) if ![1, 3, 7].contains(&kernel) => {
                Err(Error::invalid("kernel of a dense convolution", "1, 3 or 7", kernel))
            }
            ConvOperator::Dense(_) if self.group_size != 1 => {
                Err(Error::invalid("group size of a dense convolution", "1", self.group_size))
            }
            _ if ![1, 2, 4].contains(&self.stride) => {
                Err(Error::invalid(format!("stride of a {name} convolution"), "1, 2 or 4", self.stride))
            }
            _ => check_groups(self.group_size, self.inputs),
        }
    }

    /// Checks that weights were packed for this convolution.
    pub(super) fn check_weights(&self, weights: &PackedWeights) -> Result<()> {
        let (spatial, row_length) = match self.operator {
            ConvOperator::Lean(stencil) => (Some((stencil, self.group_size)), self.inputs),
            ConvOperator::Depthwise(stencil) => (Some((stencil, self.group_size)), 0),
            ConvOperator::Dense(kernel) => (None, kernel.saturating_mul(self.inputs)),
        };
        let expected = (spatial, self.kernel(), row_length, self.outputs);
        let got = (weights.spatial(), weights.rows, weights.row_length, weights.channels);
        if expected == got {
            return Ok(());
        }
        let describe = |(spatial, rows, length, channels)| pack::describe(spatial, rows, length, channels);
        Err(Error::invalid("packed weights", describe(expected), describe(got)))
    }
}
