//! What this repository's own tests, benches and fuzz targets need and users do not. No stability.
#![forbid(unsafe_code)]

/// The naive oracle.
pub mod reference {
    pub use crate::reference::*;
}

/// Packed weights.
pub mod pack {
    pub use crate::conv::pack::*;
}
/// The rows that were compiled.
pub use crate::ffi::compiled;
/// The tables of kernels.
pub mod dispatch {
    pub use crate::dispatch::*;
}
/// Kernels behind safe calls.
pub mod kernel {
    pub use crate::kernel::{conv, element, elementwise, gradient, rows, target, upcoming};
}
/// The synchronisation of threads alone.
pub use crate::exec::region::TimedPhases;
/// ONNX's messages.
#[cfg(feature = "onnx")]
pub mod onnx_proto {
    pub use crate::onnx::proto::*;
}
