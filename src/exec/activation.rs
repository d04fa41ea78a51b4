//! What the executor does with activations of a type beside convolutions.
#![forbid(unsafe_code)]

use crate::conv::pack::PackedWeights;
use crate::dispatch::Kernels;
use crate::kernel::conv::ConvKernel;
use crate::kernel::element::Element;
use crate::kernel::elementwise::Elementwise;
use crate::stencil::Stencil;

/// A type that activations have in memory between layers.
pub(crate) trait Activation: Element {
    /// The nearest value, to even.
    fn nearest(value: f32) -> Self;

    /// The kernel for lean or depth-wise weights; `None` if the type has none for groups of channels.
    fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel<Self>>;

    /// The kernel for dense weights.
    fn dense(kernels: &Kernels) -> ConvKernel<Self>;

    /// The weights as the type's kernels read them.
    fn packed(weights: PackedWeights) -> PackedWeights<Self>;

    /// One output row of a 2x2 average pool, from the two input rows at 0 and `row`. An odd last pixel is not read.
    fn pool(elementwise: &Elementwise, x: &[Self], row: usize, y: &mut [Self], channels: usize);

    /// The mean of x over its pixels, per channel.
    fn global_pool(elementwise: &Elementwise, x: &[Self], y: &mut [f32]);
}

impl Activation for f32 {
    fn nearest(value: f32) -> f32 {
        value
    }

    fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel> {
        Some(kernels.lean(stencil, group_size))
    }

    fn dense(kernels: &Kernels) -> ConvKernel {
        kernels.dense
    }

    fn packed(weights: PackedWeights) -> PackedWeights {
        weights
    }

    fn pool(elementwise: &Elementwise, x: &[f32], row: usize, y: &mut [f32], channels: usize) {
        elementwise.pool(x, row, y, channels, 0.25);
    }

    fn global_pool(elementwise: &Elementwise, x: &[f32], y: &mut [f32]) {
        let pixels = x.len() / y.len().max(1);
        elementwise.global_pool(x, y, 1.0 / pixels as f32);
    }
}

#[cfg(feature = "bf16")]
mod half_precision {
    use super::{Activation, ConvKernel, Elementwise, Kernels, PackedWeights, Stencil};
    use crate::portable;
    use half::bf16;

    impl Activation for bf16 {
        fn nearest(value: f32) -> bf16 {
            bf16::from_f32(value)
        }

        fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel<bf16>> {
            (group_size == 1).then(|| kernels.bf16.fused(stencil))
        }

        fn dense(kernels: &Kernels) -> ConvKernel<bf16> {
            kernels.bf16.dense
        }

        fn packed(weights: PackedWeights) -> PackedWeights<bf16> {
            weights.to_bf16()
        }

        fn pool(_: &Elementwise, x: &[bf16], row: usize, y: &mut [bf16], channels: usize) {
            portable::bf16::pool(x, row, y, channels);
        }

        fn global_pool(_: &Elementwise, x: &[bf16], y: &mut [f32]) {
            portable::bf16::global_pool(x, y);
        }
    }
}
