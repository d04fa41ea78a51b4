//! Saving the state of a trainer, and continuing from one.
#![forbid(unsafe_code)]

use std::path::Path;

use serde_json::Value;

use super::checkpoint::{CRATE_VERSION, Checkpoint, Record, StateTensor, collect, decode, encode};
use super::executor::StateKind;
use super::generations::{self, Disk};
use super::observer::Observer;
use super::run_config::RunConfig;
use super::trainer::Trainer;
use crate::error::{Error, Result};

/// The only key of the configuration that may differ on resume.
const CHANGEABLE: &str = "train.epochs";

/// Where a resumed run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeReport {
    /// Finished steps.
    pub step: u64,
    /// Finished epochs.
    pub epoch: u64,
    /// What is not as it was, each as `KEY: OLD -> NEW`: epochs, isa, threads, crate.
    pub changes: Vec<String>,
}

impl Trainer {
    /// Writes the whole state to `last.ckpt` in `folder`, whose former content becomes `previous.ckpt`. The folder is made if needed.
    ///
    /// At every moment one of the two is whole, whatever fails.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the state holds a value that is not finite: nothing is written then. [`Error::Io`] if the files cannot be
    /// written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let tensors = collect(&*self.executor);
        if let Some(bad) = tensors.iter().find(|tensor| tensor.values.iter().any(|value| !value.is_finite())) {
            let layer = self.executor.first_non_finite().unwrap_or_else(|| bad.stored_name());
            return Err(Error::Diverged { step: self.progress.step, layer });
        }
        let record = self.record();
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
        let is_whole = |bytes: &[u8]| decode(bytes, generations::LAST).is_ok();
        generations::save(&Disk, folder, &encode(&Checkpoint { record, tensors })?, &is_whole)
    }

    /// Takes over the state that [`save`](Self::save) left in `folder`: tensors, counters, results, options and preprocessing.
    ///
    /// The configuration must be that of the saved run, except for the number of epochs; executor and threads may differ. Training then
    /// goes on as if it had never stopped, to the bit where isa and crate are the same. If `last.ckpt` is missing or damaged,
    /// `previous.ckpt` is used and `observer` told.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first key of the configuration that differs, or for fewer epochs than are done. [`Error::Model`] or
    /// [`Error::Io`] if no checkpoint can be read or its tensors are not those of the network. The trainer is as before then.
    pub fn resume(&mut self, folder: &Path, observer: &mut dyn Observer) -> Result<ResumeReport> {
        let decode = |path: &Path, bytes: &[u8]| decode(bytes, &path.display().to_string());
        let loaded = generations::load(&Disk, folder, &decode)?;
        if let Some(notice) = &loaded.notice {
            observer.on_notice(notice);
        }
        let Checkpoint { record, tensors } = loaded.state;
        let changes = self.accept(&record)?;
        let expected = collect(&*self.executor);
        check_tensors(&expected, &tensors, folder)?;
        for StateTensor { kind, name, shape, values } in &tensors {
            self.executor.restore_state(*kind, name, shape, values)?;
        }
        let Record { progress, options, preprocess, class_names, .. } = record;
        (self.progress, self.options, self.preprocess, self.class_names) = (progress, options, preprocess, class_names);
        self.resumed = true;
        Ok(ResumeReport { step: self.progress.step, epoch: self.progress.epoch, changes })
    }

    /// All of the present state that is not a tensor.
    pub(super) fn record(&self) -> Record {
        Record {
            progress: self.progress.clone(),
            seed: self.config.train.seed,
            config: self.config.clone(),
            options: self.options.clone(),
            preprocess: self.preprocess.clone(),
            class_names: self.class_names.clone(),
            isa: self.executor.isa(),
            threads: self.executor.pool().threads(),
            crate_version: CRATE_VERSION.to_owned(),
        }
    }

    /// Checks that this trainer may continue the run of `record`, and lists what changes.
    fn accept(&self, record: &Record) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        for (key, before, now) in differences(&record.config, &self.config) {
            if key != CHANGEABLE {
                return Err(Error::invalid(format!("{key} of a resumed run"), format!("{before}, as before"), now));
            }
            changes.push(format!("epochs: {before} -> {now}"));
        }
        let done = record.progress.epoch + u64::from(record.progress.position > 0);
        if self.config.train.epochs < done {
            let expected = format!("at least the {done} that were begun");
            return Err(Error::invalid("train.epochs of a resumed run", expected, self.config.train.epochs));
        }
        let mut compare = |key: &str, before: &str, now: &str| {
            if before != now {
                changes.push(format!("{key}: {before} -> {now}"));
            }
        };
        compare("isa", &record.isa, &self.executor.isa());
        compare("threads", &record.threads.to_string(), &self.executor.pool().threads().to_string());
        compare("crate", &record.crate_version, CRATE_VERSION);
        Ok(changes)
    }
}

