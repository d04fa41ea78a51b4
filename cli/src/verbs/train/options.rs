//! The flags of `leanresnet train`, and the keys of the configuration that they set.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Args;
use leanresnet::data::Augmentation;
use toml::Value;

use crate::configuration::Configuration;
use crate::data_source::DataSource;
use crate::failure::Failure;
use crate::network_source::NetworkSource;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub network: NetworkSource,
    #[command(flatten)]
    pub data: DataSource,
    /// Passes over the training images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub epochs: Option<i64>,
    #[command(flatten)]
    pub settings: Settings,
    /// Go on with the run in this folder; only --epochs, --threads, --isa and --progress may be given besides
    #[arg(long, value_name = "DIR", conflicts_with_all = ["NetworkSource", "DataSource", "Settings"])]
    pub resume: Option<PathBuf>,
}

/// What a resumed run takes from its folder.
#[derive(Args)]
pub struct Settings {
    /// Images per step [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
    /// The highest learning rate [default: 0.1, with --optimizer adamw 0.001]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// The rule of updates [default: sgd]
    #[arg(long, value_name = "NAME", value_parser = ["sgd", "adamw", "muon"])]
    optimizer: Option<String>,
    /// The learning rate over time [default: cosine]
    #[arg(long, value_name = "NAME", value_parser = ["cosine", "constant", "multistep", "one-cycle"])]
    schedule: Option<String>,
    /// Epochs of rising learning rate before a cosine [default: 1]
    #[arg(long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// Weight decay; norms and biases are spared [default: 5e-4, with --optimizer adamw 0.01]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Random changes to training images: none, or a list such as crop=4,flip,cutout=8,mixup=0.2; flip=alternate mirrors each image in every other epoch [default: crop=4,flip]
    #[arg(long, value_name = "LIST")]
    augment: Option<Augmentation>,
    /// Part of the target spread over all classes, 0 to 1 [default: 0]
    #[arg(long, value_name = "X")]
    label_smoothing: Option<f64>,
    /// Decay of a moving average of the weights per step, which is then the model; 0 keeps none [default: 0]
    #[arg(long, value_name = "X")]
    ema: Option<f64>,
    /// Largest norm of the gradient, 0 for any [default: 0]
    #[arg(long, value_name = "X")]
    clip_norm: Option<f64>,
    /// Number format of activations, their gradients and matrices [default: f32]
    #[arg(long, value_name = "NAME", value_parser = ["f32", "bf16"])]
    dtype: Option<String>,
    /// Activations to compute twice instead of keeping them: those inside of blocks, or of stages; saves memory [default: none]
    #[arg(long, value_name = "WHICH", value_parser = ["none", "block", "stage"])]
    recompute: Option<String>,
    /// Decides initial weights, order and changes of the images [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Training images held out to find the best epoch [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    validation: Option<i64>,
    /// Epochs between evaluations on the validation images [default: 1]
    #[arg(long, value_name = "N")]
    pub eval_every: Option<u64>,
    /// Stop when the best epoch lies so many epochs back
    #[arg(long, value_name = "N")]
    pub early_stop: Option<u64>,
    /// Minutes between checkpoints inside an epoch [default: 10]
    #[arg(long, value_name = "MIN")]
    pub checkpoint_every: Option<f64>,
    /// Start from the weights of this model
    #[arg(long, value_name = "MODEL")]
    pub init: Option<PathBuf>,
    /// The folder of the run, which must not exist [default: runs/PRESET-DATA-N, the next N]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Options {
    /// Sets the keys of the flags.
    pub fn apply(&self, configuration: &mut Configuration) -> Result<(), Failure> {
        self.data.apply(configuration)?;
        let settings = &self.settings;
        if let Some(name) = &settings.schedule {
            let rate = configuration.get("train.schedule.lr").cloned();
            // The other keys of the configuration's schedule may not exist for this one.
            configuration.remove("train.schedule");
            configuration.set("train.schedule.name", name.as_str())?;
            if let Some(rate) = rate {
                configuration.set("train.schedule.lr", rate)?;
            }
        }
        if let Some(name) = &settings.optimizer {
            configuration.remove("train.optimizer");
            configuration.set("train.optimizer.name", name.as_str())?;
        }
        if let Some(augment) = &settings.augment {
            configuration.set("data.augment.crop", augment.crop as i64)?;
            let flip = augment.flip.to_string();
            configuration.set("data.augment.flip", flip.parse::<bool>().map_or(Value::from(flip), Value::from))?;
            configuration.set("data.augment.cutout", augment.cutout as i64)?;
            configuration.set("data.augment.mixup", f64::from(augment.mixup))?;
        }
        let integers = [
            ("train.epochs", self.epochs),
            ("train.batch", settings.batch),
            ("train.seed", settings.seed),
            ("data.validation", settings.validation),
        ];
        let reals = [
            ("train.schedule.lr", settings.lr),
            ("train.schedule.warmup_epochs", settings.warmup),
            ("train.optimizer.weight_decay", settings.weight_decay),
            ("train.label_smoothing", settings.label_smoothing),
            ("train.ema", settings.ema),
            ("train.clip_norm", settings.clip_norm),
        ];
        let words = [("train.dtype", &settings.dtype), ("train.recompute", &settings.recompute)];
        set_all(configuration, &integers)?;
        set_all(configuration, &reals)?;
        set_all(configuration, &words.map(|(key, word)| (key, word.as_deref())))
    }
}

