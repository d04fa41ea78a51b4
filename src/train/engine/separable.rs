//! Separable convolutions: a stencil, and then a matrix, with one image of a worker between them.
#![forbid(unsafe_code)]

use super::kernel_weights::{KernelWeights, Trained};
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
pub(crate) struct Separated<T: Trained> {
    /// The kernel of the stencil.
    depthwise: ConvKernel<T>,
    /// The kernel of the matrix.
    pub(crate) dense: ConvKernel<T>,
    spatial: KernelWeights<T>,
    pointwise: KernelWeights<T>,
    spatial_transposed: KernelWeights<T>,
    pointwise_transposed: KernelWeights<T>,
}

impl<T: Trained> Separated<T> {
    pub(crate) fn new(stencil: Stencil, (pixel, channels): (usize, usize), kernels: &Kernels) -> Self {
        let kernels = T::kernels(kernels);
        let spatial = || KernelWeights::new(PackedWeights::zeros(Some(stencil), 1, 0, channels));
        let pointwise = || KernelWeights::new(PackedWeights::zeros(None, 1, pixel, channels));
        Separated {
            depthwise: kernels.fused(stencil),
            dense: kernels.dense,
            spatial: spatial(),
            pointwise: pointwise(),
            spatial_transposed: spatial(),
            pointwise_transposed: pointwise(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        [&self.spatial, &self.pointwise, &self.spatial_transposed, &self.pointwise_transposed]
            .map(KernelWeights::all_bytes)
            .iter()
            .sum()
    }

    /// Takes the weights from those packed like a lean convolution and its transpose.
    pub(crate) fn set(&mut self, values: &PackedWeights, transposed: &PackedWeights) {
        self.spatial.stencil.copy_from_slice(&values.stencil);
        self.pointwise.matrix.copy_from_slice(&values.matrix);
        self.pointwise.bias.copy_from_slice(&values.bias);
        self.spatial_transposed.stencil.copy_from_slice(&transposed.stencil);
        self.pointwise_transposed.matrix.copy_from_slice(&transposed.matrix);
        let Separated { spatial, pointwise, spatial_transposed, pointwise_transposed, .. } = self;
        for weights in [spatial, pointwise, spatial_transposed, pointwise_transposed] {
            weights.round();
        }
    }

    /// What lies between the parts: the stencil of x.
    pub(super) fn stencil(&self, x: &[T], between: &mut [T], extent: Extent) {
        plan(self.depthwise, extent, false).image(self.spatial.read(), x, between, Residual::None, Ahead::default());
    }

    /// y = (residual +) matrix times what lies between.
    pub(super) fn matrix(&self, between: &[T], y: &mut [T], extent: Extent, residual: Residual<'_, T>, relu: bool, ahead: Ahead) {
        plan(self.dense, extent, relu).image(self.pointwise.read(), between, y, residual, ahead);
    }

    /// The transposed matrix times the gradient of y.
    fn matrix_transposed(&self, gradient: &[T], between: &mut [T], extent: Extent) {
        plan(self.dense, extent, false).image(
            self.pointwise_transposed.read(),
            gradient,
            between,
            Residual::None,
            Ahead::default(),
        );
    }

    /// The gradient of x (plus a residual) from that of what lies between.
    pub(super) fn stencil_transposed(&self, between: &[T], y: &mut [T], extent: Extent, residual: Residual<'_, T>, ahead: Ahead) {
        plan(self.depthwise, extent, false).image(self.spatial_transposed.read(), between, y, residual, ahead);
    }
}

/// A convolution from images to images of the same size.
fn plan<T: Trained>(kernel: ConvKernel<T>, extent: Extent, relu: bool) -> Convolution<T> {
    Convolution { kernel, input: extent, output: extent, stride: 1, relu }
}

impl<T: Trained> Step<'_, T> {
    /// The gradient of what lies between the parts of a separable convolution, in memory of the worker; nothing for others.
    pub(super) fn between_gradient(
        &self,
        conv: &TrainedConvolution<T>,
        (gradient, extent): (&[T], Extent),
        visit: Visit,
    ) -> Option<Write<'_, T>> {
        let separated = conv.separated.as_ref()?;
        let mut between = self.memory.scratch(visit.worker, Scratch::BetweenGradient);
        separated.matrix_transposed(gradient, &mut between[..extent.elements()], extent);
        Some(between)
    }
}
