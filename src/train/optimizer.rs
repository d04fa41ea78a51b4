//! The update rule: its configuration, clipping of the gradient, and the moving average of the weights.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::config::require_fraction;
use crate::error::{Error, Result};

/// The rule that turns gradients into updates: `train.optimizer`.
///
/// Weight decay acts on convolution and head weights only; biases and the scales and shifts of norms are spared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", try_from = "OptimizerTable")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum, as PyTorch computes it: with gradient g,
    /// `g += weight_decay * w; m = momentum * m + g; w -= lr * (nesterov ? g + momentum * m : m)`.
    Sgd {
        /// Decay of the momentum, in [0, 1). Default 0.9.
        momentum: f64,
        /// Nesterov's look-ahead. Default true.
        nesterov: bool,
        /// L2 penalty, at least 0. Default 5e-4.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019), as PyTorch computes it: with gradient g in step t,
    /// `m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g * g; w *= 1 - lr * weight_decay;`
    /// `w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon)`.
    AdamW {
        /// Decay of the first moment, in [0, 1). Default 0.9.
        beta1: f64,
        /// Decay of the second moment, in [0, 1). Default 0.999.
        beta2: f64,
        /// Added to the root of the second moment, above 0. Default 1e-8.
        epsilon: f64,
        /// Decoupled weight decay, at least 0. Default 0.01.
        weight_decay: f64,
    },
    /// Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>) for the matrices of all convolutions but the stem: a step is
    /// the momentum with its singular values brought near 1, by five Newton-Schulz iterations. With gradient g of a matrix
    /// of shape outputs x inputs: `m = momentum * m + g; u = orthogonal(nesterov ? g + momentum * m : m);`
    /// `w = w * (1 - r * matrix_weight_decay) - r * sqrt(max(1, outputs / inputs)) * u`, where r is `lr * matrix_rate`; PyTorch's
    /// `torch.optim.Muon`, in f32. Everything else (stem, stencils, norms, head) is trained as by [`OptimizerConfig::Sgd`].
    Muon {
        /// Decay of the momentum, in [0, 1). Default 0.9.
        momentum: f64,
        /// Nesterov's look-ahead. Default true.
        nesterov: bool,
        /// L2 penalty of everything else, at least 0. Default 5e-4.
        weight_decay: f64,
        /// Learning rate of the matrices by that of everything else, above 0. Default 0.2.
        matrix_rate: f64,
        /// Decoupled weight decay of the matrices, at least 0. Default 0.05.
        matrix_weight_decay: f64,
    },
}

/// The keys of all rules: a table without `name` is that of the default rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptimizerTable {
    #[serde(default)]
    name: RuleName,
    momentum: Option<f64>,
    nesterov: Option<bool>,
    weight_decay: Option<f64>,
    beta1: Option<f64>,
    beta2: Option<f64>,
    epsilon: Option<f64>,
    matrix_rate: Option<f64>,
    matrix_weight_decay: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum RuleName {
    #[default]
    Sgd,
    AdamW,
    Muon,
}

impl TryFrom<OptimizerTable> for OptimizerConfig {
    type Error = String;

    fn try_from(table: OptimizerTable) -> std::result::Result<Self, String> {
        let has_momentum = table.momentum.is_some() || table.nesterov.is_some();
        let has_beta = table.beta1.is_some() || table.beta2.is_some() || table.epsilon.is_some();
        let has_matrix = table.matrix_rate.is_some() || table.matrix_weight_decay.is_some();
        let (momentum, nesterov) = (table.momentum.unwrap_or(0.9), table.nesterov.unwrap_or(true));
        match table.name {
            RuleName::Sgd if has_beta || has_matrix => {
                Err("optimizer `sgd` has the keys momentum, nesterov, weight_decay".into())
            }
            RuleName::Sgd => Ok(Self::Sgd { momentum, nesterov, weight_decay: table.weight_decay.unwrap_or(5e-4) }),
            RuleName::AdamW if has_momentum || has_matrix => {
                Err("optimizer `adamw` has the keys beta1, beta2, epsilon, weight_decay".into())
            }
            RuleName::AdamW => Ok(Self::AdamW {
                beta1: table.beta1.unwrap_or(0.9),
                beta2: table.beta2.unwrap_or(0.999),
                epsilon: table.epsilon.unwrap_or(1e-8),
                weight_decay: table.weight_decay.unwrap_or(0.01),
            }),
            RuleName::Muon if has_beta => {
                Err("optimizer `muon` has the keys momentum, nesterov, weight_decay, matrix_rate, matrix_weight_decay".into())
            }
            RuleName::Muon => Ok(Self::Muon {
                momentum,
                nesterov,
                weight_decay: table.weight_decay.unwrap_or(5e-4),
                matrix_rate: table.matrix_rate.unwrap_or(0.2),
                matrix_weight_decay: table.matrix_weight_decay.unwrap_or(0.05),
            }),
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::sgd()
    }
}

impl OptimizerConfig {
    /// SGD with its default values.
    pub fn sgd() -> Self {
        Self::Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 }
    }

