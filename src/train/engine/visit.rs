//! One image on its way through the operators of a phase.
#![forbid(unsafe_code)]

use crate::kernel::gradient::GRADIENT_FETCHES;
use crate::kernel::upcoming::{Ahead, UPCOMING, Upcoming};

/// An image at an operator, on a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) image: usize,
    pub(super) worker: usize,
    /// What is read after this operator's convolution and is not in cache; the gradient of a matrix takes the first ones.
    upcoming: [Upcoming; UPCOMING],
}

impl Visit {
    pub(super) fn new(image: usize, worker: usize, upcoming: [Upcoming; UPCOMING]) -> Self {
        Visit { image, worker, upcoming }
    }

    /// The same with nothing to fetch.
    pub(super) fn without_upcoming(self) -> Self {
        Visit { upcoming: Default::default(), ..self }
    }

    /// What the gradient of a matrix fetches.
    pub(super) fn at_weights(&self) -> [Upcoming; GRADIENT_FETCHES] {
        std::array::from_fn(|index| self.upcoming[index])
    }

    /// The same once that is fetched.
    pub(super) fn after_weights(mut self) -> Self {
        self.upcoming[..GRADIENT_FETCHES].fill(Upcoming::default());
        self
    }

    /// What a convolution fetches.
    pub(super) fn ahead(&self) -> Ahead {
        Ahead { output: true, upcoming: self.upcoming }
    }
}
