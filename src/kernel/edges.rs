//! Which pixels of a call have neighbours outside the image.
#![forbid(unsafe_code)]

use crate::stencil::Stencil;

/// The largest radius of a stencil.
const RADIUS: usize = 2;

/// Output pixels in a row of memory, and the image whose neighbours they read.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    /// Row and column of the first output pixel.
    pub(super) first: (usize, usize),
    /// How many; at most 64.
    pub(super) count: usize,
    /// Output pixels of a row.
    pub(super) width: usize,
    /// Rows and columns of the input.
    pub(super) input: (usize, usize),
    /// Input pixels from an output pixel to the next.
    pub(super) stride: usize,
}

/// Which pixels lie less than 1, 2, ... input pixels from an edge of the image, as bit sets.
#[derive(Default)]
pub(super) struct Edges {
    left: [u64; RADIUS],
    right: [u64; RADIUS],
    top: [u64; RADIUS],
    bottom: [u64; RADIUS],
}

/// The lowest `count` bits; `count` is at most 64.
pub(super) fn low_bits(count: usize) -> u64 {
    u64::MAX.checked_shr(64 - count as u32).unwrap_or(0)
}

impl Edges {
    /// The edges near some pixels, for a stencil's taps.
    pub(super) fn of(pixels: &Pixels, stencil: Stencil) -> Self {
        let mut edges = Edges::default();
        let ((mut h, mut w), (height, width)) = (pixels.first, pixels.input);
        let mut at = 0;
        while at < pixels.count {
            let count = (pixels.width - w).min(pixels.count - at);
            // The pixels of this row from column `from` up to column `to`.
            let span = |from: usize, to: usize| {
                let (from, to) = (from.max(w), to.min(w + count));
                if from < to { low_bits(to - from) << (at + from - w) } else { 0 }
            };
            for distance in 1..=stencil.radius() {
                edges.left[distance - 1] |= span(0, distance.div_ceil(pixels.stride));
                edges.right[distance - 1] |= span(width.saturating_sub(distance).div_ceil(pixels.stride), pixels.width);
                if h * pixels.stride < distance {
                    edges.top[distance - 1] |= span(0, pixels.width);
                }
                if h * pixels.stride + distance >= height {
                    edges.bottom[distance - 1] |= span(0, pixels.width);
                }
            }
            at += count;
            (h, w) = (h + 1, 0);
        }
        edges
    }

    /// The pixels whose tap (dy, dx) lies outside the image.
    pub(super) fn outside(&self, dy: i8, dx: i8) -> u64 {
        let beyond = |before: &[u64; RADIUS], after: &[u64; RADIUS], distance: i8| match distance {
            ..0 => before[usize::from(distance.unsigned_abs()) - 1],
            0 => 0,
            1.. => after[distance as usize - 1],
        };
        beyond(&self.left, &self.right, dx) | beyond(&self.top, &self.bottom, dy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_from_none_to_all() {
        assert_eq!([0, 1, 63, 64].map(low_bits), [0, 1, u64::MAX >> 1, u64::MAX]);
    }

    /// Every pixel asked one by one.
    #[test]
    fn taps_outside_are_those_that_arithmetic_finds() {
        for (input, stride) in [((1, 1), 1), ((2, 3), 1), ((9, 7), 1), ((5, 4), 2), ((6, 7), 2), ((9, 9), 4), ((3, 64), 1)] {
            let output = ((input.0 - 1) / stride + 1, (input.1 - 1) / stride + 1);
            for start in 0..output.0 * output.1 {
                let count = (output.0 * output.1 - start).min(64);
                let first = (start / output.1, start % output.1);
                let edges = Edges::of(&Pixels { first, count, width: output.1, input, stride }, Stencil::Box25);
                for &(dy, dx) in Stencil::Box25.taps() {
                    for pixel in 0..count {
                        let (h, w) = ((start + pixel) / output.1 * stride, (start + pixel) % output.1 * stride);
                        let inside = h.checked_add_signed(dy.into()).is_some_and(|h| h < input.0)
                            && w.checked_add_signed(dx.into()).is_some_and(|w| w < input.1);
                        assert_eq!(edges.outside(dy, dx) >> pixel & 1 == 0, inside, "{input:?} {first:?} {dy} {dx} {pixel}");
                    }
                }
            }
        }
    }
}
