//! A checkpoint: the whole state of a training run as the bytes of one file.
//!
//! The tensors are `model.NAME`, `momentum.NAME` and `ema.NAME`; everything else is in the metadata.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::executor::{Executor, StateKind};
use super::progress::Progress;
use super::run_config::RunConfig;
use super::trainer::FitOptions;
use crate::error::{Error, Result};
use crate::io::container::{self, StoredTensor};
use crate::net::Preprocess;

/// The version of this crate, as checkpoints note it.
pub(super) const CRATE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// More steps than any run has; counting on from there cannot overflow.
const MOST_STEPS: u64 = 1 << 53;

/// All of the state that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) progress: Progress,
    /// `config.train.seed` once more, for readers who look for it.
    pub(super) seed: u64,
    pub(super) config: RunConfig,
    pub(super) options: FitOptions,
    pub(super) preprocess: Option<Preprocess>,
    pub(super) class_names: Vec<String>,
    /// What computed the last step.
    pub(super) isa: String,
    pub(super) threads: usize,
    #[serde(rename = "crate")]
    pub(super) crate_version: String,
}

/// One tensor of the state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StateTensor {
    pub(super) kind: StateKind,
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl StateTensor {
    /// The name in the file.
    pub(super) fn stored_name(&self) -> String {
        format!("{}.{}", self.kind.prefix(), self.name)
    }
}

/// A whole state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) record: Record,
    /// In the order of their stored names.
    pub(super) tensors: Vec<StateTensor>,
}

/// All tensors of `executor`, in the order of their stored names.
pub(super) fn collect(executor: &dyn Executor) -> Vec<StateTensor> {
    let mut tensors = Vec::new();
    executor.visit_state(&mut |kind, name, shape, values| {
        tensors.push(StateTensor { kind, name: name.to_owned(), shape: shape.to_vec(), values: values.to_vec() });
    });
    tensors.sort_by_cached_key(StateTensor::stored_name);
    tensors
}

/// The bytes of the file.
///
/// # Errors
/// [`Error::Invalid`] if there is more metadata than a reader accepts.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let metadata = match serde_json::to_value(&checkpoint.record) {
        Ok(Value::Object(metadata)) => metadata,
        other => unreachable!("a record is an object, not {other:?}"),
    };
    let tensors = checkpoint.tensors.iter().map(|tensor| {
        let stored = StoredTensor::f32(&tensor.shape, &tensor.values);
        (tensor.stored_name(), stored)
    });
    container::to_bytes(metadata, tensors.collect())
}

/// The state in a file.
///
/// # Errors
/// [`Error::Model`] with `source_name` for anything that [`encode`] did not write, and for any damage.
pub(super) fn decode(bytes: &[u8], source_name: &str) -> Result<Checkpoint> {
    let contents = container::read(bytes, source_name)?;
    let record: Record = serde_json::from_value(Value::Object(contents.metadata))
        .map_err(|error| Error::model(source_name, "metadata", "the state of a training run", error))?;
    check_record(&record, source_name)?;
    let mut tensors = Vec::with_capacity(contents.tensors.len());
    for (stored_name, stored) in contents.tensors {
        let wrong = |expected: &str, got: String| Error::model(source_name, format!("tensor `{stored_name}`"), expected, got);
        let rest = |kind: StateKind| stored_name.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix('.'));
        let Some((kind, name)) = StateKind::ALL.into_iter().find_map(|kind| rest(kind).map(|name| (kind, name))) else {
            return Err(wrong("a name that starts with model, momentum, adam.m, adam.v or ema", format!("`{stored_name}`")));
        };
        let name = name.to_owned();
        let values = stored.to_f32().ok_or_else(|| wrong("F32", format!("{:?}", stored.dtype())))?;
        tensors.push(StateTensor { kind, name, shape: stored.shape().to_vec(), values });
    }
    Ok(Checkpoint { record, tensors })
}

