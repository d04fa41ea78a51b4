//! How fast threads copy memory that lies in one level of cache, or beyond.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use leanresnet::machine;

/// A level of the hierarchy of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    L1,
    L2,
    L3,
    /// Beyond the caches.
    Memory,
}

impl Level {
    /// The word in answers.
    pub fn name(self) -> &'static str {
        match self {
            Level::L1 => "l1",
            Level::L2 => "l2",
            Level::L3 => "l3",
            Level::Memory => "dram",
        }
    }
}

/// Bytes of a core's first and second level and of the third one, which cores share, where the system does not tell.
const USUAL_SIZES: [usize; 3] = [32 << 10, 1 << 20, 32 << 20];

/// Bytes that all threads together copy between to measure memory: far more than most caches hold.
const MEMORY_BYTES: usize = 512 << 20;

/// Measurements of a level, of which the best counts, and the least time of each, so short that some meet no other process.
const TRIES: usize = 10;
const TRY_TIME: Duration = Duration::from_millis(3);

/// Bandwidths of this machine's levels, each measured when it is first asked for.
pub struct Bandwidths {
    /// Bytes of the three levels of cache; 0 where there is none.
    sizes: [usize; 3],
    measured: BTreeMap<(Level, usize), f64>,
}

impl Bandwidths {
    /// Nothing measured yet.
    pub fn new() -> Self {
        let caches = machine::caches();
        let size = |name: &str| caches.get(name).map_or(0, |&size| size as usize);
        let sizes = if size("l1d") == 0 { USUAL_SIZES } else { [size("l1d"), size("l2"), size("l3")] };
        Self { sizes, measured: BTreeMap::new() }
    }

    /// The smallest level that holds `bytes` for each of `threads` threads.
    pub fn level(&self, bytes: usize, threads: usize) -> Level {
        let [first, second, third] = self.sizes;
        match bytes {
            _ if bytes <= first => Level::L1,
            _ if bytes <= second => Level::L2,
            _ if bytes.saturating_mul(threads) <= third => Level::L3,
            _ => Level::Memory,
        }
    }

    /// Bytes read plus bytes written per second, in units of 1e9, when `threads` threads copy memory of a level, each its own.
    pub fn gbs(&mut self, level: Level, threads: usize) -> f64 {
        let bytes = self.copied_bytes(level, threads);
        *self.measured.entry((level, threads)).or_insert_with(|| copy_gbs(bytes / 2, threads))
    }

    /// Bytes that one thread copies between: too many for the level before, and no more than half of the level's own.
    fn copied_bytes(&self, level: Level, threads: usize) -> usize {
        let [first, second, third] = self.sizes;
        match level {
            Level::L1 => first / 2,
            Level::L2 => second / 2,
            Level::L3 => (third / 2 / threads).max(2 * second),
            Level::Memory => MEMORY_BYTES.max(4 * third) / threads,
        }
    }
}

/// The best of a few measurements of threads that copy an array of `bytes` to another one at the same time.
fn copy_gbs(bytes: usize, threads: usize) -> f64 {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| thread_gbs(bytes, &start))).collect();
        let mut sums = thread_gbs(bytes, &start);
        for other in others {
            // A thread that panicked left its message on stderr; the others' sum is too low then.
            let rates = other.join().unwrap_or([0.0; TRIES]);
            sums.iter_mut().zip(rates).for_each(|(sum, rate)| *sum += rate);
        }
        sums.into_iter().fold(0.0, f64::max)
    })
}

/// One thread's bandwidth in every try.
fn thread_gbs(bytes: usize, start: &Barrier) -> [f64; TRIES] {
    let source = vec![1_u8; bytes];
    let mut target = vec![0_u8; bytes];
    let mut copy = || {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
    };
    // Reading the clock takes as long as copying a few KiB.
    let copies = (1 << 18) / bytes.max(1) + 1;
    copy();
    std::array::from_fn(|_| {
        start.wait();
        let begin = Instant::now();
        let mut copied = 0;
        while copied == 0 || begin.elapsed() < TRY_TIME {
            (0..copies).for_each(|_| copy());
            copied += copies * bytes;
        }
        2.0 * copied as f64 / begin.elapsed().as_secs_f64() / 1e9
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(sizes: [usize; 3]) -> Bandwidths {
        Bandwidths { sizes, measured: BTreeMap::new() }
    }

    #[test]
    fn working_sets_have_levels() {
        let usual = machine(USUAL_SIZES);
        let level = |bytes, threads| usual.level(bytes, threads).name();
        assert_eq!([level(0, 1), level(32 << 10, 9), level(33 << 10, 1)], ["l1", "l1", "l2"]);
        assert_eq!([level(20 << 20, 1), level(20 << 20, 2), level(usize::MAX, 2)], ["l3", "dram", "dram"]);
        assert_eq!(machine([1 << 15, 1 << 20, 0]).level(2 << 20, 1), Level::Memory);
    }

    #[test]
    fn copies_fit_their_level_only() {
        let usual = machine(USUAL_SIZES);
        for threads in [1, 2, 64] {
            let bytes = [Level::L1, Level::L2, Level::L3, Level::Memory].map(|level| usual.copied_bytes(level, threads));
            assert!(bytes[0] < USUAL_SIZES[0] && (USUAL_SIZES[0]..USUAL_SIZES[1]).contains(&bytes[1]), "{bytes:?}");
            assert!(bytes[2] > USUAL_SIZES[1] && bytes[3] * threads > USUAL_SIZES[2], "{bytes:?}");
        }
    }

    #[test]
    fn memory_has_a_bandwidth() {
        let mut bandwidths = machine(USUAL_SIZES);
        for threads in [1, 2] {
            let first = bandwidths.gbs(Level::L2, threads);
            assert!(first > 0.0 && first.is_finite());
            assert_eq!(bandwidths.gbs(Level::L2, threads), first, "measured once");
        }
    }
}
