//! The description of a network: what it computes, without weights.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::net::architecture::{Connection, Stage, Stem};
use crate::net::builder::NetworkBuilder;
use crate::net::preset;
use crate::net::table::NetworkTable;
use crate::net::validate::validate;

/// A residual network for classifying images: stem, stages of blocks with connections between them, global average pool,
/// linear head.
///
/// A value of this type is always valid: sizes are positive and bounded, and every choice is supported. It serialises as the
/// `[network]` table of a configuration file.
///
/// ```
/// use leanresnet::Network;
///
/// let network = Network::preset("small")?.to_builder().with_classes(100).build()?;
/// assert_eq!(network.stages().len(), 3);
/// assert_eq!(network.stages()[2].width, 128);
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NetworkTable", into = "NetworkTable")]
pub struct Network {
    pub(crate) input: [usize; 3],
    pub(crate) classes: usize,
    pub(crate) class_names: Vec<String>,
    pub(crate) norm_epsilon: f32,
    pub(crate) norm_momentum: f32,
    pub(crate) stages: Vec<Stage>,
    pub(crate) stem: Stem,
    pub(crate) connection: Connection,
}

impl Network {
    /// The names that [`Network::preset`] knows.
    pub const PRESETS: &'static [&'static str] = preset::NAMES;

    /// The network with this name: `small`, `base`, `cifar10-s`, `cifar10-m`, `cifar10-fast` (32x32 images, 10 classes) or `imagenet` (224x224, 1000
    /// classes). `cifar10-s` and the larger `cifar10-m` are tuned for accuracy and `cifar10-fast` for a short training; both are trained best by the recipes that
    /// `RunConfig::from_toml` (feature `train`) knows.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another name; the message lists the known ones.
    pub fn preset(name: &str) -> Result<Self> {
        preset::table(name)?.resolve()
    }

    /// A builder with every key at its default and no stage yet.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder::default()
    }

    /// A builder that starts from this network.
    pub fn to_builder(&self) -> NetworkBuilder {
        NetworkBuilder::from(self)
    }

    /// The network in the `[network]` table of a configuration file.
    ///
    /// The other tables of the file are not looked at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that is not TOML, unknown keys, values of the wrong type, a file version other than 1, and
    /// everything that [`NetworkBuilder::build`] refuses. The message has line and column where the text itself is wrong.
    #[cfg(feature = "config")]
    pub fn from_toml(text: &str) -> Result<Self> {
        crate::net::config_file::parse(text)
    }

    /// The text of a configuration file with this network and nothing else; [`Network::from_toml`] reads it back.
    #[cfg(feature = "config")]
    pub fn to_toml(&self) -> String {
        crate::net::config_file::write(self)
    }

    /// `network` itself if it is valid.
    pub(crate) fn from_parts(network: Self) -> Result<Self> {
        validate(&network)?;
        Ok(network)
    }

    /// Channels, height, width of the images.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Names of the classes: as many as there are classes, or none.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// What norms add to the variance.
    pub fn norm_epsilon(&self) -> f32 {
        self.norm_epsilon
    }

    /// Weight of a new batch in the running statistics.
    pub fn norm_momentum(&self) -> f32 {
        self.norm_momentum
    }

    /// The first layers.
    pub fn stem(&self) -> &Stem {
        &self.stem
    }

    /// The stages in forward order, at least one.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The layers between two stages.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Height and width of the activations in every stage.
    pub fn stage_sizes(&self) -> Vec<[usize; 2]> {
        let [_, height, width] = self.input;
        let first = self.stem.output_size([height, width]);
        std::iter::successors(Some(first), |&size| Some(self.connection.form.output_size(size))).take(self.stages.len()).collect()
    }
}

impl TryFrom<NetworkTable> for Network {
    type Error = Error;

    fn try_from(table: NetworkTable) -> Result<Self> {
        table.resolve()
    }
}

impl fmt::Display for Network {
    /// One line, such as `3x32x32, stages 32x3 64x3 128x3 (lean cross5), 10 classes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [channels, height, width] = self.input;
        write!(f, "{channels}x{height}x{width}, stages")?;
        for stage in &self.stages {
            write!(f, " {}x{}", stage.width, stage.blocks)?;
        }
        let block = &self.stages[0].block;
        write!(f, " ({}", block.operator)?;
        if block.operator.has_stencil() {
            let [first, second] = block.stencils;
            write!(f, " {first}")?;
            if first != second {
                write!(f, "/{second}")?;
            }
        }
        write!(f, "), {} classes", self.classes)
    }
}
