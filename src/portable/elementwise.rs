//! Elementwise operators. Plain loops: the compiler vectorises them, and memory bounds them.
#![forbid(unsafe_code)]

use crate::conv::pack::PANEL;
use crate::kernel::element::Element;
use crate::kernel::elementwise::MomentumStep;

/// a b + c, rounded once where the target can do that fast, else twice (as the convolutions' vectors do).
#[inline]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

#[inline]
fn multiply_add_f64(a: f64, b: f64, c: f64) -> f64 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

#[inline]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// y = relu(x * scale + shift + residual).
pub(crate) fn normalize<T: Element>(
    x: &[T],
    residual: Option<&[T]>,
    y: &mut [T],
    (scale, shift): (&[f32], &[f32]),
    with_relu: bool,
) {
    let channels = scale.len();
    for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let mut value = multiply_add(x.widened(), scale[at % channels], shift[at % channels]);
        if let Some(residual) = residual {
            value += residual[at].widened();
        }
        *y = T::nearest(if with_relu { relu(value) } else { value });
    }
}

/// Sums of (x - shift) and of its square, per channel.
pub(crate) fn statistics<T: Element>(x: &[T], shift: &[f32], sum: &mut [f64], sum_of_squares: &mut [f64]) {
    sum.fill(0.0);
    sum_of_squares.fill(0.0);
    for pixel in x.chunks_exact(shift.len()) {
        for (channel, x) in pixel.iter().enumerate() {
            let difference = f64::from(x.widened()) - f64::from(shift[channel]);
            sum[channel] += difference;
            sum_of_squares[channel] = multiply_add_f64(difference, difference, sum_of_squares[channel]);
        }
    }
}

/// Masks the gradient (without one, what `masked` holds) by relu(x * scale + shift) > 0 if asked, and sums it and its product with (x - mean),
/// per channel.
pub(crate) fn gradient_statistics<T: Element>(
    x: &[T],
    gradient: Option<&[T]>,
    masked: &mut [T],
    (scale, shift, mean): (&[f32], &[f32], &[f32]),
    with_relu: bool,
    (sum, sum_of_products): (&mut [f64], &mut [f64]),
) {
    sum.fill(0.0);
    sum_of_products.fill(0.0);
    let channels = mean.len();
    for (at, (x, masked)) in x.iter().zip(masked).enumerate() {
        let channel = at % channels;
        let passes = !with_relu || multiply_add(x.widened(), scale[channel], shift[channel]) > 0.0;
        let gradient = gradient.map_or(*masked, |gradient| gradient[at]);
        *masked = if passes { gradient } else { T::default() };
        let value = f64::from(masked.widened());
        sum[channel] += value;
        let centred = f64::from(x.widened()) - f64::from(mean[channel]);
        sum_of_products[channel] = multiply_add_f64(value, centred, sum_of_products[channel]);
    }
}

/// y = gradient * p + (x * q + r); without `gradient`, y * p + (x * q + r).
pub(crate) fn norm_gradient<T: Element>(x: &[T], gradient: Option<&[T]>, y: &mut [T], (p, q, r): (&[f32], &[f32], &[f32])) {
    let channels = p.len();
    for (at, (x, y)) in x.iter().zip(y).enumerate() {
        let channel = at % channels;
        let gradient = gradient.map_or(*y, |gradient| gradient[at]);
        let value = multiply_add(gradient.widened(), p[channel], multiply_add(x.widened(), q[channel], r[channel]));
        *y = T::nearest(value);
    }
}

/// y = output > 0 ? gradient : 0, then + addend.
pub(crate) fn relu_gradient<T: Element>(output: &[T], gradient: &[T], addend: Option<&[T]>, y: &mut [T]) {
    for (at, ((output, gradient), y)) in output.iter().zip(gradient).zip(y).enumerate() {
        let value = if output.widened() > 0.0 { *gradient } else { T::default() };
        *y = addend.map_or(value, |addend| T::nearest(value.widened() + addend[at].widened()));
    }
}

/// y += x.
pub(crate) fn accumulate(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// y = factor * x.
pub(crate) fn scale<T: Element>(x: &[T], y: &mut [T], factor: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = T::nearest(factor * x.widened());
    }
}

/// One output row of a 2x2 average pool.
pub(crate) fn pool<T: Element>(x: &[T], row: usize, y: &mut [T], channels: usize, factor: f32) {
    for (at, y) in y.iter_mut().enumerate() {
        let left = at / channels * 2 * channels + at % channels;
        let right = left + channels;
        let [a, b, c, d] = [left, right, row + left, row + right].map(|at| x[at].widened());
        *y = T::nearest(factor * (((a + b) + c) + d));
    }
}

/// Adjoint of [`pool`].
pub(crate) fn unpool<T: Element>(gradient: &[T], y: &mut [T], row: usize, channels: usize, factor: f32) {
    for (at, gradient) in gradient.iter().enumerate() {
        let left = at / channels * 2 * channels + at % channels;
        let value = T::nearest(factor * gradient.widened());
        for at in [left, left + channels, row + left, row + left + channels] {
            y[at] = value;
        }
    }
}

/// y = factor * sum over pixels of x.
pub(crate) fn global_pool<T: Element>(x: &[T], y: &mut [f32], factor: f32) {
    y.fill(0.0);
    for pixel in x.chunks_exact(y.len()) {
        for (y, x) in y.iter_mut().zip(pixel) {
            *y += x.widened();
        }
    }
    for y in y {
        *y *= factor;
    }
}

/// Every pixel of y = factor * x.
pub(crate) fn spread<T: Element>(x: &[f32], y: &mut [T], factor: f32) {
    for pixel in y.chunks_exact_mut(x.len()) {
        for (y, x) in pixel.iter_mut().zip(x) {
            *y = T::nearest(factor * x);
        }
    }
}

/// One step of stochastic gradient descent with momentum.
pub(crate) fn momentum(gradient: &[f32], weights: &mut [f32], velocity: &mut [f32], step: &MomentumStep) {
    let flush = |x: f32| if x.abs() < 1e-30 { 0.0 } else { x };
    for ((gradient, weight), velocity) in gradient.iter().zip(weights).zip(velocity) {
        let direction = multiply_add(*gradient, step.gradient_factor, *weight * step.weight_decay);
        *velocity = flush(multiply_add(*velocity, step.momentum, direction));
        let step_direction = if step.nesterov { multiply_add(*velocity, step.momentum, direction) } else { *velocity };
        *weight = flush(*weight - step.learning_rate * step_direction);
    }
}

/// y += a * b, `times` times.
pub(crate) fn peak((a, b): (f32, f32), times: usize, y: &mut [f32]) {
    for y in y {
        for _ in 0..times {
            *y = multiply_add(a, b, *y);
        }
    }
}

/// y += x * weights, `turns` times: rows of x, one panel of weights.
pub(crate) fn load_peak(x: &[f32], weights: &[f32], turns: usize, y: &mut [f32]) {
    let inputs = weights.len() / PANEL;
    for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(PANEL)) {
        for _ in 0..turns {
            for (x, weights) in x.iter().zip(weights.chunks_exact(PANEL)) {
                y.iter_mut().zip(weights).for_each(|(y, weight)| *y = multiply_add(*x, *weight, *y));
            }
        }
    }
}
