//! How long criterion's benches measure.
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
