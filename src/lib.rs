//! Lean convolutional residual networks that are fast on ordinary CPUs, to run and to train.

#[cfg(feature = "train")]
pub mod data;
pub mod error;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
#[cfg(feature = "__internals")]
mod reference;

pub use error::{Error, ErrorKind, Result};
