//! Images as callers hold them.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::exec::activation::Activation;
use crate::net::preprocess::Preprocess;

/// A batch of images of one size, borrowed from the caller.
///
/// Numbers are taken as normalised; bytes are normalised by the model's [`Preprocess`] as the first layer reads them.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    pixels: Pixels<'a>,
    channels_last: bool,
    shape: [usize; 4],
}

#[derive(Clone, Copy, Debug)]
enum Pixels<'a> {
    Numbers(&'a [f32]),
    Bytes(&'a [u8]),
}

impl<'a> Images<'a> {
    /// Numbers [n, c, h, w], as PyTorch holds them. `shape`: n, c, h, w.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn nchw_f32(data: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        Self::new(Pixels::Numbers(data), data.len(), shape, false)
    }

    /// Numbers [n, h, w, c]. `shape`: n, c, h, w.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn nhwc_f32(data: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        Self::new(Pixels::Numbers(data), data.len(), shape, true)
    }

    /// Bytes [n, c, h, w], as CIFAR's files hold them. `shape`: n, c, h, w.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn nchw_u8(data: &'a [u8], shape: [usize; 4]) -> Result<Self> {
        Self::new(Pixels::Bytes(data), data.len(), shape, false)
    }

    /// Bytes [n, h, w, c], as image files hold them. `shape`: n, c, h, w.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn nhwc_u8(data: &'a [u8], shape: [usize; 4]) -> Result<Self> {
        Self::new(Pixels::Bytes(data), data.len(), shape, true)
    }

    fn new(pixels: Pixels<'a>, length: usize, shape: [usize; 4], channels_last: bool) -> Result<Self> {
        let expected = shape.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent));
        if expected != Some(length) {
            let [n, c, h, w] = shape;
            let expected = expected
                .map_or("a size that fits memory".to_string(), |expected| format!("{expected} values ({n} x {c} x {h} x {w})"));
            return Err(Error::shape("images", expected, format!("{length} values")));
        }
        Ok(Images { pixels, channels_last, shape })
    }

    /// Images, channels, height, width.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// True for bytes, which the model normalises.
    pub(crate) fn are_bytes(&self) -> bool {
        matches!(self.pixels, Pixels::Bytes(_))
    }

    /// The image `first`, `first + 1`, ... up to `count` of them.
    pub(crate) fn part(&self, first: usize, count: usize) -> Self {
        let [_, c, h, w] = self.shape;
        let range = first * c * h * w..(first + count) * c * h * w;
        let pixels = match self.pixels {
            Pixels::Numbers(data) => Pixels::Numbers(&data[range]),
            Pixels::Bytes(data) => Pixels::Bytes(&data[range]),
        };
        Images { pixels, shape: [count, c, h, w], ..*self }
    }

    /// Writes rows of an image, channels last, to the rows of `to` from `offset` on, `row_step` apart, with pixels `pixel_step` apart.
    pub(crate) fn copy_rows<T: Activation>(
        &self,
        image: usize,
        rows: std::ops::Range<usize>,
        to: &mut [T],
        (offset, row_step, pixel_step): (usize, usize, usize),
        map: &ByteMap,
    ) {
        let [_, channels, height, width] = self.shape;
        let base = image * channels * height * width;
        for (index, h) in rows.enumerate() {
            let row = &mut to[offset + index * row_step..][..width * pixel_step];
            for channel in 0..channels {
                let at = |w: usize| {
                    base + if self.channels_last {
                        (h * width + w) * channels + channel
                    } else {
                        (channel * height + h) * width + w
                    }
                };
                let values = row.iter_mut().skip(channel).step_by(pixel_step).enumerate();
                match self.pixels {
                    Pixels::Numbers(data) => values.for_each(|(w, value)| *value = T::nearest(data[at(w)])),
                    Pixels::Bytes(data) => values.for_each(|(w, value)| *value = T::nearest(map.value(channel, data[at(w)]))),
                }
            }
        }
    }
}

/// The normalised value of every byte, per channel.
#[derive(Clone, Debug)]
pub(crate) struct ByteMap(Vec<[f32; 256]>);

impl ByteMap {
    pub(crate) fn new(preprocess: &Preprocess) -> Self {
        ByteMap(preprocess.table())
    }

    fn value(&self, channel: usize, byte: u8) -> f32 {
        self.0[channel][usize::from(byte)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_and_types_agree() {
        let bytes: Vec<u8> = (0..24).collect();
        let last: Vec<u8> = (0..24).map(|at| (at % 2 * 12 + at / 2) as u8).collect();
        let map = ByteMap::new(&Preprocess::new(&[0.5, 0.25], &[0.5, 2.0]));
        let numbers: Vec<f32> = (0..24).map(|at| map.value(at / 12, at as u8)).collect();
        let shape = [1, 2, 3, 4];
        let all = [
            Images::nchw_u8(&bytes, shape).unwrap(),
            Images::nhwc_u8(&last, shape).unwrap(),
            Images::nchw_f32(&numbers, shape).unwrap(),
        ];
        let rows = all.map(|images| {
            let mut rows = vec![0.0; 2 * 10];
            images.copy_rows(0, 1..3, &mut rows, (1, 10, 2), &map);
            rows
        });
        assert_eq!(rows[0], rows[1]);
        assert_eq!(rows[0], rows[2]);
        assert_eq!(rows[0][1..3], [map.value(0, 4), map.value(1, 16)]);
    }

    #[test]
    fn wrong_lengths_are_named() {
        let error = Images::nchw_f32(&[0.0; 5], [1, 3, 2, 2]).unwrap_err();
        assert_eq!(error.to_string(), "shape of images; expected 12 values (1 x 3 x 2 x 2), got 5 values");
        assert!(Images::nchw_u8(&[], [usize::MAX, 2, 1, 1]).is_err());
    }
}
