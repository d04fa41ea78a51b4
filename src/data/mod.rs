//! Data sets: readers for files that people have, a built-in generated set, and the way images become batches.

use crate::error::Result;

/// A labelled set of images of one size, held in memory or produced on demand.
///
/// Pixels are bytes in height, width, channel order (channels last), as the engine reads them.
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
    /// Writes image `index` (H x W x C bytes) to `pixels`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `pixels` has another length or `index` is out of range.
    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()>;
    /// The class of image `index`; `index < len()`.
    fn label(&self, index: usize) -> u32;
}
