//! Batch norm in training: statistics of the batch, the affine map, gradients, running statistics.
//! Ioffe and Szegedy 2015; statistics merge by the formula of Chan, Golub and LeVeque 1979.
#![forbid(unsafe_code)]

use super::rule::{Moments, Rule};
use crate::dispatch::Kernels;
use crate::exec::shared::{Read, SharedBuffer};
use crate::kernel::element::Element;
use crate::train::{OptimizerConfig, update_average};

/// Values per channel that tasks of a step write or read; each is one tile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// y = x * scale + shift is the norm of this batch.
    Mean,
    Scale,
    Shift,
    /// The same times the factor of the sum that the norm's result enters.
    BranchScale,
    BranchShift,
    /// dx = dy * GradientFactor + (x * InputFactor + Summand).
    GradientFactor,
    InputFactor,
    Summand,
    RunningMean,
    RunningVariance,
    WeightGradient,
    BiasGradient,
}

const TILES: usize = 12;

/// Parameters that the optimiser changes, with its moments and their average.
pub(crate) struct NormParameter {
    pub(crate) values: Vec<f32>,
    pub(crate) moments: Moments,
    pub(crate) average: Vec<f32>,
}

impl NormParameter {
    fn new(channels: usize, value: f32) -> Self {
        NormParameter {
            values: vec![value; channels],
            moments: Moments::new(channels, &OptimizerConfig::sgd()),
            average: Vec::new(),
        }
    }
}

/// One norm (or, with `active` false, the identity in its place) after a convolution.
pub(crate) struct TrainedNorm {
    pub(crate) name: String,
    pub(crate) active: bool,
    /// Channels of the layer.
    pub(crate) outputs: usize,
    /// Channels of a pixel, which can have more: their values stay 0.
    pub(crate) channels: usize,
    epsilon: f64,
    momentum: f64,
    pub(crate) weight: NormParameter,
    pub(crate) bias: NormParameter,
    /// Averages of the running mean and variance.
    pub(crate) running_average: [Vec<f32>; 2],
    /// The factor of the sum that the norm's result enters; 1 elsewhere.
    branch: f64,
    values: SharedBuffer<f32>,
    /// Mean and 1 / deviation of the batch, and two sums, per channel in f64.
    exact: SharedBuffer<f64>,
}

const EXACT_TILES: usize = 4;

impl TrainedNorm {
    pub(crate) fn new(
        name: &str,
        active: bool,
        (outputs, channels): (usize, usize),
        (epsilon, momentum): (f32, f32),
        branch: f32,
    ) -> Self {
        let norm = TrainedNorm {
            name: name.to_string(),
            active,
            outputs,
            channels,
            epsilon: f64::from(epsilon),
            momentum: f64::from(momentum),
            weight: NormParameter::new(channels, 1.0),
            bias: NormParameter::new(channels, 0.0),
            running_average: [Vec::new(), Vec::new()],
            branch: f64::from(branch),
            values: SharedBuffer::new(TILES, channels),
            exact: SharedBuffer::new(EXACT_TILES, channels),
        };
        norm.set(Values::Scale, |_| 1.0);
        norm.set(Values::BranchScale, |_| branch);
        norm.set(Values::GradientFactor, |_| 1.0);
        norm.set(Values::RunningVariance, |_| 1.0);
        norm
    }

    /// Starts an optimiser without memory, and lets the averages start at the values.
    pub(crate) fn restart(&mut self, optimizer: &OptimizerConfig, keeps_average: bool) {
        for parameter in [&mut self.weight, &mut self.bias] {
            parameter.moments = Moments::new(parameter.values.len(), optimizer);
            parameter.average = if keeps_average { parameter.values.clone() } else { Vec::new() };
        }
        if keeps_average {
            self.running_average = [Values::RunningMean, Values::RunningVariance].map(|values| self.read(values).to_vec());
        }
    }

