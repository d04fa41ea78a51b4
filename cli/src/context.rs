//! What every verb needs of the command line: output, threads, instruction set.
#![forbid(unsafe_code)]

use leanresnet::{Isa, Pool, default_threads};

use crate::answer::Output;
use crate::arguments::{GlobalOptions, ProgressKind};
use crate::failure::Failure;

/// The global options with the output that they ask for.
pub struct Context<'a> {
    /// Where answers and messages go.
    pub output: &'a Output,
    options: &'a GlobalOptions,
}

impl<'a> Context<'a> {
    /// The context of a command line.
    pub fn new(options: &'a GlobalOptions, output: &'a Output) -> Self {
        Self { output, options }
    }

    /// The instruction set: `--isa`, else `LEANRESNET_ISA`, else the best there is.
    pub fn isa(&self) -> Result<Isa, Failure> {
        match &self.options.isa {
            Some(name) => Ok(name.parse::<Isa>().and_then(Isa::require)?),
            None => Ok(Isa::active()?),
        }
    }

    /// The number of threads, and what decided it.
    pub fn threads(&self) -> Result<(usize, &'static str), Failure> {
        match self.options.threads {
            None | Some(0) => Ok(default_threads()?),
            Some(threads) => Ok((threads, "--threads")),
        }
    }

    /// The threads.
    pub fn pool(&self) -> Result<Pool, Failure> {
        Ok(Pool::new(self.threads()?.0)?)
    }

    /// How progress is shown.
    pub fn progress(&self) -> ProgressKind {
        if self.output.is_quiet() { ProgressKind::None } else { self.options.progress }
    }
}
