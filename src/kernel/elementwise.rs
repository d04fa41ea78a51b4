//! Elementwise kernels behind safe calls. Tensors are runs of pixels with their channels side by side.

use crate::conv::pack::PANEL;
use crate::ffi::{LEAN_ACCUMULATE, LEAN_RELU, LEAN_RESIDUAL, LeanElementwiseArgs};
use crate::kernel::element::Element;
use crate::portable::elementwise as portable;
use std::marker::PhantomData;
use std::ptr;

type Native = unsafe extern "C" fn(*const LeanElementwiseArgs);

/// The elementwise operators on tensors of a type, of one instruction set; `None` means portable Rust.
#[derive(Clone, Copy, Default)]
pub struct Elementwise<T = f32> {
    pub(crate) normalize: Option<Native>,
    pub(crate) statistics: Option<Native>,
    pub(crate) gradient_statistics: Option<Native>,
    pub(crate) norm_gradient: Option<Native>,
    pub(crate) relu_gradient: Option<Native>,
    pub(crate) accumulate: Option<Native>,
    pub(crate) scale: Option<Native>,
    pub(crate) pool: Option<Native>,
    pub(crate) unpool: Option<Native>,
    pub(crate) global_pool: Option<Native>,
    pub(crate) spread: Option<Native>,
    pub(crate) momentum: Option<Native>,
    pub(crate) peak: Option<Native>,
    pub(crate) load_peak: Option<Native>,
    element: PhantomData<fn(T)>,
}

/// The numbers of one step of stochastic gradient descent with momentum (Sutskever et al. 2013; PyTorch's form).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentumStep {
    /// Length of the step.
    pub learning_rate: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Times the weight, added to the gradient.
    pub weight_decay: f32,
    /// Multiplies the gradient first: clipping.
    pub gradient_factor: f32,
    /// Look ahead by one momentum step.
    pub nesterov: bool,
}

/// Arguments with nothing set.
fn empty(pixels: usize, channels: usize) -> LeanElementwiseArgs {
    LeanElementwiseArgs {
        a: ptr::null(),
        b: ptr::null(),
        c: ptr::null(),
        y: ptr::null_mut(),
        y2: ptr::null_mut(),
        p: ptr::null(),
        q: ptr::null(),
        r: ptr::null(),
        sum: ptr::null_mut(),
        sum2: ptr::null_mut(),
        pixels: pixels as u64,
        channels: channels as u64,
        width: 0,
        row: 0,
        flags: 0,
        factor: [0.0; 4],
    }
}

fn flag(set: bool, flag: u32) -> u64 {
    if set { u64::from(flag) } else { 0 }
}

/// Pixels in `length` values of `channels` each.
fn pixels(length: usize, channels: usize) -> usize {
    assert!(channels > 0 && length.is_multiple_of(channels), "{length} values are no whole pixels of {channels} channels");
    length / channels
}

/// Panics if a type's kernels do not take so many channels.
fn whole<T: Element>(channels: usize) {
    assert!(channels.is_multiple_of(T::CHANNELS_TOGETHER), "{channels} channels are not a multiple of {}", T::CHANNELS_TOGETHER);
}

/// Panics if slices that belong together differ in length: a defect of the caller in this crate.
fn same(lengths: &[usize]) {
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "lengths differ: {lengths:?}");
}

/// True if two rows of `values`, the second one `row` after the first, do not overlap and lie in `length`.
fn two_rows(length: usize, row: usize, values: usize) -> bool {
    row >= values && length.checked_sub(row).is_some_and(|rest| rest >= values)
}

impl<T: Element> Elementwise<T> {
    /// The kernel of an operator, by the registry's word.
    pub(crate) fn slot(&mut self, op: &str) -> Option<&mut Option<Native>> {
        Some(match op {
            "normalize" => &mut self.normalize,
            "statistics" => &mut self.statistics,
            "gradientstatistics" => &mut self.gradient_statistics,
            "normgradient" => &mut self.norm_gradient,
            "relugradient" => &mut self.relu_gradient,
            "accumulate" => &mut self.accumulate,
            "scale" => &mut self.scale,
            "pool" => &mut self.pool,
            "unpool" => &mut self.unpool,
            "globalpool" => &mut self.global_pool,
            "spread" => &mut self.spread,
            "momentum" => &mut self.momentum,
            "peak" => &mut self.peak,
            "loadpeak" => &mut self.load_peak,
            _ => return None,
        })
    }

