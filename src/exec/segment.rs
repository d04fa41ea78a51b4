//! Convolutions on rows of one image, alone and two in a row without a tensor between them.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::conv::pack::PackedWeights;
use crate::exec::activation::Activation;
use crate::exec::tensor::Extent;
use crate::kernel::conv::{ConvCall, ConvKernel};
use crate::kernel::element::Element;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::rows::{Epilogue, Layout, Residual, Source};
use crate::kernel::target::Target;
use crate::kernel::upcoming::Ahead;

/// Everything about a convolution but its weights: it runs on any image of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution<T = f32> {
    pub(crate) kernel: ConvKernel<T>,
    /// The input; for dense kernels with the border of zeros that they read.
    pub(crate) input: Extent,
    /// The output, without a border.
    pub(crate) output: Extent,
    pub(crate) stride: usize,
    pub(crate) relu: bool,
}

/// Where rows of an image lie: the slice and its layout.
type Rows<'a, T> = (&'a [T], Layout);

impl<T: Element> Convolution<T> {
    /// The layout of an input image.
    pub(crate) fn input_layout(&self) -> Layout {
        self.input.layout()
    }

    /// The layout of an output image.
    pub(crate) fn output_layout(&self) -> Layout {
        self.output.layout()
    }

    /// Computes `rows` of one output image, of which `y` may be some panels.
    pub(crate) fn run(
        &self,
        weights: &PackedWeights<T>,
        x: Rows<'_, T>,
        y: Target<'_, T>,
        residual: Residual<'_, T>,
        rows: Range<usize>,
    ) {
        self.kernel.run(&mut ConvCall { residual, rows, ..self.call(weights, x, y) });
    }

    /// Computes one whole output image from one whole input image.
    pub(crate) fn image(&self, weights: &PackedWeights<T>, x: &[T], y: &mut [T], residual: Residual<'_, T>, ahead: Ahead) {
        let y = Target::new(y, self.output_layout());
        self.kernel.run(&mut ConvCall { residual, ahead, ..self.call(weights, (x, self.input_layout()), y) });
    }

    /// The call for one whole output image, with nothing added.
    fn call<'a>(&self, weights: &'a PackedWeights<T>, (x, layout): Rows<'a, T>, y: Target<'a, T>) -> ConvCall<'a, T> {
        let epilogue = Epilogue { relu: self.relu, from_output: false };
        let input = (self.input.height, self.input.width);
        let whole = ConvCall::new(weights, Source { data: x, layout }, y, (self.output.height, self.output.width));
        ConvCall { epilogue, input, stride: self.stride, ..whole }
    }
}

/// Bytes of the ring of middle rows that stay in the first or second level of cache between two convolutions.
const RING_BYTES: usize = 64 * 1024;

/// The same for kernels that take rows of an image: half of the second level of cache of the processors that have them.
const IMAGE_RING_BYTES: usize = 1024 * 1024;

/// Bytes of the two matrices from which on they do not stay in the second level of cache from one band to the next.
const LARGE_MATRICES: usize = 1 << 20;

/// A 2x2 average pool and a 1x1 convolution, one after the other, without a tensor between them.
#[derive(Clone, Copy)]
pub(crate) struct PooledConvolution<T = f32> {
    /// Its input is the pooled image, or its output the one that is pooled.
    pub(crate) conv: Convolution<T>,
    pub(crate) pool_first: bool,
    pub(crate) elementwise: Elementwise<T>,
    /// The image that goes in and the one that comes out.
    pub(crate) input: Extent,
    pub(crate) output: Extent,
}

impl<T: Activation> PooledConvolution<T> {
    /// The image between the two.
    pub(crate) fn middle(&self) -> Extent {
        if self.pool_first { self.conv.input } else { self.conv.output }
    }

    /// Output rows that are computed at a time.
    fn band(&self) -> usize {
        (RING_BYTES / (size_of::<T>() * self.middle_rows(1) * self.middle().row())).clamp(1, self.output.height.max(1))
    }

    /// Rows of the middle that belong to so many rows of the output.
    fn middle_rows(&self, rows: usize) -> usize {
        if self.pool_first { rows } else { 2 * rows }
    }

    /// Elements of scratch memory that a run needs.
    pub(crate) fn scratch_elements(&self) -> usize {
        self.middle_rows(self.band()) * self.middle().row()
    }

