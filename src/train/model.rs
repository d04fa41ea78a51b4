//! The model that a training run has made so far.
#![forbid(unsafe_code)]

use std::path::Path;

use super::checkpoint::{Record, StateTensor, collect, decode};
use super::executor::StateKind;
use super::generations::LARGEST_FILE;
use super::trainer::Trainer;
use crate::error::Result;
use crate::io::read::read_file;
use crate::net::Model;

impl Trainer {
    /// The network with its present weights (their moving average, where one is kept), preprocessing and class names.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if the executor's tensors are not those of the network, [`crate::Error::Invalid`] if the training set has
    /// names of classes that a model cannot have.
    pub fn model(&self) -> Result<Model> {
        assemble(&self.record(), collect(&*self.executor))
    }
}

/// The model in a checkpoint: its moving average, where one is kept.
///
/// # Errors
/// [`crate::Error::Io`] if the file cannot be read, [`crate::Error::Model`] if it is no whole checkpoint.
pub fn model_of_checkpoint(path: &Path) -> Result<Model> {
    let source_name = path.display().to_string();
    let checkpoint = decode(&read_file(path, LARGEST_FILE)?, &source_name)?;
    assemble(&checkpoint.record, checkpoint.tensors).map_err(|error| error.in_model(&source_name))
}

fn assemble(record: &Record, tensors: Vec<StateTensor>) -> Result<Model> {
    let (train, data) = (&record.config.train, &record.config.data);
    let kind = if train.ema > 0.0 { StateKind::Ema } else { StateKind::Model };
    let tensors = tensors.into_iter().filter(|tensor| tensor.kind == kind);
    let model = Model::from_tensors(&record.config.network, tensors.map(|tensor| (tensor.name, tensor.shape, tensor.values)))?;
    let model = match &record.preprocess {
        Some(preprocess) => model.with_preprocess(preprocess.clone())?,
        None => model,
    };
    let steps = record.progress.step;
    let provenance =
        format!("trained for {steps} steps on {}, seed {}, leanresnet {}", data.name, train.seed, record.crate_version);
    model.with_class_names(record.class_names.clone())?.with_provenance(provenance)
}
