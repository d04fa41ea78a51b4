//! The `[train]` table: how long, how fast and with which rules a network is trained.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerConfig;
use super::schedule::ScheduleConfig;
use crate::error::{Error, Result};
use crate::named_enum::named_enum;
use crate::net::Precision;

/// Most epochs of a run: checkpoints hold the results of every epoch, and the size of their metadata is bounded.
const MOST_EPOCHS: u64 = 10_000;

/// Everything that decides how training changes the weights, apart from the network and the data.
///
/// The fields are the keys of the `[train]` table; every key may be left out, unknown keys are errors.
///
/// ```
/// use leanresnet::train::TrainConfig;
/// let config = TrainConfig::default().with_epochs(30).with_batch(64);
/// config.validate()?;
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Passes over the training set, 1 to 10,000. Default 15.
    pub epochs: u64,
    /// Images per step, at least 1. Default 128.
    pub batch: usize,
    /// Decides the initial weights, the order of the images and their augmentation; below 2^63. Default 1.
    pub seed: u64,
    /// Number format of weights and activations. Default `f32`.
    pub dtype: Dtype,
    /// Which activations are computed again in the backward pass instead of being kept. Default none.
    pub recompute: Recompute,
    /// Part of the target probability spread evenly over all classes, in [0, 1). Default 0.
    pub label_smoothing: f64,
    /// Decay of the exponential moving average of the weights per step, in [0, 1); 0 keeps no average. Default 0.
    pub ema: f64,
    /// Largest Euclidean norm of the whole gradient; a longer one is scaled down to it. 0 never scales. Default 0.
    pub clip_norm: f64,
    /// The rule that turns gradients into updates. Default SGD with Nesterov momentum.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time. Default one epoch of warm-up, then half a cosine.
    pub schedule: ScheduleConfig,
}

/// Number format of weights and activations during training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bf16, 8 bits of precision, in activations, their gradients and the matrices of convolutions; weights and their updates, statistics
    /// and all sums stay f32 (Micikevicius et al. 2018; bf16 needs no scaling of the loss: Kalamkar et al. 2019). Needs the feature
    /// `bf16`. Tensors take whole panels of 32 channels.
    Bf16,
}

/// The precision of inference with the same type of activations; its [`Precision::isa`] is the tier to train on.
impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Precision {
        match dtype {
            Dtype::F32 => Precision::F32,
            Dtype::Bf16 => Precision::Bf16,
        }
    }
}

named_enum! {
    /// Which activations are computed again in the backward pass instead of being kept (Gholami, Keutzer, Biros 2019, "ANODE"). The
    /// results are the same to the bit.
    #[derive(Default)]
    Recompute, "train.recompute" {
        /// Keep all of them.
        #[default]
        None = "none",
        /// Keep the input of every block: a sixth more multiply-adds.
        Block = "block",
        /// Keep the input of every stage: up to half more multiply-adds.
        Stage = "stage",
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 15,
            batch: 128,
            seed: 1,
            dtype: Dtype::default(),
            recompute: Recompute::default(),
            label_smoothing: 0.0,
            ema: 0.0,
            clip_norm: 0.0,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Sets the number of passes over the training set.
    #[must_use]
    pub fn with_epochs(mut self, epochs: u64) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the number of images per step.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Sets the seed of weights, order and augmentation.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number format.
    #[must_use]
    pub fn with_dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Sets which activations are computed again.
    #[must_use]
    pub fn with_recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
        self
    }

    /// Sets the smoothing of the labels.
    #[must_use]
    pub fn with_label_smoothing(mut self, label_smoothing: f64) -> Self {
        self.label_smoothing = label_smoothing;
        self
    }

    /// Sets the decay of the moving average of the weights.
    #[must_use]
    pub fn with_ema(mut self, ema: f64) -> Self {
        self.ema = ema;
        self
    }

    /// Sets the largest norm of the gradient.
    #[must_use]
    pub fn with_clip_norm(mut self, clip_norm: f64) -> Self {
        self.clip_norm = clip_norm;
        self
    }

    /// Sets the update rule.
    #[must_use]
    pub fn with_optimizer(mut self, optimizer: OptimizerConfig) -> Self {
        self.optimizer = optimizer;
        self
    }

    /// Sets the learning rate over time.
    #[must_use]
    pub fn with_schedule(mut self, schedule: ScheduleConfig) -> Self {
        self.schedule = schedule;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first key whose value is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(1..=MOST_EPOCHS).contains(&self.epochs) {
            return Err(Error::invalid("train.epochs", format!("1 to {MOST_EPOCHS}"), self.epochs));
        }
        if self.batch == 0 {
            return Err(Error::invalid("train.batch", "at least 1", 0));
        }
        // TOML's integers are signed, and config.toml must be able to hold the seed.
        if i64::try_from(self.seed).is_err() {
            return Err(Error::invalid("train.seed", "a number below 2^63", self.seed));
        }
        require_fraction("train.label_smoothing", self.label_smoothing)?;
        require_fraction("train.ema", self.ema)?;
        if !(self.clip_norm.is_finite() && self.clip_norm >= 0.0) {
            return Err(Error::invalid("train.clip_norm", "a finite number of at least 0", self.clip_norm));
        }
        self.optimizer.validate()?;
        self.schedule.validate(self.epochs)
    }
}

