//! Data of benches.
#![forbid(unsafe_code)]

/// Numbers in [-1, 1) without a pattern that a cache or a branch predictor could use.
pub(crate) fn values(count: usize) -> Vec<f32> {
    (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}
