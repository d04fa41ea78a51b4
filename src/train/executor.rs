//! What the training loop asks of the part that computes: forward, backward and update of one network.
#![forbid(unsafe_code)]

use super::loss::StepLoss;
use crate::data::SoftLabel;
use crate::error::Result;
use crate::exec::pool::Pool;

/// The kinds of tensors that make up the state of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StateKind {
    /// The network itself: weights, and the running statistics of its norms.
    Model,
    /// The memory of stochastic gradient descent, one tensor per trained tensor.
    Momentum,
    /// `AdamW`'s mean of the gradient, one tensor per trained tensor.
    AdamMean,
    /// `AdamW`'s mean of the squared gradient, one tensor per trained tensor.
    AdamSquare,
    /// The moving average of everything in [`StateKind::Model`]; absent where no average is kept.
    Ema,
}

impl StateKind {
    /// All kinds, in the order in which checkpoints hold them.
    pub const ALL: [StateKind; 5] =
        [StateKind::Model, StateKind::Momentum, StateKind::AdamMean, StateKind::AdamSquare, StateKind::Ema];

    /// What stands before a dot and the tensor's name in a checkpoint.
    pub fn prefix(self) -> &'static str {
        match self {
            StateKind::Model => "model",
            StateKind::Momentum => "momentum",
            StateKind::AdamMean => "adam.m",
            StateKind::AdamSquare => "adam.v",
            StateKind::Ema => "ema",
        }
    }
}

/// What [`Executor::visit_state`] calls with kind, name, shape and values of a tensor.
pub type StateVisitor<'a> = dyn FnMut(StateKind, &str, &[usize], &[f32]) + 'a;

/// What [`super::NetworkExecutor::visit_gradients`] calls with name, shape and values of a gradient.
pub type GradientVisitor<'a> = dyn FnMut(&str, &[usize], &[f32]) + 'a;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Update {
    /// Steps before this one.
    pub step: u64,
    /// The learning rate of this step.
    pub learning_rate: f32,
    /// What every gradient is multiplied by before weight decay is added: 1, or less where the gradient is clipped.
    pub gradient_scale: f32,
    /// The decay of the moving average in this step, for [`super::update_average`]; `None` where no average is kept.
    pub average_decay: Option<f32>,
}

impl Update {
    /// The first update, without clipping and without a moving average.
    pub fn new(learning_rate: f32) -> Self {
        Self { step: 0, learning_rate, gradient_scale: 1.0, average_decay: None }
    }
}

/// One network in training: its weights, gradients, optimiser memory and moving average.
///
/// [`super::Trainer`] calls, for every step, [`forward_backward`](Executor::forward_backward),
/// [`gradient_norm`](Executor::gradient_norm) and, if both loss and norm are finite, [`update`](Executor::update).
/// All results depend only on the state and the arguments, never on threads or time.
///
/// Images are f32, normalised, in batch, height, width, channel order (channels last), densely packed.
/// Tensor names and shapes are those of model files (a PyTorch state dict: `stem.conv.weight`, OIHW).
pub trait Executor: Send {
    /// Runs the batch in training mode (statistics of the batch, which also move the running statistics) and leaves the gradient of
    /// the mean loss over the batch inside the executor, replacing any earlier one.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `images` does not hold `labels.len()` images or the batch is larger than the executor was made for,
    /// [`crate::Error::Invalid`] for a label out of range.
    fn forward_backward(&mut self, images: &[f32], labels: &[SoftLabel]) -> Result<StepLoss>;

    /// The Euclidean norm of the whole gradient, summed in a fixed order. NaN or infinite if any gradient is.
    fn gradient_norm(&self) -> f64;

    /// Applies the gradient to the weights, and moves the average towards the new weights and running statistics.
    ///
    /// # Errors
    /// Those of the executor's workers.
    fn update(&mut self, update: &Update) -> Result<()>;

    /// Runs `images` in evaluation mode (running statistics), with the moving average in place of the weights where one is kept, and
    /// writes `logits` `[n, classes]`. Changes no state.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `images` or `logits` does not hold `n` images.
    fn forward(&mut self, images: &[f32], n: usize, logits: &mut [f32]) -> Result<()>;

    /// Calls `visit` with kind, name, shape and values of every tensor of the state, always in the same order.
    fn visit_state(&self, visit: &mut StateVisitor<'_>);

    /// Replaces one tensor of the state. `name` and `shape` are those that [`visit_state`](Executor::visit_state) gave.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if there is no such tensor or its shape differs.
    fn restore_state(&mut self, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> Result<()>;

    /// The first layer in forward order with a NaN or an infinity in its weights, its output in the last batch, or its gradient; the
    /// layers' gradients are looked at from the last to the first, as they are computed. `None` if everything is finite.
    fn first_non_finite(&self) -> Option<String>;

    /// Channels, height and width of an image.
    fn input(&self) -> [usize; 3];

    /// Number of classes.
    fn classes(&self) -> usize;

    /// The instruction set that computes, as `avx2`; noted in checkpoints.
    fn isa(&self) -> String;

    /// The threads that compute; batches are loaded on them too, and their number is noted in checkpoints.
    fn pool(&self) -> Pool;
}
