//! Parts of a data set.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::random::{Purpose, Random};

use super::{Dataset, PixelType};

/// Some images of another data set, in an order of its own.
#[derive(Clone)]
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Vec<u32>,
}

impl Subset {
    /// The images `indices` of `dataset`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an index is out of range.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<u32>) -> Result<Self> {
        if let Some(index) = indices.iter().find(|&&index| index as usize >= dataset.len()) {
            return Err(Error::shape("index of a subset", format!("less than {}", dataset.len()), index));
        }
        Ok(Self { dataset, indices })
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.dataset.shape()
    }

    fn class_names(&self) -> &[String] {
        self.dataset.class_names()
    }

    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()> {
        super::check_request(self, index, pixels.len())?;
        self.dataset.image(self.indices[index] as usize, pixels)
    }

    fn pixel_type(&self) -> PixelType {
        self.dataset.pixel_type()
    }

    fn image_f32(&self, index: usize, pixels: &mut [f32]) -> Result<()> {
        super::check_request(self, index, pixels.len())?;
        self.dataset.image_f32(self.indices[index] as usize, pixels)
    }

    fn label(&self, index: usize) -> u32 {
        self.dataset.label(self.indices[index] as usize)
    }
}

/// Holds out `validation` images of `dataset`, chosen at random by `seed`; gives what is left for training, and the held-out ones.
///
/// # Errors
/// [`Error::Invalid`] if nothing would be left for training, or there are 2^32 images or more.
pub fn split_validation(dataset: Arc<dyn Dataset>, validation: usize, seed: u64) -> Result<(Subset, Subset)> {
    let count = dataset.len();
    if validation >= count {
        return Err(Error::invalid(
            "validation images",
            format!("less than the {count} images of the training part"),
            validation,
        ));
    }
    let end = u32::try_from(count).map_err(|_| Error::invalid("images to split", "fewer than 2^32", count))?;
    let mut training: Vec<u32> = (0..end).collect();
    Random::keyed(seed, Purpose::Validation, 0, 0).shuffle(&mut training);
    let mut held_out = training.split_off(count - validation);
    training.sort_unstable();
    held_out.sort_unstable();
    Ok((Subset { dataset: dataset.clone(), indices: training }, Subset { dataset, indices: held_out }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, numbered_classes};

    fn ten() -> Arc<dyn Dataset> {
        Arc::new(InMemory::new([1, 1, 1], numbered_classes(10), (0..10).collect(), (0..10).collect()).unwrap())
    }

    #[test]
    fn a_subset_has_its_own_order() {
        let subset = Subset::new(ten(), vec![3, 1, 3]).unwrap();
        let mut pixel = [0];
        subset.image(1, &mut pixel).unwrap();
        assert_eq!((subset.len(), subset.label(2), pixel), (3, 3, [1]));
        assert!(matches!(subset.image(3, &mut pixel), Err(Error::Shape { .. })));
        assert!(matches!(Subset::new(ten(), vec![10]), Err(Error::Shape { .. })));
    }

    #[test]
    fn every_image_is_on_one_side() {
        let (training, held_out) = split_validation(ten(), 3, 5).unwrap();
        assert_eq!((training.len(), held_out.len()), (7, 3));
        let mut all = [training.indices.clone(), held_out.indices.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<u32>>());
        assert_eq!(split_validation(ten(), 3, 5).unwrap().1.indices, held_out.indices);
        assert_ne!(split_validation(ten(), 3, 6).unwrap().1.indices, held_out.indices);
        assert_eq!(split_validation(ten(), 0, 5).unwrap().0.len(), 10);
        assert!(matches!(split_validation(ten(), 10, 5), Err(Error::Invalid { .. })));
    }
}
