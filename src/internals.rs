//! What this repository's own tests, benches and fuzz targets need and users do not. No stability.

/// The naive oracle.
pub mod reference {
    pub use crate::reference::*;
}
