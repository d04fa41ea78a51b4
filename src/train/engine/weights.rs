//! The trained weights of one convolution: values, their transpose for the data gradient, gradient, moments, average.
//!
//! Everything stays in the packed layout of the kernels. A flat run of one convolution is [matrix | stencil | bias].
#![forbid(unsafe_code)]

use super::kernel_weights::{KernelWeights, Trained};
use super::layout::{transpose_lean, transpose_phase};
use super::muon::{MuonStep, Workspaces};
use super::rule::{Moments, Rule};
use super::separable::Separated;
use crate::conv::pack::PackedWeights;
use crate::conv::pack::phases::{phase_first, phase_taps};
use crate::dispatch::Kernels;
use crate::error::Result;
use crate::exec::shared::SharedBuffer;
use crate::kernel::conv::ConvKernel;
use crate::kernel::gradient::StencilGradientKernel;
use crate::stencil::Stencil;
use crate::train::{OptimizerConfig, StateKind, update_average};

/// What a convolution is, apart from its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Lean(Stencil),
    /// The stencil first, then the matrix; packed like a lean convolution. `is_shift`: its stencil is fixed.
    Separable {
        stencil: Stencil,
        is_shift: bool,
    },
    Dense {
        side: usize,
        stride: usize,
    },
    /// The linear layer at the end, in f32 whatever the type of activations.
    Linear,
}

impl Kind {
    /// Input pixels from an output pixel to the next.
    pub(crate) fn stride(self) -> usize {
        match self {
            Kind::Lean(_) | Kind::Separable { .. } | Kind::Linear => 1,
            Kind::Dense { stride, .. } => stride,
        }
    }

    /// Side of the kernel of a convolution that reads an image with a border; 1 for those that need none.
    pub(crate) fn side(self) -> usize {
        match self {
            Kind::Lean(_) | Kind::Separable { .. } | Kind::Linear => 1,
            Kind::Dense { side, .. } => side,
        }
    }

    /// The stencil that a flat run of its weights holds.
    pub(crate) fn stencil(self) -> Option<Stencil> {
        match self {
            Kind::Lean(stencil) | Kind::Separable { stencil, .. } => Some(stencil),
            Kind::Dense { .. } | Kind::Linear => None,
        }
    }

    /// True if its stencil never changes.
    pub(crate) fn is_shift(self) -> bool {
        matches!(self, Kind::Separable { is_shift: true, .. })
    }
}

/// The data gradient of a dense convolution at input rows and columns of one phase.
pub(crate) struct Phase<T: Trained> {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// The kernel's rows and columns that reach the phase.
    pub(super) taps: (Vec<usize>, Vec<usize>),
    /// First row and column of the output's gradient that input (row, column) reads; may be negative.
    pub(crate) first: (isize, isize),
    pub(crate) weights: KernelWeights<T>,
}

/// One convolution with everything that training keeps for it.
pub(crate) struct TrainedConvolution<T: Trained> {
    /// Name of the layer, as `stages.0.1.conv2`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Computes its values and, with other weights, its data gradient; of separable ones, those of the stencil.
    pub(crate) kernel: ConvKernel<T>,
    /// Where a stencil is trained.
    pub(crate) stencil_gradient: Option<StencilGradientKernel<T>>,
    pub(crate) inputs: usize,
    /// Input channels of a pixel: those of the convolution, or with more of zeros as many as kernels take.
    pub(crate) pixel: usize,
    /// The same of the outputs.
    pub(crate) output_pixel: usize,
    pub(crate) has_bias: bool,
    pub(crate) values: KernelWeights<T>,
    /// True if the transpose is a layer too: the symmetric form uses its weights twice.
    pub(crate) is_shared: bool,
    /// The values without their bias, for the data gradient of the transpose; only where there is a bias.
    pub(crate) unbiased: Option<KernelWeights<T>>,
    /// The transpose, with which the fused kernel computes the data gradient of a lean convolution.
    pub(crate) transposed: KernelWeights<T>,
    /// What a separable convolution computes with instead: stencil and matrix apart.
    pub(crate) separated: Option<Separated<T>>,
    /// The transpose of a dense convolution, by phases.
    pub(crate) phases: Vec<Phase<T>>,
    /// One flat run: the sum of the partial gradients.
    pub(crate) gradient: SharedBuffer<f32>,
    pub(crate) moments: Moments,
    pub(crate) average: Vec<f32>,
}

