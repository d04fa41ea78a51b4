//! The data that operators are tried on.
#![forbid(unsafe_code)]

use crate::common::data::{cancelling_pairs, equal_pairs, exact_maximum, integers, log_uniform, uniform};

/// Largest bias, shift and residual of exact data.
const ADDEND: usize = 1000;
/// Largest scale of exact data.
const SCALE: usize = 4;

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Integers so small that every sum is exact, in any order.
    Exact,
    /// Uniform in [-1, 1).
    Uniform,
    /// Logarithms uniform over 40 binary orders of magnitude.
    Wide,
    /// Neighbouring terms that nearly cancel.
    Cancelling,
}

/// The kinds whose sums are rounded.
pub(crate) const ROUNDED: [Fill; 3] = [Fill::Uniform, Fill::Wide, Fill::Cancelling];

impl Fill {
    /// Inputs of sums of `terms` products.
    pub(crate) fn inputs(self, seed: u64, count: usize, terms: usize) -> Vec<f32> {
        match self {
            Fill::Exact => integers(seed, count, maximum(terms)),
            Fill::Uniform => uniform(seed, count),
            Fill::Wide => log_uniform(seed, count),
            Fill::Cancelling => cancelling_pairs(seed, count),
        }
    }

    /// Weights of sums of `terms` products.
    pub(crate) fn weights(self, seed: u64, count: usize, terms: usize) -> Vec<f32> {
        match self {
            Fill::Cancelling => equal_pairs(seed, count),
            _ => self.inputs(seed, count, terms),
        }
    }

    /// Biases, shifts, residuals.
    pub(crate) fn addends(self, seed: u64, count: usize) -> Vec<f32> {
        match self {
            Fill::Exact => integers(seed, count, ADDEND),
            Fill::Wide => log_uniform(seed, count),
            Fill::Uniform | Fill::Cancelling => uniform(seed, count),
        }
    }

    /// Factors of finished sums.
    pub(crate) fn scales(self, seed: u64, count: usize) -> Vec<f32> {
        match self {
            Fill::Exact => integers(seed, count, SCALE),
            _ => self.addends(seed, count),
        }
    }
}

/// The largest `m` for which `SCALE * (terms * m * m + ADDEND) + 2 * ADDEND` is exact.
fn maximum(terms: usize) -> usize {
    exact_maximum(SCALE * terms, (SCALE + 2) * ADDEND)
}
