//! How good a network is on a set of labelled images.
#![forbid(unsafe_code)]

use super::loss::{check_label, check_logits, cross_entropy, rank};
use crate::data::SoftLabel;
use crate::error::Result;

/// Loss, hits and confusions over a set of images, added up batch by batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    classes: usize,
    images: u64,
    loss_sum: f64,
    correct: u64,
    correct_top5: u64,
    confusion: Vec<u64>,
}

impl Evaluation {
    /// An evaluation of no image yet, for a network with `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, images: 0, loss_sum: 0.0, correct: 0, correct_top5: 0, confusion: vec![0; classes * classes] }
    }

    /// Adds a batch: `logits` `[n, classes]` and the class of each of its n images.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the lengths do not fit, [`crate::Error::Invalid`] for a label out of range.
    pub fn add(&mut self, logits: &[f32], labels: &[u32]) -> Result<()> {
        check_logits(logits, labels.len(), self.classes)?;
        labels.iter().try_for_each(|&label| check_label(&SoftLabel::hard(label), self.classes))?;
        for (row, &label) in logits.chunks_exact(self.classes).zip(labels) {
            let rank = rank(row, label);
            self.images += 1;
            self.loss_sum += cross_entropy(row, label);
            self.correct += u64::from(rank == 0);
            self.correct_top5 += u64::from(rank < 5);
            self.confusion[label as usize * self.classes + first_guess(row)] += 1;
        }
        Ok(())
    }

    /// Number of images.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Mean cross-entropy in nats, without label smoothing. 0 for no image.
    pub fn loss(&self) -> f64 {
        if self.images == 0 { 0.0 } else { self.loss_sum / self.images as f64 }
    }

    /// Images whose class has the largest logit (the lowest index wins among equal ones).
    pub fn correct(&self) -> u64 {
        self.correct
    }

    /// Share of [`correct`](Self::correct) images, in [0, 1].
    pub fn top1(&self) -> f64 {
        share(self.correct, self.images)
    }

    /// Share of images whose class is among the five largest logits, in [0, 1].
    pub fn top5(&self) -> f64 {
        share(self.correct_top5, self.images)
    }

    /// Number of images of class `label` that were taken for class `guess`.
    ///
    /// # Panics
    /// If either is not below [`classes`](Self::classes).
    pub fn confusion(&self, label: usize, guess: usize) -> u64 {
        assert!(guess < self.classes, "classes are below {}, got {guess}", self.classes);
        self.confusion[label * self.classes + guess]
    }

    /// Number of images of class `label`.
    ///
    /// # Panics
    /// If it is not below [`classes`](Self::classes).
    pub fn class_images(&self, label: usize) -> u64 {
        (0..self.classes).map(|guess| self.confusion(label, guess)).sum()
    }
}

/// `part / whole`, and 0 for an empty whole.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The class of the largest logit; the lowest index of equal ones.
fn first_guess(row: &[f32]) -> usize {
    let largest = |best: usize, class: usize| if row[class] > row[best] || row[best].is_nan() { class } else { best };
    (0..row.len()).fold(0, largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up() {
        let logits = [[0.0, 2.0, 1.0], [5.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 0.0]];
        let labels = [1, 0, 1, 2];
        let mut whole = Evaluation::new(3);
        whole.add(logits.as_flattened(), &labels).unwrap();
        let mut parts = Evaluation::new(3);
        parts.add(logits[..1].as_flattened(), &labels[..1]).unwrap();
        parts.add(logits[1..].as_flattened(), &labels[1..]).unwrap();
        assert_eq!(whole, parts);
        assert_eq!((whole.images(), whole.correct(), whole.top1(), whole.top5()), (4, 2, 0.5, 1.0));
        assert_eq!([whole.confusion(1, 1), whole.confusion(1, 0), whole.confusion(2, 1)], [1, 1, 1]);
        assert_eq!(whole.class_images(1), 2);
        let by_hand = ((1f64 + 2f64.exp() + 1f64.exp()).ln() - 2.0)
            + ((5f64.exp() + 2.0).ln() - 5.0)
            + ((2.0 * 1f64.exp() + 1.0).ln() - 1.0)
            + (3f64.exp() + 2.0).ln();
        assert!((whole.loss() - by_hand / 4.0).abs() < 1e-6);
    }

    #[test]
    fn the_sixth_guess_is_too_late() {
        let mut evaluation = Evaluation::new(7);
        let logits: Vec<f32> = (0..7).map(|class| 7.0 - class as f32).collect();
        evaluation.add(&logits, &[4]).unwrap();
        evaluation.add(&logits, &[5]).unwrap();
        assert_eq!((evaluation.top1(), evaluation.top5()), (0.0, 0.5));
    }

    #[test]
    fn nothing_and_nonsense() {
        let mut evaluation = Evaluation::new(2);
        assert_eq!((evaluation.loss(), evaluation.top1()), (0.0, 0.0));
        assert!(evaluation.add(&[0.0], &[0]).is_err());
        assert!(evaluation.add(&[0.0, 0.0], &[2]).is_err());
        evaluation.add(&[f32::NAN, 0.0], &[1]).unwrap();
        assert_eq!(evaluation.correct(), 0);
        assert!(evaluation.loss().is_nan());
    }
}
