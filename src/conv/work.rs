//! One convolution of a batch, cut into ranges of output rows that can be computed in any order.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::desc::{ConvDesc, ConvOperator};
use super::pack::PackedWeights;
use super::view::{Residual, TensorView};
use crate::exec::segment::Convolution;
use crate::exec::tensor::Extent;
use crate::kernel::conv::ConvKernel;
use crate::kernel::rows::{self, Layout, Source};
use crate::kernel::target::Target;

/// Bytes of input rows that are copied at a time beside the zeros that a dense kernel reads: they stay in the second level of cache.
const BAND_BYTES: usize = 128 * 1024;

/// The checked arguments of a run. Calls of [`Work::rows`] touch neither threads nor allocation.
pub(super) struct Work<'a> {
    pub(super) weights: &'a PackedWeights,
    pub(super) x: TensorView<'a>,
    pub(super) residual: Residual<'a>,
    pub(super) convolution: Convolution,
}

/// The convolution of images of one size.
pub(super) fn convolution(kernel: ConvKernel, desc: &ConvDesc, [_, height, width, _]: [usize; 4]) -> Convolution {
    Convolution {
        kernel,
        input: Extent::new(height, width, desc.inputs).with_border(border(desc)),
        output: Extent::new(output_size(height, desc.stride), output_size(width, desc.stride), desc.outputs),
        stride: desc.stride,
        relu: desc.relu,
    }
}

/// Rows (or columns) of the output: PyTorch's (size + 2 padding - kernel) / stride + 1 with padding (kernel - 1) / 2.
pub(super) fn output_size(size: usize, stride: usize) -> usize {
    (size - 1) / stride + 1
}

/// Zeros beside the image that the kernel reads; the lean kernels know where an image ends, and read none.
fn border(desc: &ConvDesc) -> usize {
    match desc.operator {
        ConvOperator::Lean(_) | ConvOperator::Depthwise(_) => 0,
        ConvOperator::Dense(kernel) => (kernel - 1) / 2,
    }
}

/// Values of scratch memory that a task needs on images `width` pixels wide: a band of input rows between zeros.
pub(super) fn scratch_values(desc: &ConvDesc, width: usize) -> usize {
    let border = border(desc);
    if border == 0 {
        return 0;
    }
    let row = width.saturating_add(2 * border).saturating_mul(desc.inputs).max(1);
    row.saturating_mul((BAND_BYTES / 4 / row).max(desc.kernel()))
}

impl Work<'_> {
    /// Computes rows of one image into `y`, which holds just those.
    pub(super) fn rows(&self, image: usize, rows: Range<usize>, y: &mut [f32], scratch: &mut [f32]) {
        let x = self.x.image(image);
        if self.convolution.input.border == 0 {
            self.call((x, self.convolution.input_layout()), image, rows.clone(), (y, rows.start));
            return;
        }
        let (row, kernel, stride) = (self.convolution.input.row(), self.weights.rows, self.convolution.stride);
        let step = (scratch.len() / row - kernel) / stride + 1;
        for start in rows.clone().step_by(step) {
            let end = (start + step).min(rows.end);
            // In rows that count from the first one of the border.
            let band = start * stride..(end - 1) * stride + kernel;
            let held = &mut scratch[..band.len() * row];
            self.copy_band(x, band.start, held);
            let layout = Layout { ring: band.len(), first: band.start, ..self.convolution.input_layout() };
            self.call((held, layout), image, start..end, (y, rows.start));
        }
    }

    /// Copies input rows, with the zeros around them, to a band.
    fn copy_band(&self, x: &[f32], first: usize, band: &mut [f32]) {
        let input = self.convolution.input;
        let (length, left) = (input.width * input.channels, input.border * input.channels);
        for (index, to) in band.chunks_exact_mut(input.row()).enumerate() {
            match (first + index).checked_sub(input.border).filter(|&row| row < input.height) {
                Some(row) => {
                    to[..left].fill(0.0);
                    to[left..left + length].copy_from_slice(&x[row * length..(row + 1) * length]);
                    to[left + length..].fill(0.0);
                }
                None => to.fill(0.0),
            }
        }
    }

    /// Calls the kernel. `y` begins with row `y_first` of the output.
    fn call(&self, x: (&[f32], Layout), image: usize, range: Range<usize>, (y, y_first): (&mut [f32], usize)) {
        let output = self.convolution.output_layout();
        let residual = match self.residual {
            Residual::None => rows::Residual::None,
            Residual::Output => rows::Residual::Output,
            Residual::Tensor(tensor) => rows::Residual::Rows(Source { data: tensor.image(image), layout: output }),
        };
        self.convolution.run(self.weights, x, Target::new(y, output.starting_at(y_first)), residual, range);
    }
}
