//! ONNX, the exchange format of other engines: their models here, ours there.

mod import;
pub(crate) mod proto;

pub use import::{ImportReport, import};
