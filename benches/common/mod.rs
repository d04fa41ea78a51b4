//! What all benches share: how long they measure, and their data.
#![forbid(unsafe_code)]

use criterion::Criterion;
use std::time::Duration;

/// Runs a bench with the options of the command line over short times: there are many ids, and each call is short.
pub(crate) fn run(bench: impl FnOnce(&mut Criterion)) {
    let defaults = Criterion::default().without_plots();
    let defaults = defaults.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(20);
    let mut criterion = defaults.configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}

/// Numbers in [-1, 1) without a pattern that a cache or a branch predictor could use.
pub(crate) fn values(count: usize) -> Vec<f32> {
    (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}
