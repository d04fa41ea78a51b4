//! [`Executor`] for a [`Network`].
#![forbid(unsafe_code)]

use super::typed_executor::{TypedExecutor, TypedNetworkExecutor};
use crate::data::SoftLabel;
#[cfg(not(feature = "bf16"))]
use crate::error::Error;
use crate::error::Result;
use crate::exec::pool::Pool;
use crate::isa::Isa;
use crate::net::{LayerTiming, Model, Network};
use crate::train::loss::StepLoss;
use crate::train::{Dtype, Executor, GradientVisitor, StateKind, StateVisitor, TrainConfig, Update};

/// Trains a network on the threads of a pool. Same bits for any number of threads and, in f32, any instruction set with fused
/// multiply-add.
///
/// With [`Dtype::Bf16`], activations, their gradients, and the matrices that convolutions read are bf16; weights, their gradients, stencils,
/// the linear layer at the end, and all sums are f32, and evaluation is in f32.
pub struct NetworkExecutor {
    executor: Box<dyn TypedNetworkExecutor>,
}

impl NetworkExecutor {
    /// An executor with the initial weights of `config.seed`, the same as [`Model::random`].
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for numbers of the optimiser that make no sense or a network that cannot be trained, [`Error::Isa`](crate::Error::Isa) for an instruction set that cannot run here.
    /// [`Error::Invalid`](crate::Error::Invalid) for bf16 in a build without the feature `bf16`.
    pub fn new(network: &Network, config: &TrainConfig, pool: Pool, isa: Isa) -> Result<Self> {
        let executor: Box<dyn TypedNetworkExecutor> = match config.dtype {
            Dtype::F32 => Box::new(TypedExecutor::<f32>::new(network, config, pool, isa)?),
            #[cfg(feature = "bf16")]
            Dtype::Bf16 => Box::new(TypedExecutor::<half::bf16>::new(network, config, pool, isa)?),
            #[cfg(not(feature = "bf16"))]
            Dtype::Bf16 => return Err(without_bf16()),
        };
        Ok(NetworkExecutor { executor })
    }

    /// Replaces weights and running statistics by those of a model of the same network; the optimiser's memory and the moving average
    /// start again.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if a tensor is missing or has another shape.
    pub fn set_model(&mut self, model: &Model) -> Result<()> {
        self.executor.set_model(model)
    }

    /// Calls `visit` with name, shape and values of the gradient of every trained tensor: that of the mean loss over the last batch
    /// of [`Executor::forward_backward`], before clipping and weight decay; zeros before the first one.
    ///
    /// Names and shapes are those of model files; the values of stencils are 0 outside of the stencil.
    pub fn visit_gradients(&self, visit: &mut GradientVisitor<'_>) {
        self.executor.visit_gradients(visit);
    }

    /// Keeps the time of every part of every layer from now on, for [`NetworkExecutor::timings`]; costs a step of
    /// `small` about a hundredth.
    #[must_use]
    pub fn with_timing(mut self) -> Self {
        self.executor.start_timing();
        self
    }

    /// Where the time of the steps went: an entry for every part of a layer that took time. `input`, `forward` and `statistics` are the
    /// forward pass; `gradient` (through the norm behind a convolution), `input again`, `weights`, `data` and `sums` (through ReLU, for the
    /// norm before a convolution) the backward pass; `norms`, `loss`, `merge` (of partial gradients) and `update` belong to no layer. What is
    /// computed again ([`Recompute`](crate::train::Recompute)) adds to the time of the forward parts, not to their multiply-adds.
    /// Empty without [`NetworkExecutor::with_timing`].
    pub fn timings(&self) -> Vec<LayerTiming> {
        self.executor.timings()
    }

    /// Forgets the times so far.
    pub fn reset_timings(&mut self) {
        self.executor.reset_timings();
    }

    /// The kernels behind every convolution: layer, and those of its output (of a separable one, stencil and matrix), of the gradient of its
    /// matrix and, for a lean or separable one, of the gradient of its stencil.
    pub fn kernels(&self) -> Vec<(String, Vec<&'static str>)> {
        self.executor.kernels()
    }

    /// Bytes that training with `threads` threads takes: activations of `config.batch` images (fewer with `config.recompute`), gradients,
    /// scratch, weights with their gradients, what the optimiser remembers and computes with, and their moving average. A few numbers
    /// per channel are left out.
    ///
    /// # Errors
    /// Those of [`NetworkExecutor::new`] for this network.
    pub fn training_bytes(network: &Network, config: &TrainConfig, threads: usize) -> Result<usize> {
        match config.dtype {
            Dtype::F32 => TypedExecutor::<f32>::training_bytes(network, config, threads),
            #[cfg(feature = "bf16")]
            Dtype::Bf16 => TypedExecutor::<half::bf16>::training_bytes(network, config, threads),
            #[cfg(not(feature = "bf16"))]
            Dtype::Bf16 => Err(without_bf16()),
        }
    }
}

#[cfg(not(feature = "bf16"))]
fn without_bf16() -> Error {
    Error::invalid("train.dtype", "f32, or a build with the feature `bf16`", "bf16")
}

impl Executor for NetworkExecutor {
    fn forward_backward(&mut self, images: &[f32], labels: &[SoftLabel]) -> Result<StepLoss> {
        self.executor.forward_backward(images, labels)
    }

    fn gradient_norm(&self) -> f64 {
        self.executor.gradient_norm()
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        self.executor.update(update)
    }

    fn forward(&mut self, images: &[f32], n: usize, logits: &mut [f32]) -> Result<()> {
        self.executor.forward(images, n, logits)
    }

    fn visit_state(&self, visit: &mut StateVisitor<'_>) {
        self.executor.visit_state(visit);
    }

    fn restore_state(&mut self, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.executor.restore_state(kind, name, shape, values)
    }

    fn first_non_finite(&self) -> Option<String> {
        self.executor.first_non_finite()
    }

    fn input(&self) -> [usize; 3] {
        self.executor.input()
    }

    fn classes(&self) -> usize {
        self.executor.classes()
    }

    fn isa(&self) -> String {
        self.executor.isa()
    }

    fn pool(&self) -> Pool {
        self.executor.pool()
    }
}
