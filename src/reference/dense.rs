//! The dense k x k convolution with stride, zero padding (k - 1) / 2.
#![forbid(unsafe_code)]

use super::{Epilogue, Real, Shape};

/// Weights of one dense convolution, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseWeights<T> {
    /// Side of the kernel, odd.
    pub kernel: usize,
    /// Pixels from one output to the next, both ways.
    pub stride: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// `[outputs][inputs][kernel][kernel]`.
    pub weight: Vec<T>,
    /// `[outputs]`; zeros for a layer without bias.
    pub bias: Vec<T>,
}

impl<T: Real> DenseWeights<T> {
    /// Shape of the output: `floor((extent + 2 padding - kernel) / stride) + 1` rows and columns.
    pub fn output_shape(&self, input: Shape) -> Shape {
        let extent = |size: usize| (size + 2 * self.padding() - self.kernel) / self.stride + 1;
        Shape::new(input.n, extent(input.h), extent(input.w), self.outputs)
    }

    /// Position of one weight.
    pub fn index(&self, output: usize, input: usize, row: usize, column: usize) -> usize {
        ((output * self.inputs + input) * self.kernel + row) * self.kernel + column
    }

    /// The same weights after `f`, for another number type or their absolute values.
    pub fn map<U>(&self, f: impl Fn(T) -> U) -> DenseWeights<U> {
        let all = |values: &[T]| values.iter().map(|&value| f(value)).collect();
        DenseWeights {
            kernel: self.kernel,
            stride: self.stride,
            inputs: self.inputs,
            outputs: self.outputs,
            weight: all(&self.weight),
            bias: all(&self.bias),
        }
    }

    fn padding(&self) -> usize {
        (self.kernel - 1) / 2
    }

    /// The input row (or column) that output row `output` reads through kernel row `tap`; negative in the padding.
    fn source(&self, output: usize, tap: usize) -> isize {
        (output * self.stride + tap) as isize - self.padding() as isize
    }

    /// The output row (or column) that reads input row `input` through kernel row `tap`, if that phase has this tap.
    fn destination(&self, input: usize, tap: usize) -> Option<isize> {
        let distance = (input + self.padding()) as isize - tap as isize;
        let stride = self.stride as isize;
        (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
    }

    fn check(&self, input: Shape) {
        assert!(self.kernel % 2 == 1, "the kernel's side is odd");
        assert_eq!(input.c, self.inputs, "channels of the input");
        assert_eq!(self.weight.len(), self.outputs * self.inputs * self.kernel * self.kernel, "weights");
        assert_eq!(self.bias.len(), self.outputs, "biases");
    }
}

/// The convolution: bias, then kernel row, kernel column, input channel by fused multiply-adds, then the epilogue.
///
/// Pixels outside the image run with `x = +0`. The result has [`DenseWeights::output_shape`].
pub fn dense_forward<T: Real>(x: &[T], input: Shape, weights: &DenseWeights<T>, epilogue: &Epilogue<T>) -> Vec<T> {
    weights.check(input);
    assert_eq!(x.len(), input.elements());
    let output = weights.output_shape(input);
    let mut y = Vec::with_capacity(output.elements());
    for (image, row, column) in output.positions() {
        for o in 0..weights.outputs {
            let mut sum = weights.bias[o];
            for r in 0..weights.kernel {
                for c in 0..weights.kernel {
                    for i in 0..weights.inputs {
                        let value = input.padded(x, image, weights.source(row, r), weights.source(column, c), i);
                        sum = value.mul_add(weights.weight[weights.index(o, i, r, c)], sum);
                    }
                }
            }
            y.push(epilogue.apply(sum, y.len(), o));
        }
    }
    y
}

/// Gradient at the input (of shape `input`), from the gradient `dy` at the output.
///
/// Each value is one chain from +0 over the turned kernel's rows and columns that meet its phase of the stride, then output
/// channels; positions of `dy` outside the output run with +0. At stride 1 that is the forward convolution with the
/// turned, transposed kernel.
pub fn dense_data_gradient<T: Real>(dy: &[T], input: Shape, weights: &DenseWeights<T>) -> Vec<T> {
    weights.check(input);
    let output = weights.output_shape(input);
    assert_eq!(dy.len(), output.elements());
    let mut dx = Vec::with_capacity(input.elements());
    for (image, row, column) in input.positions() {
        for i in 0..weights.inputs {
            let mut sum = T::ZERO;
            for r in (0..weights.kernel).rev() {
                let Some(from_row) = weights.destination(row, r) else { continue };
                for c in (0..weights.kernel).rev() {
                    let Some(from_column) = weights.destination(column, c) else { continue };
                    for o in 0..weights.outputs {
                        let gradient = output.padded(dy, image, from_row, from_column, o);
                        sum = gradient.mul_add(weights.weight[weights.index(o, i, r, c)], sum);
                    }
                }
            }
            dx.push(sum);
        }
    }
    dx
}

/// Gradients of all weights, each summed over output pixels in memory order. Of `weights` only the sizes matter.
pub fn dense_weight_gradients<T: Real>(x: &[T], dy: &[T], input: Shape, weights: &DenseWeights<T>) -> DenseWeights<T> {
    weights.check(input);
    let output = weights.output_shape(input);
    assert_eq!(x.len(), input.elements());
    assert_eq!(dy.len(), output.elements());
    let mut gradients = weights.map(|_| T::ZERO);
    for (image, row, column) in output.positions() {
        for o in 0..weights.outputs {
            let gradient = dy[output.index(image, row, column, o)];
            gradients.bias[o] = gradients.bias[o] + gradient;
            for r in 0..weights.kernel {
                for c in 0..weights.kernel {
                    for i in 0..weights.inputs {
                        let value = input.padded(x, image, weights.source(row, r), weights.source(column, c), i);
                        let weight = &mut gradients.weight[weights.index(o, i, r, c)];
                        *weight = gradient.mul_add(value, *weight);
                    }
                }
            }
        }
    }
    gradients
}