/// Checks that the numbers of a record fit each other.
fn check_record(record: &Record, source_name: &str) -> Result<()> {
    let wrong = |what: &str, expected: String, got: String| Err(Error::model(source_name, what, expected, got));
    let (progress, train) = (&record.progress, &record.config.train);
    if let Err(error) = record.config.validate().and_then(|()| record.options.validate()) {
        return wrong("configuration", "one that can be used".to_owned(), error.to_string());
    }
    if record.seed != train.seed {
        return wrong("seed", train.seed.to_string(), record.seed.to_string());
    }
    if progress.history.len() as u64 != progress.epoch {
        return wrong("results", format!("those of {} epochs", progress.epoch), format!("{}", progress.history.len()));
    }
    let steps = progress.train_images.map(|_| progress.steps_per_epoch(train.batch)).transpose();
    match steps {
        Ok(None) if progress.step == 0 => Ok(()),
        Ok(Some(steps)) if progress.position <= steps && (progress.position..MOST_STEPS).contains(&progress.step) => Ok(()),
        _ => {
            let got = format!("step {} of the run, {} of the epoch", progress.step, progress.position);
            wrong("position", "a step of the run and of the epoch".to_owned(), got)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;

    fn checkpoint() -> Checkpoint {
        let config = RunConfig::new(Network::preset("small").unwrap());
        let tensor = |kind, values: &[f32]| StateTensor {
            kind,
            name: "head.bias".to_owned(),
            shape: vec![values.len()],
            values: values.to_vec(),
        };
        Checkpoint {
            record: Record {
                progress: Progress { step: 3, position: 3, train_images: Some(1000), ..Progress::default() },
                seed: config.train.seed,
                config,
                options: FitOptions::default(),
                preprocess: Some(Preprocess::new(&[0.1; 3], &[0.3; 3]).with_resize(Some(40))),
                class_names: vec!["cat".to_owned(), "d\"og".to_owned()],
                isa: "avx2".to_owned(),
                threads: 2,
                crate_version: CRATE_VERSION.to_owned(),
            },
            tensors: vec![
                tensor(StateKind::AdamMean, &[0.3, -0.2]),
                tensor(StateKind::AdamSquare, &[0.0, 0.2]),
                tensor(StateKind::Ema, &[1.0 / 3.0, -0.0]),
                tensor(StateKind::Model, &[1e-40, f32::MAX]),
                tensor(StateKind::Momentum, &[0.1, 0.2]),
            ],
        }
    }

    #[test]
    fn what_is_written_reads_back_to_the_bit() {
        let bytes = encode(&checkpoint()).unwrap();
        let read = decode(&bytes, "bytes").unwrap();
        assert_eq!(read, checkpoint());
        assert_eq!(read.tensors[2].values[1].to_bits(), (-0.0_f32).to_bits());
        assert_eq!(encode(&read).unwrap(), bytes);
    }

    #[test]
    fn the_metadata_has_the_documented_keys() {
        let bytes = encode(&checkpoint()).unwrap();
        let contents = container::read(&bytes, "bytes").unwrap();
        for key in ["step", "epoch", "position", "seed", "best", "config", "isa", "crate"] {
            assert!(contents.metadata.contains_key(key), "{key}");
        }
        assert!(contents.tensors.contains_key("momentum.head.bias"));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_detected() {
        let bytes = encode(&checkpoint()).unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x20;
            assert!(matches!(decode(&damaged, "bytes"), Err(Error::Model { .. })), "byte {position}");
        }
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length], "bytes"), Err(Error::Model { .. })), "{length} bytes");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_each_other_are_refused() {
        let change = |change: &dyn Fn(&mut Checkpoint)| {
            let mut checkpoint = checkpoint();
            change(&mut checkpoint);
            decode(&encode(&checkpoint).unwrap(), "bytes").unwrap_err().to_string()
        };
        for (message, word) in [
            (change(&|c| c.record.seed = 7), "seed"),
            (change(&|c| c.record.progress.epoch = 1), "results"),
            (change(&|c| c.record.progress.position = 9), "position"),
            (change(&|c| c.record.progress.step = 2), "position"),
            (change(&|c| c.record.progress.step = u64::MAX), "position"),
            (change(&|c| c.record.progress.train_images = Some(0)), "position"),
            (change(&|c| c.record.progress.train_images = None), "position"),
            (change(&|c| c.record.config.train.batch = 0), "train.batch"),
            (change(&|c| c.record.options.evaluate_every = 0), "evaluations"),
        ] {
            assert!(message.contains(word), "{message}");
        }
        let metadata = serde_json::Map::new();
        assert!(decode(&container::to_bytes(metadata, vec![]).unwrap(), "bytes").is_err());
    }
}
