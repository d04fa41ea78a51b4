//! One network in training: steps, evaluation, and the state that checkpoints keep.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::engine::NetworkExecutor;
use super::evaluation::Evaluation;
use super::executor::{Executor, Update};
use super::folder::RunFolder;
use super::metrics::EpochMetrics;
use super::observer::StepReport;
use super::optimizer::{average_decay, clip_factor};
use super::progress::{Best, Progress};
use super::run_config::RunConfig;
use super::schedule::learning_rate;
use crate::data::{Augmentation, BatchLoader, Dataset, SoftLabel};
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::net::{Network, Precision, Preprocess};

/// Images with what they show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// Normalised pixels, N x H x W x C.
    pub images: &'a [f32],
    /// One label per image.
    pub labels: &'a [SoftLabel],
}

/// How [`Trainer::fit`] goes about its work, beyond what decides the weights. Kept in checkpoints: a resumed run goes on likewise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FitOptions {
    /// Evaluate on the validation set after every so many epochs, and after the last. At least 1. Default 1.
    pub evaluate_every: u64,
    /// Stop when the best epoch lies so many epochs back; needs a validation set. At least 1. Default none.
    pub early_stop: Option<u64>,
    /// Write a checkpoint when the last one is so old, besides those after every epoch. Default 10 minutes.
    pub checkpoint_every: Duration,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { evaluate_every: 1, early_stop: None, checkpoint_every: Duration::from_secs(600) }
    }
}

impl FitOptions {
    /// Sets after how many epochs the validation set is evaluated.
    #[must_use]
    pub fn with_evaluate_every(mut self, epochs: u64) -> Self {
        self.evaluate_every = epochs;
        self
    }

    /// Sets how many epochs without improvement end the run.
    #[must_use]
    pub fn with_early_stop(mut self, epochs: Option<u64>) -> Self {
        self.early_stop = epochs;
        self
    }

    /// Sets how old a checkpoint may become inside an epoch.
    #[must_use]
    pub fn with_checkpoint_every(mut self, age: Duration) -> Self {
        self.checkpoint_every = age;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the option.
    pub fn validate(&self) -> Result<()> {
        if self.evaluate_every == 0 {
            return Err(Error::invalid("epochs between evaluations", "at least 1", 0));
        }
        if self.early_stop == Some(0) {
            return Err(Error::invalid("epochs without improvement before an early stop", "at least 1", 0));
        }
        Ok(())
    }
}

/// A network in training.
///
/// [`fit`](Self::fit) runs whole epochs with evaluation, files and checkpoints; [`step`](Self::step) is for loops of the caller's own.
/// The weights after n steps depend on the configuration and the data only: not on threads, time, or on how often the run was
/// stopped and resumed.
///
/// After an error of a step the trainer's own state is undefined; the last checkpoint is whole.
pub struct Trainer {
    pub(super) config: RunConfig,
    pub(super) options: FitOptions,
    pub(super) folder: Option<RunFolder>,
    pub(super) executor: Box<dyn Executor>,
    pub(super) progress: Progress,
    pub(super) preprocess: Option<Preprocess>,
    pub(super) class_names: Vec<String>,
    /// True if the state comes from a checkpoint.
    pub(super) resumed: bool,
}

impl Trainer {
    /// A trainer for a network from its initial weights, on the shared pool and the active instruction set.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that cannot be used, [`Error::Isa`] if `LEANRESNET_ISA` names what cannot run here.
    pub fn new(network: &Network, config: TrainConfig) -> Result<Self> {
        let executor = NetworkExecutor::new(network, &config, Pool::shared(), Precision::from(config.dtype).isa()?)?;
        Self::with_executor(RunConfig::new(network.clone()).with_train(config), Box::new(executor))
    }

    /// A trainer that computes with `executor`, whose network is that of `config`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that cannot be used, [`Error::Shape`] if the executor's network has other images or classes.
    pub fn with_executor(config: RunConfig, executor: Box<dyn Executor>) -> Result<Self> {
        config.validate()?;
        let network = &config.network;
        if (executor.input(), executor.classes()) != (network.input(), network.classes()) {
            let describe = |input: [usize; 3], classes| format!("images {input:?}, {classes} classes");
            let expected = describe(network.input(), network.classes());
            return Err(Error::shape("network of the executor", expected, describe(executor.input(), executor.classes())));
        }
        Ok(Self {
            class_names: network.class_names().to_vec(),
            config,
            options: FitOptions::default(),
            folder: None,
            executor,
            progress: Progress::default(),
            preprocess: None,
            resumed: false,
        })
    }

