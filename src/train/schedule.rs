//! The learning rate over time.
#![forbid(unsafe_code)]

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The learning rate over time: `train.schedule`. Times are in epochs and may be fractions.
///
/// In configuration files that name `AdamW`, the default of `lr` is 0.001; see [`RunConfig::from_toml`](super::RunConfig::from_toml).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", try_from = "ScheduleTable")]
#[non_exhaustive]
pub enum ScheduleConfig {
    /// A linear rise to `lr`, then half a cosine towards 0 at the end of the last epoch.
    Cosine {
        /// The highest learning rate. Default 0.1.
        lr: f64,
        /// Length of the rise. Default 1.
        warmup_epochs: f64,
    },
    /// `lr` throughout.
    Constant {
        /// The learning rate. Default 0.1.
        lr: f64,
    },
    /// `lr`, multiplied by `factor` at every milestone.
    Multistep {
        /// The learning rate before the first milestone. Default 0.1.
        lr: f64,
        /// Where the rate drops: at least one, ascending. No default.
        milestones: Vec<f64>,
        /// What each milestone multiplies the rate by, in (0, 1]. Default 0.1.
        factor: f64,
    },
    /// A linear rise from 0 to `lr`, then a linear fall to 0 at the end of the last epoch.
    #[serde(rename = "one-cycle")]
    OneCycle {
        /// The highest learning rate. Default 0.1.
        lr: f64,
        /// Where the rate is highest. Default 5.
        peak_epoch: f64,
    },
}

/// The keys of all schedules: a table without `name` is that of the default schedule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleTable {
    #[serde(default)]
    name: ScheduleName,
    lr: Option<f64>,
    warmup_epochs: Option<f64>,
    milestones: Option<Vec<f64>>,
    factor: Option<f64>,
    peak_epoch: Option<f64>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum ScheduleName {
    #[default]
    Cosine,
    Constant,
    Multistep,
    OneCycle,
}

impl TryFrom<ScheduleTable> for ScheduleConfig {
    type Error = String;

    fn try_from(table: ScheduleTable) -> std::result::Result<Self, String> {
        let lr = table.lr.unwrap_or(0.1);
        let given = |key, present: bool| present.then_some(key);
        let given = [
            given("warmup_epochs", table.warmup_epochs.is_some()),
            given("milestones", table.milestones.is_some()),
            given("factor", table.factor.is_some()),
            given("peak_epoch", table.peak_epoch.is_some()),
        ];
        let (name, own): (&str, &[&str]) = match table.name {
            ScheduleName::Cosine => ("cosine", &["warmup_epochs"]),
            ScheduleName::Constant => ("constant", &[]),
            ScheduleName::Multistep => ("multistep", &["milestones", "factor"]),
            ScheduleName::OneCycle => ("one-cycle", &["peak_epoch"]),
        };
        if let Some(key) = given.into_iter().flatten().find(|key| !own.contains(key)) {
            let keys = [&["lr"], own].concat().join(", ");
            return Err(format!("schedule `{name}` has no key `{key}`, expected {keys}"));
        }
        Ok(match table.name {
            ScheduleName::Cosine => Self::Cosine { lr, warmup_epochs: table.warmup_epochs.unwrap_or(1.0) },
            ScheduleName::Constant => Self::Constant { lr },
            ScheduleName::Multistep => {
                let milestones = table.milestones.ok_or("schedule `multistep` needs the key `milestones`")?;
                Self::Multistep { lr, milestones, factor: table.factor.unwrap_or(0.1) }
            }
            ScheduleName::OneCycle => Self::OneCycle { lr, peak_epoch: table.peak_epoch.unwrap_or(5.0) },
        })
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Cosine { lr: 0.1, warmup_epochs: 1.0 }
    }
}

impl ScheduleConfig {
    /// The learning rate that the schedule scales.
    pub fn lr(&self) -> f64 {
        match *self {
            Self::Cosine { lr, .. } | Self::Constant { lr } | Self::Multistep { lr, .. } | Self::OneCycle { lr, .. } => lr,
        }
    }