impl<T: Trained> TrainedConvolution<T> {
    pub(crate) fn new(
        name: &str,
        kind: Kind,
        (inputs, outputs): (usize, usize),
        has_bias: bool,
        needs_data_gradient: bool,
        kernels: &Kernels,
    ) -> Result<Self> {
        let typed = T::kernels(kernels);
        let kernel = kind.stencil().map_or(typed.dense, |stencil| typed.fused(stencil));
        let together = match kind {
            Kind::Linear => 1,
            // Images have no panels.
            _ if !needs_data_gradient => T::INPUTS_TOGETHER,
            _ => T::CHANNELS_TOGETHER,
        };
        let pixel = inputs.next_multiple_of(together);
        let output_pixel = outputs.next_multiple_of(if kind == Kind::Linear { 1 } else { T::CHANNELS_TOGETHER });
        let trained_stencil = kind.stencil().filter(|_| !kind.is_shift());
        let stencil_gradient = trained_stencil.map(|stencil| typed.stencil_gradient(stencil));
        let (values, transposed) = match kind {
            Kind::Lean(stencil) | Kind::Separable { stencil, .. } => {
                let zeros = || PackedWeights::zeros(Some(stencil), 1, pixel, outputs);
                (zeros(), zeros())
            }
            Kind::Dense { .. } | Kind::Linear => {
                let side = kind.side();
                (PackedWeights::zeros(None, side, side * pixel, outputs), PackedWeights::zeros(None, 0, 0, inputs))
            }
        };
        let separated = match kind {
            Kind::Separable { stencil, .. } => Some(Separated::new(stencil, (pixel, outputs), kernels)),
            Kind::Lean(_) | Kind::Dense { .. } | Kind::Linear => None,
        };
        let weights_of =
            |weights| if kind == Kind::Linear { KernelWeights::single(weights) } else { KernelWeights::new(weights) };
        let mut phases = Vec::new();
        if let Kind::Dense { .. } | Kind::Linear = kind
            && needs_data_gradient
        {
            let (side, stride) = (kind.side(), kind.stride());
            let zeros = vec![0.0; output_pixel * pixel * side * side];
            for (row, column) in (0..stride * stride).map(|phase| (phase / stride, phase % stride)) {
                let weights = PackedWeights::dense_phase((pixel, output_pixel, side, stride), (row, column), &zeros)?;
                let first = (phase_first(side, stride, row), phase_first(side, stride, column));
                let taps = (phase_taps(side, stride, row), phase_taps(side, stride, column));
                phases.push(Phase { row, column, taps, first, weights: weights_of(weights) });
            }
        }
        let length = flat_length(&values);
        Ok(TrainedConvolution {
            name: name.to_string(),
            kind,
            kernel,
            stencil_gradient,
            inputs,
            pixel,
            output_pixel,
            has_bias,
            values: weights_of(values),
            is_shared: false,
            unbiased: None,
            transposed: weights_of(transposed),
            separated,
            phases,
            gradient: SharedBuffer::new(1, length),
            moments: Moments::new(length, &OptimizerConfig::sgd()),
            average: Vec::new(),
        })
    }

    /// Starts an optimiser without memory, and lets the average start at the values.
    pub(crate) fn restart(&mut self, optimizer: &OptimizerConfig, keeps_average: bool) {
        self.moments = Moments::new(flat_length(&self.values), optimizer);
        self.average = if keeps_average { self.flat_values() } else { Vec::new() };
    }

    /// Bytes of weights, gradients and what the optimiser remembers.
    pub(crate) fn bytes(&self) -> usize {
        let phases: usize = self.phases.iter().map(|phase| phase.weights.all_bytes()).sum();
        let unbiased = self.unbiased.as_ref().map_or(0, KernelWeights::all_bytes);
        let separated = self.separated.as_ref().map_or(0, Separated::bytes);
        let packed = self.values.all_bytes() + unbiased + self.transposed.all_bytes() + separated + phases;
        packed + self.gradient.bytes() + self.moments.bytes() + size_of::<f32>() * self.average.len()
    }

