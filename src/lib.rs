#![doc = include_str!("../README.md")]

pub mod build_info;
pub mod conv;
#[cfg(feature = "train")]
pub mod data;
mod dispatch;
pub mod error;
mod exec;
mod ffi;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
mod io;
pub mod isa;
mod kernel;
mod named_enum;
pub mod net;
mod portable;
mod random;
#[cfg(feature = "__internals")]
mod reference;
pub mod stencil;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, ErrorKind, Result};
pub use exec::pool::{Pool, default_threads};
pub use isa::Isa;
pub use net::{Images, Logits, Model, Network, Session};
pub use stencil::Stencil;
#[cfg(feature = "train")]
pub use train::{Observer, RunConfig, TrainConfig, Trainer};
