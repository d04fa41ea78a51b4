//! The `leanresnet` command-line tool: trains, evaluates and measures lean residual networks.
//!
//! Answers go to stdout, progress and messages to stderr. `leanresnet help VERB` explains each verb.
#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod bandwidth;
mod comparison;
mod configuration;
mod context;
mod curves;
mod data_source;
mod evaluate;
mod failure;
mod images;
mod interrupt;
mod model_source;
mod network_source;
mod progress;
mod shipped;
mod stopwatch;
mod table;
mod verbs;
mod whole_file;

use std::process::ExitCode;

use answer::Output;
use arguments::{Arguments, Verb};
use clap::Parser;
use context::Context;
use failure::Outcome;

fn main() -> ExitCode {
    interrupt::ignore_file_size_signal();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return arguments::report(&error),
    };
    let output = Output::new(arguments.verb.name(), &arguments.global);
    match run(arguments, &output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(output.failure(&failure)),
    }
}

fn run(arguments: Arguments, output: &Output) -> Outcome {
    let context = Context::new(&arguments.global, output);
    match arguments.verb {
        Verb::Doctor => verbs::doctor::run(&context),
        Verb::Summary(options) => verbs::summary::run(&context, &options),
        Verb::Train(options) => verbs::train::run(&context, &options),
        Verb::Eval(options) => verbs::eval::run(&context, &options),
        Verb::Predict(options) => verbs::predict::run(&context, &options),
        Verb::Bench(options) => verbs::bench::run(&context, &options),
        Verb::Import(options) => verbs::import::run(&context, &options),
        Verb::Export(options) => verbs::export::run(&context, &options),
        Verb::Verify(options) => verbs::verify::run(&context, &options),
        Verb::Completions(options) => verbs::completions::run(&options),
    }
}
