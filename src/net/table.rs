//! The `[network]` table as it stands in files: every key optional, unknown keys refused, resolved into a [`Network`].
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::net::architecture::{Block, BlockForm, Connection, ConnectionForm, Norm, Operator, Stage, Stem, StemPool};
use crate::net::network::Network;
use crate::net::{preset, stencil_key};
use crate::stencil::Stencil;

/// Defines a table whose keys are fields of `$target`, each optional.
macro_rules! table_of {
    ($(#[$attribute:meta])* $table:ident of $target:ident { $($(#[$key:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $table {
            $( $(#[$key])* #[serde(skip_serializing_if = "Option::is_none")] pub(crate) $field: Option<$type>, )+
        }

        impl $table {
            /// The keys of this table, and those of `base` where this one has none.
            fn over(self, base: Self) -> Self {
                Self { $( $field: self.$field.or(base.$field), )+ }
            }

            /// `base` with the keys of this table.
            fn applied_to(&self, mut base: $target) -> $target {
                $( if let Some(value) = &self.$field { base.$field.clone_from(value); } )+
                base
            }
        }

        impl From<&$target> for $table {
            fn from(value: &$target) -> Self {
                Self { $( $field: Some(value.$field.clone()), )+ }
            }
        }
    };
}

table_of! {
    /// `[network.stem]`.
    StemTable of Stem {
        kernel: usize,
        stride: usize,
        pool: StemPool,
        norm: Norm,
        bias: bool,
    }
}

table_of! {
    /// `[network.block]`, and the overrides of a stage.
    BlockTable of Block {
        form: BlockForm,
        operator: Operator,
        #[serde(rename = "stencil", default, with = "stencil_key")]
        stencils: [Stencil; 2],
        group_size: usize,
        norm: Norm,
        norms: usize,
        relu_after_sum: bool,
        scale: f32,
        bias: bool,
    }
}

table_of! {
    /// `[network.connection]`.
    ConnectionTable of Connection {
        form: ConnectionForm,
        norm: Norm,
        bias: bool,
    }
}

impl BlockTable {
    /// This table without the keys that say the same as `base`.
    fn without(self, base: &Self) -> Self {
        fn different<T: Copy + PartialEq>(value: Option<T>, base: Option<T>) -> Option<T> {
            if value == base { None } else { value }
        }
        Self {
            form: different(self.form, base.form),
            operator: different(self.operator, base.operator),
            stencils: different(self.stencils, base.stencils),
            group_size: different(self.group_size, base.group_size),
            norm: different(self.norm, base.norm),
            norms: different(self.norms, base.norms),
            relu_after_sum: different(self.relu_after_sum, base.relu_after_sum),
            scale: different(self.scale, base.scale),
            bias: different(self.bias, base.bias),
        }
    }
}

/// One entry of `stages`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageTable {
    pub(crate) width: usize,
    pub(crate) blocks: usize,
    /// Any key of `[network.block]`.
    #[serde(flatten)]
    pub(crate) block: BlockTable,
}

/// The whole `[network]` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<[usize; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) classes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class_names: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) norm_epsilon: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) norm_momentum: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stages: Option<Vec<StageTable>>,
    #[serde(default)]
    pub(crate) stem: StemTable,
    #[serde(default)]
    pub(crate) block: BlockTable,
    #[serde(default)]
    pub(crate) connection: ConnectionTable,
}

impl NetworkTable {
    /// The network that this table describes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown preset, missing stages, and everything that [`Network`] refuses.
    pub(crate) fn resolve(mut self) -> Result<Network> {
        // Names of classes imply their number, also where a preset states another one.
        self.classes = self.classes.or(self.class_names.as_ref().map(Vec::len));
        if let Some(name) = self.preset.take() {
            self = self.over(preset::table(&name)?);
        }
        let Some(stages) = self.stages else {
            let presets = preset::NAMES.join(", ");
            return Err(Error::invalid("network.stages", format!("a list of stages, or a preset ({presets})"), "neither"));
        };
        let stages: Vec<Stage> = stages
            .into_iter()
            .map(|stage| {
                let table = stage.block.over(self.block.clone());
                let mut block = table.applied_to(Block::default());
                block.bias = table.bias.unwrap_or(block.norms == 0);
                Stage { width: stage.width, blocks: stage.blocks, block }
            })
            .collect();
        let total_variation = stages.iter().any(|stage| stage.block.norm == Norm::Tv);
        Network::from_parts(Network {
            input: self.input.unwrap_or([3, 32, 32]),
            classes: self.classes.unwrap_or(10),
            class_names: self.class_names.unwrap_or_default(),
            norm_epsilon: self.norm_epsilon.unwrap_or(if total_variation { 1e-4 } else { 1e-5 }),
            norm_momentum: self.norm_momentum.unwrap_or(0.1),
            stages,
            stem: self.stem.applied_to(Stem::default()),
            connection: self.connection.applied_to(Connection::default()),
        })
    }

    /// The keys of this table, and those of `base` where this one has none.
    fn over(self, base: Self) -> Self {
        Self {
            preset: None,
            input: self.input.or(base.input),
            classes: self.classes.or(base.classes),
            class_names: self.class_names.or(base.class_names),
            norm_epsilon: self.norm_epsilon.or(base.norm_epsilon),
            norm_momentum: self.norm_momentum.or(base.norm_momentum),
            stages: self.stages.or(base.stages),
            stem: self.stem.over(base.stem),
            block: self.block.over(base.block),
            connection: self.connection.over(base.connection),
        }
    }
}

impl From<Network> for NetworkTable {
    /// Every key is stated; the first stage's block stands in `[network.block]`, the others state what differs.
    fn from(network: Network) -> Self {
        let common = BlockTable::from(&network.stages[0].block);
        let stage_table = |stage: &Stage| StageTable {
            width: stage.width,
            blocks: stage.blocks,
            block: BlockTable::from(&stage.block).without(&common),
        };
        Self {
            preset: None,
            input: Some(network.input),
            classes: Some(network.classes),
            class_names: (!network.class_names.is_empty()).then_some(network.class_names),
            norm_epsilon: Some(network.norm_epsilon),
            norm_momentum: Some(network.norm_momentum),
            stages: Some(network.stages.iter().map(stage_table).collect()),
            stem: StemTable::from(&network.stem),
            block: common,
            connection: ConnectionTable::from(&network.connection),
        }
    }
}
