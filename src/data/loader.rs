//! Batches for training and evaluation.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::net::Preprocess;
use crate::random::{Purpose, Random};

use super::augment::{Transform, symmetric_beta};
use super::pixel::Pixel;
use super::{Augmentation, Dataset, PixelType};

/// The order in which epoch `epoch` visits `count` samples (fewer than 2^32).
pub fn epoch_order(seed: u64, epoch: u64, count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    Random::keyed(seed, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
    order
}

/// What an image shows: one class, or after mixup two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftLabel {
    /// The first class.
    pub first: u32,
    /// The second class; equal to the first without mixup.
    pub second: u32,
    /// The share of the first class, in `[0, 1]`; the second has the rest.
    pub weight: f32,
}

impl SoftLabel {
    /// One class only.
    pub fn hard(class: u32) -> Self {
        Self { first: class, second: class, weight: 1.0 }
    }
}

/// Turns samples of a data set into augmented, normalised numbers, image by image on the threads of a pool.
///
/// Bytes are normalised by the [`Preprocess`]. Numbers are taken as they are: of them, augmentation pads and blanks with 0 as well, the mean
/// of normalised ones.
///
/// What becomes of a sample depends on the seed, the epoch and its index only: not on the batch that it is in, not on threads.
pub struct BatchLoader<'a> {
    dataset: &'a dyn Dataset,
    /// Normalised value of each channel and byte.
    table: Vec<[f32; 256]>,
    augmentation: Augmentation,
    seed: u64,
    /// The pixels of the images of a batch; kept, so that loading allocates only when a batch is larger than all before.
    bytes: Vec<u8>,
    numbers: Vec<f32>,
    pool: Pool,
}

impl<'a> BatchLoader<'a> {
    /// A loader of `dataset` on [`Pool::shared`]; [`Augmentation::default`] leaves the images as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `preprocess` or `augmentation` does not fit the images, such as bytes without a mean and standard deviation.
    pub fn new(dataset: &'a dyn Dataset, preprocess: &Preprocess, augmentation: Augmentation, seed: u64) -> Result<Self> {
        let [_, height, width] = dataset.shape();
        preprocess.validate(dataset.shape())?;
        augmentation.check(height, width)?;
        if dataset.pixel_type() == PixelType::U8 {
            preprocess.check_bytes()?;
        }
        if u32::try_from(dataset.len()).is_err() {
            return Err(Error::invalid("images of a data set", "fewer than 2^32", dataset.len()));
        }
        let (bytes, numbers) = (Vec::new(), Vec::new());
        Ok(Self { dataset, table: preprocess.table(), augmentation, seed, bytes, numbers, pool: Pool::shared() })
    }

    /// The same on other threads.
    #[must_use]
    pub fn with_pool(self, pool: Pool) -> Self {
        Self { pool, ..self }
    }

    /// Writes the images `samples` to `images` (N x H x W x C) and what they show to `labels` (N).
    ///
    /// # Errors
    /// [`Error::Shape`] if a buffer has another size or a sample is out of range; the errors of the data set.
    pub fn load(&mut self, epoch: u64, samples: &[u32], images: &mut [f32], labels: &mut [SoftLabel]) -> Result<()> {
        let image = self.dataset.shape().iter().product::<usize>();
        self.check_buffers(samples, image, images.len(), labels.len())?;
        match self.dataset.pixel_type() {
            PixelType::U8 => {
                let mut bytes = std::mem::take(&mut self.bytes);
                let loaded = self.load_pixels(epoch, samples, images, labels, &mut bytes);
                self.bytes = bytes;
                loaded
            }
            PixelType::F32 => {
                let mut numbers = std::mem::take(&mut self.numbers);
                let loaded = self.load_pixels(epoch, samples, images, labels, &mut numbers);
                self.numbers = numbers;
                loaded
            }
        }
    }

    /// [`load`](Self::load) by way of `pixels`.
    fn load_pixels<P: Pixel>(
        &self,
        epoch: u64,
        samples: &[u32],
        images: &mut [f32],
        labels: &mut [SoftLabel],
        pixels: &mut Vec<P>,
    ) -> Result<()> {
        let image = self.dataset.shape().iter().product::<usize>();
        if pixels.len() < samples.len() * image {
            pixels.resize(samples.len() * image, P::default());
        }
        let places = labels.iter_mut().zip(images.chunks_exact_mut(image)).zip(pixels.chunks_exact_mut(image));
        self.pool.try_for_each(samples.iter().zip(places).collect::<Vec<_>>(), |(&sample, ((label, image), pixels))| {
            *label = self.load_sample(epoch, sample, image, pixels)?;
            Ok(())
        })
    }

    fn check_buffers(&self, samples: &[u32], image: usize, images: usize, labels: usize) -> Result<()> {
        if labels != samples.len() {
            return Err(Error::shape("labels of a batch", samples.len(), labels));
        }
        if samples.len().checked_mul(image) != Some(images) {
            return Err(Error::shape("images of a batch", format!("{} images of {image} values", samples.len()), images));
        }
        if let Some(sample) = samples.iter().find(|&&sample| sample as usize >= self.dataset.len()) {
            return Err(Error::shape("sample of a batch", format!("less than {}", self.dataset.len()), sample));
        }
        Ok(())
    }

