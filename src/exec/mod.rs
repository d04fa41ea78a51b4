//! Running work on threads: pools, regions of phases, memory that tasks share.

pub(crate) mod activation;
pub(crate) mod peak;
mod phases;
pub(crate) mod pool;
pub(crate) mod region;
pub(crate) mod segment;
pub(crate) mod shared;
pub(crate) mod tensor;
pub(crate) mod window_pool;
