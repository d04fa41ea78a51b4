//! The loop over epochs: batches, evaluation, files, checkpoints, and the reasons to stop.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::evaluation::Evaluation;
use super::folder::RunFolder;
use super::metrics::{EpochMetrics, EpochTiming, append, json_line, metrics_lines};
use super::observer::{EpochReport, Observer, StopReason};
use super::progress::{Best, batch_range};
use super::tensorboard::EventFile;
use super::trainer::{Batch, Trainer};
use crate::data::{BatchLoader, Dataset, PixelType, SoftLabel, customary_preprocess, epoch_order, measure_preprocess};
use crate::error::{Error, Result};
use crate::io::atomic;
use crate::net::Preprocess;

/// What a call of [`Trainer::fit`] did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FitReport {
    /// Why it ended.
    pub stopped: StopReason,
    /// Epochs finished since the run began, also before a resume.
    pub epochs: u64,
    /// Steps finished since the run began.
    pub steps: u64,
    /// Seconds of this call.
    pub seconds: f64,
    /// Images trained on per second of training in this call, without evaluation and files.
    pub images_per_second: f64,
    /// The results of the last finished epoch.
    pub last: Option<EpochMetrics>,
    /// The best epoch by the validation set.
    pub best: Option<Best>,
}

impl Trainer {
    /// Trains from the present state to the end of the last epoch.
    ///
    /// Epoch e visits `train` in the order [`epoch_order`]`(seed, e)`, in batches of `config.train.batch`; the rest is a smaller batch,
    /// except that a rest of a single image is left out. After an epoch the network is evaluated on `validation`.
    /// With a folder ([`in_folder`](Self::in_folder)) it holds the configuration, one line of results per epoch, a checkpoint after
    /// every epoch, the best model by `validation`, and at the end the last model.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or a gradient is not finite; the checkpoint before is kept. [`Error::Invalid`] or
    /// [`Error::Shape`] if the data sets do not fit the network or the options; [`Error::Exists`] if the folder holds another run;
    /// [`Error::Io`] if a file cannot be written; the errors of the data sets and of the executor.
    pub fn fit(
        &mut self,
        train: &dyn Dataset,
        validation: Option<&dyn Dataset>,
        observer: &mut dyn Observer,
    ) -> Result<FitReport> {
        self.accept_datasets(train, validation)?;
        let events = self.begin_files()?;
        let preprocess = self.preprocess_for(train)?;
        let loader = BatchLoader::new(train, &preprocess, self.config.data.augment, self.config.train.seed)?;
        let loader = loader.with_pool(self.executor.pool());
        let now = Instant::now();
        let mut run =
            Run { trainer: self, train, validation, observer, loader, clock: Clock::default(), events, last_checkpoint: now };
        let stopped = run.all_epochs()?;
        let clock = run.clock;
        if let Some(folder) = &self.folder {
            self.model()?.save(folder.last_model())?;
        }
        Ok(FitReport {
            stopped,
            epochs: self.progress.epoch,
            steps: self.progress.step,
            seconds: now.elapsed().as_secs_f64(),
            images_per_second: clock.rate(),
            last: self.progress.history.last().cloned(),
            best: self.progress.best.clone(),
        })
    }

    /// Checks data sets and options against network and earlier epochs.
    fn accept_datasets(&mut self, train: &dyn Dataset, validation: Option<&dyn Dataset>) -> Result<()> {
        self.options.validate()?;
        self.check_dataset("training set", train)?;
        match validation {
            Some(validation) => self.check_dataset("validation set", validation)?,
            None if self.options.early_stop.is_some() => {
                return Err(Error::invalid("validation set for an early stop", "one (data.validation above 0)", "none"));
            }
            None => {}
        }
        let images = train.len() as u64;
        if let Some(before) = self.progress.train_images.filter(|&before| before != images) {
            return Err(Error::invalid("images of the training set", format!("{before}, as before"), images));
        }
        self.progress.train_images = Some(images);
        self.progress.steps_per_epoch(self.config.train.batch)?;
        self.class_names = train.class_names().to_vec();
        Ok(())
    }

    /// The preprocessing in use, chosen now if it was not before.
    fn preprocess_for(&mut self, train: &dyn Dataset) -> Result<Preprocess> {
        if let Some(preprocess) = &self.preprocess {
            return Ok(preprocess.clone());
        }
        let fits = |preprocess: &Preprocess| preprocess.mean.len() == train.shape()[0] && train.pixel_type() == PixelType::U8;
        let preprocess = match customary_preprocess(&self.config.data.name).filter(fits) {
            Some(preprocess) => preprocess,
            None => measure_preprocess(train, &self.executor.pool())?,
        };
        self.preprocess = Some(preprocess.clone());
        Ok(preprocess)
    }

    /// Writes the configuration, and the results that the present state knows: lines of epochs that a resumed run does again go.
    fn begin_files(&self) -> Result<Option<EventFile>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = folder.last_checkpoint();
        if self.progress.step == 0 && !self.resumed && path.exists() {
            return Err(Error::Exists { path });
        }
        // What would keep the model from being made shows now, not after the last epoch.
        self.model()?;
        remove_leftovers(folder)?;
        atomic::write(&folder.config(), [self.config.to_toml().as_bytes()])?;
        atomic::write(&folder.metrics(), [metrics_lines(&self.progress.history).as_bytes()])?;
        EventFile::create(folder.path(), self.progress.step).map(Some)
    }
}

