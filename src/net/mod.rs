//! Networks: their description, and models with weights.

mod architecture;
mod builder;
mod calibration;
pub(crate) mod channel_map;
#[cfg(feature = "config")]
mod config_file;
mod cost;
pub(crate) mod fold;
pub(crate) mod graph;
mod images;
mod import;
mod inference;
mod initialise;
mod layers;
mod log_report;
mod mismatch;
pub(crate) mod model;
mod model_file;
mod network;
mod op;
mod parameters;
pub(crate) mod plan;
mod precision;
mod preprocess;
mod preset;
mod rename;
mod run;
mod session;
mod split;
mod stencil_key;
mod table;
pub(crate) mod taps;
mod timing;
mod validate;

pub use architecture::{Block, BlockForm, Connection, ConnectionForm, Norm, Operator, Stage, Stem, StemPool};
pub use builder::NetworkBuilder;
pub use calibration::Calibration;
#[cfg(feature = "train")]
pub(crate) use config_file::syntax_error;
pub use graph::{Graph, Node, Operation};
pub use images::Images;
pub use import::{ImportReport, import};
pub use layers::{LayerSummary, layers};
pub use mismatch::Misshaped;
pub use model::Model;
pub use network::Network;
pub use parameters::{ParameterRole, ParameterSpec, parameters};
pub use precision::Precision;
pub use preprocess::Preprocess;
pub use rename::parse_name_map;
pub use session::{Logits, Session, SessionBuilder};
pub use timing::LayerTiming;
