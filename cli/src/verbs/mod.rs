//! The verbs of the command line, one module each.

pub mod completions;
pub mod doctor;
pub mod import;
pub mod summary;
