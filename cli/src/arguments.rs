//! The command line: global options, the list of verbs, and what happens when it cannot be parsed.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use leanresnet::Network;
use leanresnet::train::recipe;

use crate::answer::Output;
use crate::failure::Failure;
use crate::verbs::{bench, completions, eval, export, import, predict, summary, train, verify};

/// Trains, evaluates and measures lean residual networks on CPUs.
///
/// stdout has the answer, stderr progress and messages.
/// Exit codes: 0 done; 1 the system failed; 2 usage; 3 bad data or model; 4 training diverged; 130 and 143 interrupted.
#[derive(Parser)]
#[command(name = "leanresnet", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "Examples:
  leanresnet train                                     train on the built-in data, in two minutes
  leanresnet train --data cifar10 --data-dir DIR       train on CIFAR-10
  leanresnet eval runs/small-synthetic-1               how good it is
  leanresnet predict photo.png                         what the model that comes with this tool sees in it
  leanresnet doctor                                    what this machine and this build can do";

const TRAIN_EXAMPLES: &str = "Examples:
  leanresnet train
  leanresnet train --data cifar10 --data-dir cifar-10-batches-bin --validation 5000
  leanresnet train --preset cifar10-s --data cifar10 --data-dir cifar-10-batches-bin
  leanresnet train --config runs/small-cifar10-1/config.toml --set network.block.stencil=box9 --lr 0.2
  leanresnet train --resume runs/small-cifar10-1 --epochs 30";

/// The end of `leanresnet train --help`.
fn train_examples_and_recipes() -> String {
    let recipes = Network::PRESETS.iter().filter_map(|preset| Some((preset, recipe(preset)?)));
    let text =
        |(preset, recipe): (&&str, &str)| format!("\n\nRecipe of {preset}:\n  {}", recipe.trim_end().replace('\n', "\n  "));
    TRAIN_EXAMPLES.to_owned() + &recipes.map(text).collect::<String>()
}

/// Options of every verb. A flag goes before the environment, that before a file, that before a preset.
#[derive(Args, Clone, Debug)]
pub struct GlobalOptions {
    /// Answer in JSON, one object per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// No progress and no messages but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// More messages
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Number of threads, 0 for as many as there are cores; a list for bench [env: LEANRESNET_NUM_THREADS]
    #[arg(long, global = true, value_name = "N", value_delimiter = ',', help_heading = "Global options")]
    pub threads: Vec<usize>,
    /// Instruction set: portable, neon, neonbf16, avx2, avx512, avx512bf16 or amx; a list for bench [env: LEANRESNET_ISA] [default: the best]
    #[arg(long, global = true, value_name = "TIER", value_delimiter = ',', help_heading = "Global options")]
    pub isa: Vec<String>,
    /// How progress is shown; auto is a bar on a terminal and plain lines elsewhere
    #[arg(long, global = true, value_name = "KIND", default_value = "auto", help_heading = "Global options")]
    pub progress: ProgressKind,
}

