//! The parts of a network: stem, blocks, connections, and the words that describe them.
#![forbid(unsafe_code)]

use crate::named_enum::named_enum;
use crate::stencil::Stencil;

named_enum! {
    /// Pooling after the stem's convolution.
    StemPool, "network.stem.pool" {
        /// No pooling.
        None = "none",
        /// Maximum over 3x3 with stride 2 and padding 1.
        Max3 = "max3",
    }
}

named_enum! {
    /// Normalisation after a convolution.
    Norm, "norm" {
        /// Batch norm (Ioffe and Szegedy 2015).
        Batch = "batch",
        /// Total-variation norm over the channels of a pixel, with an affine map per channel.
        Tv = "tv",
        /// No normalisation.
        None = "none",
    }
}

named_enum! {
    /// The formula of a block with input y; L1, L2 are its convolutions, N1, N2 its norms, h its scale.
    BlockForm, "network.block.form" {
        /// y + h N2 L2 relu(N1 L1 y).
        Residual = "residual",
        /// y - h N2 L1' relu(N1 L1 y), where L1' is the transpose of L1 and shares its weights.
        Symmetric = "symmetric",
    }
}

named_enum! {
    /// The convolutions of a block.
    Operator, "network.block.operator" {
        /// A depth-wise stencil and a 1x1 convolution of the same input, summed.
        Lean = "lean",
        /// A full 3x3 convolution.
        Dense = "dense",
        /// A depth-wise stencil followed by a 1x1 convolution (Howard et al. 2017, without norm and `ReLU` between them).
        Separable = "separable",
        /// A fixed shift of each channel by at most one pixel, and then a 1x1 convolution (Wu et al. 2018). Channel c of a new model comes
        /// from the neighbour c mod 9, row by row from the north-west.
        Shift = "shift",
    }
}

named_enum! {
    /// How one stage is connected to the next: half the resolution, another width, norm, ReLU.
    ConnectionForm, "network.connection.form" {
        /// Average pool 2x2, 1x1 convolution, norm, ReLU.
        PoolConv = "pool-conv",
        /// 1x1 convolution, norm, ReLU, average pool 2x2.
        ConvPool = "conv-pool",
        /// 3x3 convolution with stride 2, norm, ReLU.
        StridedConv = "strided-conv",
    }
}

/// The first layers of a network: convolution with padding `(kernel - 1) / 2`, norm, ReLU, pooling.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stem {
    /// Side of the kernel in pixels: 1, 3 or 7. Default 3.
    pub kernel: usize,
    /// Stride in pixels: 1, 2 or 4. Default 1.
    pub stride: usize,
    /// Pooling at the end. Default none.
    pub pool: StemPool,
    /// Normalisation after the convolution. Default batch.
    pub norm: Norm,
    /// Whether the convolution has a bias. Default false.
    pub bias: bool,
}

impl Default for Stem {
    fn default() -> Self {
        Self { kernel: 3, stride: 1, pool: StemPool::None, norm: Norm::Batch, bias: false }
    }
}

/// The residual blocks of a stage.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// The formula. Default residual.
    pub form: BlockForm,
    /// The convolutions. Default lean.
    pub operator: Operator,
    /// The stencil of the first and of the second convolution. Default cross5 for both.
    pub stencils: [Stencil; 2],
    /// Channels per group of the spatial part. Default 1 (depth-wise).
    pub group_size: usize,
    /// The kind of the norms. Default batch.
    pub norm: Norm,
    /// 0, 1 (after the first convolution) or 2 (also after the second). Default 1.
    pub norms: usize,
    /// Whether a ReLU follows the sum. Default false.
    pub relu_after_sum: bool,
    /// The factor h. Default 1.
    pub scale: f32,
    /// Whether the convolutions have biases. Default false; in configuration files true where `norms = 0`.
    pub bias: bool,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            form: BlockForm::Residual,
            operator: Operator::Lean,
            stencils: [Stencil::Cross5; 2],
            group_size: 1,
            norm: Norm::Batch,
            norms: 1,
            relu_after_sum: false,
            scale: 1.0,
            bias: false,
        }
    }
}

