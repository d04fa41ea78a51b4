//! ONNX, the exchange format of other engines: their models here, ours there.

mod expand;
mod export;
mod import;
pub(crate) mod proto;
mod write;

pub use export::{ExportOptions, as_graph, export};
pub use import::{ImportReport, import};