    fn load_sample<P: Pixel>(&self, epoch: u64, sample: u32, image: &mut [f32], pixels: &mut [P]) -> Result<SoftLabel> {
        let mut random = Random::keyed(self.seed, Purpose::Augment, epoch, u64::from(sample));
        let class = |sample: u32| self.dataset.label(sample as usize);
        // 0 is the mean colour: padding and blanks stay as they are.
        image.fill(0.0);
        let mut add = |sample: u32, weight: f32, random: &mut Random| -> Result<()> {
            P::image(self.dataset, sample as usize, pixels)?;
            let [_, height, width] = self.dataset.shape();
            let mirrors = |drawn| self.augmentation.flip.mirrors(drawn, self.seed, epoch, sample);
            let transform = Transform::draw(&self.augmentation, height, width, random, mirrors);
            self.add_pixels(&transform, weight, pixels, image);
            Ok(())
        };
        if self.augmentation.mixup == 0.0 {
            add(sample, 1.0, &mut random)?;
            return Ok(SoftLabel::hard(class(sample)));
        }
        // The partner comes from the whole data set, so that the result does not depend on the batch.
        let partner = random.below(self.dataset.len() as u32);
        let weight = symmetric_beta(self.augmentation.mixup, &mut random);
        add(sample, weight, &mut random)?;
        add(partner, 1.0 - weight, &mut random)?;
        Ok(SoftLabel { first: class(sample), second: class(partner), weight })
    }

