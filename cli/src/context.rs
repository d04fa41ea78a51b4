//! What every verb needs of the command line: output, threads, instruction set.
#![forbid(unsafe_code)]

use leanresnet::{Isa, Pool, Precision, default_threads};

use crate::answer::Output;
use crate::arguments::{GlobalOptions, ProgressKind};
use crate::failure::{Failure, expected};

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
        one("--isa", &self.isa_list()?)
    }

    /// The instruction set for a precision: `--isa`, else `LEANRESNET_ISA`, else the best there is for it.
    pub fn isa_for(&self, precision: Precision) -> Result<Isa, Failure> {
        one("--isa", &self.isa_list_for(precision)?)
    }

    /// The instruction sets, of which only `bench` takes several.
    pub fn isa_list(&self) -> Result<Vec<Isa>, Failure> {
        if self.options.isa.is_empty() {
            return Ok(vec![Isa::active()?]);
        }
        let parse = |name: &String| Ok(name.parse::<Isa>().and_then(Isa::require)?);
        self.options.isa.iter().map(parse).collect()
    }

    /// [`Context::isa_list`] for a precision.
    pub fn isa_list_for(&self, precision: Precision) -> Result<Vec<Isa>, Failure> {
        if self.options.isa.is_empty() { Ok(vec![precision.isa()?]) } else { self.isa_list() }
    }

    /// The number of threads, and what decided it.
    pub fn threads(&self) -> Result<(usize, &'static str), Failure> {
        let from = if self.options.threads.iter().any(|&threads| threads > 0) { "--threads" } else { default_threads()?.1 };
        Ok((one("--threads", &self.threads_list()?)?, from))
    }

    /// The numbers of threads, of which only `bench` takes several.
    pub fn threads_list(&self) -> Result<Vec<usize>, Failure> {
        let automatic = default_threads()?.0;
        let list: Vec<usize> =
            self.options.threads.iter().map(|&threads| if threads == 0 { automatic } else { threads }).collect();
        Ok(if list.is_empty() { vec![automatic] } else { list })
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

/// The only value of a flag.
fn one<T: Copy>(flag: &str, values: &[T]) -> Result<T, Failure> {
    if let [value] = values {
        return Ok(*value);
    }
    let message = expected(flag, "one value", format!("{} values", values.len()));
    Err(Failure::usage(message, "only leanresnet bench takes lists: give the one to use"))
}