    /// Computes `rows` of one output image, of which `y` may be some panels if the pool comes first. `scratch`:
    /// [`PooledConvolution::scratch_elements`] values. `done`: called after each band of the first (0) and of the second (1) operator.
    pub(crate) fn run(
        &self,
        weights: &PackedWeights<T>,
        x: &[T],
        mut y: Target<'_, T>,
        rows: Range<usize>,
        scratch: &mut [T],
        mut done: impl FnMut(usize),
    ) {
        for start in rows.clone().step_by(self.band()) {
            let band = start..(start + self.band()).min(rows.end);
            let middle = self.middle_rows(band.start)..self.middle_rows(band.end);
            let held = &mut scratch[..middle.len() * self.middle().row()];
            let layout = self.middle().layout().starting_at(middle.start);
            if self.pool_first {
                average_pool(&self.elementwise, &x[2 * band.start * self.input.row()..], self.input, held);
                done(0);
                self.conv.run(weights, (held, layout), y.reborrow(), Residual::None, band);
            } else {
                self.conv.run(weights, (x, self.conv.input_layout()), Target::new(held, layout), Residual::None, middle);
                done(0);
                average_pool(&self.elementwise, held, self.middle(), y.rows_mut(band));
            }
            done(1);
        }
    }
}

/// 2x2 average pool of an image like `from`, without a border, to as many rows as there are in `y`. `x` begins with the upper row of the
/// first pair.
pub(crate) fn average_pool<T: Element>(elementwise: &Elementwise<T>, x: &[T], from: Extent, y: &mut [T]) {
    for (x, y) in x.chunks(2 * from.row()).zip(y.chunks_exact_mut(from.width / 2 * from.channels)) {
        elementwise.pool(x, from.row(), y, from.channels, 0.25);
    }
}

/// Two lean convolutions in a row, of which the second adds to its output in place: y += L2 (relu) L1 y.
///
/// The middle rows live in a ring. The second convolution runs behind the first by the larger radius of their stencils: by then the
/// middle rows that it reads are there, and the first convolution does not read the rows of y any more that it replaces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InPlaceBlock<T = f32> {
    pub(crate) first: Convolution<T>,
    pub(crate) second: Convolution<T>,
}

impl<T: Element> InPlaceBlock<T> {
    /// Rows of the middle that are computed at a time: all of them where each band would bring the matrices from beyond the cache again.
    fn band(&self) -> usize {
        let (row_bytes, channels) = (size_of::<T>() * self.first.output.row(), self.first.output.channels);
        if 2 * size_of::<T>() * channels * channels > LARGE_MATRICES {
            return self.first.output.height.max(2);
        }
        let ring_bytes = if self.first.kernel.takes_images() { IMAGE_RING_BYTES } else { RING_BYTES };
        (ring_bytes / row_bytes).clamp(2, self.first.output.height.max(2))
    }

    /// Rows that the second convolution is behind the first.
    fn lag(&self) -> usize {
        self.first.kernel.radius().max(self.second.kernel.radius())
    }

    /// Elements of the ring.
    pub(crate) fn ring_elements(&self) -> usize {
        self.ring_rows() * self.first.output.row()
    }

    fn ring_rows(&self) -> usize {
        (self.band() + self.lag() + self.second.kernel.radius()).min(self.first.output.height)
    }

    /// Runs the block on one image `y` in place. `ring`: [`InPlaceBlock::ring_elements`] of scratch memory. `done`: called after
    /// each band of the first (0) and of the second (1) convolution, for those who measure.
    pub(crate) fn run(&self, weights: &[PackedWeights<T>; 2], y: &mut [T], ring: &mut [T], mut done: impl FnMut(usize)) {
        let height = self.first.output.height;
        let ring_layout = Layout { ring: self.ring_rows(), ..self.first.output_layout() };
        let (mut computed, mut finished) = (0, 0);
        while finished < height {
            let next = (computed + self.band()).min(height);
            let middle = Target::new(&mut *ring, ring_layout);
            self.first.run(&weights[0], (y, self.first.input_layout()), middle, Residual::None, computed..next);
            done(0);
            computed = next;
            let ready = if computed == height { height } else { computed.saturating_sub(self.lag()) };
            let output = Target::new(&mut *y, self.second.output_layout());
            self.second.run(&weights[1], (ring, ring_layout), output, Residual::Output, finished..ready);
            done(1);
            finished = ready;
        }
    }
}