    /// Adds `weight` times the transformed, normalised image in `pixels` to `image`.
    fn add_pixels<P: Pixel>(&self, transform: &Transform, weight: f32, pixels: &[P], image: &mut [f32]) {
        let [channels, _, width] = self.dataset.shape();
        for (row, line) in image.chunks_exact_mut(width * channels).enumerate() {
            for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
                let Some(source) = transform.source(row, column) else { continue };
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value += weight * pixels[source * channels + channel].value(&self.table, channel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, numbered_classes};

    const IMAGE: usize = 2 * 6 * 5;

    fn images(count: usize) -> InMemory {
        let pixels = (0..(count * IMAGE) as u32).map(|position| (position.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        InMemory::new([2, 6, 5], numbered_classes(4), pixels, (0..count as u32).map(|index| index % 4).collect()).unwrap()
    }

    fn preprocess() -> Preprocess {
        Preprocess::new(&[0.5, 0.25], &[0.25, 0.5])
    }

    fn load(augmentation: Augmentation, seed: u64, epoch: u64, samples: &[u32]) -> (Vec<f32>, Vec<SoftLabel>) {
        load_on(Pool::inline(), augmentation, seed, epoch, samples)
    }

    fn load_on(pool: Pool, augmentation: Augmentation, seed: u64, epoch: u64, samples: &[u32]) -> (Vec<f32>, Vec<SoftLabel>) {
        let dataset = images(20);
        let mut loader = BatchLoader::new(&dataset, &preprocess(), augmentation, seed).unwrap().with_pool(pool);
        let mut values = vec![f32::NAN; samples.len() * IMAGE];
        let mut labels = vec![SoftLabel::default(); samples.len()];
        loader.load(epoch, samples, &mut values, &mut labels).unwrap();
        (values, labels)
    }

    fn everything() -> Augmentation {
        Augmentation::default().with_crop(2).with_flip(true).with_cutout(3).with_mixup(0.4)
    }

    #[test]
    fn order_is_a_permutation_of_its_own_per_epoch() {
        let mut order = epoch_order(1, 0, 100);
        assert_eq!(order, epoch_order(1, 0, 100));
        assert_ne!(order, epoch_order(1, 1, 100));
        assert_ne!(order, epoch_order(2, 0, 100));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<u32>>());
        assert!(epoch_order(1, 0, 0).is_empty());
    }

    #[test]
    fn without_augmentation_pixels_are_normalised() {
        let (values, labels) = load(Augmentation::default(), 1, 0, &[7, 2]);
        let dataset = images(20);
        let mut bytes = [0; IMAGE];
        for (batch, sample) in [7, 2].into_iter().enumerate() {
            dataset.image(sample, &mut bytes).unwrap();
            for (position, &byte) in bytes.iter().enumerate() {
                let channel = position % 2;
                let expected = (f32::from(byte) / 255.0 - [0.5, 0.25][channel]) / [0.25, 0.5][channel];
                assert_eq!(values[batch * IMAGE + position], expected);
            }
        }
        assert_eq!(labels, [SoftLabel::hard(3), SoftLabel::hard(2)]);
    }

    #[test]
    fn crop_pads_with_the_mean() {
        let (values, _) = load(Augmentation::default().with_crop(5), 1, 0, &(0..20).collect::<Vec<u32>>());
        assert!(values.iter().filter(|&&value| value == 0.0).count() > values.len() / 4);
    }

    /// The bits of a sample do not depend on threads, on the batch, or on what was loaded before.
    #[test]
    fn a_sample_depends_on_its_key_only() {
        let samples: Vec<u32> = (0..20).rev().collect();
        let (values, labels) = load(everything(), 1, 3, &samples);
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(load_on(pool, everything(), 1, 3, &samples), (values.clone(), labels.clone()));
        }
        for (batch, &sample) in samples.iter().enumerate() {
            let (alone, label) = load(everything(), 1, 3, &[sample]);
            assert_eq!((&alone[..], label[0]), (&values[batch * IMAGE..][..IMAGE], labels[batch]));
        }
        assert_ne!(load(everything(), 2, 3, &samples).0, values);
        assert_ne!(load(everything(), 1, 4, &samples).0, values);
    }

    #[test]
    fn mixup_blends_images_and_labels_alike() {
        let (values, labels) = load(Augmentation::default().with_mixup(1.0), 1, 0, &[5]);
        let label = labels[0];
        assert_eq!(label.first, 1);
        assert!(label.weight > 0.0 && label.weight < 1.0);
        let plain = load(Augmentation::default(), 1, 0, &(0..20).collect::<Vec<u32>>()).0;
        let blends_with = |partner: usize| {
            (0..IMAGE).all(|position| {
                let [first, second] = [5, partner].map(|sample| plain[sample * IMAGE + position]);
                (label.weight * first + (1.0 - label.weight) * second - values[position]).abs() < 1e-5
            })
        };
        let partners: Vec<usize> = (0..20).filter(|&partner| blends_with(partner)).collect();
        assert_eq!(partners.len(), 1);
        assert_eq!(partners[0] as u32 % 4, label.second);
    }

    /// Numbers that were normalised before give what bytes give that the loader normalises, whatever happens to them.
    #[test]
    fn numbers_are_taken_as_they_are() {
        let bytes = images(20);
        let table = preprocess().table();
        let numbers = (0..20).flat_map(|index| {
            let mut pixels = [0; IMAGE];
            bytes.image(index, &mut pixels).unwrap();
            let table = &table;
            pixels.into_iter().enumerate().map(move |(at, byte)| table[at % 2][usize::from(byte)])
        });
        let labels = (0..20).map(|index| bytes.label(index)).collect();
        let numbers = InMemory::from_f32([2, 6, 5], numbered_classes(4), numbers.collect(), labels).unwrap();
        let samples: Vec<u32> = (0..20).collect();
        for augmentation in [Augmentation::default(), everything()] {
            for preprocess in [Preprocess::numbers_only(), preprocess()] {
                let mut loader = BatchLoader::new(&numbers, &preprocess, augmentation, 1).unwrap();
                let mut values = vec![f32::NAN; 20 * IMAGE];
                let mut labels = vec![SoftLabel::default(); 20];
                loader.load(3, &samples, &mut values, &mut labels).unwrap();
                assert_eq!((values, labels), load(augmentation, 1, 3, &samples));
            }
        }
        let error = BatchLoader::new(&bytes, &Preprocess::numbers_only(), Augmentation::default(), 1).err().unwrap();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("got bytes"), "{error}");
    }

    #[test]
    fn buffers_are_reused() {
        let dataset = images(20);
        let mut loader = BatchLoader::new(&dataset, &preprocess(), everything(), 1).unwrap();
        let mut values = vec![0.0; 8 * IMAGE];
        let mut labels = vec![SoftLabel::default(); 8];
        loader.load(0, &[0, 1, 2, 3, 4, 5, 6, 7], &mut values, &mut labels).unwrap();
        let address = loader.bytes.as_ptr();
        loader.load(0, &[8, 9], &mut values[..2 * IMAGE], &mut labels[..2]).unwrap();
        loader.load(0, &[0, 1, 2, 3, 4, 5, 6, 7], &mut values, &mut labels).unwrap();
        assert_eq!(loader.bytes.as_ptr(), address);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dataset = images(20);
        let mut loader = BatchLoader::new(&dataset, &preprocess(), Augmentation::default(), 1).unwrap();
        let mut values = vec![0.0; IMAGE];
        let mut labels = [SoftLabel::default()];
        assert!(matches!(loader.load(0, &[20], &mut values, &mut labels), Err(Error::Shape { .. })));
        assert!(matches!(loader.load(0, &[0, 1], &mut values, &mut labels), Err(Error::Shape { .. })));
        assert!(matches!(loader.load(0, &[0], &mut values[1..], &mut labels), Err(Error::Shape { .. })));
        loader.load(0, &[], &mut [], &mut []).unwrap();
        let wrong = Preprocess::new(&[0.5], &[0.5]);
        assert!(matches!(BatchLoader::new(&dataset, &wrong, Augmentation::default(), 1), Err(Error::Invalid { .. })));
        let wrong = Augmentation::default().with_crop(6);
        assert!(matches!(BatchLoader::new(&dataset, &preprocess(), wrong, 1), Err(Error::Invalid { .. })));
    }
}
