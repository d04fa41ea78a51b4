//! The training that goes with a preset: defaults for `[data]` and `[train]` that a configuration file overrides key by key.
#![forbid(unsafe_code)]

use toml::{Table, Value};

/// Presets with the tables that they bring; the others have the defaults of the file grammar.
const RECIPES: &[(&str, &str)] = &[
    ("cifar10-s", include_str!("recipes/cifar10-s.toml")),
    ("cifar10-m", include_str!("recipes/cifar10-m.toml")),
    ("cifar10-fast", include_str!("recipes/cifar10-fast.toml")),
];

/// The learning rate of `AdamW` where a file does not say one: other defaults, and those of recipes, are rates of SGD.
const ADAMW_RATE: f64 = 1e-3;

/// The training that a preset brings, as the tables `[data]` and `[train]` of a configuration file; nothing for a preset without one.
pub fn recipe(preset: &str) -> Option<&'static str> {
    RECIPES.iter().find(|(name, _)| *name == preset).map(|(_, recipe)| *recipe)
}

/// The tables of a configuration file with the defaults that depend on its other keys: the recipe of its preset and the rate of
/// its optimiser. Nothing if there are none.
pub(super) fn complete(text: &str) -> Option<Table> {
    let mut file: Table = text.parse().ok()?;
    let of_preset = lookup(&file, &["network", "preset"]).and_then(Value::as_str).and_then(recipe);
    let of_optimizer = lookup(&file, &["train", "optimizer", "name"]).and_then(Value::as_str) == Some("adamw");
    if of_optimizer {
        fill(&mut file, format!("train.schedule.lr = {ADAMW_RATE:?}").parse().expect("a key and a number"));
    }
    if let Some(recipe) = of_preset {
        let mut recipe: Table = recipe.parse().expect("a test reads every recipe");
        if let Some(epochs) = lookup(&file, &["train", "epochs"]).and_then(Value::as_integer) {
            stretch(&mut recipe, epochs);
        }
        fill(&mut file, recipe);
    }
    (of_preset.is_some() || of_optimizer).then_some(file)
}

/// The value at the end of a path of keys.
fn lookup<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (last, path) = keys.split_last()?;
    path.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?.get(*last)
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

    #[test]
    fn another_optimizer_takes_nothing() {
        let optimizer = |table: &str| config("cifar10-fast", &format!("[train]\noptimizer = {table}")).train.optimizer;
        assert_eq!(optimizer("{ name = 'sgd' }"), OptimizerConfig::sgd());
        let OptimizerConfig::Muon { matrix_rate: own, .. } = config("cifar10-fast", "").train.optimizer else {
            panic!("not Muon")
        };
        match optimizer("{ momentum = 0.8 }") {
            OptimizerConfig::Muon { momentum, matrix_rate, .. } => assert_eq!((momentum, matrix_rate), (0.8, own)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn adamw_has_a_rate_of_its_own() {
        for preset in ["small", "cifar10-s", "cifar10-m", "cifar10-fast"] {
            let train = |tables: &str| config(preset, tables).train;
            let adamw = train("[train]\noptimizer = { name = 'adamw' }");
            assert_eq!((adamw.optimizer, adamw.schedule.lr()), (OptimizerConfig::adamw(), 1e-3));
            assert_eq!(adamw.schedule, train("").schedule.with_lr(1e-3), "only the rate");
            assert_eq!(train("[train]\noptimizer = { name = 'adamw' }\nschedule = { lr = 0.02 }").schedule.lr(), 0.02);
        }
        let refused = RunConfig::from_toml("[network]\npreset = 'small'\n[train]\noptimizer = { name = 'adamw' }\nschedule = 3")
            .unwrap_err();
        assert!(refused.to_string().contains("line 5"), "{refused}");
    }
}