    /// AdamW with its default values.
    pub fn adamw() -> Self {
        Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }

    /// Muon with its default values.
    pub fn muon() -> Self {
        Self::Muon { momentum: 0.9, nesterov: true, weight_decay: 5e-4, matrix_rate: 0.2, matrix_weight_decay: 0.05 }
    }

    /// The same rule with another weight decay (of Muon: of all but the matrices).
    #[must_use]
    pub fn with_weight_decay(mut self, decay: f64) -> Self {
        match &mut self {
            Self::Sgd { weight_decay, .. } | Self::AdamW { weight_decay, .. } | Self::Muon { weight_decay, .. } => {
                *weight_decay = decay;
            }
        }
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                require_momentum(momentum, nesterov)?;
                require_not_negative("train.optimizer.weight_decay", weight_decay)
            }
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                require_fraction("train.optimizer.beta1", beta1)?;
                require_fraction("train.optimizer.beta2", beta2)?;
                require_positive("train.optimizer.epsilon", epsilon)?;
                require_not_negative("train.optimizer.weight_decay", weight_decay)
            }
            Self::Muon { momentum, nesterov, weight_decay, matrix_rate, matrix_weight_decay } => {
                require_momentum(momentum, nesterov)?;
                require_not_negative("train.optimizer.weight_decay", weight_decay)?;
                require_positive("train.optimizer.matrix_rate", matrix_rate)?;
                require_not_negative("train.optimizer.matrix_weight_decay", matrix_weight_decay)
            }
        }
    }
}

fn require_momentum(momentum: f64, nesterov: bool) -> Result<()> {
    require_fraction("train.optimizer.momentum", momentum)?;
    if nesterov && momentum == 0.0 {
        return Err(Error::invalid("train.optimizer.nesterov", "false where momentum is 0", true));
    }
    Ok(())
}

fn require_positive(key: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(key, "a finite number above 0", value))
}

fn require_not_negative(key: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::invalid(key, "a finite number of at least 0", value))
}

/// The factor that brings a gradient of Euclidean norm `norm` down to `clip_norm`; 1 where it is short enough or `clip_norm` is 0.
pub fn clip_factor(clip_norm: f64, norm: f64) -> f32 {
    if clip_norm > 0.0 && norm > clip_norm { (clip_norm / norm) as f32 } else { 1.0 }
}

/// The decay of the moving average for the update that follows `updates` earlier ones: `min(decay, (1 + t) / (10 + t))`,
/// so that the first steps do not hold on to the initial weights.
pub fn average_decay(decay: f64, updates: u64) -> f32 {
    let t = updates as f64;
    decay.min((1.0 + t) / (10.0 + t)) as f32
}

