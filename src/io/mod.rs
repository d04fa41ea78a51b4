//! Files: written whole or not at all, read with bounds, and the container of models and checkpoints.

pub(crate) mod atomic;
pub(crate) mod checksum;
pub(crate) mod container;
pub(crate) mod header;
pub(crate) mod read;
