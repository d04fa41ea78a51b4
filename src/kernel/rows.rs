//! Rows of pixels in memory: whole images, rings of rows and padded bands, read and written by the same kernels.
#![forbid(unsafe_code)]

use std::ops::Range;

/// How rows of pixels lie in a slice. Everything counts elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where row 0, pixel 0 lies.
    pub origin: usize,
    /// From a row to the next.
    pub row_step: usize,
    /// From a pixel to the next.
    pub pixel_step: usize,
    /// Rows in memory: row h lies where row h plus or minus `ring` does.
    pub ring: usize,
    /// The row that lies at the origin.
    pub first: usize,
}

impl Layout {
    /// A whole image [height][width][channels].
    #[cfg(any(test, feature = "__internals"))]
    pub fn image(height: usize, width: usize, channels: usize) -> Self {
        Layout { origin: 0, row_step: width * channels, pixel_step: channels, ring: height.max(1), first: 0 }
    }

    /// The last `ring` rows of an image that is `width` pixels wide.
    #[cfg(any(test, feature = "__internals"))]
    pub fn ring(ring: usize, width: usize, channels: usize) -> Self {
        Layout { origin: 0, row_step: width * channels, pixel_step: channels, ring, first: 0 }
    }

    /// Rows `first`.. of an image, in a slice that begins with row `first`.
    #[must_use]
    pub fn starting_at(self, first: usize) -> Self {
        Layout { first, ..self }
    }

    /// Offset of row `h`, pixel 0; `h` is at least `first`.
    pub fn row(&self, h: usize) -> usize {
        self.origin + (h - self.first) % self.ring * self.row_step
    }

    /// Offsets of pixel 0 of row `h` and of those that follow.
    pub(super) fn offsets(&self, h: usize) -> impl Iterator<Item = usize> {
        let (origin, step, ring) = (self.origin, self.row_step, self.ring);
        let following = move |place: &usize| Some(if place + 1 == ring { 0 } else { place + 1 });
        std::iter::successors(Some((h - self.first) % ring), following).map(move |place| origin + place * step)
    }

    /// True if row `h + 1` does not lie after row `h` but at the origin again.
    pub fn wraps_after(&self, h: usize) -> bool {
        (h + 1 - self.first).is_multiple_of(self.ring)
    }

    /// True if a slice of `length` holds pixels 0..`width` of `channels` values of all of `rows`.
    pub fn fits(&self, length: usize, rows: &Range<usize>, width: usize, channels: usize) -> bool {
        if rows.is_empty() || width == 0 {
            return true;
        }
        if rows.start < self.first {
            return false;
        }
        let rows = rows.start - self.first..rows.end - self.first;
        // The last row in memory is the last of the range, or the ring's last if the range wraps around.
        let wraps = rows.len() >= self.ring || rows.start % self.ring + rows.len() > self.ring;
        let last = if wraps { self.ring - 1 } else { (rows.end - 1) % self.ring };
        last.checked_mul(self.row_step)
            .and_then(|at| at.checked_add(self.origin))
            .and_then(|at| at.checked_add((width - 1).checked_mul(self.pixel_step)?))
            .and_then(|at| at.checked_add(channels))
            .is_some_and(|end| end <= length)
    }
}

/// Rows to read.
#[derive(Clone, Copy)]
pub struct Source<'a, T = f32> {
    /// The memory.
    pub data: &'a [T],
    /// Where the rows lie in it.
    pub layout: Layout,
}

/// What the epilogue adds to the output.
#[derive(Clone, Copy)]
pub enum Residual<'a, T = f32> {
    /// Nothing.
    None,
    /// The output's own former content: y += ... in place.
    Output,
    /// Other rows, disjoint from the output.
    Rows(Source<'a, T>),
}

/// Parts of the kernels' epilogue and start; weights with a scale always apply it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    /// y = y < 0 ? +0 : y, after everything else.
    pub relu: bool,
    /// Start from the output's former content instead of bias and stencil: a later block of k.
    pub from_output: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_its_last_rows() {
        let ring = Layout::ring(3, 4, 2);
        assert_eq!((ring.row(0), ring.row(2), ring.row(3)), (0, 16, 0));
        assert!(ring.fits(24, &(1..4), 4, 2));
        assert!(!ring.fits(23, &(1..4), 4, 2), "the range wraps, so the ring's last row is used");
        assert!(ring.fits(8, &(3..4), 4, 2));
    }

    #[test]
    fn sizes_that_overflow_do_not_fit() {
        let layout = Layout { origin: 0, row_step: usize::MAX, pixel_step: 1, ring: 10, first: 0 };
        assert!(!layout.fits(usize::MAX, &(0..3), 1, 1));
    }
}
