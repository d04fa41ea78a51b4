//! How images of bytes become the input of a model.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Largest length of the shorter side that images are scaled to.
const MAX_RESIZE: usize = 65_536;

/// The map from bytes to inputs: `(byte / 255 - mean) / std` for each channel, after scaling images that have another size.
///
/// Images that are numbers do not pass through it. A model that was trained on numbers of which nobody knows how they would come from
/// bytes has no mean and no standard deviation ([`numbers_only`](Self::numbers_only)), and refuses bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Preprocess {
    /// Mean of each channel, of values in [0, 1]. Empty, as `std` is, if bytes are refused.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, of values in [0, 1].
    pub std: Vec<f32>,
    /// Scale the shorter side of an image to this many pixels, then take the centre of the network's input size; without it images
    /// are scaled to the input size itself.
    pub resize: Option<usize>,
}

impl Preprocess {
    /// With mean and standard deviation per channel, without `resize`.
    pub fn new(mean: &[f32], std: &[f32]) -> Self {
        Self { mean: mean.to_vec(), std: std.to_vec(), resize: None }
    }

    /// Bytes become `byte / 255`.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels], resize: None }
    }

    /// No map: a model with it takes numbers only, and refuses bytes.
    pub fn numbers_only() -> Self {
        Self { mean: Vec::new(), std: Vec::new(), resize: None }
    }

    /// False if bytes are refused.
    pub fn takes_bytes(&self) -> bool {
        !self.mean.is_empty()
    }

    /// Checks that bytes can be turned into inputs.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they are refused.
    pub(crate) fn check_bytes(&self) -> Result<()> {
        if self.takes_bytes() {
            return Ok(());
        }
        let wanted = "numbers (f32), as the model was trained on; it knows no mean and standard deviation of bytes";
        Err(Error::invalid("pixels of the images", wanted, "bytes"))
    }

    /// The same with another `resize`.
    #[must_use]
    pub fn with_resize(mut self, resize: Option<usize>) -> Self {
        self.resize = resize;
        self
    }

    /// The number that every byte becomes, per channel; empty if bytes are refused.
    pub(crate) fn table(&self) -> Vec<[f32; 256]> {
        let channel = |(mean, std): (&f32, &f32)| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
        self.mean.iter().zip(&self.std).map(channel).collect()
    }

    /// Checks that this fits images of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of channels, values that are not finite, deviations that are not positive, and a `resize`
    /// below the input size.
    pub(crate) fn validate(&self, input: [usize; 3]) -> Result<()> {
        let [channels, height, width] = input;
        let refuses_bytes = self.mean.is_empty() && self.std.is_empty();
        for (what, values) in [("preprocess.mean", &self.mean), ("preprocess.std", &self.std)] {
            if values.len() != channels && !refuses_bytes {
                return Err(Error::invalid(what, format!("{channels} values, as there are channels"), values.len()));
            }
        }
        if let Some(value) = self.mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::invalid("preprocess.mean", "finite values", value));
        }
        if let Some(value) = self.std.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
            return Err(Error::invalid("preprocess.std", "finite values above 0", value));
        }
        let smallest = height.max(width);
        match self.resize {
            Some(side) if !(smallest..=MAX_RESIZE).contains(&side) => {
                Err(Error::invalid("preprocess.resize", format!("{smallest} to {MAX_RESIZE} pixels"), side))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalised_per_channel() {
        let table = Preprocess::new(&[0.5, 20.0 / 255.0], &[0.5, 10.0 / 255.0]).table();
        assert_eq!([table[0][0], table[0][255], table[1][20]], [-1.0, 1.0, 0.0]);
        assert!((table[1][30] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn bytes_may_be_refused() {
        assert!(Preprocess::identity(3).check_bytes().is_ok());
        let none = Preprocess::numbers_only();
        assert!(!none.takes_bytes() && none.table().is_empty());
        assert!(none.check_bytes().unwrap_err().to_string().ends_with("got bytes"));
    }

    #[test]
    fn refuses_what_cannot_be_computed() {
        let fits = |preprocess: Preprocess| preprocess.validate([1, 28, 28]);
        assert!(fits(Preprocess::new(&[0.13], &[0.3])).is_ok());
        assert!(fits(Preprocess::identity(1).with_resize(Some(28))).is_ok());
        assert!(fits(Preprocess::numbers_only()).is_ok());
        for wrong in [
            Preprocess::identity(3),
            Preprocess::new(&[0.1], &[]),
            Preprocess::new(&[], &[0.1]),
            Preprocess::numbers_only().with_resize(Some(27)),
            Preprocess::new(&[f32::NAN], &[1.0]),
            Preprocess::new(&[0.0], &[0.0]),
            Preprocess::new(&[0.0], &[f32::INFINITY]),
            Preprocess::identity(1).with_resize(Some(27)),
            Preprocess::identity(1).with_resize(Some(usize::MAX)),
        ] {
            assert!(matches!(fits(wrong.clone()), Err(Error::Invalid { .. })), "{wrong:?}");
        }
    }
}