/// The configuration in the newest readable checkpoint of `folder`.
///
/// # Errors
/// [`Error::Model`] or [`Error::Io`] if no checkpoint can be read.
pub fn config_of_checkpoint(folder: &Path) -> Result<RunConfig> {
    let decode = |path: &Path, bytes: &[u8]| decode(bytes, &path.display().to_string());
    Ok(generations::load(&Disk, folder, &decode)?.state.record.config)
}

/// The keys in which two configurations differ, with both values.
fn differences(before: &RunConfig, now: &RunConfig) -> Vec<(String, String, String)> {
    let json = |config| serde_json::to_value(config).expect("a valid configuration has only finite numbers, strings and tables");
    let mut found = Vec::new();
    compare("", Some(&json(before)), Some(&json(now)), &mut found);
    found
}

fn compare(key: &str, before: Option<&Value>, now: Option<&Value>, found: &mut Vec<(String, String, String)>) {
    if let (Some(Value::Object(before)), Some(Value::Object(now))) = (before, now) {
        let new = now.keys().filter(|name| !before.contains_key(*name));
        for name in before.keys().chain(new) {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&key, before.get(name), now.get(name), found);
        }
    } else if before != now {
        let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        found.push((key.to_owned(), text(before), text(now)));
    }
}

/// Checks that the tensors of a checkpoint are those of the executor; both are sorted by stored name.
fn check_tensors(expected: &[StateTensor], found: &[StateTensor], folder: &Path) -> Result<()> {
    let key = |tensor: &StateTensor| (tensor.kind, tensor.name.clone(), tensor.shape.clone());
    let keys = |tensors: &[StateTensor]| tensors.iter().map(key).collect::<std::collections::BTreeSet<_>>();
    let (expected, found) = (keys(expected), keys(found));
    let describe = |tensor: Option<&(StateKind, String, Vec<usize>)>| {
        tensor.map_or_else(|| "none".to_owned(), |(kind, name, shape)| format!("{}.{name} {shape:?}", kind.prefix()))
    };
    if expected == found {
        return Ok(());
    }
    let missing = describe(expected.difference(&found).next());
    let unexpected = describe(found.difference(&expected).next());
    Err(Error::model(folder.display(), "tensors of the checkpoint", missing, unexpected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;
    use crate::train::{ScheduleConfig, TrainConfig};

    #[test]
    fn differences_are_named_by_key() {
        let config = RunConfig::new(Network::preset("small").unwrap());
        assert!(differences(&config, &config.clone()).is_empty());
        let train = TrainConfig::default().with_epochs(20).with_schedule(ScheduleConfig::Constant { lr: 0.2 });
        let found = differences(&config, &config.clone().with_train(train));
        let keys: Vec<&str> = found.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["train.epochs", "train.schedule.lr", "train.schedule.name", "train.schedule.warmup_epochs"]);
        assert_eq!(found[3], ("train.schedule.warmup_epochs".to_owned(), "1.0".to_owned(), "nothing".to_owned()));
    }
}
