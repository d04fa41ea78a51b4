//! The peaks of the machine: how many multiply-adds its threads do when they do nothing else, or load what they multiply.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::pool::Pool;
use super::region::{Program, Region};
use crate::conv::pack::PANEL;
use crate::dispatch::Kernels;
use crate::error::Result;
use crate::isa::Isa;
use crate::memory::{Aligned, filled};

/// Independent chains of additions; whole blocks of the kernels of all instruction sets.
const CHAINS: usize = 384;
/// Links of a chain in one task: some 0.1 ms of work.
const LINKS: usize = 1 << 14;
/// Tasks of one measurement for each thread, so that one that is late can leave work to the others.
const TASKS_PER_THREAD: usize = 8;

/// Rows and inputs of the products with a panel that show the peak with loads: whole tiles of all instruction sets, whose rows and panel
/// stay in the first level of cache.
const ROWS: usize = 168;
const INPUTS: usize = 64;
/// Products of one task: some 0.1 ms of work too.
const TURNS: usize = 32;

/// What the multiply-adds read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operands {
    /// Registers.
    Registers,
    /// Inputs that are broadcast and weights, as in a convolution.
    Memory,
}

impl Operands {
    /// Floating-point operations of a task; a multiply-add is two.
    fn flops(self) -> usize {
        match self {
            Operands::Registers => 2 * CHAINS * LINKS,
            Operands::Memory => 2 * ROWS * INPUTS * PANEL * TURNS,
        }
    }
}

struct Multiplications {
    kernels: &'static Kernels,
    operands: Operands,
    tasks: usize,
    x: Aligned,
    weights: Aligned,
}

impl Program for Multiplications {
    fn phases(&self) -> usize {
        1
    }

    fn tasks(&self, _: usize) -> usize {
        self.tasks
    }

    fn run(&self, _: usize, _: usize, _: usize) {
        let kernels = &self.kernels.f32.elementwise;
        match self.operands {
            Operands::Registers => {
                let mut sums = [0.0; CHAINS];
                kernels.peak((1e-3, 1e-3), LINKS, &mut sums);
                black_box(&mut sums);
            }
            Operands::Memory => {
                let mut sums = vec![0.0; ROWS * PANEL];
                kernels.load_peak(&self.x, &self.weights, INPUTS, TURNS, &mut sums);
                black_box(&mut sums);
            }
        }
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
    gflops(Operands::Registers, pool, isa, duration)
}

/// [`peak_gflops`] of multiply-adds that load their operands as the kernels of convolutions do, from the first level of cache: a row of
/// weights and an input of each pixel for every tile of sums. What is left between a convolution and this bound is not in its multiply loop.
///
/// # Errors
/// Those of [`peak_gflops`].
pub fn load_peak_gflops(pool: &Pool, isa: Isa, duration: Duration) -> Result<Option<f64>> {
    gflops(Operands::Memory, pool, isa, duration)
}

fn gflops(operands: Operands, pool: &Pool, isa: Isa, duration: Duration) -> Result<Option<f64>> {
    let kernels = Kernels::of(isa)?;
    let is_compiled = match operands {
        Operands::Registers => kernels.f32.elementwise.peak.is_some(),
        Operands::Memory => kernels.f32.elementwise.load_peak.is_some(),
    };
    if !is_compiled {
        return Ok(None);
    }
    let (x, weights) = (filled(ROWS * INPUTS, 1e-3), filled(INPUTS * PANEL, 1e-3));
    let program = Multiplications { kernels, operands, tasks: TASKS_PER_THREAD * pool.threads(), x, weights };
    let flops = (operands.flops() * program.tasks) as f64;
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

    /// Long enough that other processes leave some millisecond alone.
    const TIME: Duration = Duration::from_millis(20);

    fn peaks(isa: Isa) -> (Option<f64>, Option<f64>) {
        let pool = Pool::inline();
        (peak_gflops(&pool, isa, TIME).unwrap(), load_peak_gflops(&pool, isa, TIME).unwrap())
    }

    #[test]
    fn compiled_instruction_sets_have_peaks() {
        for isa in Isa::available() {
            let is_compiled = crate::ffi::KERNELS.iter().any(|kernel| kernel.isa == isa);
            let (peak, load_peak) = peaks(isa);
            assert_eq!((peak.is_some(), load_peak.is_some()), (is_compiled, is_compiled), "{isa}");
        }
    }

    /// Loads cost something and never help; a tile keeps the ports of multiply-adds busy for the most part. A kernel that does other work than
    /// is counted is out of these bounds. Other processes can take a share of the time from one of the two: once is enough.
    #[test]
    fn loads_take_a_part_of_the_peak() {
        for isa in Isa::available().filter(|&isa| peaks(isa).0.is_some()) {
            let ratio = || peaks(isa).1.unwrap() / peaks(isa).0.unwrap();
            let ratios: Vec<f64> = (0..10).map(|_| ratio()).collect();
            assert!(ratios.iter().any(|ratio| (0.5..1.05).contains(ratio)), "{isa}: {ratios:?} of the peak with loads");
        }
    }
}
