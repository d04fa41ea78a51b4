//! The run itself: training, the judgement by the test images, curves, the answer.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use leanresnet::data::{Dataset, Split, Subset, open_for, split_validation};
use leanresnet::train::{FitReport, RunFolder, StopReason, Trainer};
use leanresnet::{Error, Precision, RunConfig};

use super::answer::{Answer, Results, text};
use crate::context::Context;
use crate::curves::{self, TestPoint};
use crate::evaluate::{Verdict, evaluate};
use crate::failure::{Failure, Outcome, interrupted};
use crate::interrupt::Interrupt;
use crate::model_source;
use crate::progress::{self, TrainingProgress};

/// A run that is ready to begin or to go on.
pub struct TrainingSession<'a> {
    pub trainer: Trainer,
    pub folder: RunFolder,
    pub train: Subset,
    pub validation: Option<Subset>,
    pub progress: TrainingProgress<'a>,
    /// What the network is called in messages.
    pub label: String,
}

/// The images to train on, and those to find the best epoch with.
pub fn split(train: Box<dyn Dataset>, config: &RunConfig) -> Result<(Subset, Option<Subset>), Failure> {
    let held_out = config.data.validation;
    let (train, validation) = split_validation(Arc::from(train), held_out, config.train.seed)?;
    Ok((train, (held_out > 0).then_some(validation)))
}

impl TrainingSession<'_> {
    /// Trains to the end, and says what came out.
    pub fn run(mut self, context: &Context<'_>, interrupt: &Interrupt) -> Outcome {
        let validation = self.validation.as_ref().map(|subset| subset as &dyn Dataset);
        let fitted = self.trainer.fit(&self.train, validation, &mut self.progress);
        self.progress.finish();
        match fitted {
            Ok(report) => self.finish(context, interrupt, &report),
            Err(error @ Error::Diverged { .. }) => self.diverged(context, error),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn finish(&self, context: &Context<'_>, interrupt: &Interrupt, report: &FitReport) -> Outcome {
        let verdict = if report.stopped == StopReason::Interrupted { None } else { self.judge(context, interrupt)? };
        let test = verdict.as_ref().map(|verdict| TestPoint {
            epoch: report.best.as_ref().map_or(report.epochs, |best| best.epoch),
            loss: verdict.evaluation.loss(),
            top1: verdict.evaluation.top1(),
        });
        curves::write(&self.folder, self.trainer.history(), test)?;
        let stopped = match report.stopped {
            StopReason::Finished => "finished",
            StopReason::Early => "early",
            _ => "interrupted",
        };
        let answer = self.answer(stopped, Some(report), verdict.as_ref());
        context.output.answer(&answer, || text(&answer, &self.label, &self.trainer.config().data))?;
        if interrupt.received().is_some() {
            let folder = self.folder.path().display();
            let left = format!("step {} is saved; go on with: leanresnet train --resume {folder}", self.trainer.steps());
            return Ok(interrupted(context.output, interrupt, &left));
        }
        Ok(0)
    }

    /// How the model that was written does on the test images.
    fn judge(&self, context: &Context<'_>, interrupt: &Interrupt) -> Result<Option<Verdict>, Failure> {
        let config = self.trainer.config();
        let loaded = model_source::load(self.folder.path())?;
        let test = open_for(&config.data, Split::Test, loaded.model.input(), loaded.model.preprocess().resize)?;
        let bar = progress::bar(context.progress(), test.len() as u64, "test {wide_bar} {pos}/{len} images");
        let machine = (context.pool()?, context.isa()?, Precision::F32);
        let on_progress = |done: usize| bar.set_position(done as u64);
        let verdict = evaluate(&loaded.model, &*test, config.train.batch.min(64), machine, interrupt, on_progress)?;
        bar.finish_and_clear();
        Ok(verdict)
    }

    fn diverged(&self, context: &Context<'_>, error: Error) -> Outcome {
        curves::write(&self.folder, self.trainer.history(), None)?;
        let answer = self.answer("diverged", None, None);
        context.output.answer(&answer, || format!("diverged; the state before is in {}\n", answer.model.display()))?;
        Err(error.into())
    }

    /// An error in mid-run, with the way to go on where there is one.
    fn failed(&self, error: Error) -> Failure {
        let is_io = matches!(error, Error::Io { .. });
        let failure = Failure::from(error);
        if is_io && self.folder.last_checkpoint().exists() {
            let folder = self.folder.path().display();
            let hint = format!("{}; then go on with: leanresnet train --resume {folder}", failure.hint());
            return failure.with_hint(hint);
        }
        failure
    }

    fn answer(&self, stopped: &'static str, report: Option<&FitReport>, verdict: Option<&Verdict>) -> Answer {
        let last = self.trainer.history().last();
        Answer {
            run: self.folder.path().to_owned(),
            model: self.model_path(),
            stopped,
            epochs: self.trainer.epochs(),
            steps: self.trainer.steps(),
            seconds: report.map(|report| report.seconds),
            images_per_second: report.map(|report| report.images_per_second),
            results: Results {
                train_loss: last.map(|metrics| metrics.train_loss),
                train_top1: last.map(|metrics| metrics.train_top1),
                val_loss: last.and_then(|metrics| metrics.val_loss),
                val_top1: last.and_then(|metrics| metrics.val_top1),
                val_top5: last.and_then(|metrics| metrics.val_top5),
                test_loss: verdict.map(|verdict| verdict.evaluation.loss()),
                test_top1: verdict.map(|verdict| verdict.evaluation.top1()),
            },
            best_epoch: self.trainer.best().map(|best| best.epoch),
            parameters: self.trainer.config().network.parameter_count(),
        }
    }

    /// The best model, else the last, else the last checkpoint.
    fn model_path(&self) -> PathBuf {
        self.folder.model().unwrap_or_else(|| self.folder.last_checkpoint())
    }
}