/// How progress is shown on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// One line per epoch.
    Plain,
    /// Nothing.
    None,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Show what this machine and this build can do, and what is wrong with them
    #[command(after_help = "Example: leanresnet doctor --json")]
    Doctor,
    /// List the layers of a network with their sizes and costs
    #[command(after_help = "Example: leanresnet summary --preset base --batch 8")]
    Summary(summary::Options),
    /// Train a network, or go on with a run
    ///
    /// Without arguments: the network `small` on the built-in data. A new folder under runs/ holds configuration, results per
    /// epoch, curves, model and checkpoints. SIGINT (Ctrl-C) and SIGTERM save after the step; a second one leaves at once.
    ///
    /// A preset may bring a recipe in place of the defaults below: see the end of this help. Flags, --set and the keys of a configuration
    /// file override it one by one. With other --epochs, the peak keeps its place in the run; a resumed run keeps the peak that
    /// it has. Another schedule takes only the rate, another optimiser nothing.
    #[command(after_help = TRAIN_EXAMPLES, after_long_help = train_examples_and_recipes())]
    Train(Box<train::Options>),
    /// Judge a model by the test images of a data set
    #[command(after_help = "Examples:
  leanresnet eval runs/small-cifar10-1 --data-dir cifar-10-batches-bin
  leanresnet eval --data cifar10 --data-dir cifar-10-batches-bin      the model that comes with this tool
  leanresnet eval runs/small-folder-1 --data folder --data-dir pictures")]
    Eval(eval::Options),
    /// Show what a model sees in pictures, or write its outputs for an array of images
    #[command(after_help = "Examples:
  leanresnet predict photo.png other.jpg
  leanresnet predict runs/small-synthetic-1 picture.png --top 3
  leanresnet predict base.safetensors --input x.npy --output y.npy
  leanresnet predict base.safetensors --input test.npz --output logits.npz")]
    Predict(predict::Options),
    /// Measure how fast networks, layers and training run, beside the peak of the machine
    #[command(after_help = "Example: leanresnet bench net --preset small --batch 1,64 --isa avx2,avx512 --json")]
    Bench(bench::Options),
    /// Make a model file from the state dict of another program (safetensors)
    #[command(after_help = "Example: leanresnet import state_dict.safetensors --preset base -o base.safetensors")]
    Import(import::Options),
    /// Write a model for other programs: ONNX, a PyTorch state dict, NumPy arrays
    #[command(after_help = "Examples:
  leanresnet export runs/small-cifar10-1 --onnx small.onnx
  leanresnet export base.safetensors --onnx base.onnx --keep-norm --safetensors state_dict.safetensors --npz base.npz")]
    Export(export::Options),
    /// Compare the logits of a model with those of another one, or of another program
    ///
    /// Both see the same images. Exit code 1 if they disagree by more than the tolerance.
    #[command(after_help = "Examples:
  leanresnet verify runs/small-cifar10-1 --against small.onnx
  leanresnet verify base.safetensors --input x.npy --against logits.npy      logits that another program made of x.npy")]
    Verify(verify::Options),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example: leanresnet completions bash > ~/.local/share/bash-completion/completions/leanresnet")]
    Completions(completions::Options),
}

impl Verb {
    /// The word on the command line, and the value of `verb` in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Doctor => "doctor",
            Verb::Summary(_) => "summary",
            Verb::Train(_) => "train",
            Verb::Eval(_) => "eval",
            Verb::Predict(_) => "predict",
            Verb::Bench(_) => "bench",
            Verb::Import(_) => "import",
            Verb::Export(_) => "export",
            Verb::Verify(_) => "verify",
            Verb::Completions(_) => "completions",
        }
    }
}

/// Shows what is wrong with the command line, or the help that was asked for.
pub fn report(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that has seen enough of the help is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rendered = error.render().to_string();
    let (message, _) = rendered.split_once("\n\nFor more information").unwrap_or((rendered.trim_end(), ""));
    let hint = format!("{} --help", ["leanresnet"].into_iter().chain(verb_path(&words)).collect::<Vec<_>>().join(" "));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = write!(std::io::stderr(), "{rendered}");
    } else {
        let _ = writeln!(std::io::stderr(), "{message}\nhint: {hint}");
    }
    let json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    if json {
        let message = message.strip_prefix("error: ").unwrap_or(message);
        Output::print_json_error(None, &Failure::usage(message, hint));
    }
    ExitCode::from(2)
}

/// The verb, and what `bench` measures, among the words of a command line that could not be parsed.
fn verb_path(words: &[String]) -> Vec<&str> {
    let command = <Arguments as clap::CommandFactory>::command();
    let mut path = Vec::new();
    let mut place = &command;
    for word in words {
        if let Some(found) = place.find_subcommand(word) {
            path.push(word.as_str());
            place = found;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_has_no_conflicts() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        for verb in Arguments::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("leanresnet {}", verb.get_name());
            assert!(help.contains(&example), "{}: {help}", verb.get_name());
        }
    }
}
