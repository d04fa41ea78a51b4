//! What happens to every channel of an image by itself, and how it goes into the convolution before it.
#![forbid(unsafe_code)]

/// Every channel of an image times `scale`, plus `shift`, in f64: rounded once, where it becomes part of weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelMap {
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

impl ChannelMap {
    /// The map that changes nothing.
    pub(crate) fn identity(channels: usize) -> Self {
        ChannelMap { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    /// A batch norm with running statistics.
    pub(crate) fn batch_norm(weight: &[f32], bias: &[f32], mean: &[f32], variance: &[f32], epsilon: f64) -> Self {
        let double = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
        let scale: Vec<f64> =
            double(weight).iter().zip(double(variance)).map(|(weight, variance)| weight / (variance + epsilon).sqrt()).collect();
        let shift = double(bias).iter().zip(double(mean)).zip(&scale).map(|((bias, mean), scale)| bias - mean * scale).collect();
        ChannelMap { scale, shift }
    }

    /// The same, times `factor`.
    pub(crate) fn times(mut self, factor: f64) -> Self {
        self.scale.iter_mut().chain(&mut self.shift).for_each(|value| *value *= factor);
        self
    }

    /// This map and then another one.
    #[cfg(feature = "onnx")]
    pub(crate) fn then(&mut self, next: &ChannelMap) {
        for (channel, (scale, shift)) in self.scale.iter_mut().zip(&mut self.shift).enumerate() {
            *scale *= next.scale[channel];
            *shift = *shift * next.scale[channel] + next.shift[channel];
        }
    }

    /// Weights whose slowest extent is the output channel.
    pub(crate) fn weights(&self, weights: &[f32]) -> Vec<f32> {
        let each = weights.len() / self.scale.len();
        weights.iter().enumerate().map(|(at, weight)| (f64::from(*weight) * self.scale[at / each]) as f32).collect()
    }

    /// The bias of the convolution (empty for none) through the map.
    pub(crate) fn bias(&self, bias: &[f32]) -> Vec<f32> {
        let old = |channel: usize| bias.get(channel).map_or(0.0, |bias| f64::from(*bias));
        (0..self.scale.len()).map(|channel| (old(channel) * self.scale[channel] + self.shift[channel]) as f32).collect()
    }
}
