//! Lean convolutional residual networks that are fast on ordinary CPUs, to run and to train.

#[cfg(feature = "train")]
pub mod data;
pub mod error;
mod random;

pub use error::{Error, ErrorKind, Result};
