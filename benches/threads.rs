//! What threads cost: the synchronisation of a phase, and entering a region.
//!
//! Ids: `threads/phase/tT`: what a phase of one task per thread takes beyond its tasks, each of which takes two microseconds, so that no
//! thread does another one's too. `threads/enter/tT`: a region of one such phase, where a thread of the pool may have to wake up.
#![forbid(unsafe_code)]

mod common;

use criterion::BenchmarkId;
use leanresnet::Pool;
use leanresnet::internals::TimedPhases;
use std::time::{Duration, Instant};

/// Phases of a region: enough that entering it does not count.
const PHASES: u32 = 1000;
const TASK: Duration = Duration::from_micros(2);

fn main() {
    common::run(|criterion| {
        for threads in [1, 2] {
            let pool = Pool::new(threads).expect("two threads");
            let mut group = criterion.benchmark_group("threads");
            for (what, phases) in [("phase", PHASES), ("enter", 1)] {
                let mut region = TimedPhases::new(phases as usize, TASK);
                group.bench_function(BenchmarkId::new(what, format!("t{threads}")), |bench| {
                    bench.iter_custom(|iterations| {
                        let regions = iterations.div_ceil(u64::from(phases)) as u32;
                        let start = Instant::now();
                        (0..regions).try_for_each(|_| region.run(&pool)).expect("tasks that do not fail");
                        let beyond = start.elapsed().saturating_sub(TASK * phases * regions);
                        beyond.mul_f64(iterations as f64 / f64::from(phases * regions))
                    });
                });
            }
            group.finish();
        }
    });
}
