//! The peak of the machine: how many multiply-adds its threads do when they do nothing else.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::pool::Pool;
use super::region::{Program, Region};
use crate::dispatch::Kernels;
use crate::error::Result;
use crate::isa::Isa;

/// Independent chains of additions; whole blocks of the kernels of all instruction sets.
const CHAINS: usize = 384;
/// Links of a chain in one task: some 0.1 ms of work.
const LINKS: usize = 1 << 14;
/// Tasks of one measurement for each thread, so that one that is late can leave work to the others.
const TASKS_PER_THREAD: usize = 8;

struct Multiplications {
    kernels: &'static Kernels,
    tasks: usize,
}

impl Program for Multiplications {
    fn phases(&self) -> usize {
        1
    }

    fn tasks(&self, _: usize) -> usize {
        self.tasks
    }

    fn run(&self, _: usize, _: usize, _: usize) {
        let mut sums = [0.0; CHAINS];
        self.kernels.f32.elementwise.peak((1e-3, 1e-3), LINKS, &mut sums);
        black_box(&mut sums);
    }
}

/// The speed of fused multiply-adds on registers, in GFLOP/s (a multiply-add is two), that all threads of `pool` reach together on
/// an instruction set: the bound of every convolution, in the clock state of this moment. The best of about a millisecond at a time,
/// over `duration`.
///
/// `None` where no kernel was compiled for the instruction set, as for the portable code, whose instructions the compiler chooses.
///
/// # Errors
/// [`Error::Isa`](crate::Error::Isa) if the instruction set cannot run here.
pub fn peak_gflops(pool: &Pool, isa: Isa, duration: Duration) -> Result<Option<f64>> {
    let kernels = Kernels::of(isa)?;
    if kernels.f32.elementwise.peak.is_none() {
        return Ok(None);
    }
    let program = Multiplications { kernels, tasks: TASKS_PER_THREAD * pool.threads() };
    let flops = (2 * CHAINS * LINKS * program.tasks) as f64;
    let mut region = Region::default();
    let mut best = 0.0_f64;
    let start = Instant::now();
    while best == 0.0 || start.elapsed() < duration {
        let begin = Instant::now();
        region.run(pool, &program)?;
        best = best.max(flops / begin.elapsed().as_secs_f64().max(1e-9) / 1e9);
    }
    Ok(Some(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_instruction_sets_have_a_peak() {
        for isa in Isa::available() {
            let peak = peak_gflops(&Pool::inline(), isa, Duration::ZERO).unwrap();
            assert_eq!(peak.is_some(), crate::ffi::KERNELS.iter().any(|kernel| kernel.isa == isa), "{isa}");
            assert!(peak.is_none_or(|gflops| gflops > 0.0));
        }
    }
}