/// Moves `average` towards `value`: `average += (1 - decay) * (value - average)`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn update_average(average: &mut [f32], value: &[f32], decay: f32) {
    assert_eq!(average.len(), value.len(), "the average has the shape of its tensor");
    let step = 1.0 - decay;
    for (average, &value) in average.iter_mut().zip(value) {
        *average += step * (value - *average);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_name_is_sgd() {
        let config: OptimizerConfig = toml::from_str("momentum = 0.5").unwrap();
        assert_eq!(config, OptimizerConfig::Sgd { momentum: 0.5, nesterov: true, weight_decay: 5e-4 });
    }

    #[test]
    fn keys_of_the_other_rule_are_errors() {
        assert!(toml::from_str::<OptimizerConfig>("name = \"sgd\"\nbeta1 = 0.9").is_err());
        assert!(toml::from_str::<OptimizerConfig>("name = \"adamw\"\nmomentum = 0.9").is_err());
        let adamw: OptimizerConfig = toml::from_str("name = \"adamw\"\nbeta2 = 0.99").unwrap();
        assert_eq!(adamw, OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01 });
        let text = toml::to_string(&adamw).unwrap();
        assert_eq!(toml::from_str::<OptimizerConfig>(&text).unwrap(), adamw);
    }

    #[test]
    fn a_table_of_muon() {
        let muon: OptimizerConfig = toml::from_str("name = \"muon\"\nmatrix_rate = 0.1").unwrap();
        let OptimizerConfig::Muon { momentum, nesterov, weight_decay, .. } = OptimizerConfig::muon() else { panic!() };
        let expected = OptimizerConfig::Muon { momentum, nesterov, weight_decay, matrix_rate: 0.1, matrix_weight_decay: 0.05 };
        assert_eq!(muon, expected);
        assert_eq!(toml::from_str::<OptimizerConfig>(&toml::to_string(&muon).unwrap()).unwrap(), muon);
        for foreign in ["name = \"muon\"\nbeta1 = 0.9", "matrix_rate = 0.1", "name = \"adamw\"\nmatrix_weight_decay = 0.0"] {
            assert!(toml::from_str::<OptimizerConfig>(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn numbers_of_muon_are_checked() {
        let muon = |text: &str| toml::from_str::<OptimizerConfig>(&format!("name = \"muon\"\n{text}")).unwrap().validate();
        muon("matrix_weight_decay = 0.0").unwrap();
        for (text, key) in [
            ("matrix_rate = 0.0", "matrix_rate"),
            ("matrix_rate = inf", "matrix_rate"),
            ("matrix_weight_decay = -1.0", "matrix_weight_decay"),
            ("weight_decay = nan", "weight_decay"),
            ("momentum = 1.0", "momentum"),
            ("momentum = 0.0", "nesterov"),
        ] {
            let error = muon(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("train.optimizer.{key};")), "{text}: {error}");
        }
    }

    #[test]
    fn nesterov_needs_momentum() {
        let config = OptimizerConfig::Sgd { momentum: 0.0, nesterov: true, weight_decay: 0.0 };
        assert!(config.validate().is_err());
        OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }.validate().unwrap();
    }

    #[test]
    fn numbers_of_adamw_are_checked() {
        let adamw = |beta1, beta2, epsilon| OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay: 0.01 }.validate();
        adamw(0.9, 0.999, 1e-8).unwrap();
        adamw(0.0, 0.0, 1.0).unwrap();
        for refused in [adamw(1.0, 0.9, 1e-8), adamw(0.9, -0.1, 1e-8), adamw(0.9, 0.9, 0.0), adamw(0.9, 0.9, f64::NAN)] {
            assert!(refused.is_err());
        }
        assert!(OptimizerConfig::adamw().with_weight_decay(-1.0).validate().is_err());
    }

    #[test]
    fn only_long_gradients_are_clipped() {
        assert_eq!(clip_factor(0.0, 1e30), 1.0);
        assert_eq!(clip_factor(2.0, 2.0), 1.0);
        assert_eq!(clip_factor(2.0, 8.0), 0.25);
    }

    #[test]
    fn the_average_warms_up_and_then_keeps_its_decay() {
        assert_eq!(average_decay(0.999, 0), 0.1);
        assert_eq!(average_decay(0.999, 8), 0.5);
        assert_eq!(average_decay(0.999, 100_000), 0.999);
        assert_eq!(average_decay(0.05, 0), 0.05);
    }

    #[test]
    fn the_average_moves_by_one_minus_decay() {
        let mut average = [0.0, 4.0];
        update_average(&mut average, &[8.0, 4.0], 0.75);
        assert_eq!(average, [2.0, 4.0]);
    }
}
