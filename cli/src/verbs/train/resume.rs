//! Going on with an earlier run: everything from its folder.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::data::{Split, open_for};
use leanresnet::train::{NetworkExecutor, RunFolder, Trainer, config_of_checkpoint};

use super::session::{TrainingSession, split};
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::TrainingProgress;

/// The run as it was left, with what the command line changes.
pub fn prepare<'a>(
    context: &Context<'a>,
    path: &Path,
    epochs: Option<i64>,
    interrupt: &Interrupt,
) -> Result<TrainingSession<'a>, Failure> {
    let folder = RunFolder::open(path)?;
    let mut config = config_of_checkpoint(path)?;
    if let Some(epochs) = epochs {
        config.train.epochs = epochs as u64;
    }
    let isa = context.isa_for(config.train.dtype.into())?;
    let executor = NetworkExecutor::new(&config.network, &config.train, context.pool()?, isa)?;
    let mut trainer = Trainer::with_executor(config.clone(), Box::new(executor))?.in_folder(folder.clone());
    let mut progress = TrainingProgress::new(context, folder.clone(), interrupt.clone(), config.train.epochs, &[]);
    let report = trainer.resume(path, &mut progress)?;
    let resize = trainer.preprocess().and_then(|preprocess| preprocess.resize);
    let (train, validation) = split(open_for(&config.data, Split::Train, config.network.input(), resize)?, &config)?;
    let changes = if report.changes.is_empty() { "nothing changed".to_owned() } else { report.changes.join(", ") };
    let place = format!("{} epochs and {} steps are done", report.epoch, report.step);
    context.output.note(&format!("going on with {}: {place}; {changes}", path.display()));
    let progress = TrainingProgress::new(context, folder.clone(), interrupt.clone(), config.train.epochs, trainer.history());
    let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(TrainingSession { trainer, folder, train, validation, progress, label })
}
