//! Activations of a batch: images of rows of pixels, channels last, with an optional border of zeros around each image.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use crate::exec::shared::{Read, SharedBuffer, Write, WritePart};
use crate::kernel::rows::Layout;
use crate::kernel::upcoming::Upcoming;

/// Extents of one image of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// Pixels of zeros on every side, there for dense kernels to read.
    pub(crate) border: usize,
}

impl Extent {
    /// An image without a border.
    pub(crate) fn new(height: usize, width: usize, channels: usize) -> Self {
        Extent { height, width, channels, border: 0 }
    }

    /// The same image with a border.
    pub(crate) fn with_border(self, border: usize) -> Self {
        Extent { border, ..self }
    }

    /// Elements of a row with its border.
    pub(crate) fn row(&self) -> usize {
        (self.width + 2 * self.border) * self.channels
    }

    /// Rows with the border.
    pub(crate) fn rows(&self) -> usize {
        self.height + 2 * self.border
    }

    /// Elements of an image with its border.
    pub(crate) fn elements(&self) -> usize {
        self.rows() * self.row()
    }

    /// Pixels without the border.
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Where the rows lie, counted from the first one of the border.
    pub(crate) fn layout(&self) -> Layout {
        Layout { origin: 0, row_step: self.row(), pixel_step: self.channels, ring: self.rows(), first: 0 }
    }
}

/// Activations of several images. Tasks borrow images or rows.
pub(crate) struct Activations<T = f32> {
    pub(crate) extent: Extent,
    buffer: Arc<SharedBuffer<T>>,
    /// Tiles of the buffer that a row takes: several where tensors of other extents use it at other times.
    row_tiles: usize,
}

impl<T: Copy + Default> Activations<T> {
    /// Zeros for `images` images.
    pub(crate) fn new(images: usize, extent: Extent) -> Self {
        let buffer = SharedBuffer::of_pixels(images * extent.rows(), extent.row(), extent.channels);
        Activations { extent, buffer: Arc::new(buffer), row_tiles: 1 }
    }

    /// One tensor of each extent in the same memory, which they use in turns.
    pub(crate) fn sharing(images: usize, extents: &[Extent]) -> Vec<Self> {
        let tile = extents.iter().fold(0, |tile, extent| greatest_common_divisor(extent.row(), tile)).max(1);
        let elements = extents.iter().map(Extent::elements).max().unwrap_or(0);
        let buffer = Arc::new(SharedBuffer::new(images * elements / tile, tile));
        extents
            .iter()
            .map(|&extent| Activations { extent, buffer: Arc::clone(&buffer), row_tiles: extent.row() / tile })
            .collect()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// All rows of an image, with the border.
    pub(crate) fn read(&self, image: usize) -> Read<'_, T> {
        self.buffer.read(self.image(image))
    }

    /// Where an image lies.
    pub(crate) fn upcoming(&self, image: usize) -> Upcoming {
        self.buffer.upcoming(self.image(image))
    }

    /// All rows of an image, with the border, to write.
    pub(crate) fn write(&self, image: usize) -> Write<'_, T> {
        self.buffer.write(self.image(image))
    }

    /// Some rows of an image to write, counted from the first one of the border.
    pub(crate) fn write_rows(&self, image: usize, rows: Range<usize>) -> Write<'_, T> {
        self.buffer.write(self.tiles(image, rows))
    }

    /// Some rows of an image for a convolution to write, counted from the first one of the border; all channels, or some panels.
    pub(crate) fn write_part(&self, image: usize, rows: Range<usize>, panels: Option<Range<usize>>) -> WritePart<'_, T> {
        assert_eq!(self.row_tiles, 1, "tiles that are rows of pixels");
        self.buffer.write_part(self.tiles(image, rows), panels)
    }

    fn image(&self, image: usize) -> Range<usize> {
        self.tiles(image, 0..self.extent.rows())
    }

    /// The tiles of some rows of an image, counted from the first one of the border.
    fn tiles(&self, image: usize, rows: Range<usize>) -> Range<usize> {
        let first = image * self.extent.rows();
        (first + rows.start) * self.row_tiles..(first + rows.end) * self.row_tiles
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Copies rows of an image without a border into as many rows of one with a border, `left` pixels from its beginning.
pub(crate) fn copy_rows_inside<T: Copy>(from: &[T], to: &mut [T], extent: Extent, left: usize) {
    let (length, left) = (extent.width * extent.channels, left * extent.channels);
    for (from, to) in from.chunks_exact(length).zip(to.chunks_exact_mut(extent.row())) {
        to[left..left + length].copy_from_slice(from);
    }
}
