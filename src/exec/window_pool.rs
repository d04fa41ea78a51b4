//! Maximum and mean over windows of any size. Bound by loads: a window's pixels are read from the first or second level of cache, once
//! for each window that holds them.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::exec::tensor::Extent;
use crate::kernel::element::Element;

/// What becomes of a window's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The largest; NaN if there is one.
    Maximum,
    /// The sum by the number of pixels, of those outside of the image too if `counts_padding`.
    Mean { counts_padding: bool },
}

/// A pool over windows of an image without a border.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowPool {
    pub(crate) reduction: Reduction,
    /// Height and width of a window.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Pixels outside of the image above, left, below and right.
    pub(crate) padding: [usize; 4],
}

/// Channels that are reduced at a time, in registers.
const LANES: usize = 32;

impl WindowPool {
    /// Computes `rows` of the output, which is all that `y` holds, from a whole image.
    pub(crate) fn run<T: Element>(&self, (x, input): (&[T], Extent), (y, output): (&mut [T], Extent), rows: Range<usize>) {
        for (row, y) in rows.zip(y.chunks_exact_mut(output.row())) {
            let (above, below) = self.window(0, row, input.height);
            for (column, y) in y.chunks_exact_mut(output.channels).enumerate() {
                let (left, right) = self.window(1, column, input.width);
                let count = match self.reduction {
                    Reduction::Mean { counts_padding: true } => {
                        self.covered(0, row, input.height) * self.covered(1, column, input.width)
                    }
                    _ => below.saturating_sub(above) * right.saturating_sub(left),
                };
                for (index, y) in y.chunks_mut(LANES).enumerate() {
                    let pixels = (above..below).flat_map(|row| {
                        (left..right).map(move |column| row * input.row() + column * input.channels + index * LANES)
                    });
                    let length = y.len();
                    self.reduce(pixels.map(|at| &x[at..at + length]), count, y);
                }
            }
        }
    }

    /// Rows (or columns, for `axis` 1) of the image that a window covers.
    fn window(&self, axis: usize, index: usize, size: usize) -> (usize, usize) {
        let start = index * self.stride;
        let begin = start.saturating_sub(self.padding[axis]);
        (begin.min(size), (start + self.kernel[axis]).saturating_sub(self.padding[axis]).min(size))
    }

    /// Rows (or columns) of the padded image that a window covers.
    fn covered(&self, axis: usize, index: usize, size: usize) -> usize {
        let end = self.padding[axis] + size + self.padding[axis + 2];
        (index * self.stride + self.kernel[axis]).min(end) - index * self.stride
    }

    fn reduce<'a, T: Element>(&self, pixels: impl Iterator<Item = &'a [T]>, count: usize, y: &mut [T]) {
        let mut result = [if self.reduction == Reduction::Maximum { f32::NEG_INFINITY } else { 0.0 }; LANES];
        for pixel in pixels {
            for (result, value) in result.iter_mut().zip(pixel) {
                let value = value.widened();
                *result = match self.reduction {
                    Reduction::Maximum if value > *result || value.is_nan() => value,
                    Reduction::Maximum => *result,
                    Reduction::Mean { .. } => *result + value,
                };
            }
        }
        let divisor = count.max(1) as f32;
        for (y, result) in y.iter_mut().zip(result) {
            *y = T::nearest(if self.reduction == Reduction::Maximum { result } else { result / divisor });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled(pool: WindowPool, x: &[f32], size: (usize, usize), output: (usize, usize)) -> Vec<f32> {
        let (input, output) = (Extent::new(size.0, size.1, 1), Extent::new(output.0, output.1, 1));
        let mut y = vec![f32::NAN; output.elements()];
        pool.run((x, input), (&mut y, output), 0..output.height);
        y
    }

    #[test]
    fn windows_at_the_edges_are_smaller() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let pool = |reduction| WindowPool { reduction, kernel: [3, 3], stride: 2, padding: [1; 4] };
        assert_eq!(pooled(pool(Reduction::Maximum), &x, (3, 3), (2, 2)), [5.0, 6.0, 8.0, 9.0]);
        assert_eq!(pooled(pool(Reduction::Mean { counts_padding: false }), &x, (3, 3), (2, 2)), [3.0, 4.0, 6.0, 7.0]);
        let counted = pooled(pool(Reduction::Mean { counts_padding: true }), &x, (3, 3), (2, 2));
        assert_eq!(counted, [12.0 / 9.0, 16.0 / 9.0, 24.0 / 9.0, 28.0 / 9.0]);
    }

    #[test]
    fn nan_and_negative_values_stay() {
        let pool = WindowPool { reduction: Reduction::Maximum, kernel: [1, 2], stride: 1, padding: [0, 1, 0, 0] };
        let y = pooled(pool, &[-3.0, f32::NAN, -1.0], (1, 3), (1, 3));
        assert_eq!(y[0], -3.0);
        assert!(y[1].is_nan() && y[2].is_nan());
    }

    #[test]
    fn channels_beyond_a_register_are_reduced_too() {
        let channels = LANES + 5;
        let x: Vec<f32> = (0..2 * channels).map(|index| index as f32).collect();
        let pool = WindowPool { reduction: Reduction::Maximum, kernel: [1, 2], stride: 2, padding: [0; 4] };
        let (input, output) = (Extent::new(1, 2, channels), Extent::new(1, 1, channels));
        let mut y = vec![0.0; channels];
        pool.run((&x, input), (&mut y, output), 0..1);
        assert_eq!(y, x[channels..]);
    }
}
