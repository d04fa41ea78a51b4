//! The update of a run of values by the optimiser's rule, and what the rule remembers of each value.
#![forbid(unsafe_code)]

use crate::dispatch::Kernels;
use crate::kernel::elementwise::MomentumStep;
use crate::train::{OptimizerConfig, StateKind, Update};

/// What a rule remembers, one number per trained value each.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// The velocity of stochastic gradient descent, or the mean of the gradient.
    first: Vec<f32>,
    /// The mean of the squared gradient: `AdamW` only.
    second: Vec<f32>,
}

impl Moments {
    /// Zeros for `length` values.
    pub(crate) fn new(length: usize, optimizer: &OptimizerConfig) -> Self {
        let second = if matches!(optimizer, OptimizerConfig::AdamW { .. }) { length } else { 0 };
        Moments { first: vec![0.0; length], second: vec![0.0; second] }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<f32>() * (self.first.len() + self.second.len())
    }

    /// The numbers of a kind of state; `None` if the rule has none of this kind.
    pub(crate) fn of(&self, kind: StateKind) -> Option<&[f32]> {
        match kind {
            StateKind::Momentum => self.second.is_empty().then_some(&self.first),
            StateKind::AdamMean => (!self.second.is_empty()).then_some(&self.first),
            StateKind::AdamSquare => (!self.second.is_empty()).then_some(&self.second),
            StateKind::Model | StateKind::Ema => None,
        }
        .map(Vec::as_slice)
    }

    /// As [`Moments::of`], to change.
    pub(crate) fn of_mut(&mut self, kind: StateKind) -> Option<&mut [f32]> {
        self.of(kind)?;
        Some(if kind == StateKind::AdamSquare { &mut self.second } else { &mut self.first })
    }
}

/// One step of the optimiser, value by value: the numbers that are the same for all. Muon's matrices have one of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Momentum(MomentumStep),
    Adam(AdamStep),
}

/// `AdamW` (Loshchilov and Hutter 2019) in PyTorch's form and order of operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    gradient_factor: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// What decay leaves of a weight: 1 - learning rate x weight decay.
    kept: f32,
    /// Learning rate by the bias of the mean.
    step: f32,
    /// Root of the bias of the squares.
    square_bias: f32,
}

impl Rule {
    pub(crate) fn new(optimizer: &OptimizerConfig, update: &Update) -> Self {
        let (learning_rate, gradient_factor) = (update.learning_rate, update.gradient_scale);
        match *optimizer {
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay }
            | OptimizerConfig::Muon { momentum, nesterov, weight_decay, .. } => Rule::Momentum(MomentumStep {
                learning_rate,
                momentum: momentum as f32,
                weight_decay: weight_decay as f32,
                gradient_factor,
                nesterov,
            }),
            OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let (rate, steps) = (f64::from(learning_rate), (update.step + 1) as f64);
                Rule::Adam(AdamStep {
                    gradient_factor,
                    beta1: beta1 as f32,
                    beta2: beta2 as f32,
                    epsilon: epsilon as f32,
                    kept: (1.0 - rate * weight_decay) as f32,
                    step: (rate / (1.0 - libm::pow(beta1, steps))) as f32,
                    square_bias: (1.0 - libm::pow(beta2, steps)).sqrt() as f32,
                })
            }
        }
    }

    /// The same step without weight decay: for biases, and scales and shifts of norms.
    pub(crate) fn without_decay(self) -> Self {
        match self {
            Rule::Momentum(step) => Rule::Momentum(MomentumStep { weight_decay: 0.0, ..step }),
            Rule::Adam(step) => Rule::Adam(AdamStep { kept: 1.0, ..step }),
        }
    }

    /// Changes `values`, whose moments begin at `start`, by their gradient.
    pub(crate) fn apply(&self, kernels: &Kernels, gradient: &[f32], values: &mut [f32], moments: &mut Moments, start: usize) {
        let range = start..start + values.len();
        match self {
            Rule::Momentum(step) => kernels.f32.elementwise.momentum(gradient, values, &mut moments.first[range], step),
            Rule::Adam(step) => step.apply(gradient, values, &mut moments.first[range.clone()], &mut moments.second[range]),
        }
    }
}

/// Numbers of a smaller magnitude become 0, so that no subnormal ever slows a later step.
const SMALLEST: f32 = 1e-30;

/// The number, or 0 if it is too small to matter.
pub(super) fn flush(value: f32) -> f32 {
    if value.abs() < SMALLEST { 0.0 } else { value }
}

impl AdamStep {
    /// Products and sums are rounded one by one, so that every machine gets the same bits. Bound by memory.
    fn apply(&self, gradient: &[f32], values: &mut [f32], means: &mut [f32], squares: &mut [f32]) {
        for (((gradient, value), mean), square) in gradient.iter().zip(values).zip(means).zip(squares) {
            let gradient = gradient * self.gradient_factor;
            *mean = flush(*mean + (1.0 - self.beta1) * (gradient - *mean));
            *square = flush(*square * self.beta2 + (1.0 - self.beta2) * gradient * gradient);
            let root = square.sqrt() / self.square_bias + self.epsilon;
            *value = flush(*value * self.kept - self.step * *mean / root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// After three steps of `torch.optim.AdamW` (PyTorch 2.15, double precision) with the numbers of the test below.
    const TORCH: [f64; 3] = [0.822_149_425_064_268_2, -1.932_208_517_586_467_2, 0.554_290_960_346_856_1];

    #[test]
    fn adam_takes_the_steps_of_pytorch() {
        let optimizer = OptimizerConfig::adamw().with_weight_decay(0.1);
        let kernels = Kernels::of(Isa::Portable).unwrap();
        let (mut values, mut moments) = (vec![1.0, -2.0, 0.5], Moments::new(3, &optimizer));
        for (step, gradient) in [[0.5, -1.0, 0.0], [0.25, 3.0, -1e-4], [-2.0, 0.125, 1e-4]].iter().enumerate() {
            let update = Update { step: step as u64, ..Update::new(0.1) };
            Rule::new(&optimizer, &update).apply(kernels, gradient, &mut values, &mut moments, 0);
        }
        for (value, expected) in values.iter().zip(TORCH) {
            assert!((f64::from(*value) - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn only_adam_has_squares() {
        let kinds = |moments: &Moments| StateKind::ALL.map(|kind| moments.of(kind).is_some());
        assert_eq!(kinds(&Moments::new(1, &OptimizerConfig::sgd())), [false, true, false, false, false]);
        assert_eq!(kinds(&Moments::new(1, &OptimizerConfig::adamw())), [false, false, true, true, false]);
    }
}