    /// Sets how [`fit`](Self::fit) goes about its work.
    #[must_use]
    pub fn with_options(mut self, options: FitOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes [`fit`](Self::fit) write its configuration, results, models and checkpoints to `folder`; without one it writes nothing.
    #[must_use]
    pub fn in_folder(mut self, folder: RunFolder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Sets how bytes become numbers. Without it, [`fit`](Self::fit) takes the customary values of `config.data.name`, or measures the
    /// training set.
    #[must_use]
    pub fn with_preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = Some(preprocess);
        self
    }

    /// Sets the number of images of the training set, on which the schedule depends; only needed by who calls [`step`](Self::step).
    #[must_use]
    pub fn with_training_images(mut self, images: u64) -> Self {
        self.progress.train_images = Some(images);
        self
    }

    /// One step of the optimiser on `batch`, with the learning rate that the schedule has for it.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradient is not finite: the weights are then those before the step.
    /// [`Error::Invalid`] if the size of the training set is not known, [`Error::Shape`] for an empty batch; the errors of the executor.
    pub fn step(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        if batch.labels.is_empty() {
            return Err(Error::shape("batch", "at least one image", 0));
        }
        let train = &self.config.train;
        let steps_per_epoch = self.progress.steps_per_epoch(train.batch)?;
        if self.progress.position >= steps_per_epoch {
            self.progress.end_epoch(None);
        }
        let step = self.progress.step;
        let learning_rate = learning_rate(&train.schedule, step, steps_per_epoch, train.epochs);
        let loss = self.executor.forward_backward(batch.images, batch.labels)?;
        let gradient_norm = self.executor.gradient_norm();
        if !(loss.loss_sum.is_finite() && gradient_norm.is_finite()) {
            return Err(self.diverged());
        }
        self.executor.update(&Update {
            step,
            learning_rate,
            gradient_scale: clip_factor(train.clip_norm, gradient_norm),
            average_decay: (train.ema > 0.0).then(|| average_decay(train.ema, step)),
        })?;
        let images = batch.labels.len();
        let report = StepReport {
            step,
            epoch: self.progress.epoch,
            position: self.progress.position + 1,
            steps_per_epoch,
            images,
            loss: loss.loss_sum / images as f64,
            correct: loss.correct,
            learning_rate,
            gradient_norm,
        };
        self.progress.add_step(&report, loss.loss_sum);
        Ok(report)
    }

    /// Judges the network (its moving average, where one is kept) by all images of `dataset`, without augmentation.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Shape`] if the images, their classes or the preprocessing do not fit; those of the data set.
    pub fn evaluate(&mut self, dataset: &dyn Dataset) -> Result<Evaluation> {
        self.check_dataset("data set", dataset)?;
        let Some(preprocess) = &self.preprocess else {
            return Err(Error::invalid("preprocessing", "one from fit, resume or with_preprocess", "none"));
        };
        let loader = BatchLoader::new(dataset, preprocess, Augmentation::default(), self.config.train.seed)?;
        let mut loader = loader.with_pool(self.executor.pool());
        let classes = self.executor.classes();
        let image = self.executor.input().iter().product::<usize>();
        let largest = self.config.train.batch.min(dataset.len());
        let mut images = vec![0.0; largest * image];
        let mut labels = vec![SoftLabel::default(); largest];
        let mut logits = vec![0.0; largest * classes];
        let order: Vec<u32> = (0..dataset.len() as u32).collect();
        let mut evaluation = Evaluation::new(classes);
        for samples in order.chunks(largest.max(1)) {
            let n = samples.len();
            loader.load(0, samples, &mut images[..n * image], &mut labels[..n])?;
            self.executor.forward(&images[..n * image], n, &mut logits[..n * classes])?;
            let labels: Vec<u32> = labels[..n].iter().map(|label| label.first).collect();
            evaluation.add(&logits[..n * classes], &labels)?;
        }
        Ok(evaluation)
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// How [`fit`](Self::fit) goes about its work.
    pub fn options(&self) -> &FitOptions {
        &self.options
    }

    /// Number of finished steps.
    pub fn steps(&self) -> u64 {
        self.progress.step
    }

    /// Number of finished epochs.
    pub fn epochs(&self) -> u64 {
        self.progress.epoch
    }

    /// The results of every finished epoch.
    pub fn history(&self) -> &[EpochMetrics] {
        &self.progress.history
    }

    /// The best epoch so far by the validation set.
    pub fn best(&self) -> Option<&Best> {
        self.progress.best.as_ref()
    }

    /// How bytes become numbers, once that is known.
    pub fn preprocess(&self) -> Option<&Preprocess> {
        self.preprocess.as_ref()
    }

    /// The part that computes.
    pub fn executor(&self) -> &dyn Executor {
        &*self.executor
    }

    /// The error for values that are not finite in the step that is under way.
    pub(super) fn diverged(&self) -> Error {
        let layer = self.executor.first_non_finite().unwrap_or_else(|| "the loss".to_owned());
        Error::Diverged { step: self.progress.step, layer }
    }

    /// Checks that the network can read the images of `dataset` and knows all of its classes.
    pub(super) fn check_dataset(&self, what: &str, dataset: &dyn Dataset) -> Result<()> {
        let describe = |[channels, height, width]: [usize; 3]| format!("{channels} x {height} x {width}");
        if dataset.shape() != self.executor.input() {
            let (expected, got) = (describe(self.executor.input()), describe(dataset.shape()));
            return Err(Error::shape(format!("images of the {what}"), expected, got));
        }
        if dataset.class_names().len() != self.executor.classes() {
            let expected = format!("{}, as network.classes", self.executor.classes());
            return Err(Error::invalid(format!("classes of the {what}"), expected, dataset.class_names().len()));
        }
        if dataset.is_empty() {
            return Err(Error::invalid(format!("images of the {what}"), "at least one", 0));
        }
        Ok(())
    }
}

const _: () = {
    const fn assert_send<T: Send>() {}
    const fn assert_send_and_sync<T: Send + Sync>() {}
    assert_send::<Trainer>();
    assert_send_and_sync::<RunConfig>();
};
