//! What is written about every epoch: results in `metrics.jsonl`, times in `timing.jsonl`.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The results of one epoch: one line of `metrics.jsonl`.
///
/// Holds no time and no machine, so that two runs with equal configuration write equal files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EpochMetrics {
    /// Number of finished epochs: 1 after the first.
    pub epoch: u64,
    /// Number of finished steps.
    pub step: u64,
    /// The learning rate of the epoch's last step.
    pub learning_rate: f32,
    /// Mean loss over the epoch's images while they were trained on (with label smoothing, augmented), nats.
    pub train_loss: f64,
    /// Share of the epoch's images that were classified correctly while they were trained on, in [0, 1].
    pub train_top1: f64,
    /// Mean cross-entropy on the validation set, nats; absent in epochs without evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Share of the validation set whose class is the first guess, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_top1: Option<f64>,
    /// Share of the validation set whose class is among the first five guesses, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_top5: Option<f64>,
}

/// How long one epoch took: one line of `timing.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EpochTiming {
    /// Number of finished epochs: 1 after the first.
    pub epoch: u64,
    /// Seconds of training; only those since the start or resume of the run.
    pub train_seconds: f64,
    /// Images trained on in that time.
    pub train_images: u64,
    /// Images per second of training.
    pub images_per_second: f64,
    /// Seconds of evaluation on the validation set.
    pub evaluate_seconds: f64,
}

/// The lines of `metrics.jsonl` for `history`.
pub(super) fn metrics_lines(history: &[EpochMetrics]) -> String {
    history.iter().map(json_line).collect()
}

/// One value as one line of JSON.
pub(super) fn json_line<T: Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("numbers and strings are always JSON");
    line.push('\n');
    line
}

/// Appends `line` to the file at `path`, creating it if needed.
pub(super) fn append(path: &Path, line: &str) -> Result<()> {
    let appended = OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    appended.map_err(|error| Error::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> EpochMetrics {
        EpochMetrics {
            epoch: 2,
            step: 782,
            learning_rate: 0.1,
            train_loss: 1.0 / 3.0,
            train_top1: 0.5,
            val_loss: None,
            val_top1: None,
            val_top5: None,
        }
    }

    #[test]
    fn lines_are_stable_and_read_back_exactly() {
        let text = metrics_lines(&[metrics(), EpochMetrics { val_loss: Some(0.1 + 0.2), ..metrics() }]);
        let (first, second) = text.split_once('\n').unwrap();
        assert_eq!(first, r#"{"epoch":2,"step":782,"learning_rate":0.1,"train_loss":0.3333333333333333,"train_top1":0.5}"#);
        assert_eq!(serde_json::from_str::<EpochMetrics>(second).unwrap().val_loss, Some(0.1 + 0.2));
    }

    #[test]
    fn appending_creates_and_extends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("timing.jsonl");
        append(&path, "a\n").unwrap();
        append(&path, "b\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
        assert!(append(&folder.path().join("none/x"), "a").is_err());
    }
}
