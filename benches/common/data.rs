//! Data of benches, from the start of a cache line on, as activations lie in sessions.
#![forbid(unsafe_code)]

use leanresnet::internals::pack::{Aligned, zeros};

/// Numbers in [-1, 1) without a pattern that a cache or a branch predictor could use.
pub(crate) fn values(count: usize) -> Aligned {
    let mut values = zeros(count);
    for (at, value) in values.iter_mut().enumerate() {
        *value = ((at as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    }
    values
}
