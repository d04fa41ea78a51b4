//! A whole configuration file: network, data and training.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::recipe;
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::net::Network;

/// The version of configuration files that this crate reads and writes.
const VERSION: u64 = 1;

/// The largest configuration file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Everything that decides the result of a training run: the contents of a configuration file, and of a run's `config.toml`.
///
/// ```
/// use leanresnet::train::RunConfig;
/// let config = RunConfig::from_toml("network = { preset = 'small' }\ntrain = { epochs = 3 }")?;
/// assert_eq!(config.train.epochs, 3);
/// assert_eq!(RunConfig::from_toml(&config.to_toml())?, config);
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RunConfig {
    /// The version of the file grammar: 1.
    #[serde(default = "version")]
    pub version: u64,
    /// The network.
    pub network: Network,
    /// The data set and its augmentation.
    #[serde(default)]
    pub data: DataConfig,
    /// The training.
    #[serde(default)]
    pub train: TrainConfig,
}

fn version() -> u64 {
    VERSION
}

impl RunConfig {
    /// `network` with the defaults of everything else.
    pub fn new(network: Network) -> Self {
        Self { version: VERSION, network, data: DataConfig::default(), train: TrainConfig::default() }
    }

    /// Sets the data set and its augmentation.
    #[must_use]
    pub fn with_data(mut self, data: DataConfig) -> Self {
        self.data = data;
        self
    }

    /// Sets the training.
    #[must_use]
    pub fn with_train(mut self, train: TrainConfig) -> Self {
        self.train = train;
        self
    }

    /// Reads the text of a configuration file. Tables and keys that are left out have their defaults, except `network`.
    ///
    /// A preset may bring a [`recipe`](super::recipe): defaults of its own for `[data]` and `[train]`, which the file overrides key by key.
    /// With other epochs, the peak keeps its place in the run. A schedule with another name takes only the rate, an optimiser with
    /// another name nothing. The rate of `AdamW` is 0.001 where the file says none. What [`to_toml`](Self::to_toml) writes names no preset
    /// and has every key. The recipe of `cifar10-fast`:
    ///
    #[doc = concat!("```toml\n", include_str!("recipes/cifar10-fast.toml"), "```")]
    ///
    /// ```
    /// use leanresnet::train::{RunConfig, ScheduleConfig};
    /// let config = RunConfig::from_toml("network = { preset = 'cifar10-s' }\ntrain = { epochs = 20 }")?;
    /// assert_eq!((config.train.label_smoothing, config.train.ema), (0.1, 0.999));
    /// assert_eq!(config.train.schedule, ScheduleConfig::OneCycle { lr: 0.4, peak_epoch: 4.0 });
    /// # Ok::<(), leanresnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] with the place of the mistake for text that is not TOML, unknown keys, values of the wrong type, and
    /// everything that [`validate`](Self::validate) refuses.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config: Self = match recipe::complete(text) {
            None => toml::from_str(text),
            // Tables do not know where they stood: the text does, if it is wrong without the recipe too.
            Some(tables) => tables.try_into().map_err(|error: toml::de::Error| {
                let placed = toml::from_str::<Self>(text).err().filter(|placed| placed.message() == error.message());
                placed.unwrap_or(error)
            }),
        }
        .map_err(|error| crate::net::syntax_error(text, &error))?;
        config.validate()?;
        Ok(config)
    }

    /// The text of a configuration file with every key; [`from_toml`](Self::from_toml) reads it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a valid configuration has only finite numbers, strings and tables")
    }

    /// Reads the configuration file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Invalid`] as for [`from_toml`](Self::from_toml).
    pub fn read(path: &Path) -> Result<Self> {
        let io = |error| Error::io("read", path, error);
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > LARGEST_FILE {
            return Err(Error::invalid(path.display(), format!("a configuration of at most {LARGEST_FILE} bytes"), length));
        }
        Self::from_toml(&std::fs::read_to_string(path).map_err(io)?)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(Error::invalid("version of the configuration", VERSION, self.version));
        }
        let [_, height, width] = self.network.input();
        self.data.augment.check(height, width)?;
        self.train.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_every_table_is_read_and_written_back() {
        let text = r#"
            version = 1
            [network]
            preset = "small"
            classes = 7
            [data]
            name = "cifar10"
            dir = "some/where"
            validation = 500
            augment = { crop = 2, flip = false }
            [train]
            batch = 32
            schedule = { name = "multistep", lr = 0.05, milestones = [8, 12] }
        "#;
        let config = RunConfig::from_toml(text).unwrap();
        assert_eq!((config.network.classes(), config.data.validation, config.train.batch), (7, 500, 32));
        assert_eq!(config.train.schedule.lr(), 0.05);
        let written = config.to_toml();
        assert_eq!(RunConfig::from_toml(&written).unwrap(), config, "{written}");
        assert!(written.starts_with("version = 1\n"), "{written}");
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        for (text, word) in [
            ("[train]\nepochs = 3", "network"),
            ("[network]\npreset = 'small'\n[training]", "training"),
            ("[network]\npreset = 'small'\n[train]\nepoch = 3", "line 4"),
            ("version = 2\n[network]\npreset = 'small'", "version"),
            ("[network]\npreset = 'small'\n[train]\nbatch = 0", "train.batch"),
            ("[network]\npreset = 'cifar10-s'\n[train]\nepoch = 3", "line 4"),
            ("[network]\npreset = 'cifar10-s'\n[train]\nepochs = 'x'", "line 4"),
            ("[network]\npreset = 'cifar10-s'\n[train.schedule]\nwarmup_epochs = 3", "one-cycle"),
            ("[network]\npreset = 'small'\n[data]\naugment = { crop = 33 }", "crop"),
            ("[network", "line 1"),
        ] {
            let error = RunConfig::from_toml(text).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_read_with_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(matches!(RunConfig::read(&path), Err(Error::Io { .. })));
        let config = RunConfig::new(Network::preset("small").unwrap());
        std::fs::write(&path, config.to_toml()).unwrap();
        assert_eq!(RunConfig::read(&path).unwrap(), config);
        std::fs::write(&path, " ".repeat(LARGEST_FILE as usize + 1)).unwrap();
        assert!(matches!(RunConfig::read(&path), Err(Error::Invalid { .. })));
    }
}
