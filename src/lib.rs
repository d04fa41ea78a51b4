#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod build_info;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
pub mod conv;
#[cfg(feature = "train")]
pub mod data;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod dispatch;
pub mod error;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod exec;
mod ffi;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod internals;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod io;
pub mod isa;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod kernel;
mod log;
pub mod machine;
mod memory;
mod named_enum;
pub mod net;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod portable;
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "training uses the rest"))]
mod random;
#[cfg(feature = "__internals")]
mod reference;
pub mod stencil;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, ErrorKind, Result};
pub use exec::peak::{load_peak_gflops, peak_gflops};
pub use exec::pool::{Pool, default_threads};
#[cfg(feature = "npy")]
pub use io::npy;
#[cfg(feature = "image")]
pub use io::picture;
pub use isa::Isa;
pub use net::{Calibration, Images, Logits, Model, Network, Precision, Session};
pub use stencil::Stencil;
#[cfg(feature = "train")]
pub use train::{Observer, RunConfig, TrainConfig, Trainer};
