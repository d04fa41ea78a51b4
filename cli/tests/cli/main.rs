//! The command-line tool as scripts see it: exit codes, messages, JSON, files.

mod answers;
mod datasets;
mod errors;
mod exchange;
mod recipe;
mod runs;
mod shipped;
mod support;