fn set_all<T: Copy + Into<Value>>(configuration: &mut Configuration, values: &[(&str, Option<T>)]) -> Result<(), Failure> {
    for (key, value) in values {
        if let Some(value) = value {
            configuration.set(key, *value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use leanresnet::data::Flip;
    use leanresnet::train::{OptimizerConfig, ScheduleConfig};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn config(words: &[&str]) -> leanresnet::RunConfig {
        let line = Line::try_parse_from([&["train"], words].concat()).unwrap();
        let mut configuration = line.options.network.configuration().unwrap();
        line.options.apply(&mut configuration).unwrap();
        configuration.run_config().unwrap()
    }

    #[test]
    fn flags_set_their_keys() {
        let config = config(&[
            "--epochs",
            "3",
            "--batch",
            "16",
            "--lr",
            "0.2",
            "--warmup",
            "0.5",
            "--weight-decay",
            "0.001",
            "--augment",
            "flip",
            "--ema",
            "0.9",
            "--seed",
            "7",
            "--validation",
            "50",
            "--data",
            "cifar10",
            "--data-dir",
            "d",
            "--set",
            "train.clip_norm=2.0",
        ]);
        assert_eq!((config.train.epochs, config.train.batch, config.train.seed, config.data.validation), (3, 16, 7, 50));
        assert_eq!(config.train.schedule, ScheduleConfig::Cosine { lr: 0.2, warmup_epochs: 0.5 });
        assert_eq!(config.train.optimizer, OptimizerConfig::sgd().with_weight_decay(0.001));
        assert_eq!(config.data.augment, Augmentation::default().with_flip(true));
        assert_eq!((config.train.ema, config.train.clip_norm, config.data.name.as_str()), (0.9, 2.0, "cifar10"));
    }

    #[test]
    fn images_are_mirrored_never_at_random_or_in_turns() {
        let flip = |words: &[&str]| config(words).data.augment.flip;
        assert_eq!([flip(&["--augment", "crop=4"]), flip(&["--augment", "flip"])], [Flip::Off, Flip::Random]);
        assert_eq!(flip(&["--augment", "flip=alternate"]), Flip::Alternate);
        assert_eq!(flip(&["--set", "data.augment.flip=alternate"]), Flip::Alternate);
    }

    #[test]
    fn another_schedule_keeps_only_the_rate() {
        let words = ["--set", "train.schedule={ name = \"cosine\", lr = 0.3, warmup_epochs = 2 }", "--schedule", "constant"];
        assert_eq!(config(&words).train.schedule, ScheduleConfig::Constant { lr: 0.3 });
    }

    #[test]
    fn adamw_has_a_rate_of_its_own() {
        let rate = |words: &[&str]| config(words).train.schedule.lr();
        assert_eq!(config(&["--optimizer", "adamw"]).train.optimizer, OptimizerConfig::adamw());
        assert_eq!(rate(&["--optimizer", "adamw"]), 1e-3);
        assert_eq!(rate(&["--optimizer", "adamw", "--lr", "0.01"]), 0.01);
        assert_eq!(rate(&["--optimizer", "adamw", "--set", "train.schedule.lr=0.02"]), 0.02);
        assert_eq!(rate(&["--optimizer", "sgd"]), 0.1);
    }

    #[test]
    fn the_network_of_a_shipped_model_is_its_preset() {
        let of_preset = config(&["--preset", "cifar10-s"]);
        assert_eq!((config(&["cifar10-s"]), of_preset.train.epochs), (of_preset, 60));
    }

    #[test]
    fn a_resumed_run_takes_few_flags() {
        let parse = |words: &[&str]| Line::try_parse_from([&["train", "--resume", "d"], words].concat()).is_ok();
        assert!(parse(&["--epochs", "9"]));
        for words in
            [["--batch", "3"], ["--preset", "base"], ["--data", "cifar10"], ["--out", "x"], ["--seed", "2"], ["--set", "a.b=1"]]
        {
            assert!(!parse(&words), "{words:?}");
        }
    }
}
