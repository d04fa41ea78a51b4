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
use crate::kernel::upcoming::{Ahead, Upcoming};
use crate::machine;

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
        let ahead = self.streams(x, y.layout, &rows);
        self.kernel.run(&mut ConvCall { residual, rows, ahead, ..self.call(weights, x, y) });
    }

    /// What a call of `rows` fetches: input rows after those that it reads, and its output, where they come from beyond the second level of
    /// cache.
    fn streams(&self, (x, layout): Rows<'_, T>, y: Layout, rows: &Range<usize>) -> Ahead {
        let mut ahead = Ahead::default();
        let large = machine::second_level_cache() / 4;
        let is_large = |layout: Layout| size_of::<T>() * layout.ring * layout.row_step > large;
        if is_large(layout) && !self.kernel.takes_images() {
            let row_bytes = size_of::<T>() * layout.row_step;
            let first = rows.start * self.stride + self.kernel.radius() + 1;
            // Not cut off at the end of the image: each run fetches its share of the bytes, which would then lag behind what it reads.
            ahead.upcoming[0] = Upcoming::new(x.as_ptr().addr() + first * row_bytes, rows.len() * self.stride * row_bytes);
            ahead.output = is_large(y);
        }
        ahead
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

/// Bytes of the rows between a pool and its convolution, which stay in the first or second level of cache.
const BAND_BYTES: usize = 64 * 1024;

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
        (BAND_BYTES / (size_of::<T>() * self.middle_rows(1) * self.middle().row())).clamp(1, self.output.height.max(1))
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
    /// Rows of the middle that are computed at a time, with a second level of cache of `cache` bytes: all rows where half of that cache
    /// holds them, or where each band would bring the matrices from beyond it again. Otherwise most of the cache is left to the larger
    /// images on both sides of the ring, unless calls of few rows are slow.
    fn band(&self, cache: usize) -> usize {
        let Extent { height, channels, .. } = self.first.output;
        let row_bytes = size_of::<T>() * self.first.output.row();
        let needs_all = 2 * size_of::<T>() * channels * channels > cache;
        if needs_all || row_bytes * height <= cache / 2 {
            return height.max(2);
        }
        let ring_bytes = if self.first.kernel.takes_images() { cache / 2 } else { cache / 8 };
        (ring_bytes / row_bytes).clamp(2, height.max(2))
    }

    /// Rows that the second convolution is behind the first.
    fn lag(&self) -> usize {
        self.first.kernel.radius().max(self.second.kernel.radius())
    }

    /// Elements of the ring.
    pub(crate) fn ring_elements(&self) -> usize {
        self.ring_rows(self.band(machine::second_level_cache())) * self.first.output.row()
    }

    /// Rows of a ring for bands of so many.
    fn ring_rows(&self, band: usize) -> usize {
        (band + self.lag() + self.second.kernel.radius()).min(self.first.output.height)
    }

    /// Runs the block on one image `y` in place. `ring`: [`InPlaceBlock::ring_elements`] of scratch memory. `done`: called after
    /// each band of the first (0) and of the second (1) convolution, for those who measure.
    pub(crate) fn run(&self, weights: &[PackedWeights<T>; 2], y: &mut [T], ring: &mut [T], done: impl FnMut(usize)) {
        self.run_in_bands(self.band(machine::second_level_cache()), weights, y, ring, done);
    }

    fn run_in_bands(
        &self,
        band: usize,
        weights: &[PackedWeights<T>; 2],
        y: &mut [T],
        ring: &mut [T],
        mut done: impl FnMut(usize),
    ) {
        let height = self.first.output.height;
        let ring_layout = Layout { ring: self.ring_rows(band), ..self.first.output_layout() };
        let (mut computed, mut finished) = (0, 0);
        while finished < height {
            let next = (computed + band).min(height);
            let middle = Target::new(&mut *ring, ring_layout);
            self.first.run(&weights[0], (y, self.first.input_layout()), middle, Residual::None, computed..next);
            done(0);
            computed = next;
            let ready = if computed == height { height } else { computed.saturating_sub(self.lag()) };
            let output = Target::new(&mut *y, self.second.output_layout());
            // Both tensors were in the second level of cache a moment ago: nothing to fetch.
            let call = self.second.call(&weights[1], (ring, ring_layout), output);
            self.second.kernel.run(&mut ConvCall { residual: Residual::Output, rows: finished..ready, ..call });
            done(1);
            finished = ready;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::stencil::Stencil;

    const CHANNELS: usize = 35;

    fn block(kernels: &Kernels, (height, width): (usize, usize)) -> InPlaceBlock {
        let extent = Extent::new(height, width, CHANNELS);
        let convolution =
            |relu| Convolution { kernel: kernels.lean(Stencil::Box9, 1), input: extent, output: extent, stride: 1, relu };
        InPlaceBlock { first: convolution(true), second: convolution(false) }
    }

    fn numbers(length: usize, seed: usize) -> impl Iterator<Item = f32> {
        (0..length).map(move |index| ((index * 7919 + seed) % 101) as f32 / 101.0 - 0.5)
    }

    #[test]
    fn bands_of_any_height_give_the_same_bits() {
        let kernels = Kernels::of(Isa::active().unwrap()).unwrap();
        let block = block(kernels, (11, 5));
        let weights = [1, 2].map(|seed| {
            let mut weights = PackedWeights::zeros(Some(Stencil::Box9), 1, CHANNELS, CHANNELS);
            weights.matrix.iter_mut().zip(numbers(usize::MAX, seed)).for_each(|(weight, value)| *weight = value);
            weights.stencil.iter_mut().zip(numbers(usize::MAX, seed + 2)).for_each(|(weight, value)| *weight = value);
            weights
        });
        let image: Vec<f32> = numbers(block.first.output.elements(), 3).collect();
        let run = |band| {
            let mut y = image.clone();
            let mut ring = vec![f32::NAN; block.ring_rows(band) * block.first.output.row()];
            block.run_in_bands(band, &weights, &mut y, &mut ring, |_| ());
            y.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let whole = run(11);
        (2..11).for_each(|band| assert_eq!(run(band), whole, "bands of {band}"));
    }

    #[test]
    fn bands_follow_from_the_cache() {
        let block = block(Kernels::of(Isa::Portable).unwrap(), (64, 64));
        let row_bytes = 4 * block.first.output.row();
        assert_eq!(block.band(2 * 64 * row_bytes), 64, "half of the cache holds the image");
        assert_eq!(block.band(2 * 64 * row_bytes - 2), 15, "an eighth of the cache");
        assert_eq!(block.band(8 * row_bytes), 2, "two rows at least");
        assert_eq!(block.band(2 * 4 * CHANNELS * CHANNELS - 1), 64, "matrices larger than the cache");
    }
}
