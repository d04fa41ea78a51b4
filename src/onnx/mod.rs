//! ONNX, the exchange format of other engines: their models here, ours there.

mod expand;
mod export;
pub(crate) mod proto;
mod write;

pub use export::{ExportOptions, as_graph, export};
