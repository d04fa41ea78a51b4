//! Batch normalisation: statistics, forward, backward. All sums over pixels are taken in `f64`.
#![forbid(unsafe_code)]

use super::Real;

/// Mean and variance of every channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// `[C]`.
    pub mean: Vec<f64>,
    /// `[C]`; divided by the count when taken from a batch, by the count less one when running.
    pub variance: Vec<f64>,
}

impl ChannelStatistics {
    /// `1 / sqrt(variance + epsilon)` of every channel.
    pub fn inverse_deviation(&self, epsilon: f64) -> Vec<f64> {
        self.variance.iter().map(|variance| 1.0 / (variance + epsilon).sqrt()).collect()
    }
}

/// A batch normalisation layer's parameters, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm<T> {
    /// `[C]`, often called gamma.
    pub weight: Vec<T>,
    /// `[C]`, often called beta.
    pub bias: Vec<T>,
    /// Added to the variance.
    pub epsilon: f64,
    /// Statistics to evaluate with; `None` trains, on the batch's own.
    pub running: Option<ChannelStatistics>,
}

impl<T: Real> Norm<T> {
    /// The normalised tensor.
    pub fn forward(&self, x: &[T]) -> Vec<T> {
        let own = || batch_statistics(x, self.weight.len());
        let statistics = self.running.clone().unwrap_or_else(own);
        batch_norm(x, &statistics, &self.weight, &self.bias, self.epsilon)
    }

    /// Gradient at the input and gradients of the parameters, in training.
    pub fn backward(&self, x: &[T], dy: &[T]) -> (Vec<T>, Self) {
        assert!(self.running.is_none(), "gradients are those of training");
        let statistics = batch_statistics(x, self.weight.len());
        let inverse_deviation = statistics.inverse_deviation(self.epsilon);
        let BatchNormGradients { x, weight, bias } =
            batch_norm_backward(dy, x, &statistics.mean, &inverse_deviation, &self.weight);
        (x, Norm { weight, bias, epsilon: self.epsilon, running: None })
    }

    /// All trainable numbers, tensor by tensor.
    pub fn parameters(&mut self) -> Vec<&mut Vec<T>> {
        vec![&mut self.weight, &mut self.bias]
    }
}

/// Mean and biased variance over all pixels of all images, by two passes.
pub fn batch_statistics<T: Real>(x: &[T], channels: usize) -> ChannelStatistics {
    let count = (x.len() / channels) as f64;
    let mut mean = vec![0.0; channels];
    for pixel in x.chunks_exact(channels) {
        for c in 0..channels {
            mean[c] += pixel[c].to_f64() / count;
        }
    }
    let mut variance = vec![0.0; channels];
    for pixel in x.chunks_exact(channels) {
        for c in 0..channels {
            let deviation = pixel[c].to_f64() - mean[c];
            variance[c] += deviation * deviation / count;
        }
    }
    ChannelStatistics { mean, variance }
}

/// Moves running statistics towards a batch's, as PyTorch does: `running = (1 - momentum) running + momentum batch`, with
/// the batch's variance made unbiased over its `count` pixels (a single pixel counts as variance 0).
pub fn update_running_statistics(running: &mut ChannelStatistics, batch: &ChannelStatistics, count: usize, momentum: f64) {
    let unbiased = count as f64 / count.saturating_sub(1).max(1) as f64;
    for c in 0..running.mean.len() {
        running.mean[c] = (1.0 - momentum) * running.mean[c] + momentum * batch.mean[c];
        running.variance[c] = (1.0 - momentum) * running.variance[c] + momentum * unbiased * batch.variance[c];
    }
}

/// `fma(x, scale, shift)` with `scale = weight / sqrt(variance + epsilon)` and `shift = bias - mean * scale`, both taken in
/// `f64` and rounded once. In training the statistics are the batch's, in evaluation the running ones.
pub fn batch_norm<T: Real>(x: &[T], statistics: &ChannelStatistics, weight: &[T], bias: &[T], epsilon: f64) -> Vec<T> {
    let channels = weight.len();
    let inverse_deviation = statistics.inverse_deviation(epsilon);
    let mut y = Vec::with_capacity(x.len());
    for pixel in x.chunks_exact(channels) {
        for c in 0..channels {
            let scale = weight[c].to_f64() * inverse_deviation[c];
            let shift = bias[c].to_f64() - statistics.mean[c] * scale;
            y.push(pixel[c].mul_add(T::from_f64(scale), T::from_f64(shift)));
        }
    }
    y
}

/// What [`batch_norm_backward`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormGradients<T> {
    /// Gradient at the input.
    pub x: Vec<T>,
    /// `[C]`, often called dgamma.
    pub weight: Vec<T>,
    /// `[C]`, often called dbeta.
    pub bias: Vec<T>,
}

/// Gradients of batch normalisation in training, where mean and variance depend on `x` too.
///
/// With `v = (x - mean) inverse_deviation` and `m` pixels:
/// `dbias = sum dy`, `dweight = sum dy v`, `dx = weight inverse_deviation (dy - dbias / m - v dweight / m)`.
pub fn batch_norm_backward<T: Real>(
    dy: &[T],
    x: &[T],
    mean: &[f64],
    inverse_deviation: &[f64],
    weight: &[T],
) -> BatchNormGradients<T> {
    assert_eq!(dy.len(), x.len());
    let channels = weight.len();
    let count = (x.len() / channels) as f64;
    let normalised = |value: T, c: usize| (value.to_f64() - mean[c]) * inverse_deviation[c];
    let (mut dweight, mut dbias) = (vec![0.0; channels], vec![0.0; channels]);
    for (pixel, gradient) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
        for c in 0..channels {
            dbias[c] += gradient[c].to_f64();
            dweight[c] += gradient[c].to_f64() * normalised(pixel[c], c);
        }
    }
    let mut dx = Vec::with_capacity(x.len());
    for (pixel, gradient) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
        for c in 0..channels {
            let centred = gradient[c].to_f64() - dbias[c] / count - normalised(pixel[c], c) * dweight[c] / count;
            dx.push(T::from_f64(weight[c].to_f64() * inverse_deviation[c] * centred));
        }
    }
    let rounded = |values: Vec<f64>| values.into_iter().map(T::from_f64).collect();
    BatchNormGradients { x: dx, weight: rounded(dweight), bias: rounded(dbias) }
}
