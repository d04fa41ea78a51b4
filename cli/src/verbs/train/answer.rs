//! What `leanresnet train` says at the end.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::PathBuf;

use leanresnet::data::DataConfig;
use serde::Serialize;

use crate::table::{grouped, percent};

/// The answer; its fields are the keys in JSON.
#[derive(Serialize)]
pub struct Answer {
    pub run: PathBuf,
    pub model: PathBuf,
    pub stopped: &'static str,
    pub epochs: u64,
    pub steps: u64,
    pub seconds: Option<f64>,
    pub images_per_second: Option<f64>,
    #[serde(flatten)]
    pub results: Results,
    pub best_epoch: Option<u64>,
    pub parameters: u64,
}

/// How good the model is; validation and training of the last epoch, test of the model that was written.
#[derive(Serialize)]
pub struct Results {
    pub train_loss: Option<f64>,
    pub train_top1: Option<f64>,
    pub val_loss: Option<f64>,
    pub val_top1: Option<f64>,
    pub val_top5: Option<f64>,
    pub test_loss: Option<f64>,
    pub test_top1: Option<f64>,
}

/// What was made, how good it is, and what to try next.
pub fn text(answer: &Answer, label: &str, data: &DataConfig) -> String {
    let run = answer.run.display();
    let mut text = format!("{}: {label} on {}, {} epochs, {} steps", answer.stopped, data.name, answer.epochs, answer.steps);
    if let (Some(seconds), Some(rate)) = (answer.seconds, answer.images_per_second) {
        let _ = write!(text, ", {seconds:.1} s, {rate:.0} images/s");
    }
    text.push('\n');
    let results = &answer.results;
    let rows = [
        ("training", results.train_loss, results.train_top1),
        ("validation", results.val_loss, results.val_top1),
        ("test", results.test_loss, results.test_top1),
    ];
    for (name, loss, top1) in rows {
        if let (Some(loss), Some(top1)) = (loss, top1) {
            let _ = writeln!(text, "  {name:<11} top-1 {}, loss {loss:.4}", percent(top1));
        }
    }
    if let Some(epoch) = answer.best_epoch {
        let _ = writeln!(text, "  {:<11} epoch {epoch} by the validation images", "best");
    }
    let _ = writeln!(text, "  {:<11} {} ({} parameters)", "model", answer.model.display(), grouped(answer.parameters));
    if answer.epochs > 0 {
        let _ = writeln!(text, "  {:<11} {run}/curves.svg, {run}/curves.png", "curves");
    }
    text.push_str("next:\n");
    if answer.stopped == "interrupted" {
        let _ = writeln!(text, "  leanresnet train --resume {run}");
    } else {
        let _ = writeln!(text, "  leanresnet eval {run}   how good it is, class by class");
        let _ = writeln!(text, "  leanresnet predict {run} IMAGE   what it sees in a picture");
        let _ = writeln!(text, "  leanresnet train --resume {run} --epochs {}   go on for longer", 2 * answer.epochs.max(1));
    }
    text
}
