//! Deterministic inputs. Equal seeds give equal data on every machine.
#![forbid(unsafe_code)]

/// Largest integer up to which `f32` represents every integer.
const EXACT: usize = 1 << 24;

/// The SplitMix64 generator (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A generator that repeats for equal seeds.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Uniform in [-1, 1), a multiple of 2^-52.
    pub(crate) fn signed(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// The largest `m`, at most 1000, such that `terms` products of integers up to `m` plus integers up to `others` in total
/// (bias, residual) stay exact in `f32`, whatever the order: `terms * m * m + others <= 2^24`.
pub(crate) fn exact_maximum(terms: usize, others: usize) -> usize {
    let room = EXACT.checked_sub(others).expect("bias and residual alone exceed 2^24") / terms.max(1);
    let maximum = room.isqrt().min(1000);
    assert!(maximum > 0, "{terms} terms leave no room for exact products");
    maximum
}

/// Integers of magnitude 1 to `maximum`: shuffled runs in which no value occurs twice, so that a wrong tap, channel or
/// stride changes the result.
pub(crate) fn integers(seed: u64, count: usize, maximum: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut run: Vec<f32> = (1..=maximum).flat_map(|value| [value as f32, -(value as f32)]).collect();
    let mut values = Vec::with_capacity(count + run.len());
    while values.len() < count {
        for last in (1..run.len()).rev() {
            run.swap(last, random.below(last + 1));
        }
        values.extend_from_slice(&run);
    }
    values.truncate(count);
    values
}

/// Uniform in [-1, 1).
pub(crate) fn uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.signed() as f32).collect()
}

/// Magnitudes whose logarithm is uniform between 2^-20 and 2^20, of random sign.
pub(crate) fn log_uniform(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let magnitude = |random: &mut Random| libm::exp2(20.0 * random.signed());
    (0..count).map(|_| (magnitude(&mut random) * random.signed().signum()) as f32).collect()
}

/// Neighbours that nearly cancel: `v, -v (1 - 2^-12 r), ...` with `v` and `r` uniform in [-1, 1).
///
/// Against [`equal_pairs`] as weights, sums over channels lose about twelve bits.
pub(crate) fn cancelling_pairs(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut pair = || {
        let value = random.signed();
        [value as f32, (-value * (1.0 - random.signed() / 4096.0)) as f32]
    };
    let mut values: Vec<f32> = (0..count.div_ceil(2)).flat_map(|_| pair()).collect();
    values.truncate(count);
    values
}

/// Values uniform in [-1, 1), each twice in a row.
pub(crate) fn equal_pairs(seed: u64, count: usize) -> Vec<f32> {
    uniform(seed, count.div_ceil(2)).into_iter().flat_map(|value| [value, value]).take(count).collect()
}
