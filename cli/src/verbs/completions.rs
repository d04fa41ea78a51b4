//! `leanresnet completions`: scripts that complete commands in a shell.
#![forbid(unsafe_code)]

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::answer;
use crate::arguments::Arguments;
use crate::failure::{Failure, Outcome};

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(options: &Options) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "leanresnet", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::bug(error.to_string()))?;
    answer::print(&script)?;
    Ok(0)
}
