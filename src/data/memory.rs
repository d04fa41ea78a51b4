//! A data set whose images lie in memory.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

use super::{Dataset, check_request};

/// Images and labels in memory: what the file readers return, and a way in for images of the caller's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InMemory {
    shape: [usize; 3],
    class_names: Vec<String>,
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl InMemory {
    /// A data set of `labels.len()` images.
    ///
    /// `shape` is channels, height, width; `pixels` holds the images one after the other, each H x W x C bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0 or `pixels` has another length; [`Error::Invalid`] if a label has no class name.
    pub fn new(shape: [usize; 3], class_names: Vec<String>, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self> {
        let image = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        let Some(image) = image.filter(|&bytes| bytes > 0) else {
            return Err(Error::shape(
                "image",
                "channels, height and width of at least 1 that fit in memory",
                format!("{shape:?}"),
            ));
        };
        if labels.len().checked_mul(image) != Some(pixels.len()) {
            return Err(Error::shape(
                "pixels of a data set",
                format!("{} images of {image} bytes", labels.len()),
                format!("{} bytes", pixels.len()),
            ));
        }
        if let Some(position) = labels.iter().position(|&label| label as usize >= class_names.len()) {
            return Err(Error::invalid(
                format!("label of image {position}"),
                format!("less than the number of classes, {}", class_names.len()),
                labels[position],
            ));
        }
        Ok(Self { shape, class_names, pixels, labels })
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()> {
        check_request(self, index, pixels)?;
        let start = index * pixels.len();
        pixels.copy_from_slice(&self.pixels[start..start + pixels.len()]);
        Ok(())
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::numbered_classes;

    #[test]
    fn gives_back_what_it_was_given() {
        let images = InMemory::new([1, 2, 2], numbered_classes(3), (0..8).collect(), vec![2, 0]).unwrap();
        let mut pixels = [0; 4];
        images.image(1, &mut pixels).unwrap();
        assert_eq!((images.len(), pixels, images.label(0)), (2, [4, 5, 6, 7], 2));
        assert!(matches!(images.image(2, &mut pixels), Err(Error::Shape { .. })));
        assert!(matches!(images.image(0, &mut [0; 3]), Err(Error::Shape { .. })));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let build = |shape, pixels: usize, label| InMemory::new(shape, numbered_classes(3), vec![0; pixels], vec![label]);
        assert!(build([1, 2, 2], 4, 2).is_ok());
        assert!(matches!(build([1, 2, 2], 4, 3), Err(Error::Invalid { .. })));
        assert!(matches!(build([1, 2, 2], 5, 0), Err(Error::Shape { .. })));
        assert!(matches!(build([0, 2, 2], 0, 0), Err(Error::Shape { .. })));
        assert!(matches!(build([usize::MAX, 2, 2], 4, 0), Err(Error::Shape { .. })));
    }
}
