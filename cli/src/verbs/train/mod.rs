//! `leanresnet train`: trains a network, or goes on with a run.

mod answer;
mod fresh;
mod options;
mod resume;
mod session;

pub use options::Options;

use crate::context::Context;
use crate::failure::Outcome;
use crate::interrupt::Interrupt;

/// Trains.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let interrupt = Interrupt::install()?;
    let session = match &options.resume {
        Some(folder) => resume::prepare(context, folder, options.epochs, &interrupt)?,
        None => fresh::prepare(context, options, &interrupt)?,
    };
    session.run(context, &interrupt)
}
