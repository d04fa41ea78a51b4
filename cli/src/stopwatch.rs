//! Measuring the time of work that is repeated: rounds of many repetitions, their median, minimum and spread.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::failure::Failure;

/// Work that can be done again and again.
pub struct Work<'a> {
    /// Images per repetition.
    pub images: usize,
    /// Floating-point operations per repetition; a multiply-add is two.
    pub flops: u64,
    /// One repetition.
    pub run: Box<dyn FnMut() -> Result<(), Failure> + 'a>,
}

/// Times one piece of work.
pub struct Stopwatch<'a> {
    work: Work<'a>,
    repetitions: u32,
    /// Seconds per repetition, one value per round.
    rounds: Vec<f64>,
}

impl<'a> Stopwatch<'a> {
    /// Warms up, and finds out how many repetitions take `seconds`.
    pub fn new(mut work: Work<'a>, seconds: f64) -> Result<Self, Failure> {
        (work.run)()?;
        let start = Instant::now();
        let mut done = 0_u32;
        while done == 0 || (start.elapsed().as_secs_f64() < 0.1 * seconds && done < 1000) {
            (work.run)()?;
            done += 1;
        }
        let each = start.elapsed().as_secs_f64() / f64::from(done);
        let repetitions = (seconds / each.max(1e-9)).clamp(1.0, 1e7) as u32;
        Ok(Self { work, repetitions, rounds: Vec::new() })
    }

    /// One round of repetitions.
    pub fn round(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        for _ in 0..self.repetitions {
            (self.work.run)()?;
        }
        self.rounds.push(start.elapsed().as_secs_f64() / f64::from(self.repetitions));
        Ok(())
    }

    /// Images per repetition.
    pub fn images(&self) -> usize {
        self.work.images
    }

    /// The median of the rounds, seconds per repetition.
    pub fn median(&self) -> f64 {
        median(&self.rounds)
    }

    /// The fastest round, seconds per repetition.
    pub fn minimum(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The distance between the slowest and the fastest round, as a share of the median.
    pub fn spread(&self) -> f64 {
        let slowest = self.rounds.iter().copied().fold(0.0, f64::max);
        (slowest - self.minimum()) / self.median()
    }

    /// GFLOP/s of the median round.
    pub fn gflops(&self) -> f64 {
        self.work.flops as f64 / self.median() / 1e9
    }
}

/// The middle value, or the mean of the middle two; NaN for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])], [2.0, 2.5]);
    }

    #[test]
    fn rounds_are_summarised() {
        let mut runs = 0;
        let work = Work {
            images: 2,
            flops: 4_000_000_000,
            run: Box::new(|| {
                runs += 1;
                Ok(())
            }),
        };
        let mut stopwatch = Stopwatch::new(work, 1e-6).unwrap();
        stopwatch.round().unwrap();
        stopwatch.rounds = vec![1.0, 4.0, 2.0];
        assert_eq!((stopwatch.median(), stopwatch.minimum(), stopwatch.spread()), (2.0, 1.0, 1.5));
        assert_eq!((stopwatch.gflops(), stopwatch.images()), (2.0, 2));
        drop(stopwatch);
        assert!(runs >= 3);
    }
}
