//! What a training run tells its caller while it runs, and how the caller stops it.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::{EpochMetrics, EpochTiming};

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StopReason {
    /// All epochs are done.
    Finished,
    /// The validation set has not improved for as long as the options allow.
    Early,
    /// The caller asked for it.
    Interrupted,
}

/// One finished step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The optimiser's step, from 0.
    pub step: u64,
    /// The epoch it belongs to, from 0.
    pub epoch: u64,
    /// Steps finished in this epoch, including this one.
    pub position: u64,
    /// Steps of every epoch.
    pub steps_per_epoch: u64,
    /// Images of the batch.
    pub images: usize,
    /// Mean loss over the batch, nats.
    pub loss: f64,
    /// Images of the batch that were classified correctly.
    pub correct: u64,
    /// The learning rate used.
    pub learning_rate: f32,
    /// Euclidean norm of the gradient, before clipping.
    pub gradient_norm: f64,
}

/// One finished epoch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EpochReport<'a> {
    /// Its results.
    pub metrics: &'a EpochMetrics,
    /// Its times.
    pub timing: &'a EpochTiming,
    /// True if it is the best on the validation set so far.
    pub best: bool,
}

/// Hears about the course of a run. Every method may be left out.
pub trait Observer {
    /// After every step.
    fn on_step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// After every epoch, when its results are on disk.
    fn on_epoch(&mut self, report: &EpochReport<'_>) {
        let _ = report;
    }

    /// After every checkpoint, when it is safely at `path`.
    fn on_checkpoint(&mut self, path: &Path) {
        let _ = path;
    }

    /// Something the user should know that is no error, as a damaged checkpoint whose predecessor is used.
    fn on_notice(&mut self, message: &str) {
        let _ = message;
    }

    /// Asked after every step, and once more after every epoch when [`on_epoch`](Self::on_epoch) has been called: a reason stops the run
    /// there. The step's results are kept and a checkpoint is written, so that the run can be resumed without a trace.
    fn should_stop(&mut self) -> Option<StopReason> {
        None
    }
}

/// An observer that is not interested.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
