//! A data set whose images lie in memory.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

use super::{Dataset, PixelType, check_request, wrong_pixel_type};

/// Images and labels in memory: what the file readers return, and a way in for images of the caller's own.
#[derive(Clone, Debug, PartialEq)]
pub struct InMemory {
    shape: [usize; 3],
    class_names: Vec<String>,
    pixels: Pixels,
    labels: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pixels {
    Bytes(Vec<u8>),
    Numbers(Vec<f32>),
}

impl InMemory {
    /// A data set of `labels.len()` images of bytes.
    ///
    /// `shape` is channels, height, width; `pixels` holds the images one after the other, each H x W x C bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0 or `pixels` has another length; [`Error::Invalid`] if a label has no class name.
    pub fn new(shape: [usize; 3], class_names: Vec<String>, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self> {
        Self::check(shape, &class_names, pixels.len(), &labels)?;
        Ok(Self { shape, class_names, pixels: Pixels::Bytes(pixels), labels })
    }

    /// The same of numbers, which a network reads as they are: whoever has them normalises them.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn from_f32(shape: [usize; 3], class_names: Vec<String>, pixels: Vec<f32>, labels: Vec<u32>) -> Result<Self> {
        Self::check(shape, &class_names, pixels.len(), &labels)?;
        Ok(Self { shape, class_names, pixels: Pixels::Numbers(pixels), labels })
    }

    fn check(shape: [usize; 3], class_names: &[String], pixels: usize, labels: &[u32]) -> Result<()> {
        let image = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        let Some(image) = image.filter(|&values| values > 0) else {
            return Err(Error::shape(
                "image",
                "channels, height and width of at least 1 that fit in memory",
                format!("{shape:?}"),
            ));
        };
        if labels.len().checked_mul(image) != Some(pixels) {
            return Err(Error::shape(
                "pixels of a data set",
                format!("{} images of {image} values", labels.len()),
                format!("{pixels} values"),
            ));
        }
        if let Some(position) = labels.iter().position(|&label| label as usize >= class_names.len()) {
            return Err(Error::invalid(
                format!("label of image {position}"),
                format!("less than the number of classes, {}", class_names.len()),
                labels[position],
            ));
        }
        Ok(())
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

    fn pixel_type(&self) -> PixelType {
        match self.pixels {
            Pixels::Bytes(_) => PixelType::U8,
            Pixels::Numbers(_) => PixelType::F32,
        }
    }

    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()> {
        match &self.pixels {
            Pixels::Bytes(bytes) => copy(self, bytes, index, pixels),
            Pixels::Numbers(_) => Err(wrong_pixel_type(PixelType::U8, PixelType::F32)),
        }
    }

    fn image_f32(&self, index: usize, pixels: &mut [f32]) -> Result<()> {
        match &self.pixels {
            Pixels::Bytes(_) => Err(wrong_pixel_type(PixelType::F32, PixelType::U8)),
            Pixels::Numbers(numbers) => copy(self, numbers, index, pixels),
        }
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

/// Copies image `index` of `all`.
fn copy<T: Copy>(dataset: &InMemory, all: &[T], index: usize, pixels: &mut [T]) -> Result<()> {
    check_request(dataset, index, pixels.len())?;
    let start = index * pixels.len();
    pixels.copy_from_slice(&all[start..start + pixels.len()]);
    Ok(())
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
    fn numbers_and_bytes_are_told_apart() {
        let numbers = InMemory::from_f32([1, 1, 2], numbered_classes(1), vec![0.5, -1.0, 2.0, 3.0], vec![0, 0]).unwrap();
        let mut pixels = [0.0; 2];
        numbers.image_f32(1, &mut pixels).unwrap();
        assert_eq!((numbers.pixel_type(), pixels), (PixelType::F32, [2.0, 3.0]));
        assert!(matches!(numbers.image_f32(2, &mut pixels), Err(Error::Shape { .. })));
        let error = numbers.image(1, &mut [0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "format of the pixels; expected numbers, as the data set has them, got bytes");
        let bytes = InMemory::new([1, 1, 2], numbered_classes(1), vec![0; 2], vec![0]).unwrap();
        assert_eq!(bytes.pixel_type(), PixelType::U8);
        assert!(matches!(bytes.image_f32(0, &mut pixels), Err(Error::Invalid { .. })));
        assert!(matches!(InMemory::from_f32([1, 1, 2], numbered_classes(1), vec![0.0; 3], vec![0]), Err(Error::Shape { .. })));
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
