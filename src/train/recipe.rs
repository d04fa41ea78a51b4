//! The training that goes with a preset: defaults for `[data]` and `[train]` that a configuration file overrides key by key.
#![forbid(unsafe_code)]

use toml::{Table, Value};

/// Presets with the tables that they bring; the others have the defaults of the file grammar.
const RECIPES: &[(&str, &str)] = &[(
    "cifar10-s",
    r#"
    [data]
    augment = { crop = 4, flip = true }
    [train]
    epochs = 60
    batch = 128
    label_smoothing = 0.1
    ema = 0.999
    schedule = { name = "one-cycle", lr = 0.4, peak_epoch = 12 }
    "#,
)];

/// The tables of a configuration file, filled up with the recipe of its preset. Nothing if it names no preset that has one.
pub(super) fn complete(text: &str) -> Option<Table> {
    let mut file: Table = text.parse().ok()?;
    let preset = file.get("network")?.get("preset")?.as_str()?;
    let (_, recipe) = RECIPES.iter().find(|(name, _)| *name == preset)?;
    let mut recipe: Table = recipe.parse().expect("a test reads every recipe");
    if let Some(epochs) = file.get("train").and_then(|train| train.get("epochs")).and_then(Value::as_integer) {
        stretch(&mut recipe, epochs);
    }
    fill(&mut file, recipe);
    Some(file)
}

/// Moves the peak of the recipe's schedule, so that it keeps its place in a run of `epochs` epochs.
fn stretch(recipe: &mut Table, epochs: i64) {
    let Some(train) = recipe.get_mut("train") else { return };
    let own = train.get("epochs").and_then(number);
    let peak = train.get_mut("schedule").and_then(|schedule| schedule.get_mut("peak_epoch"));
    if let (Some(own), Some(peak)) = (own, peak)
        && let Some(epoch) = number(peak)
    {
        *peak = Value::Float(epoch * epochs as f64 / own);
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

/// Adds the keys that `table` leaves out. A schedule or an optimiser with another name has other keys, but for the rate.
fn fill(table: &mut Table, mut recipe: Table) {
    if let (Some(name), Some(other)) = (table.get("name"), recipe.get("name"))
        && name != other
    {
        recipe.retain(|key, _| key == "lr");
    }
    for (key, value) in recipe {
        match (table.get_mut(&key), value) {
            (None, value) => {
                table.insert(key, value);
            }
            (Some(Value::Table(table)), Value::Table(recipe)) => fill(table, recipe),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Augmentation;
    use crate::net::Network;
    use crate::train::{OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig};

    /// The configuration of a preset with `tables` of a file.
    fn config(preset: &str, tables: &str) -> RunConfig {
        RunConfig::from_toml(&format!("[network]\npreset = '{preset}'\n{tables}")).unwrap()
    }

    fn one_cycle(tables: &str) -> (f64, f64) {
        match config("cifar10-s", tables).train.schedule {
            ScheduleConfig::OneCycle { lr, peak_epoch } => (lr, peak_epoch),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_recipe_is_one_of_a_preset_and_says_what_it_changes() {
        for (name, recipe) in RECIPES {
            assert!(Network::PRESETS.contains(name));
            assert!(recipe.parse::<Table>().unwrap().keys().all(|key| ["data", "train"].contains(&key.as_str())));
            assert_ne!(config(name, "").train, TrainConfig::default());
        }
    }

    #[test]
    fn the_recipe_of_cifar10_s() {
        let train = TrainConfig::default().with_epochs(60).with_batch(128).with_label_smoothing(0.1).with_ema(0.999);
        let train = train.with_schedule(ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 12.0 });
        let expected = RunConfig::new(Network::preset("cifar10-s").unwrap()).with_train(train);
        assert_eq!(expected.train.optimizer, OptimizerConfig::sgd());
        assert_eq!(expected.data.augment, Augmentation::default().with_crop(4).with_flip(true));
        let config = config("cifar10-s", "");
        assert_eq!(config, expected);
        assert_eq!(RunConfig::from_toml(&config.to_toml()).unwrap(), config, "what is written needs no recipe");
    }

    #[test]
    fn presets_without_a_recipe_have_the_defaults() {
        for name in ["small", "base", "imagenet"] {
            assert_eq!(config(name, ""), RunConfig::new(Network::preset(name).unwrap()));
        }
    }

    #[test]
    fn a_file_overrides_key_by_key() {
        let config = config("cifar10-s", "[data]\naugment = { cutout = 8 }\n[train]\nema = 0.0\nseed = 7");
        assert_eq!(config.data.augment, Augmentation::default().with_crop(4).with_flip(true).with_cutout(8));
        assert_eq!((config.train.ema, config.train.seed, config.train.label_smoothing), (0.0, 7, 0.1));
        assert_eq!(one_cycle("[train.schedule]\nlr = 0.2"), (0.2, 12.0));
        assert_eq!(one_cycle("[train.schedule]\nname = 'one-cycle'"), (0.4, 12.0));
    }

    #[test]
    fn the_peak_keeps_its_place_in_the_run() {
        assert_eq!(one_cycle("[train]\nepochs = 20"), (0.4, 4.0));
        assert_eq!(one_cycle("[train]\nepochs = 1"), (0.4, 0.2));
        assert_eq!(one_cycle("[train]\nepochs = 20\nschedule = { peak_epoch = 3 }"), (0.4, 3.0));
    }

    #[test]
    fn another_schedule_takes_only_the_rate() {
        let schedule = |table: &str| config("cifar10-s", &format!("[train]\nschedule = {table}")).train.schedule;
        assert_eq!(schedule("{ name = 'cosine' }"), ScheduleConfig::Cosine { lr: 0.4, warmup_epochs: 1.0 });
        assert_eq!(schedule("{ name = 'constant', lr = 0.01 }"), ScheduleConfig::Constant { lr: 0.01 });
    }
}
