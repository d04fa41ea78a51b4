//! From bytes to the numbers that a network sees.
#![forbid(unsafe_code)]

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::Dataset;

/// Images per task when a data set is measured.
const CHUNK: usize = 256;

/// Mean and standard deviation of each channel, of pixels in `[0, 1]`: a network sees `(byte / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel; more than 0.
    pub std: Vec<f32>,
}

impl Preprocess {
    /// The statistics of all pixels of `dataset`. A channel that is constant gets the standard deviation 1.
    ///
    /// The sums are sums of integers: exact, whatever the number of threads.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no image; the errors of [`Dataset::image`].
    pub fn measure(dataset: &dyn Dataset) -> Result<Self> {
        let [channels, height, width] = dataset.shape();
        let pixels = (dataset.len() * height * width) as f64;
        if pixels == 0.0 {
            return Err(Error::invalid("data set to measure", "at least one image", "an empty one"));
        }
        let starts: Vec<usize> = (0..dataset.len()).step_by(CHUNK).collect();
        let zero = || vec![[0_u64; 2]; channels];
        let sums = starts.into_par_iter().map(|start| chunk_sums(dataset, start)).try_reduce(zero, |mut total, chunk| {
            for (total, chunk) in total.iter_mut().zip(chunk) {
                *total = [total[0] + chunk[0], total[1] + chunk[1]];
            }
            Ok(total)
        })?;
        let moments = |[sum, squares]: &[u64; 2]| {
            let mean = *sum as f64 / pixels;
            (mean / 255.0, (*squares as f64 / pixels - mean * mean).max(0.0).sqrt() / 255.0)
        };
        let std = |std: f64| if std > 1e-6 { std as f32 } else { 1.0 };
        Ok(Self {
            mean: sums.iter().map(|sums| moments(sums).0 as f32).collect(),
            std: sums.iter().map(|sums| std(moments(sums).1)).collect(),
        })
    }

    /// The constants that papers and other libraries use for the data set `name` of [`super::DataConfig`], if there are any.
    pub fn customary(name: &str) -> Option<Self> {
        let (mean, std): (&[f32], &[f32]) = match name {
            "cifar10" => (&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
            "cifar100" => (&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]),
            "mnist" => (&[0.1307], &[0.3081]),
            "fashion-mnist" => (&[0.2860], &[0.3530]),
            _ => return None,
        };
        Some(Self { mean: mean.to_vec(), std: std.to_vec() })
    }

    /// Checks that there are finite values for each of `channels` and that no deviation is 0 or less.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Invalid`] if that is not so.
    pub fn check(&self, channels: usize) -> Result<()> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != channels {
                return Err(Error::shape(
                    format!("preprocess {name}"),
                    format!("{channels} values, one per channel"),
                    values.len(),
                ));
            }
        }
        for (name, values, smallest) in [("mean", &self.mean, f32::MIN), ("std", &self.std, f32::MIN_POSITIVE)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite() || **value < smallest) {
                let expected = if name == "std" { "finite values above 0" } else { "finite values" };
                return Err(Error::invalid(format!("preprocess {name}"), expected, value));
            }
        }
        Ok(())
    }

    /// `(byte / 255 - mean) / std` for every channel and byte, at `channel * 256 + byte`.
    pub(crate) fn table(&self) -> Vec<f32> {
        let normalise = |(mean, std): (&f32, &f32)| {
            let (mean, std) = (*mean, *std);
            (0..=255_u8).map(move |byte| (f32::from(byte) / 255.0 - mean) / std)
        };
        self.mean.iter().zip(&self.std).flat_map(normalise).collect()
    }
}

/// Sum and sum of squares of each channel's bytes over the images of one chunk.
fn chunk_sums(dataset: &dyn Dataset, start: usize) -> Result<Vec<[u64; 2]>> {
    let [channels, height, width] = dataset.shape();
    let mut bytes = vec![0; channels * height * width];
    let mut sums = vec![[0_u64; 2]; channels];
    for index in start..(start + CHUNK).min(dataset.len()) {
        dataset.image(index, &mut bytes)?;
        for pixel in bytes.chunks_exact(channels) {
            for (sums, &byte) in sums.iter_mut().zip(pixel) {
                let byte = u64::from(byte);
                *sums = [sums[0] + byte, sums[1] + byte * byte];
            }
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, numbered_classes};

    #[test]
    fn measures_each_channel() {
        let pixels = vec![0, 10, 255, 30, 0, 10, 255, 30];
        let images = InMemory::new([2, 2, 1], numbered_classes(1), pixels, vec![0, 0]).unwrap();
        let measured = Preprocess::measure(&images).unwrap();
        assert_eq!(measured.mean, [0.5, 20.0 / 255.0]);
        assert_eq!(measured.std, [0.5, 10.0 / 255.0]);
        let table = measured.table();
        assert_eq!([table[0], table[255], table[256 + 20]], [-1.0, 1.0, 0.0]);
        assert!((table[256 + 30] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn threads_do_not_matter() {
        let pixels = (0..2000_u32 * 4).map(|position| (position.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let images = InMemory::new([1, 2, 2], numbered_classes(1), pixels, vec![0; 2000]).unwrap();
        let measured = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Preprocess::measure(&images).unwrap())
        });
        assert_eq!(measured[0], measured[1]);
    }

    #[test]
    fn a_constant_channel_is_no_division_by_zero() {
        let images = InMemory::new([1, 1, 2], numbered_classes(1), vec![7, 7], vec![0]).unwrap();
        assert_eq!(Preprocess::measure(&images).unwrap().std, [1.0]);
        let empty = InMemory::new([1, 1, 2], numbered_classes(1), vec![], vec![]).unwrap();
        assert!(matches!(Preprocess::measure(&empty), Err(Error::Invalid { .. })));
    }

    #[test]
    fn values_must_be_usable() {
        for name in ["cifar10", "cifar100", "mnist", "fashion-mnist"] {
            Preprocess::customary(name).unwrap().check(if name.starts_with("cifar") { 3 } else { 1 }).unwrap();
        }
        assert_eq!(Preprocess::customary("synthetic"), None);
        let with = |mean, std| Preprocess { mean: vec![mean], std: vec![std] };
        assert!(with(0.5, 0.25).check(1).is_ok());
        assert!(matches!(with(0.5, 0.25).check(3), Err(Error::Shape { .. })));
        for bad in [with(0.5, 0.0), with(0.5, -1.0), with(0.5, f32::NAN), with(f32::INFINITY, 1.0)] {
            assert!(matches!(bad.check(1), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