    /// The same schedule with another learning rate.
    #[must_use]
    pub fn with_lr(mut self, rate: f64) -> Self {
        match &mut self {
            Self::Cosine { lr, .. } | Self::Constant { lr } | Self::Multistep { lr, .. } | Self::OneCycle { lr, .. } => {
                *lr = rate;
            }
        }
        self
    }

    /// Checks every value for a run of `epochs` epochs.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn validate(&self, epochs: u64) -> Result<()> {
        let at_least_zero = |key: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err(Error::invalid(key, "a finite number of at least 0", value))
        };
        at_least_zero("train.schedule.lr", self.lr())?;
        match self {
            Self::Constant { .. } => Ok(()),
            Self::Cosine { warmup_epochs, .. } => at_least_zero("train.schedule.warmup_epochs", *warmup_epochs),
            Self::Multistep { milestones, factor, .. } => {
                let ascending = milestones.windows(2).all(|pair| pair[0] < pair[1]);
                if milestones.is_empty() || !ascending || milestones.iter().any(|m| !(m.is_finite() && *m > 0.0)) {
                    let expected = "at least one epoch above 0, in ascending order";
                    return Err(Error::invalid("train.schedule.milestones", expected, format!("{milestones:?}")));
                }
                if !(*factor > 0.0 && *factor <= 1.0) {
                    return Err(Error::invalid("train.schedule.factor", "a number in (0, 1]", factor));
                }
                Ok(())
            }
            Self::OneCycle { peak_epoch, .. } => {
                if *peak_epoch > 0.0 && *peak_epoch <= epochs as f64 {
                    return Ok(());
                }
                let expected = format!("an epoch above 0 and at most train.epochs ({epochs})");
                Err(Error::invalid("train.schedule.peak_epoch", expected, peak_epoch))
            }
        }
    }
}

