//! Presets that bring a recipe: what `--preset cifar10-s` trains with, what overrides it, and that the run's files hold it.
#![forbid(unsafe_code)]

use leanresnet::train::{OptimizerConfig, ScheduleConfig, recipe};
use leanresnet::{Network, RunConfig};

use crate::support::{Scratch, bytes};

/// A network of the preset's blocks that trains in no time.
const TINY: [&str; 8] = [
    "--preset",
    "cifar10-s",
    "--set",
    "network.stages=[{ width = 8, blocks = 1 }]",
    "--set",
    "network.stem.stride=4",
    "--data",
    "cifar10",
];

/// The configuration in the folder of a tiny run with `words`.
fn config(scratch: &Scratch, out: &str, words: &[&str]) -> RunConfig {
    scratch.run(&[&["train", "--data-dir", "data", "--out", out], &TINY[..], words].concat()).expect(0);
    RunConfig::read(&scratch.path(out).join("config.toml")).unwrap()
}

#[test]
fn the_recipe_comes_with_the_preset() {
    let scratch = Scratch::new();
    let run = config(&scratch, "run", &["--epochs", "5"]);
    assert_eq!((run.train.batch, run.train.label_smoothing, run.train.ema), (128, 0.1, 0.999));
    assert_eq!(run.train.schedule, ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 1.0 });
    assert_eq!((run.train.optimizer, run.data.augment.to_string()), (OptimizerConfig::sgd(), "crop=4,flip".to_owned()));
    assert!(run.network.stages().iter().all(|stage| stage.block.norms == 2));
    // The file has every key: it makes the same run without the preset.
    let text = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
    assert!(!text.contains("preset") && text.contains("peak_epoch = 1.0"), "{text}");
    scratch.run(&["train", "--config", "run/config.toml", "--out", "again"]).expect(0);
    for file in ["config.toml", "metrics.jsonl", "last.safetensors"] {
        assert!(bytes(&scratch.path("run").join(file)) == bytes(&scratch.path("again").join(file)), "{file} differs");
    }
}

#[test]
fn help_lists_presets_and_their_recipes() {
    let scratch = Scratch::new();
    let help = scratch.run(&["train", "--help"]).expect(0).stdout;
    for preset in Network::PRESETS {
        assert!(help.contains(preset), "{preset}");
        assert_eq!(help.contains(&format!("Recipe of {preset}:")), recipe(preset).is_some(), "{preset}");
    }
    assert!(help.contains("\n  epochs = 60\n"), "{help}");
}

#[test]
fn flags_and_keys_override_the_recipe_one_by_one() {
    let scratch = Scratch::new();
    let words = ["--epochs", "2", "--ema", "0", "--lr", "0.1", "--batch", "20", "--set", "train.schedule.peak_epoch=0.5"];
    let run = config(&scratch, "flags", &words);
    assert_eq!((run.train.batch, run.train.label_smoothing, run.train.ema), (20, 0.1, 0.0));
    assert_eq!(run.train.schedule, ScheduleConfig::OneCycle { lr: 0.1, peak_epoch: 0.5 });
    let run = config(&scratch, "cosine", &["--epochs", "1", "--schedule", "cosine", "--augment", "flip"]);
    assert_eq!(run.train.schedule, ScheduleConfig::Cosine { lr: 0.4, warmup_epochs: 1.0 });
    assert_eq!(run.data.augment.to_string(), "flip");
    let run = config(&scratch, "adamw", &["--epochs", "1", "--optimizer", "adamw"]);
    assert_eq!((run.train.optimizer, run.train.schedule.lr()), (OptimizerConfig::adamw(), 1e-3));
    let text = "[network]\npreset = \"cifar10-s\"\nstages = [{ width = 8, blocks = 1 }]\nstem = { stride = 4 }\n\
                [data]\nname = \"cifar10\"\ndir = \"data\"\n[train]\nepochs = 10\nlabel_smoothing = 0.2\n";
    std::fs::write(scratch.path("file.toml"), text).unwrap();
    scratch.run(&["train", "--config", "file.toml", "--batch", "50", "--out", "file"]).expect(0);
    let run = RunConfig::read(&scratch.path("file/config.toml")).unwrap();
    assert_eq!((run.train.batch, run.train.label_smoothing, run.train.ema), (50, 0.2, 0.999));
    assert_eq!(run.train.schedule, ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 2.0 });
}

#[test]
fn a_resumed_run_keeps_the_recipe() {
    let scratch = Scratch::new();
    let before = config(&scratch, "run", &["--epochs", "2"]);
    let ran = scratch.run(&["train", "--resume", "run", "--epochs", "4"]).expect(0);
    assert!(ran.stderr.contains("; epochs: 2 -> 4"), "{}", ran.stderr);
    let after = RunConfig::read(&scratch.path("run/config.toml")).unwrap();
    let mut expected = before.clone();
    expected.train.epochs = 4;
    assert_eq!(after, expected, "only the epochs change: the peak stays where the first epochs had it");
    assert_eq!(before.train.schedule, ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 0.4 });
}
