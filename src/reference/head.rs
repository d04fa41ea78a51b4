//! The linear head: one score per class from the pooled channels.
#![forbid(unsafe_code)]

use super::Real;

/// Weights of the head, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadWeights<T> {
    /// `[classes][width]`.
    pub weight: Vec<T>,
    /// `[classes]`.
    pub bias: Vec<T>,
}

impl<T: Real> HeadWeights<T> {
    /// Channels that enter the head.
    pub fn width(&self) -> usize {
        self.weight.len() / self.classes()
    }

    /// Classes that leave it.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }

    /// The same weights after `f`, for another number type or their absolute values.
    pub fn map<U>(&self, f: impl Fn(T) -> U) -> HeadWeights<U> {
        let all = |values: &[T]| values.iter().map(|&value| f(value)).collect();
        HeadWeights { weight: all(&self.weight), bias: all(&self.bias) }
    }
}

/// `y[n][j] = bias[j] + sum_k x[n][k] weight[j][k]`, one chain of fused multiply-adds in the order of `k`.
pub fn head_forward<T: Real>(x: &[T], weights: &HeadWeights<T>) -> Vec<T> {
    let (width, classes) = (weights.width(), weights.classes());
    let mut y = Vec::with_capacity(x.len() / width * classes);
    for row in x.chunks_exact(width) {
        for j in 0..classes {
            let mut sum = weights.bias[j];
            for k in 0..width {
                sum = row[k].mul_add(weights.weight[j * width + k], sum);
            }
            y.push(sum);
        }
    }
    y
}

/// Gradient at the head's input, `[n][width]`, from `dy` as `[n][classes]`; one chain from +0 in the order of the classes.
pub fn head_data_gradient<T: Real>(dy: &[T], weights: &HeadWeights<T>) -> Vec<T> {
    let (width, classes) = (weights.width(), weights.classes());
    let mut dx = Vec::with_capacity(dy.len() / classes * width);
    for row in dy.chunks_exact(classes) {
        for k in 0..width {
            let mut sum = T::ZERO;
            for j in 0..classes {
                sum = row[j].mul_add(weights.weight[j * width + k], sum);
            }
            dx.push(sum);
        }
    }
    dx
}

/// Gradients of the head's weights, summed over images in order. `x` is `[n][width]`, `dy` is `[n][classes]`.
pub fn head_weight_gradients<T: Real>(x: &[T], dy: &[T], classes: usize) -> HeadWeights<T> {
    let images = dy.len() / classes;
    let width = x.len() / images;
    let mut gradients = HeadWeights { weight: vec![T::ZERO; classes * width], bias: vec![T::ZERO; classes] };
    for (input, gradient) in x.chunks_exact(width).zip(dy.chunks_exact(classes)) {
        for j in 0..classes {
            gradients.bias[j] = gradients.bias[j] + gradient[j];
            for k in 0..width {
                let weight = &mut gradients.weight[j * width + k];
                *weight = gradient[j].mul_add(input[k], *weight);
            }
        }
    }
    gradients
}
