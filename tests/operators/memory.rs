//! Rows of pixels in guarded memory, with gaps that nothing may touch.
#![forbid(unsafe_code)]

use crate::common::guard::{CANARY, Edge, GuardedBuffer};
use leanresnet::internals::kernel::rows::{Layout, Source};
use leanresnet::internals::kernel::target::Target;

/// Elements between the values of a buffer; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Before the first row.
    pub(crate) before: usize,
    /// After each pixel.
    pub(crate) pixel: usize,
    /// After each row.
    pub(crate) row: usize,
}

impl Gaps {
    /// The layout of `ring` rows in memory.
    pub(crate) fn layout(self, ring: usize, width: usize, channels: usize) -> Layout {
        let pixel_step = channels + self.pixel;
        Layout { origin: self.before, row_step: width * pixel_step + self.row, pixel_step, ring, first: 0 }
    }
}

/// Rows of `width` pixels of `channels` values, in a buffer that ends with the last value.
pub(crate) struct Rows {
    buffer: GuardedBuffer,
    layout: Layout,
    width: usize,
    channels: usize,
}

impl Rows {
    /// Canaries everywhere.
    pub(crate) fn new(layout: Layout, width: usize, channels: usize, edge: Edge) -> Self {
        let length = layout.origin + (layout.ring - 1) * layout.row_step + (width - 1) * layout.pixel_step + channels;
        Rows { buffer: GuardedBuffer::new(length, edge), layout, width, channels }
    }

    /// The rows of an image, [height][width][channels].
    pub(crate) fn holding(values: &[f32], layout: Layout, width: usize, channels: usize, edge: Edge) -> Self {
        let mut rows = Rows::new(layout, width, channels, edge);
        for (h, row) in values.chunks_exact(width * channels).enumerate() {
            rows.set_row(h, row);
        }
        rows
    }

    /// Writes row `h`, [width][channels].
    pub(crate) fn set_row(&mut self, h: usize, values: &[f32]) {
        assert_eq!(values.len(), self.width * self.channels, "a whole row");
        for (w, pixel) in values.chunks_exact(self.channels).enumerate() {
            let at = self.layout.row(h) + w * self.layout.pixel_step;
            self.buffer[at..at + self.channels].copy_from_slice(pixel);
        }
    }

    /// Row `h`, [width][channels].
    pub(crate) fn row(&self, h: usize) -> Vec<f32> {
        let pixel = |w: usize| &self.buffer[self.layout.row(h) + w * self.layout.pixel_step..][..self.channels];
        (0..self.width).flat_map(pixel).copied().collect()
    }

    /// The rows 0 to `height`.
    pub(crate) fn rows(&self, height: usize) -> Vec<f32> {
        (0..height).flat_map(|h| self.row(h)).collect()
    }

    /// For kernels to read.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { data: &self.buffer, layout: self.layout }
    }

    /// For kernels to write.
    pub(crate) fn target(&mut self) -> Target<'_> {
        Target::new(&mut self.buffer, self.layout)
    }

    /// An error if anything but the rows' values was written.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.buffer.check()?;
        let is_value = |at: usize| {
            at.checked_sub(self.layout.origin).is_some_and(|at| {
                let in_row = at % self.layout.row_step.max(1);
                in_row / self.layout.pixel_step < self.width && in_row % self.layout.pixel_step < self.channels
            })
        };
        match (0..self.buffer.len()).find(|&at| !is_value(at) && self.buffer[at].to_bits() != CANARY) {
            None => Ok(()),
            Some(at) => Err(format!("the gap at {at} of {:?} was overwritten with {:?}", self.layout, self.buffer[at])),
        }
    }
}