/// The learning rate of step `step` (from 0) of a run of `epochs` epochs of `steps_per_epoch` steps.
///
/// Rises use `(step + 1) / length`, so that the first step already moves and the last step of a rise has the full rate. Falls end
/// at 0 one step after the last, so that no step is wasted. A pure function: a resumed run continues exactly.
pub fn learning_rate(schedule: &ScheduleConfig, step: u64, steps_per_epoch: u64, epochs: u64) -> f32 {
    let step = step as f64;
    let steps_per_epoch = steps_per_epoch as f64;
    let total = steps_per_epoch * epochs as f64;
    // The part of the way from `begin` to the end of the run that lies behind `step`.
    let progress = |begin: f64| if total > begin { ((step - begin) / (total - begin)).clamp(0.0, 1.0) } else { 1.0 };
    let rate = match schedule {
        ScheduleConfig::Constant { lr } => *lr,
        ScheduleConfig::Cosine { lr, warmup_epochs } => {
            let warmup = warmup_epochs * steps_per_epoch;
            if step + 1.0 <= warmup {
                lr * ((step + 1.0) / warmup)
            } else {
                lr * 0.5 * (1.0 + libm::cos(PI * progress(warmup.floor())))
            }
        }
        ScheduleConfig::Multistep { lr, milestones, factor } => {
            let passed = milestones.iter().filter(|&&milestone| step >= milestone * steps_per_epoch).count();
            (0..passed).fold(*lr, |rate, _| rate * factor)
        }
        ScheduleConfig::OneCycle { lr, peak_epoch } => {
            let peak = peak_epoch * steps_per_epoch;
            if step + 1.0 <= peak { lr * ((step + 1.0) / peak) } else { lr * (1.0 - progress(peak.floor())) }
        }
    };
    rate as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates of all steps of a run of 2 epochs of 4 steps.
    fn rates(schedule: &ScheduleConfig) -> Vec<f32> {
        (0..8).map(|step| learning_rate(schedule, step, 4, 2)).collect()
    }

    #[test]
    fn constant_is_constant() {
        assert_eq!(rates(&ScheduleConfig::Constant { lr: 0.25 }), [0.25; 8]);
    }

    #[test]
    fn cosine_rises_for_one_epoch_and_falls_for_one() {
        let rates = rates(&ScheduleConfig::Cosine { lr: 1.0, warmup_epochs: 1.0 });
        assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        // 0.5 * (1 + cos(pi * {1/4, 1/2, 3/4}))
        for (rate, by_hand) in rates[5..].iter().zip([0.853_553_4, 0.5, 0.146_446_6]) {
            assert!((rate - by_hand).abs() < 1e-7, "{rates:?}");
        }
    }

    #[test]
    fn cosine_without_warmup_starts_at_the_full_rate() {
        let rates = rates(&ScheduleConfig::Cosine { lr: 2.0, warmup_epochs: 0.0 });
        assert_eq!(rates[0], 2.0);
        assert!((rates[4] - 1.0).abs() < 1e-7, "{rates:?}");
        assert!(rates.windows(2).all(|pair| pair[0] > pair[1]) && rates[7] > 0.0, "{rates:?}");
    }

    #[test]
    fn a_warmup_longer_than_the_run_only_rises() {
        let rates = rates(&ScheduleConfig::Cosine { lr: 1.0, warmup_epochs: 4.0 });
        assert_eq!(rates, [0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5]);
    }

    #[test]
    fn a_warmup_that_ends_inside_an_epoch_keeps_the_rates_finite() {
        let schedule = ScheduleConfig::Cosine { lr: 1.0, warmup_epochs: 0.3 };
        assert!((rates(&schedule)[0] - 1.0 / 1.2).abs() < 1e-7);
        assert_eq!(rates(&schedule)[1], 1.0);
        assert_eq!(learning_rate(&schedule, 8, 4, 2), 0.0);
    }

    #[test]
    fn multistep_drops_exactly_at_its_milestones() {
        let schedule = ScheduleConfig::Multistep { lr: 1.0, milestones: vec![0.5, 1.0], factor: 0.5 };
        assert_eq!(rates(&schedule), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn one_cycle_is_a_triangle() {
        let schedule = ScheduleConfig::OneCycle { lr: 1.0, peak_epoch: 1.0 };
        assert_eq!(rates(&schedule), [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]);
        let rising = ScheduleConfig::OneCycle { lr: 1.0, peak_epoch: 2.0 };
        assert_eq!(rates(&rising)[7], 1.0);
        assert_eq!(learning_rate(&rising, 8, 4, 2), 0.0);
    }

    #[test]
    fn names_and_defaults_of_the_file_grammar() {
        let parse = |text: &str| toml::from_str::<ScheduleConfig>(text);
        assert_eq!(parse("lr = 1").unwrap(), ScheduleConfig::Cosine { lr: 1.0, warmup_epochs: 1.0 });
        assert_eq!(parse("name = \"constant\"").unwrap(), ScheduleConfig::Constant { lr: 0.1 });
        assert_eq!(parse("name = \"one-cycle\"\nlr = 0.4").unwrap(), ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 5.0 });
        let steps = parse("name = \"multistep\"\nmilestones = [5, 10]").unwrap();
        assert_eq!(steps, ScheduleConfig::Multistep { lr: 0.1, milestones: vec![5.0, 10.0], factor: 0.1 });
        assert!(parse("name = \"multistep\"").unwrap_err().to_string().contains("milestones"));
        assert!(parse("name = \"constant\"\nwarmup_epochs = 1").unwrap_err().to_string().contains("warmup_epochs"));
        assert!(parse("name = \"linear\"").is_err());
        for schedule in [steps, ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 2.5 }] {
            assert_eq!(parse(&toml::to_string(&schedule).unwrap()).unwrap(), schedule);
        }
    }

    #[test]
    fn unusable_values_are_errors() {
        for schedule in [
            ScheduleConfig::Constant { lr: f64::NAN },
            ScheduleConfig::Cosine { lr: 0.1, warmup_epochs: -1.0 },
            ScheduleConfig::Multistep { lr: 0.1, milestones: vec![], factor: 0.1 },
            ScheduleConfig::Multistep { lr: 0.1, milestones: vec![2.0, 1.0], factor: 0.1 },
            ScheduleConfig::Multistep { lr: 0.1, milestones: vec![1.0], factor: 0.0 },
            ScheduleConfig::OneCycle { lr: 0.1, peak_epoch: 0.0 },
            ScheduleConfig::OneCycle { lr: 0.1, peak_epoch: 16.0 },
        ] {
            assert!(schedule.validate(15).is_err(), "{schedule:?}");
        }
    }
}
