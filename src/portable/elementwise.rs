//! Elementwise operators. Plain loops: the compiler vectorises them, and memory bounds them.
#![forbid(unsafe_code)]

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
pub(crate) fn normalize(x: &[f32], residual: Option<&[f32]>, y: &mut [f32], (scale, shift): (&[f32], &[f32]), with_relu: bool) {
    let channels = scale.len();
    for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let mut value = multiply_add(*x, scale[at % channels], shift[at % channels]);
        if let Some(residual) = residual {
            value += residual[at];
        }
        *y = if with_relu { relu(value) } else { value };
    }
}

/// Sums of (x - shift) and of its square, per channel.
pub(crate) fn statistics(x: &[f32], shift: &[f32], sum: &mut [f64], sum_of_squares: &mut [f64]) {
    sum.fill(0.0);
    sum_of_squares.fill(0.0);
    for pixel in x.chunks_exact(shift.len()) {
        for (channel, x) in pixel.iter().enumerate() {
            let difference = f64::from(*x) - f64::from(shift[channel]);
            sum[channel] += difference;
            sum_of_squares[channel] = multiply_add_f64(difference, difference, sum_of_squares[channel]);
        }
    }
}

/// Masks the gradient by relu(x * scale + shift) > 0 if asked, and sums it and its product with (x - mean), per channel.
pub(crate) fn gradient_statistics(
    x: &[f32],
    gradient: &[f32],
    masked: &mut [f32],
    (scale, shift, mean): (&[f32], &[f32], &[f32]),
    with_relu: bool,
    (sum, sum_of_products): (&mut [f64], &mut [f64]),
) {
    sum.fill(0.0);
    sum_of_products.fill(0.0);
    let channels = mean.len();
    for (at, ((x, gradient), masked)) in x.iter().zip(gradient).zip(masked).enumerate() {
        let channel = at % channels;
        let passes = !with_relu || multiply_add(*x, scale[channel], shift[channel]) > 0.0;
        let value = if passes { *gradient } else { 0.0 };
        *masked = value;
        sum[channel] += f64::from(value);
        let centred = f64::from(*x) - f64::from(mean[channel]);
        sum_of_products[channel] = multiply_add_f64(f64::from(value), centred, sum_of_products[channel]);
    }
}

/// y = gradient * p + (x * q + r).
pub(crate) fn norm_gradient(x: &[f32], gradient: &[f32], y: &mut [f32], (p, q, r): (&[f32], &[f32], &[f32])) {
    let channels = p.len();
    for (at, ((x, gradient), y)) in x.iter().zip(gradient).zip(y).enumerate() {
        let channel = at % channels;
        *y = multiply_add(*gradient, p[channel], multiply_add(*x, q[channel], r[channel]));
    }
}

/// y = output > 0 ? gradient : 0, then + addend.
pub(crate) fn relu_gradient(output: &[f32], gradient: &[f32], addend: Option<&[f32]>, y: &mut [f32]) {
    for (at, ((output, gradient), y)) in output.iter().zip(gradient).zip(y).enumerate() {
        let value = if *output > 0.0 { *gradient } else { 0.0 };
        *y = addend.map_or(value, |addend| value + addend[at]);
    }
}

/// y += x.
pub(crate) fn accumulate(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// One output row of a 2x2 average pool.
pub(crate) fn pool(x: &[f32], row: usize, y: &mut [f32], channels: usize, factor: f32) {
    for (at, y) in y.iter_mut().enumerate() {
        let left = at / channels * 2 * channels + at % channels;
        let right = left + channels;
        *y = factor * (((x[left] + x[right]) + x[row + left]) + x[row + right]);
    }
}

/// Adjoint of [`pool`].
pub(crate) fn unpool(gradient: &[f32], y: &mut [f32], row: usize, channels: usize, factor: f32) {
    for (at, gradient) in gradient.iter().enumerate() {
        let left = at / channels * 2 * channels + at % channels;
        let value = factor * gradient;
        for at in [left, left + channels, row + left, row + left + channels] {
            y[at] = value;
        }
    }
}

/// y = factor * sum over pixels of x.
pub(crate) fn global_pool(x: &[f32], y: &mut [f32], factor: f32) {
    y.fill(0.0);
    for pixel in x.chunks_exact(y.len()) {
        accumulate(pixel, y);
    }
    for y in y {
        *y *= factor;
    }
}

/// Every pixel of y = factor * x.
pub(crate) fn spread(x: &[f32], y: &mut [f32], factor: f32) {
    for pixel in y.chunks_exact_mut(x.len()) {
        for (y, x) in pixel.iter_mut().zip(x) {
            *y = factor * x;
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