    /// The values of one kind.
    pub(crate) fn read(&self, values: Values) -> Read<'_, f32> {
        self.values.read(values as usize..values as usize + 1)
    }

    /// Sets the values of one kind, channel by channel.
    pub(crate) fn set(&self, values: Values, value: impl Fn(usize) -> f32) {
        self.change(values, |channel, _| value(channel));
    }

    /// Replaces the values of one kind by a function of channel and old value.
    pub(crate) fn change(&self, values: Values, value: impl Fn(usize, f32) -> f32) {
        let mut tile = self.values.write(values as usize..values as usize + 1);
        tile.iter_mut().enumerate().for_each(|(channel, to)| *to = value(channel, *to));
    }

    /// Merges the images' statistics in their order and derives scale, shift and running statistics.
    ///
    /// `shift` gives the value that an image's sums are relative to; `sums` holds [sum | sum of squares] per image of `pixels`.
    pub(crate) fn finish_statistics<'a, T: Element>(
        &self,
        images: impl Iterator<Item = (Read<'a, T>, Read<'a, f64>)>,
        pixels: usize,
    ) {
        if !self.active {
            return;
        }
        let mut exact = self.exact.write(0..EXACT_TILES);
        exact.fill(0.0);
        let (mean, rest) = exact.split_at_mut(self.channels);
        let (inverse, squares) = rest.split_at_mut(self.channels);
        let (mut count, each) = (0.0, pixels as f64);
        for (shift, sums) in images {
            let share = each / (count + each);
            let weight = count * share;
            for channel in 0..self.channels {
                let (sum, sum_of_squares) = (sums[channel], sums[self.channels + channel]);
                let image_mean = f64::from(shift[channel].widened()) + sum / each;
                let delta = image_mean - mean[channel];
                mean[channel] += delta * share;
                squares[channel] += (sum_of_squares - sum * sum / each) + delta * delta * weight;
            }
            count += each;
        }
        for (inverse, squares) in inverse.iter_mut().zip(squares.iter()) {
            *inverse = 1.0 / ((squares / count).max(0.0) + self.epsilon).sqrt();
        }
        self.derive(mean, inverse, squares, count);
    }

    /// Sets what follows from mean, 1 / deviation and the sum of squared deviations of `count` values.
    fn derive(&self, mean: &[f64], inverse: &[f64], squares: &[f64], count: f64) {
        let scale = |channel: usize| f64::from(self.weight.values[channel]) * inverse[channel];
        let shift = |channel: usize| f64::from(self.bias.values[channel]) - mean[channel] * scale(channel);
        self.set(Values::Mean, |channel| mean[channel] as f32);
        self.set(Values::Scale, |channel| scale(channel) as f32);
        self.set(Values::Shift, |channel| shift(channel) as f32);
        self.set(Values::BranchScale, |channel| (self.branch * scale(channel)) as f32);
        self.set(Values::BranchShift, |channel| (self.branch * shift(channel)) as f32);
        // The running variance is the unbiased one; of a single value there is none, and 0 keeps it finite.
        let unbiased = |channel: usize| if count > 1.0 { squares[channel].max(0.0) / (count - 1.0) } else { 0.0 };
        let moved = |old: f32, value: f64| (f64::from(old) + self.momentum * (value - f64::from(old))) as f32;
        self.change(Values::RunningMean, |channel, old| moved(old, mean[channel]));
        self.change(Values::RunningVariance, |channel, old| moved(old, unbiased(channel)));
    }

    /// Merges the images' gradient sums and derives the data gradient's factors and the gradients of weight and bias.
    ///
    /// Each image has [sum of g | sum of g (x - mean)], with the mean rounded to f32. `count`: pixels of the batch.
    pub(crate) fn finish_gradient<'a>(&self, images: impl Iterator<Item = Read<'a, f64>>, count: usize) {
        if !self.active {
            return;
        }
        let mut exact = self.exact.write(0..EXACT_TILES);
        let (mean, rest) = exact.split_at_mut(self.channels);
        let (inverse, rest) = rest.split_at_mut(self.channels);
        let (sum, product) = rest.split_at_mut(self.channels);
        sum.fill(0.0);
        product.fill(0.0);
        for sums in images {
            for channel in 0..self.channels {
                sum[channel] += sums[channel];
                product[channel] += sums[self.channels + channel];
            }
        }
        {
            let rounded = self.read(Values::Mean);
            for channel in 0..self.channels {
                product[channel] += (f64::from(rounded[channel]) - mean[channel]) * sum[channel];
            }
        }
        let count = count as f64;
        let scale = |channel: usize| f64::from(self.weight.values[channel]) * inverse[channel];
        let input_factor = |channel: usize| -scale(channel) * inverse[channel] * inverse[channel] * product[channel] / count;
        self.set(Values::GradientFactor, |channel| scale(channel) as f32);
        self.set(Values::InputFactor, |channel| input_factor(channel) as f32);
        self.set(Values::Summand, |channel| {
            (-scale(channel) * sum[channel] / count - input_factor(channel) * mean[channel]) as f32
        });
        self.set(Values::WeightGradient, |channel| (product[channel] * inverse[channel]) as f32);
        self.set(Values::BiasGradient, |channel| sum[channel] as f32);
    }

    /// One step of the optimiser; norms have no weight decay.
    pub(crate) fn update(&mut self, kernels: &Kernels, rule: &Rule, average_decay: Option<f32>) {
        if !self.active {
            return;
        }
        let rule = rule.without_decay();
        for (parameter, gradient) in [(&mut self.weight, Values::WeightGradient), (&mut self.bias, Values::BiasGradient)] {
            let gradient = self.values.read(gradient as usize..gradient as usize + 1);
            rule.apply(kernels, &gradient, &mut parameter.values, &mut parameter.moments, 0);
            if let Some(decay) = average_decay {
                update_average(&mut parameter.average, &parameter.values, decay);
            }
        }
        if let Some(decay) = average_decay {
            for (average, values) in self.running_average.iter_mut().zip([Values::RunningMean, Values::RunningVariance]) {
                update_average(average, &self.values.read(values as usize..values as usize + 1), decay);
            }
        }
    }
}