/// Checks that `value` is in [0, 1).
pub(super) fn require_fraction(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(Error::invalid(key, "a number in [0, 1)", value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_file_grammar() {
        let text = r#"
            epochs = 15
            batch = 128
            seed = 1
            dtype = "f32"
            recompute = "none"
            label_smoothing = 0.0
            ema = 0.0
            clip_norm = 0.0
            optimizer = { name = "sgd", momentum = 0.9, nesterov = true, weight_decay = 5e-4 }
            schedule = { name = "cosine", lr = 0.1, warmup_epochs = 1 }
        "#;
        let written: TrainConfig = toml::from_str(text).unwrap();
        assert_eq!(written, TrainConfig::default());
        assert_eq!(toml::from_str::<TrainConfig>("").unwrap(), TrainConfig::default());
        written.validate().unwrap();
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = TrainConfig::default()
            .with_epochs(3)
            .with_batch(7)
            .with_seed(i64::MAX as u64)
            .with_label_smoothing(0.1)
            .with_ema(0.999)
            .with_clip_norm(2.5)
            .with_optimizer(OptimizerConfig::Sgd { momentum: 0.8, nesterov: false, weight_decay: 1e-4 })
            .with_schedule(ScheduleConfig::Multistep { lr: 0.3, milestones: vec![1.0, 2.5], factor: 0.2 });
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("label_smoothing = 0.1\n"), "{text}");
        assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), config);
    }

    #[test]
    fn unknown_keys_and_words_are_errors() {
        for text in [
            "epoch = 3",
            "dtype = \"f16\"",
            "recompute = \"all\"",
            "optimizer = { name = \"lion\" }",
            "optimizer = { momentums = 0.9 }",
            "schedule = { name = \"cosine\", lr = 0.1, milestone = [1] }",
        ] {
            assert!(toml::from_str::<TrainConfig>(text).is_err(), "{text}");
        }
        let message = toml::from_str::<TrainConfig>("dtype = \"f16\"").unwrap_err().to_string();
        assert!(message.contains("f16") && message.contains("f32") && message.contains("bf16"), "{message}");
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        let base = TrainConfig::default;
        for (config, key) in [
            (base().with_epochs(0), "train.epochs"),
            (base().with_epochs(10_001), "train.epochs"),
            (base().with_batch(0), "train.batch"),
            (base().with_seed(u64::MAX), "train.seed"),
            (base().with_label_smoothing(1.0), "train.label_smoothing"),
            (base().with_label_smoothing(f64::NAN), "train.label_smoothing"),
            (base().with_ema(-0.1), "train.ema"),
            (base().with_clip_norm(-1.0), "train.clip_norm"),
            (base().with_clip_norm(f64::INFINITY), "train.clip_norm"),
            (base().with_schedule(ScheduleConfig::Constant { lr: -1.0 }), "train.schedule.lr"),
            (base().with_optimizer(OptimizerConfig::adamw().with_weight_decay(f64::NAN)), "train.optimizer.weight_decay"),
        ] {
            match config.validate() {
                Err(Error::Invalid { what, .. }) => assert_eq!(what, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}
