//! The two formats of pixels.
#![forbid(unsafe_code)]

use std::fmt;

use crate::error::Result;

use super::Dataset;

/// What the pixels of a data set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelType {
    /// Bytes, which a [`Preprocess`](crate::net::Preprocess) turns into what a network reads.
    U8,
    /// Numbers that a network reads as they are.
    F32,
}

impl fmt::Display for PixelType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PixelType::U8 => "bytes",
            PixelType::F32 => "numbers",
        })
    }
}

/// A pixel of either format.
pub(super) trait Pixel: Copy + Default + Send {
    /// Writes image `index` to `pixels`.
    fn image(dataset: &dyn Dataset, index: usize, pixels: &mut [Self]) -> Result<()>;
    /// What the network reads; `table`: the normalised value of every byte of the pixel's channel.
    fn value(self, table: &[[f32; 256]], channel: usize) -> f32;
}

impl Pixel for u8 {
    fn image(dataset: &dyn Dataset, index: usize, pixels: &mut [Self]) -> Result<()> {
        dataset.image(index, pixels)
    }

    fn value(self, table: &[[f32; 256]], channel: usize) -> f32 {
        table[channel][usize::from(self)]
    }
}

impl Pixel for f32 {
    fn image(dataset: &dyn Dataset, index: usize, pixels: &mut [Self]) -> Result<()> {
        dataset.image_f32(index, pixels)
    }

    fn value(self, _: &[[f32; 256]], _: usize) -> f32 {
        self
    }
}
