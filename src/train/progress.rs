//! How far a run has come: all of its state that is not a tensor.
#![forbid(unsafe_code)]

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::evaluation::{Evaluation, share};
use super::metrics::EpochMetrics;
use super::observer::StepReport;
use crate::error::{Error, Result};

/// The best epoch so far by the validation set: most images right; the smaller loss among equals, then the earlier epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Best {
    /// Number of finished epochs: 1 for the first.
    pub epoch: u64,
    /// Share of the validation set whose class is the first guess, in [0, 1].
    pub top1: f64,
    /// Mean cross-entropy on the validation set, nats.
    pub loss: f64,
}

/// Sums over the steps of the epoch that is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochSums {
    loss: f64,
    correct: u64,
    images: u64,
    learning_rate: f32,
}

/// Counters, sums and results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Finished steps.
    pub(super) step: u64,
    /// Finished epochs.
    pub(super) epoch: u64,
    /// Finished steps of the epoch that is under way.
    pub(super) position: u64,
    /// Images of the training set; `None` until it is known.
    pub(super) train_images: Option<u64>,
    /// Sums of the epoch that is under way.
    pub(super) sums: EpochSums,
    /// The best epoch so far.
    pub(super) best: Option<Best>,
    /// The results of every finished epoch.
    pub(super) history: Vec<EpochMetrics>,
}

impl Progress {
    /// Steps of an epoch with batches of `batch` images.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the training set is not known or too small for one step.
    pub(super) fn steps_per_epoch(&self, batch: usize) -> Result<u64> {
        let Some(images) = self.train_images else {
            let expected = "the size of the training set, from fit or with_training_images";
            return Err(Error::invalid("steps per epoch", expected, "none"));
        };
        match steps_per_epoch(images, batch as u64) {
            0 => Err(Error::invalid("training set", "at least 2 images", images)),
            steps => Ok(steps),
        }
    }

    /// Counts a finished step.
    pub(super) fn add_step(&mut self, report: &StepReport, loss_sum: f64) {
        self.step += 1;
        self.position += 1;
        self.sums.loss += loss_sum;
        self.sums.correct += report.correct;
        self.sums.images += report.images as u64;
        self.sums.learning_rate = report.learning_rate;
    }

    /// Ends the epoch that is under way; true if it is the best so far.
    pub(super) fn end_epoch(&mut self, evaluation: Option<&Evaluation>) -> bool {
        let sums = std::mem::take(&mut self.sums);
        self.epoch += 1;
        self.position = 0;
        self.history.push(EpochMetrics {
            epoch: self.epoch,
            step: self.step,
            learning_rate: sums.learning_rate,
            train_loss: if sums.images == 0 { 0.0 } else { sums.loss / sums.images as f64 },
            train_top1: share(sums.correct, sums.images),
            val_loss: evaluation.map(Evaluation::loss).filter(|loss| loss.is_finite()),
            val_top1: evaluation.map(Evaluation::top1),
            val_top5: evaluation.map(Evaluation::top5),
        });
        let better = evaluation.is_some_and(|evaluation| self.is_better(evaluation));
        if let (true, Some(evaluation)) = (better, evaluation) {
            self.best = Some(Best { epoch: self.epoch, top1: evaluation.top1(), loss: evaluation.loss() });
        }
        better
    }

    fn is_better(&self, evaluation: &Evaluation) -> bool {
        let (top1, loss) = (evaluation.top1(), evaluation.loss());
        match &self.best {
            _ if !loss.is_finite() => false,
            None => true,
            Some(best) => top1 > best.top1 || (top1 == best.top1 && loss < best.loss),
        }
    }

    /// True if the best epoch lies `patience` or more epochs back.
    pub(super) fn is_out_of_patience(&self, patience: Option<u64>) -> bool {
        match (patience, &self.best) {
            (Some(patience), Some(best)) => self.epoch.saturating_sub(best.epoch) >= patience,
            _ => false,
        }
    }
}

/// Steps of an epoch: every full batch, and the rest as a smaller batch if it has at least two images.
///
/// A rest of one image is left out, as the statistics of a single image say little; the next epoch's order brings it in elsewhere.
pub(super) fn steps_per_epoch(images: u64, batch: u64) -> u64 {
    images / batch + u64::from(images % batch >= 2)
}

/// The positions, in the order of the epoch, of the images of step `position`.
pub(super) fn batch_range(position: u64, images: usize, batch: usize) -> Range<usize> {
    let start = position as usize * batch;
    start..images.min(start + batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_of_one_image_is_left_out() {
        let steps = |images, batch| steps_per_epoch(images, batch);
        assert_eq!([steps(8, 4), steps(9, 4), steps(10, 4), steps(11, 4)], [2, 2, 3, 3]);
        assert_eq!([steps(1, 4), steps(2, 4), steps(3, 1)], [0, 1, 3]);
        assert_eq!([batch_range(1, 9, 4), batch_range(2, 10, 4)], [4..8, 8..10]);
        let unknown = Progress::default();
        assert!(unknown.steps_per_epoch(4).is_err());
        assert!(Progress { train_images: Some(1), ..unknown }.steps_per_epoch(4).is_err());
    }

    fn evaluation(correct: usize, confidence: f32) -> Evaluation {
        let mut evaluation = Evaluation::new(2);
        for image in 0..4 {
            evaluation.add(&[confidence, 0.0], &[u32::from(image >= correct)]).unwrap();
        }
        evaluation
    }

    #[test]
    fn the_best_epoch_has_most_hits_then_least_loss() {
        let mut progress = Progress::default();
        let mut end = |correct, confidence| progress.end_epoch(Some(&evaluation(correct, confidence)));
        // With half of the images wrong, more confidence means more loss.
        assert_eq!([end(2, 2.0), end(1, 0.1), end(2, 3.0), end(2, 1.0), end(2, 1.0)], [true, false, false, true, false]);
        assert!(!progress.end_epoch(None));
        assert!(!progress.end_epoch(Some(&evaluation(4, f32::NAN))));
        assert_eq!((progress.best.as_ref().unwrap().epoch, progress.epoch), (4, 7));
        assert_eq!(progress.history[6].val_loss, None);
        assert!(progress.is_out_of_patience(Some(3)));
        assert!(!progress.is_out_of_patience(Some(4)));
        assert!(!progress.is_out_of_patience(None));
    }
}
