//! Data sets: readers for files that people have, a built-in generated set, and the way images become batches.
//!
//! - [`open()`] gives the data set that a [`DataConfig`] names.
//! - [`cifar`], [`idx`] and [`stl10`] read the binary files of CIFAR-10/100, of the MNIST family and of STL-10, [`npz`] arrays of
//!   NumPy, `folder` pictures (with the feature `image`); [`Synthetic`] needs no files.
//! - [`InMemory`] holds images of the caller's own, [`Subset`] some images of another set, [`split_validation`] makes two of them.
//! - A [`Preprocess`](crate::net::Preprocess), [customary](customary_preprocess) or [measured](measure_preprocess), and an
//!   [`Augmentation`] say how bytes become numbers (pixels that are numbers are taken as they are); a [`BatchLoader`] does it, on
//!   all cores, and in a way that depends on the seed only.
//!
//! Every reader treats its files as hostile: it answers with a typed error and never needs more memory than a stated bound.
#![forbid(unsafe_code)]

mod augment;
pub mod cifar;
mod file;
mod flip;
#[cfg(feature = "image")]
pub mod folder;
pub mod idx;
mod loader;
mod memory;
pub mod npz;
mod open;
mod pixel;
mod preprocess;
pub mod stl10;
mod subset;
mod synthetic;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

pub use augment::Augmentation;
pub use flip::Flip;
pub use loader::{BatchLoader, SoftLabel, epoch_order};
pub use memory::InMemory;
pub use open::{DataConfig, open, open_for};
pub use pixel::PixelType;
pub use preprocess::{customary_preprocess, measure_preprocess};
pub use subset::{Subset, split_validation};
pub use synthetic::Synthetic;

/// Most bytes that the pixels of a set may take in memory, where files of any size can ask for them.
const MAX_SET_BYTES: u64 = 8 << 30;

/// A labelled set of images of one size, held in memory or produced on demand.
///
/// Pixels are bytes, or else numbers as a network reads them, in height, width, channel order (channels last), as the engine reads
/// them. [`pixel_type`](Self::pixel_type) says which of the two, and thereby which method gives the images.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;
    /// True if there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Channels, height, width of every image.
    fn shape(&self) -> [usize; 3];
    /// One name per class; labels index it.
    fn class_names(&self) -> &[String];
    /// What the pixels are: bytes, unless a data set says otherwise.
    fn pixel_type(&self) -> PixelType {
        PixelType::U8
    }
    /// Writes image `index` (H x W x C bytes) to `pixels`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `pixels` has another length or `index` is out of range, [`Error::Invalid`] if the pixels are numbers.
    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()>;
    /// Writes image `index` (H x W x C numbers) to `pixels`. Numbers are what a network reads: nothing normalises them.
    ///
    /// # Errors
    /// [`Error::Shape`] if `pixels` has another length or `index` is out of range, [`Error::Invalid`] if the pixels are bytes.
    fn image_f32(&self, index: usize, pixels: &mut [f32]) -> Result<()> {
        let _ = (index, pixels);
        Err(wrong_pixel_type(PixelType::F32, self.pixel_type()))
    }
    /// The class of image `index`; `index < len()`.
    fn label(&self, index: usize) -> u32;
}

/// The part of a data set: images to learn from, or images to be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

impl Split {
    /// What the files or folders of a part are called; of several that are there, the first one counts.
    fn names(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train"],
            // ImageNet and others call the images that models are judged by their validation part.
            Split::Test => &["test", "val", "valid"],
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "train" => Ok(Split::Train),
            "test" => Ok(Split::Test),
            _ => Err(Error::invalid("part of the data set", "train or test", format!("`{text}`"))),
        }
    }
}

/// Checks the arguments of [`Dataset::image`] and [`Dataset::image_f32`] against the data set.
fn check_request(dataset: &dyn Dataset, index: usize, length: usize) -> Result<()> {
    if index >= dataset.len() {
        return Err(Error::shape("image index", format!("less than {}", dataset.len()), index));
    }
    let [channels, height, width] = dataset.shape();
    let expected = height * width * channels;
    if length != expected {
        return Err(Error::shape("image buffer", format!("{height} x {width} x {channels} = {expected} values"), length));
    }
    Ok(())
}

/// The error of asking for pixels in another format than the data set's.
fn wrong_pixel_type(asked: PixelType, has: PixelType) -> Error {
    Error::invalid("format of the pixels", format!("{has}, as the data set has them"), asked)
}

/// Names `0`, `1`, ... for classes that have no better ones.
fn numbered_classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_is_written_as_it_is_read() {
        for split in [Split::Train, Split::Test] {
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
        }
        let error = "valid".parse::<Split>().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }));
        assert_eq!(error.to_string(), "part of the data set; expected train or test, got `valid`");
    }
}
