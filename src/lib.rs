//! Lean convolutional residual networks that are fast on ordinary CPUs, to run and to train.

#[cfg(feature = "train")]
pub mod data;
pub mod error;
mod io;
mod named_enum;
pub mod net;
mod random;
mod stencil;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, ErrorKind, Result};
pub use net::{Model, Network};
pub use stencil::Stencil;
#[cfg(feature = "train")]
pub use train::{Observer, RunConfig, TrainConfig, Trainer};
