//! Separable convolutions: a stencil, and then a matrix, with one image of a worker between them.
#![forbid(unsafe_code)]

use super::memory::Scratch;
use super::step::Step;
use super::visit::Visit;
use super::weights::TrainedConvolution;
use crate::conv::pack::PackedWeights;
use crate::dispatch::Kernels;
use crate::exec::segment::Convolution;
use crate::exec::shared::Write;
use crate::exec::tensor::Extent;
use crate::kernel::conv::ConvKernel;
use crate::kernel::rows::Residual;
use crate::kernel::upcoming::Ahead;
use crate::stencil::Stencil;

/// The two parts of a separable convolution and their transposes, each as weights of its own.
pub(crate) struct Separated {
    /// The kernel of the stencil.
    depthwise: ConvKernel,
    /// The kernel of the matrix.
    pub(crate) dense: ConvKernel,
    spatial: PackedWeights,
    pointwise: PackedWeights,
    spatial_transposed: PackedWeights,
    pointwise_transposed: PackedWeights,
}

impl Separated {
    pub(crate) fn new(stencil: Stencil, channels: usize, kernels: &Kernels) -> Self {
        let spatial = || PackedWeights::zeros(Some(stencil), 1, 0, channels);
        let pointwise = || PackedWeights::zeros(None, 1, channels, channels);
        Separated {
            depthwise: kernels.f32.fused(stencil),
            dense: kernels.f32.dense,
            spatial: spatial(),
            pointwise: pointwise(),
            spatial_transposed: spatial(),
            pointwise_transposed: pointwise(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.spatial.bytes() + self.pointwise.bytes() + self.spatial_transposed.bytes() + self.pointwise_transposed.bytes()
    }

    /// Takes the weights from those packed like a lean convolution and its transpose.
    pub(crate) fn set(&mut self, values: &PackedWeights, transposed: &PackedWeights) {
        self.spatial.stencil.copy_from_slice(&values.stencil);
        self.pointwise.matrix.copy_from_slice(&values.matrix);
        self.pointwise.bias.copy_from_slice(&values.bias);
        self.spatial_transposed.stencil.copy_from_slice(&transposed.stencil);
        self.pointwise_transposed.matrix.copy_from_slice(&transposed.matrix);
    }

    /// What lies between the parts: the stencil of x.
    pub(super) fn stencil(&self, x: &[f32], between: &mut [f32], extent: Extent) {
        plan(self.depthwise, extent, false).image(&self.spatial, x, between, Residual::None, Ahead::default());
    }

    /// y = (residual +) matrix times what lies between.
    pub(super) fn matrix(
        &self,
        between: &[f32],
        y: &mut [f32],
        extent: Extent,
        residual: Residual<'_>,
        relu: bool,
        ahead: Ahead,
    ) {
        plan(self.dense, extent, relu).image(&self.pointwise, between, y, residual, ahead);
    }

    /// The transposed matrix times the gradient of y.
    fn matrix_transposed(&self, gradient: &[f32], between: &mut [f32], extent: Extent) {
        plan(self.dense, extent, false).image(&self.pointwise_transposed, gradient, between, Residual::None, Ahead::default());
    }

    /// The gradient of x (plus a residual) from that of what lies between.
    pub(super) fn stencil_transposed(
        &self,
        between: &[f32],
        y: &mut [f32],
        extent: Extent,
        residual: Residual<'_>,
        ahead: Ahead,
    ) {
        plan(self.depthwise, extent, false).image(&self.spatial_transposed, between, y, residual, ahead);
    }
}

/// A convolution from images to images of the same size.
fn plan(kernel: ConvKernel, extent: Extent, relu: bool) -> Convolution {
    Convolution { kernel, input: extent, output: extent, stride: 1, relu }
}

impl Step<'_> {
    /// The gradient of what lies between the parts of a separable convolution, in memory of the worker; nothing for others.
    pub(super) fn between_gradient(
        &self,
        conv: &TrainedConvolution,
        (gradient, extent): (&[f32], Extent),
        visit: Visit,
    ) -> Option<Write<'_, f32>> {
        let separated = conv.separated.as_ref()?;
        let mut between = self.memory.scratch(visit.worker, Scratch::BetweenGradient);
        separated.matrix_transposed(gradient, &mut between[..extent.elements()], extent);
        Some(between)
    }
}
