//! `leanresnet bench`: how fast networks, layers and training steps run, beside the peak of the machine.

mod cell;
mod layer;
mod layers;
mod net;
mod options;
mod train;

pub use options::Options;

use crate::context::Context;
use crate::failure::Outcome;
use options::Subject;

/// Measures all cells, interleaved, and prints them.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let (cells, measure) = match &options.subject {
        Subject::Net(subject) => (net::cells(context, subject)?, &subject.network.measure),
        Subject::Layer(subject) => (layer::cells(context, subject)?, &subject.measure),
        Subject::Train(subject) => (train::cells(context, subject)?, &subject.network.measure),
    };
    cell::measure(context, cells, measure)?;
    Ok(0)
}
