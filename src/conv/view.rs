//! Activations as callers hold them.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Activations to read: [images, height, width, channels] side by side, borrowed from the caller.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub(super) data: &'a [f32],
    pub(super) shape: [usize; 4],
}

impl<'a> TensorView<'a> {
    /// Views `data` as `shape`: images, height, width, channels.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn new(data: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        check(data.len(), shape)?;
        Ok(TensorView { data, shape })
    }

    /// Images, height, width, channels.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All values of one image.
    pub(super) fn image(&self, image: usize) -> &'a [f32] {
        let [_, height, width, channels] = self.shape;
        let elements = height * width * channels;
        &self.data[image * elements..(image + 1) * elements]
    }
}

/// Activations to write: [images, height, width, channels] side by side, borrowed from the caller.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) shape: [usize; 4],
}

impl<'a> TensorViewMut<'a> {
    /// Views `data` as `shape`: images, height, width, channels.
    ///
    /// # Errors
    /// [`Error::Shape`] if the data has another length.
    pub fn new(data: &'a mut [f32], shape: [usize; 4]) -> Result<Self> {
        check(data.len(), shape)?;
        Ok(TensorViewMut { data, shape })
    }

    /// Images, height, width, channels.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }
}

/// What a convolution adds to its output before the ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// What the output holds: it is updated in place, as in the second half of a residual block.
    Output,
    /// Another tensor of the output's shape.
    Tensor(TensorView<'a>),
}

/// A shape as messages write it.
pub(super) fn text([n, h, w, c]: [usize; 4]) -> String {
    format!("{n} x {h} x {w} x {c}")
}

fn check(length: usize, shape: [usize; 4]) -> Result<()> {
    // One image has to fit memory even where there is none: code computes with its size.
    let image = shape[1..].iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    let expected = image.and_then(|image| image.checked_mul(shape[0]));
    if expected == Some(length) {
        return Ok(());
    }
    let expected =
        expected.map_or("a size that fits memory".to_string(), |expected| format!("{expected} values ({})", text(shape)));
    Err(Error::shape("tensor", expected, format!("{length} values")))
}
