//! The mean and standard deviation of a data set's pixels: how bytes become the numbers that a network sees.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::net::Preprocess;

use super::{Dataset, PixelType};

/// Images per task when a data set is measured.
const CHUNK: usize = 256;

/// The mean and standard deviation of all pixels of `dataset`, measured on the threads of `pool`. A channel that is constant gets the
/// standard deviation 1.
///
/// The sums are sums of integers: exact, whatever the number of threads.
///
/// Pixels that are numbers are used as they are, and nothing is measured of them but whether they can be bytes divided by 255: if all of them
/// lie in [0, 1], bytes are to be taken so ([`Preprocess::identity`]), otherwise they are refused
/// ([`Preprocess::numbers_only`]).
///
/// # Errors
/// [`Error::Invalid`] if there is no image; the errors of the data set.
pub fn measure_preprocess(dataset: &dyn Dataset, pool: &Pool) -> Result<Preprocess> {
    let [channels, height, width] = dataset.shape();
    let pixels = (dataset.len() * height * width) as f64;
    if pixels == 0.0 {
        return Err(Error::invalid("data set to measure", "at least one image", "an empty one"));
    }
    if dataset.pixel_type() == PixelType::F32 {
        let are_shares = AtomicBool::new(true);
        let chunks: Vec<usize> = (0..dataset.len()).step_by(CHUNK).collect();
        pool.try_for_each(chunks, |start| {
            are_shares.fetch_and(has_shares_only(dataset, start)?, Ordering::Relaxed);
            Ok(())
        })?;
        return Ok(if are_shares.into_inner() { Preprocess::identity(channels) } else { Preprocess::numbers_only() });
    }
    let mut chunks = vec![vec![[0_u64; 2]; channels]; dataset.len().div_ceil(CHUNK)];
    let items: Vec<_> = chunks.iter_mut().enumerate().collect();
    pool.try_for_each(items, |(chunk, sums)| add_chunk(dataset, chunk * CHUNK, sums))?;
    let mut sums = vec![[0_u64; 2]; channels];
    for chunk in &chunks {
        for (total, chunk) in sums.iter_mut().zip(chunk) {
            *total = [total[0] + chunk[0], total[1] + chunk[1]];
        }
    }
    let moments = |[sum, squares]: &[u64; 2]| {
        let mean = *sum as f64 / pixels;
        (mean / 255.0, (*squares as f64 / pixels - mean * mean).max(0.0).sqrt() / 255.0)
    };
    let std = |std: f64| if std > 1e-6 { std as f32 } else { 1.0 };
    let mean: Vec<f32> = sums.iter().map(|sums| moments(sums).0 as f32).collect();
    let std: Vec<f32> = sums.iter().map(|sums| std(moments(sums).1)).collect();
    Ok(Preprocess::new(&mean, &std))
}

/// The constants that papers and other libraries use for the data set `name` of [`super::DataConfig`], if there are any.
pub fn customary_preprocess(name: &str) -> Option<Preprocess> {
    let (mean, std): (&[f32], &[f32]) = match name {
        "cifar10" => (&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
        "cifar100" => (&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]),
        "mnist" => (&[0.1307], &[0.3081]),
        "fashion-mnist" => (&[0.2860], &[0.3530]),
        _ => return None,
    };
    Some(Preprocess::new(mean, std))
}

/// True if all numbers of one chunk lie in [0, 1].
fn has_shares_only(dataset: &dyn Dataset, start: usize) -> Result<bool> {
    let mut numbers = vec![0.0; dataset.shape().iter().product()];
    for index in start..(start + CHUNK).min(dataset.len()) {
        dataset.image_f32(index, &mut numbers)?;
        if !numbers.iter().all(|number| (0.0..=1.0).contains(number)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds each channel's bytes and their squares over the images of one chunk.
fn add_chunk(dataset: &dyn Dataset, start: usize, sums: &mut [[u64; 2]]) -> Result<()> {
    let [channels, height, width] = dataset.shape();
    let mut bytes = vec![0; channels * height * width];
    for index in start..(start + CHUNK).min(dataset.len()) {
        dataset.image(index, &mut bytes)?;
        for pixel in bytes.chunks_exact(channels) {
            for (sums, &byte) in sums.iter_mut().zip(pixel) {
                let byte = u64::from(byte);
                *sums = [sums[0] + byte, sums[1] + byte * byte];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, numbered_classes};

    #[test]
    fn measures_each_channel() {
        let pixels = vec![0, 10, 255, 30, 0, 10, 255, 30];
        let images = InMemory::new([2, 2, 1], numbered_classes(1), pixels, vec![0, 0]).unwrap();
        let measured = measure_preprocess(&images, &Pool::inline()).unwrap();
        assert_eq!(measured.mean, [0.5, 20.0 / 255.0]);
        assert_eq!(measured.std, [0.5, 10.0 / 255.0]);
    }

    #[test]
    fn threads_do_not_matter() {
        let pixels = (0..2000_u32 * 4).map(|position| (position.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let images = InMemory::new([1, 2, 2], numbered_classes(1), pixels, vec![0; 2000]).unwrap();
        let measured = [1, 3].map(|threads| measure_preprocess(&images, &Pool::new(threads).unwrap()).unwrap());
        assert_eq!(measured[0], measured[1]);
    }

    #[test]
    fn numbers_are_not_normalised() {
        let measured = |last: f32| {
            let mut numbers = vec![0.5; 2 * 1000];
            numbers[1999] = last;
            let images = InMemory::from_f32([1, 1, 2], numbered_classes(1), numbers, vec![0; 1000]).unwrap();
            [1, 3].map(|threads| measure_preprocess(&images, &Pool::new(threads).unwrap()).unwrap())
        };
        for (last, wanted) in [
            (1.0, Preprocess::identity(1)),
            (1.01, Preprocess::numbers_only()),
            (-0.01, Preprocess::numbers_only()),
            (f32::NAN, Preprocess::numbers_only()),
        ] {
            assert_eq!(measured(last), [wanted.clone(), wanted], "{last}");
        }
    }

    #[test]
    fn a_constant_channel_is_no_division_by_zero() {
        let images = InMemory::new([1, 1, 2], numbered_classes(1), vec![7, 7], vec![0]).unwrap();
        assert_eq!(measure_preprocess(&images, &Pool::inline()).unwrap().std, [1.0]);
        let empty = InMemory::new([1, 1, 2], numbered_classes(1), vec![], vec![]).unwrap();
        assert!(matches!(measure_preprocess(&empty, &Pool::inline()), Err(Error::Invalid { .. })));
    }

    #[test]
    fn customary_values_can_be_used() {
        for (name, channels) in [("cifar10", 3), ("cifar100", 3), ("mnist", 1), ("fashion-mnist", 1)] {
            customary_preprocess(name).unwrap().validate([channels, 32, 32]).unwrap();
        }
        assert_eq!(customary_preprocess("synthetic"), None);
    }
}