    /// y = x * scale + shift per channel, then + residual, then ReLU.
    pub fn normalize(&self, x: &[T], residual: Option<&[T]>, y: &mut [T], (scale, shift): (&[f32], &[f32]), with_relu: bool) {
        same(&[x.len(), y.len(), residual.map_or(x.len(), <[T]>::len)]);
        same(&[scale.len(), shift.len()]);
        whole::<T>(scale.len());
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            b: residual.map_or(ptr::null(), |values| values.as_ptr().cast()),
            y: y.as_mut_ptr().cast(),
            p: scale.as_ptr(),
            q: shift.as_ptr(),
            flags: flag(residual.is_some(), LEAN_RESIDUAL) | flag(with_relu, LEAN_RELU),
            ..empty(pixels(x.len(), scale.len()), scale.len())
        };
        match self.normalize {
            None => portable::normalize(x, residual, y, (scale, shift), with_relu),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// Per channel: the sums of (x - shift) and of its square over the pixels, in f64.
    pub fn statistics(&self, x: &[T], shift: &[f32], sum: &mut [f64], sum_of_squares: &mut [f64]) {
        same(&[shift.len(), sum.len(), sum_of_squares.len()]);
        whole::<T>(shift.len());
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            p: shift.as_ptr(),
            sum: sum.as_mut_ptr(),
            sum2: sum_of_squares.as_mut_ptr(),
            ..empty(pixels(x.len(), shift.len()), shift.len())
        };
        match self.statistics {
            None => portable::statistics(x, shift, sum, sum_of_squares),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// masked = gradient where relu(x * scale + shift) lets it pass (everywhere without ReLU); per channel, in f64, the sums of masked
    /// and of masked * (x - mean). Without `gradient`, `masked` holds it before.
    pub fn gradient_statistics(
        &self,
        x: &[T],
        gradient: Option<&[T]>,
        masked: &mut [T],
        (scale, shift, mean): (&[f32], &[f32], &[f32]),
        with_relu: bool,
        (sum, sum_of_products): (&mut [f64], &mut [f64]),
    ) {
        same(&[x.len(), gradient.map_or(x.len(), <[T]>::len), masked.len()]);
        same(&[scale.len(), shift.len(), mean.len(), sum.len(), sum_of_products.len()]);
        whole::<T>(mean.len());
        let y = masked.as_mut_ptr();
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            b: gradient.map_or(y.cast_const(), <[T]>::as_ptr).cast(),
            y: y.cast(),
            p: scale.as_ptr(),
            q: shift.as_ptr(),
            r: mean.as_ptr(),
            sum: sum.as_mut_ptr(),
            sum2: sum_of_products.as_mut_ptr(),
            flags: flag(with_relu, LEAN_RELU),
            ..empty(pixels(x.len(), mean.len()), mean.len())
        };
        match self.gradient_statistics {
            None => portable::gradient_statistics(x, gradient, masked, (scale, shift, mean), with_relu, (sum, sum_of_products)),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows, and `masked` may be the gradient. P4: the dispatch table
            // holds only kernels of detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y = gradient * p + (x * q + r) per channel: the data gradient of a batch norm in closed form. Without `gradient`, `y` holds it
    /// before.
    pub fn norm_gradient(&self, x: &[T], gradient: Option<&[T]>, y: &mut [T], (p, q, r): (&[f32], &[f32], &[f32])) {
        same(&[x.len(), gradient.map_or(x.len(), <[T]>::len), y.len()]);
        same(&[p.len(), q.len(), r.len()]);
        whole::<T>(p.len());
        let output = y.as_mut_ptr();
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            b: gradient.map_or(output.cast_const(), <[T]>::as_ptr).cast(),
            y: output.cast(),
            p: p.as_ptr(),
            q: q.as_ptr(),
            r: r.as_ptr(),
            ..empty(pixels(x.len(), p.len()), p.len())
        };
        match self.norm_gradient {
            None => portable::norm_gradient(x, gradient, y, (p, q, r)),
            // SAFETY: P1 by the asserted lengths. P2: y is a unique borrow, and may be the gradient. P4: the dispatch table holds only
            // kernels of detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y = gradient where the output of a ReLU is positive, else 0; then + addend.
    pub fn relu_gradient(&self, output: &[T], gradient: &[T], addend: Option<&[T]>, y: &mut [T]) {
        same(&[output.len(), gradient.len(), y.len(), addend.map_or(y.len(), <[T]>::len)]);
        whole::<T>(y.len());
        let args = LeanElementwiseArgs {
            a: output.as_ptr().cast(),
            b: gradient.as_ptr().cast(),
            c: addend.map_or(ptr::null(), |values| values.as_ptr().cast()),
            y: y.as_mut_ptr().cast(),
            flags: flag(addend.is_some(), LEAN_RESIDUAL),
            ..empty(1, y.len())
        };
        match self.relu_gradient {
            None => portable::relu_gradient(output, gradient, addend, y),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y = factor * x.
    pub fn scale(&self, x: &[T], y: &mut [T], factor: f32) {
        same(&[x.len(), y.len()]);
        whole::<T>(y.len());
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            y: y.as_mut_ptr().cast(),
            factor: [f64::from(factor), 0.0, 0.0, 0.0],
            ..empty(1, y.len())
        };
        match self.scale {
            None => portable::scale(x, y, factor),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// One output row of a 2x2 average pool, from the two input rows at 0 and `row`; `factor` is 1/4. An odd last pixel is not read.
    pub fn pool(&self, x: &[T], row: usize, y: &mut [T], channels: usize, factor: f32) {
        let width = pixels(y.len(), channels);
        whole::<T>(channels);
        assert!(two_rows(x.len(), row, 2 * y.len()), "input rows are too short");
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            y: y.as_mut_ptr().cast(),
            width: width as u64,
            row: row as i64,
            factor: [f64::from(factor), 0.0, 0.0, 0.0],
            ..empty(0, channels)
        };
        match self.pool {
            None => portable::pool(x, row, y, channels, factor),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// Adjoint of [`Elementwise::pool`]: the four pixels of y (rows at 0 and `row`) of each output pixel become factor * gradient.
    pub fn unpool(&self, gradient: &[T], y: &mut [T], row: usize, channels: usize, factor: f32) {
        let width = pixels(gradient.len(), channels);
        whole::<T>(channels);
        assert!(two_rows(y.len(), row, 2 * gradient.len()), "rows of y are too short");
        let args = LeanElementwiseArgs {
            a: gradient.as_ptr().cast(),
            y: y.as_mut_ptr().cast(),
            width: width as u64,
            row: row as i64,
            factor: [f64::from(factor), 0.0, 0.0, 0.0],
            ..empty(0, channels)
        };
        match self.unpool {
            None => portable::unpool(gradient, y, row, channels, factor),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y = factor * (sum of x over its pixels), per channel.
    pub fn global_pool(&self, x: &[T], y: &mut [f32], factor: f32) {
        whole::<T>(y.len());
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            y: y.as_mut_ptr().cast(),
            factor: [f64::from(factor), 0.0, 0.0, 0.0],
            ..empty(pixels(x.len(), y.len()), y.len())
        };
        match self.global_pool {
            None => portable::global_pool(x, y, factor),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// Adjoint of [`Elementwise::global_pool`]: every pixel of y becomes factor * x.
    pub fn spread(&self, x: &[f32], y: &mut [T], factor: f32) {
        whole::<T>(x.len());
        let args = LeanElementwiseArgs {
            p: x.as_ptr(),
            y: y.as_mut_ptr().cast(),
            factor: [f64::from(factor), 0.0, 0.0, 0.0],
            ..empty(pixels(y.len(), x.len()), x.len())
        };
        match self.spread {
            None => portable::spread(x, y, factor),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }
}

/// What only f32 has: sums of gradients, updates of weights, the peaks.
impl Elementwise {
    /// y += x.
    pub fn accumulate(&self, x: &[f32], y: &mut [f32]) {
        same(&[x.len(), y.len()]);
        let args = LeanElementwiseArgs { a: x.as_ptr().cast(), y: y.as_mut_ptr().cast(), ..empty(1, y.len()) };
        match self.accumulate {
            None => portable::accumulate(x, y),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// One step of stochastic gradient descent with momentum on a run of weights.
    pub fn momentum(&self, gradient: &[f32], weights: &mut [f32], velocity: &mut [f32], step: &MomentumStep) {
        same(&[gradient.len(), weights.len(), velocity.len()]);
        let args = LeanElementwiseArgs {
            a: gradient.as_ptr().cast(),
            y: weights.as_mut_ptr().cast(),
            y2: velocity.as_mut_ptr(),
            flags: flag(step.nesterov, LEAN_ACCUMULATE),
            factor: [step.learning_rate, step.momentum, step.weight_decay, step.gradient_factor].map(f64::from),
            ..empty(1, weights.len())
        };
        match self.momentum {
            None => portable::momentum(gradient, weights, velocity, step),
            // SAFETY: P1 by the asserted lengths. P2: outputs are unique borrows. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y += a * b, `times` times: multiply-adds on registers alone, which show the peak of the machine.
    pub fn peak(&self, (a, b): (f32, f32), times: usize, y: &mut [f32]) {
        let factor = [f64::from(a), f64::from(b), 0.0, 0.0];
        let args = LeanElementwiseArgs { y: y.as_mut_ptr().cast(), factor, ..empty(times, y.len()) };
        match self.peak {
            None => portable::peak((a, b), times, y),
            // SAFETY: P1: y is all that is touched, `channels` is its length. P2: y is a unique borrow. P4: the dispatch table holds
            // only kernels of detected instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }

    /// y += x * weights, `turns` times, with rows of `inputs` values in x, a packed panel, and rows of 32 values in y: multiply-adds as
    /// convolutions do them, which show the peak with loads.
    pub fn load_peak(&self, x: &[f32], weights: &[f32], inputs: usize, turns: usize, y: &mut [f32]) {
        let rows = pixels(x.len(), inputs);
        assert!(weights.len() == inputs * PANEL && y.len() == rows * PANEL, "one panel, and as many rows of y as of x");
        let args = LeanElementwiseArgs {
            a: x.as_ptr().cast(),
            p: weights.as_ptr(),
            y: y.as_mut_ptr().cast(),
            width: turns as u64,
            ..empty(rows, inputs)
        };
        match self.load_peak {
            None => portable::load_peak(x, weights, turns, y),
            // SAFETY: P1 by the asserted lengths. P2: y is a unique borrow. P4: the dispatch table holds only kernels of detected
            // instruction sets. P5: Rust code runs in the default environment.
            Some(native) => unsafe { native(&raw const args) },
        }
    }
}
