//! The command-line tool as scripts see it: exit codes, messages, JSON, files.

mod answers;
mod errors;
mod runs;
mod support;
