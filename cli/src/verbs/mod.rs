//! The verbs of the command line, one module each.

pub mod bench;
pub mod completions;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod import;
pub mod predict;
pub mod summary;
pub mod train;
pub mod verify;