/// The layers between two stages.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// Which layers, in which order. Default pool-conv.
    pub form: ConnectionForm,
    /// Normalisation after the convolution. Default batch.
    pub norm: Norm,
    /// Whether the convolution has a bias. Default false.
    pub bias: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self { form: ConnectionForm::PoolConv, norm: Norm::Batch, bias: false }
    }
}

/// Equal blocks at one resolution and width.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stage {
    /// Number of channels.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// What each block is: the network's block with the stage's own overrides applied.
    pub block: Block,
}

/// Defines `with_*` methods that set one public field each.
macro_rules! with_fields {
    ($type:ident { $($method:ident: $field:ident: $field_type:ty,)+ }) => {
        impl $type {
            $(
                #[doc = concat!("The same with another `", stringify!($field), "`.")]
                #[must_use]
                pub fn $method(mut self, $field: $field_type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

with_fields!(Stem {
    with_kernel: kernel: usize,
    with_stride: stride: usize,
    with_pool: pool: StemPool,
    with_norm: norm: Norm,
    with_bias: bias: bool,
});
with_fields!(Block {
    with_form: form: BlockForm,
    with_operator: operator: Operator,
    with_stencils: stencils: [Stencil; 2],
    with_group_size: group_size: usize,
    with_norm: norm: Norm,
    with_norms: norms: usize,
    with_relu_after_sum: relu_after_sum: bool,
    with_scale: scale: f32,
    with_bias: bias: bool,
});
with_fields!(Connection {
    with_form: form: ConnectionForm,
    with_norm: norm: Norm,
    with_bias: bias: bool,
});

impl Block {
    /// Multiply-adds of one output of each convolution of a block of this width.
    pub(crate) fn products(&self, width: usize) -> [usize; 2] {
        match self.operator {
            Operator::Dense => [9 * width; 2],
            Operator::Lean | Operator::Separable => self.stencils.map(|stencil| width + self.group_size * stencil.taps().len()),
            Operator::Shift => [width; 2],
        }
    }

    /// The stencil that the spatial part of convolution `index` is stored with; none for dense convolutions.
    pub(crate) fn stencil_of(&self, index: usize) -> Option<Stencil> {
        match self.operator {
            Operator::Dense => None,
            Operator::Lean | Operator::Separable => Some(self.stencils[index]),
            Operator::Shift => Some(Stencil::Box9),
        }
    }

    /// The same with `stencil` in both convolutions.
    #[must_use]
    pub fn with_stencil(self, stencil: Stencil) -> Self {
        self.with_stencils([stencil; 2])
    }

    /// Number of convolutions with weights of their own: the symmetric form has one, used twice.
    pub fn convolutions(&self) -> usize {
        match self.form {
            BlockForm::Residual => 2,
            BlockForm::Symmetric => 1,
        }
    }
}

impl Operator {
    /// Whether the block's stencil means anything to this operator.
    pub fn has_stencil(self) -> bool {
        matches!(self, Operator::Lean | Operator::Separable)
    }
}

impl ConnectionForm {
    /// Side of the convolution's kernel in pixels.
    pub fn kernel(self) -> usize {
        if self == ConnectionForm::StridedConv { 3 } else { 1 }
    }

    /// Height and width after a connection from `[height, width]`.
    pub fn output_size(self, size: [usize; 2]) -> [usize; 2] {
        match self {
            ConnectionForm::PoolConv | ConnectionForm::ConvPool => size.map(|extent| extent / 2),
            ConnectionForm::StridedConv => size.map(|extent| extent.div_ceil(2)),
        }
    }
}

impl Stem {
    /// Height and width after the stem for an input of `[height, width]`, each at least 1.
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        // The padding (k - 1) / 2 of an odd kernel makes floor((H + 2 pad - k) / stride) + 1 equal to ceil(H / stride).
        let convolved = size.map(|extent| extent.div_ceil(self.stride));
        match self.pool {
            StemPool::None => convolved,
            StemPool::Max3 => convolved.map(|extent| extent.div_ceil(2)),
        }
    }
}
