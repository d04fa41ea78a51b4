//! Random numbers that are keyed by words instead of drawn from one long stream.
//!
//! Whoever needs randomness states what it is for: `Random::keyed(seed, Purpose::Augment, epoch, sample)`. The numbers are a pure
//! function of those words, so a resumed training run needs no generator state, and no number depends on which thread asked first.
//! The generator is ChaCha with 8 rounds (Bernstein 2008); the four words are its 256-bit key, little endian, stream 0.
#![forbid(unsafe_code)]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What random numbers are used for; keeps the streams of one seed apart.
///
/// The values enter the key: they must never change, or every seed gives other results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// Order of the samples in an epoch; `a` = epoch.
    Shuffle = 1,
    /// Crop, flip, cutout and mixup; `a` = epoch, `b` = sample.
    Augment = 2,
    /// Images of the generated data set; `a` = split, `b` = sample.
    Synthetic = 3,
    /// Initial weights; `a` = position of the tensor in the network.
    Weights = 4,
    /// Which training images are held out for validation.
    Validation = 5,
    /// Which images are mirrored first where epochs alternate; `b` = sample.
    Flip = 6,
}

/// A stream of random numbers that depends on its key only.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    generator: ChaCha8Rng,
}

impl Random {
    /// The stream of `(seed, purpose, a, b)`; what `a` and `b` mean is said at each [`Purpose`].
    pub(crate) fn keyed(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0_u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self { generator: ChaCha8Rng::from_seed(key) }
    }

    /// The next 32 random bits.
    pub(crate) fn u32(&mut self) -> u32 {
        self.generator.next_u32()
    }

    /// Fills `bytes` with random bytes; much faster than number by number.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.generator.fill_bytes(bytes);
    }

    /// An integer in `0..n`, every one equally likely; 0 if `n` is 0.
    ///
    /// Lemire 2019, "Fast random integer generation in an interval": the high half of a product, redrawn for the few low halves
    /// that would favour some results.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// A multiple of 2^-24 in `[0, 1)`; all of them equally likely.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// A draw from the normal distribution with mean 0 and variance 1, by the method of Box and Muller (1958).
    pub(crate) fn normal(&mut self) -> f32 {
        let scale = 1.0 / 4_294_967_296.0;
        let radius = (-2.0 * libm::log((f64::from(self.u32()) + 1.0) * scale)).sqrt();
        let angle = std::f64::consts::TAU * (f64::from(self.u32()) * scale);
        (radius * libm::cos(angle)) as f32
    }

    /// Puts `items` (fewer than 2^32) into random order, every order equally likely (Fisher and Yates).
    pub(crate) fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Random {
        Random::keyed(7, Purpose::Augment, 3, 11)
    }

    /// The keystream of ChaCha8 under an all-zero 256-bit key, as published with the eSTREAM test vectors.
    #[test]
    fn generator_is_chacha8() {
        let mut generator = ChaCha8Rng::from_seed([0; 32]);
        let mut bytes = [0_u8; 8];
        generator.fill_bytes(&mut bytes);
        assert_eq!(bytes, [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
    }

    #[test]
    fn key_is_the_words_in_little_endian() {
        let expected: Vec<u8> = [7_u64, 2, 3, 11].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(sample().generator.get_seed().as_slice(), expected);
        assert_eq!(sample().generator.get_stream(), 0);
        assert_eq!(
            [Purpose::Shuffle, Purpose::Augment, Purpose::Synthetic, Purpose::Weights, Purpose::Validation].map(|p| p as u64),
            [1, 2, 3, 4, 5]
        );
    }

    /// Results of trained models depend on these numbers: a change here is a change of behaviour.
    #[test]
    fn streams_do_not_change() {
        let mut random = sample();
        assert_eq!([(); 4].map(|()| random.u32()), [1_155_616_475, 2_822_240_648, 4_000_673_034, 3_084_336_236]);
        let mut random = sample();
        assert_eq!([(); 8].map(|()| random.below(10)), [2, 6, 9, 7, 9, 6, 4, 7]);
        let mut random = sample();
        assert_eq!([(); 3].map(|()| random.uniform()), [0.269_062_88, 0.657_104_1, 0.931_479_3]);
        let mut random = sample();
        assert_eq!([(); 3].map(|()| random.normal().to_bits()), [3_211_041_530, 3_180_953_399, 3_178_210_714]);
        let mut items: Vec<u32> = (0..10).collect();
        sample().shuffle(&mut items);
        assert_eq!(items, [0, 4, 9, 1, 3, 6, 8, 7, 5, 2]);
        let mut bytes = [0; 5];
        sample().fill(&mut bytes);
        assert_eq!(bytes, [219, 78, 225, 68, 136]);
    }

    #[test]
    fn every_word_of_the_key_matters() {
        let streams = [
            Random::keyed(7, Purpose::Augment, 3, 11).u32(),
            Random::keyed(8, Purpose::Augment, 3, 11).u32(),
            Random::keyed(7, Purpose::Shuffle, 3, 11).u32(),
            Random::keyed(7, Purpose::Augment, 4, 11).u32(),
            Random::keyed(7, Purpose::Augment, 3, 12).u32(),
        ];
        for (i, one) in streams.iter().enumerate() {
            assert!(!streams[..i].contains(one));
        }
    }

    /// 3 * 2^30 is the worst case of a plain multiplication: without the redraw some results come up twice as often as others.
    #[test]
    fn below_is_unbiased() {
        let mut random = sample();
        let n = 3 << 30;
        let mut thirds = [0_u32; 3];
        for _ in 0..30_000 {
            let value = random.below(n);
            assert!(value < n);
            thirds[(value % 3) as usize] += 1;
        }
        assert!(thirds.iter().all(|count| (9_600..10_400).contains(count)), "{thirds:?}");
        assert_eq!(random.below(1), 0);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut random = sample();
        let uniform: Vec<f64> = (0..50_000).map(|_| f64::from(random.uniform())).collect();
        assert!(uniform.iter().all(|value| (0.0..1.0).contains(value)));
        let normal: Vec<f64> = (0..50_000).map(|_| f64::from(random.normal())).collect();
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / values.len() as f64)
        };
        let (mean, variance) = moments(&uniform);
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
        let (mean, variance) = moments(&normal);
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        sample().shuffle(&mut items);
        assert_ne!(items, (0..1000).collect::<Vec<u32>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<u32>>());
    }
}
