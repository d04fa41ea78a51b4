//! Shapes of NHWC tensors.
#![forbid(unsafe_code)]

use super::Real;

/// Extents of a tensor whose channels lie side by side: element `(n, y, x, c)` is at `((n * h + y) * w + x) * c + channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Rows of an image.
    pub h: usize,
    /// Columns of an image.
    pub w: usize,
    /// Channels of a pixel.
    pub c: usize,
}

impl Shape {
    /// The shape of `n` images of `h` rows, `w` columns and `c` channels.
    pub fn new(n: usize, h: usize, w: usize, c: usize) -> Self {
        Shape { n, h, w, c }
    }

    /// Numbers in the tensor.
    pub fn elements(self) -> usize {
        self.pixels() * self.c
    }

    /// Pixels in all images together.
    pub fn pixels(self) -> usize {
        self.n * self.h * self.w
    }

    /// The same images with another number of channels.
    #[must_use]
    pub fn with_channels(self, c: usize) -> Self {
        Shape { c, ..self }
    }

    /// Position of one element.
    pub fn index(self, image: usize, row: usize, column: usize, channel: usize) -> usize {
        assert!(image < self.n && row < self.h && column < self.w && channel < self.c, "index outside {self:?}");
        ((image * self.h + row) * self.w + column) * self.c + channel
    }

    /// One element, or positive zero where `(row, column)` lies outside the image.
    pub(super) fn padded<T: Real>(self, x: &[T], image: usize, row: isize, column: isize, channel: usize) -> T {
        let inside = 0 <= row && row < self.h as isize && 0 <= column && column < self.w as isize;
        if inside { x[self.index(image, row as usize, column as usize, channel)] } else { T::ZERO }
    }

    /// All `(image, row, column)`, in memory order.
    pub(super) fn positions(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.n).flat_map(move |image| (0..self.h).flat_map(move |row| (0..self.w).map(move |column| (image, row, column))))
    }
}