/// Removes the temporary files of an earlier process that was killed while it wrote.
fn remove_leftovers(folder: &RunFolder) -> Result<()> {
    let failed = |error| Error::io("read", folder.path(), error);
    for entry in std::fs::read_dir(folder.path()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".") && name.ends_with(b".partial") {
            std::fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Seconds and images of training.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    seconds: f64,
    images: u64,
}

impl Clock {
    /// Images per second.
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.images as f64 / self.seconds } else { 0.0 }
    }

    /// What was added since `earlier`.
    fn since(&self, earlier: &Clock) -> Clock {
        Clock { seconds: self.seconds - earlier.seconds, images: self.images - earlier.images }
    }
}

/// One call of [`Trainer::fit`].
struct Run<'a> {
    trainer: &'a mut Trainer,
    train: &'a dyn Dataset,
    validation: Option<&'a dyn Dataset>,
    observer: &'a mut dyn Observer,
    loader: BatchLoader<'a>,
    clock: Clock,
    events: Option<EventFile>,
    last_checkpoint: Instant,
}

impl Run<'_> {
    fn all_epochs(&mut self) -> Result<StopReason> {
        if self.trainer.progress.step == 0 {
            // A run that fails in its first epoch can be looked at, too.
            self.checkpoint()?;
        }
        let epochs = self.trainer.config.train.epochs;
        while self.trainer.progress.epoch < epochs {
            if self.trainer.progress.is_out_of_patience(self.trainer.options.early_stop) {
                return Ok(StopReason::Early);
            }
            let before = self.clock;
            if let Some(reason) = self.rest_of_epoch()? {
                self.checkpoint()?;
                return Ok(reason);
            }
            self.end_epoch(&before)?;
            let reason = self.observer.should_stop().filter(|_| self.trainer.progress.epoch < epochs);
            if let Some(reason) = reason {
                return Ok(reason);
            }
        }
        Ok(StopReason::Finished)
    }

    /// The steps of the present epoch that are not done yet.
    fn rest_of_epoch(&mut self) -> Result<Option<StopReason>> {
        let (batch, seed) = (self.trainer.config.train.batch, self.trainer.config.train.seed);
        let steps = self.trainer.progress.steps_per_epoch(batch)?;
        let epoch = self.trainer.progress.epoch;
        let order = epoch_order(seed, epoch, self.train.len());
        let image = self.trainer.executor.input().iter().product::<usize>();
        let largest = batch.min(self.train.len());
        let mut images = vec![0.0; largest * image];
        let mut labels = vec![SoftLabel::default(); largest];
        while self.trainer.progress.position < steps {
            let start = Instant::now();
            let samples = &order[batch_range(self.trainer.progress.position, order.len(), batch)];
            let (images, labels) = (&mut images[..samples.len() * image], &mut labels[..samples.len()]);
            self.loader.load(epoch, samples, images, labels)?;
            let report = self.trainer.step(&Batch { images, labels })?;
            self.clock.seconds += start.elapsed().as_secs_f64();
            self.clock.images += samples.len() as u64;
            self.observer.on_step(&report);
            if let Some(reason) = self.observer.should_stop() {
                return Ok(Some(reason));
            }
            if self.last_checkpoint.elapsed() >= self.trainer.options.checkpoint_every {
                self.checkpoint()?;
            }
        }
        Ok(None)
    }

    /// Evaluates and writes what is known after an epoch.
    fn end_epoch(&mut self, before: &Clock) -> Result<()> {
        let start = Instant::now();
        let evaluation = self.evaluation()?;
        let evaluate_seconds = if evaluation.is_some() { start.elapsed().as_secs_f64() } else { 0.0 };
        let trainer = &mut *self.trainer;
        let best = trainer.progress.end_epoch(evaluation.as_ref());
        let metrics = trainer.progress.history.last().expect("the epoch that just ended").clone();
        let trained = self.clock.since(before);
        let timing = EpochTiming {
            epoch: metrics.epoch,
            train_seconds: trained.seconds,
            train_images: trained.images,
            images_per_second: trained.rate(),
            evaluate_seconds,
        };
        if let Some(folder) = &trainer.folder {
            append(&folder.metrics(), &json_line(&metrics))?;
            append(&folder.timing(), &json_line(&timing))?;
            self.events.as_ref().map_or(Ok(()), |events| events.append(&metrics, &timing))?;
            if best {
                trainer.model()?.save(folder.best_model())?;
            }
        }
        self.checkpoint()?;
        self.observer.on_epoch(&EpochReport { metrics: &metrics, timing: &timing, best });
        Ok(())
    }

    /// The network judged by the validation set, if it is due after the present epoch.
    fn evaluation(&mut self) -> Result<Option<Evaluation>> {
        let done = self.trainer.progress.epoch + 1;
        let due = done.is_multiple_of(self.trainer.options.evaluate_every) || done == self.trainer.config.train.epochs;
        match self.validation {
            Some(validation) if due => self.trainer.evaluate(validation).map(Some),
            _ => Ok(None),
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        if let Some(folder) = &self.trainer.folder {
            self.trainer.save(folder.path())?;
            self.observer.on_checkpoint(&folder.last_checkpoint());
        }
        self.last_checkpoint = Instant::now();
        Ok(())
    }
}
