//! What the executor does with activations of a type.
#![forbid(unsafe_code)]

use crate::conv::pack::PackedWeights;
use crate::dispatch::Kernels;
use crate::kernel::conv::ConvKernel;
use crate::kernel::element::Element;
use crate::stencil::Stencil;

/// A type that activations have in memory between layers.
pub(crate) trait Activation: Element {
    /// The kernel for lean or depth-wise weights; `None` if the type has none for groups of channels.
    fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel<Self>>;

    /// The weights as a kernel of the type reads them.
    fn packed(kernel: &ConvKernel<Self>, weights: PackedWeights) -> PackedWeights<Self>;
}

impl Activation for f32 {
    fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel> {
        Some(kernels.lean(stencil, group_size))
    }

    fn packed(kernel: &ConvKernel, weights: PackedWeights) -> PackedWeights {
        kernel.packed(weights)
    }
}

#[cfg(feature = "bf16")]
impl Activation for half::bf16 {
    fn lean(kernels: &Kernels, stencil: Stencil, group_size: usize) -> Option<ConvKernel<half::bf16>> {
        (group_size == 1).then(|| kernels.bf16.fused(stencil))
    }

    fn packed(_: &ConvKernel<half::bf16>, weights: PackedWeights) -> PackedWeights<half::bf16> {
        weights.to_bf16()
    }
}