    /// Makes the transpose a layer too.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
        self.unbiased = self.has_bias.then(|| KernelWeights::new((*self.values).clone()));
    }

    /// Output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.values.channels
    }

    /// Writes from the values what the kernels read: the values themselves, and the transposes.
    pub(crate) fn refresh(&mut self) {
        self.values.round();
        if let Some(unbiased) = &mut self.unbiased {
            unbiased.matrix.copy_from_slice(&self.values.matrix);
            unbiased.stencil.copy_from_slice(&self.values.stencil);
            unbiased.round();
        }
        match self.kind {
            Kind::Lean(stencil) | Kind::Separable { stencil, .. } => {
                transpose_lean(&self.values, &mut self.transposed, stencil.taps().len());
                self.transposed.round();
                if let Some(separated) = &mut self.separated {
                    separated.set(&self.values, &self.transposed);
                }
            }
            Kind::Dense { .. } | Kind::Linear => {
                for phase in &mut self.phases {
                    transpose_phase(&self.values, phase, (self.inputs, self.pixel, self.output_pixel, self.kind.side()));
                    phase.weights.round();
                }
            }
        }
    }

    /// Adds the first `chunks` partial gradients up, in their order; each is a flat run at the start of a tile.
    pub(crate) fn merge(&self, partial: &SharedBuffer<f32>, chunks: usize, kernels: &Kernels) {
        let mut gradient = self.gradient.write(0..1);
        let length = gradient.len();
        gradient.copy_from_slice(&partial.read(0..1)[..length]);
        for chunk in 1..chunks {
            kernels.f32.elementwise.accumulate(&partial.read(chunk..chunk + 1)[..length], &mut gradient);
        }
    }

    /// The kernel that computes its matrix, and with it most of its multiply-adds.
    pub(crate) fn matrix_kernel(&self, kernels: &Kernels) -> &'static str {
        match &self.separated {
            Some(separated) => separated.dense.name,
            None if self.kind == Kind::Linear => kernels.f32.dense.name,
            None => self.kernel.name,
        }
    }

    /// The kernel that computes the gradient of its matrix.
    pub(crate) fn weight_gradient_kernel(&self, kernels: &Kernels) -> &'static str {
        if self.kind == Kind::Linear { kernels.f32.weight_gradient.name } else { T::kernels(kernels).weight_gradient.name }
    }

    /// Multiply-adds of one output; moving a channel is none.
    pub(crate) fn products(&self) -> usize {
        let taps = self.kind.stencil().filter(|_| !self.kind.is_shift()).map_or(0, |stencil| stencil.taps().len());
        self.kind.side() * self.kind.side() * self.inputs + taps
    }

    /// True for all but the first and the last layer.
    pub(crate) fn is_hidden(&self) -> bool {
        !["stem.conv", "head"].contains(&self.name.as_str())
    }

    /// Rows and columns of the packed matrix: what an output reads, and the outputs.
    pub(crate) fn matrix_shape(&self) -> (usize, usize) {
        (self.values.rows * self.values.row_length, self.values.channels)
    }

    /// One step of the optimiser on all values that are trained; biases have no weight decay. `muon` is for the matrix.
    pub(crate) fn update(
        &mut self,
        kernels: &Kernels,
        rule: &Rule,
        muon: Option<(&MuonStep, &Workspaces)>,
        average_decay: Option<f32>,
    ) {
        let gradient = self.gradient.read(0..1);
        let (matrix, stencil) = (self.values.matrix.len(), self.values.stencil.len());
        let shape = self.matrix_shape();
        let muon = muon.filter(|_| self.is_hidden());
        let without_decay = rule.without_decay();
        let weights = &mut *self.values;
        let parts = [
            (&mut weights.matrix, 0, rule),
            (&mut weights.stencil, matrix, rule),
            (&mut weights.bias, matrix + stencil, &without_decay),
        ];
        for (index, (values, start, rule)) in parts.into_iter().enumerate() {
            let range = start..start + values.len();
            let is_trained = [true, !self.kind.is_shift(), self.has_bias][index];
            if let Some((step, workspaces)) = muon.filter(|_| index == 0)
                && let Some(momentum) = self.moments.of_mut(StateKind::Momentum)
            {
                let matrix = (&gradient[range.clone()], &mut values[..], &mut momentum[range.clone()]);
                workspaces.with(|workspace| step.apply(kernels, matrix, shape, workspace));
            } else if is_trained {
                rule.apply(kernels, &gradient[range.clone()], values, &mut self.moments, start);
            }
            if let Some(decay) = average_decay {
                update_average(&mut self.average[range], values, decay);
            }
        }
        drop(gradient);
        self.refresh();
    }
}

/// Elements of a flat run.
pub(crate) fn flat_length(weights: &PackedWeights) -> usize {
    weights.matrix.len() + weights.stencil.len() + weights.bias.len()
}
