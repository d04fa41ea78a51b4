//! Files: written whole or not at all, read with bounds, and the container of models and checkpoints.

pub(crate) mod atomic;
pub(crate) mod checksum;
pub(crate) mod container;
#[cfg(any(feature = "train", feature = "npy", feature = "image"))]
pub(crate) mod data_file;
pub(crate) mod header;
#[cfg(feature = "npy")]
pub mod npy;
#[cfg(feature = "image")]
pub mod picture;
pub(crate) mod read;
