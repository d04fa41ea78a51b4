//! Building a network in Rust, key by key, with the meaning of the configuration file.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::net::architecture::{Block, Connection, Stem};
use crate::net::network::Network;
use crate::net::table::{BlockTable, ConnectionTable, NetworkTable, StageTable, StemTable};

/// Collects the description of a [`Network`]; what is not stated has the default of the configuration file.
///
/// ```
/// use leanresnet::{Network, Stencil};
/// use leanresnet::net::Block;
///
/// let network = Network::builder()
///     .with_block(&Block::default().with_stencil(Stencil::Box9).with_norms(2))
///     .with_stage(48, 2)
///     .with_stage(96, 2)
///     .build()?;
/// assert_eq!(network.stages()[1].block.norms, 2);
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct NetworkBuilder {
    table: NetworkTable,
}

impl NetworkBuilder {
    /// Starts from a preset; the other keys override it. Stages that are stated replace the preset's.
    pub fn with_preset(mut self, name: &str) -> Self {
        self.table.preset = Some(name.to_owned());
        self
    }

    /// Channels, height, width of the images. Default 3, 32, 32.
    pub fn with_input(mut self, input: [usize; 3]) -> Self {
        self.table.input = Some(input);
        self
    }

    /// Number of classes, default 10; forgets the names that were given before.
    pub fn with_classes(mut self, classes: usize) -> Self {
        self.table.classes = Some(classes);
        self.table.class_names = None;
        self
    }

    /// Names of the classes, which also say how many there are.
    pub fn with_class_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.table.class_names = Some(names.into_iter().map(Into::into).collect());
        self.table.classes = None;
        self
    }

    /// What norms add to the variance. Default 1e-5.
    pub fn with_norm_epsilon(mut self, epsilon: f32) -> Self {
        self.table.norm_epsilon = Some(epsilon);
        self
    }

    /// Weight of a new batch in the running statistics. Default 0.1.
    pub fn with_norm_momentum(mut self, momentum: f32) -> Self {
        self.table.norm_momentum = Some(momentum);
        self
    }

    /// The first layers.
    pub fn with_stem(mut self, stem: &Stem) -> Self {
        self.table.stem = StemTable::from(stem);
        self
    }

    /// The block of every stage that does not state its own keys.
    pub fn with_block(mut self, block: &Block) -> Self {
        self.table.block = BlockTable::from(block);
        self
    }

    /// The layers between two stages.
    pub fn with_connection(mut self, connection: &Connection) -> Self {
        self.table.connection = ConnectionTable::from(connection);
        self
    }

    /// Appends a stage.
    pub fn with_stage(self, width: usize, blocks: usize) -> Self {
        self.with_stage_table(StageTable { width, blocks, block: BlockTable::default() })
    }

    /// Appends a stage with a block of its own.
    pub fn with_stage_of(self, width: usize, blocks: usize, block: &Block) -> Self {
        self.with_stage_table(StageTable { width, blocks, block: BlockTable::from(block) })
    }

    /// Forgets all stages.
    pub fn without_stages(mut self) -> Self {
        self.table.stages = None;
        self
    }

    fn with_stage_table(mut self, stage: StageTable) -> Self {
        self.table.stages.get_or_insert_default().push(stage);
        self
    }

    /// The network.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an unknown preset, no stages, sizes that are zero, too large, or leave nothing after pooling,
    /// and for choices that this version does not support.
    pub fn build(self) -> Result<Network> {
        self.table.resolve()
    }
}

impl From<&Network> for NetworkBuilder {
    fn from(network: &Network) -> Self {
        Self { table: NetworkTable::from(network.clone()) }
    }
}
