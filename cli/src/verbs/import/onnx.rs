//! Import of ONNX models, which say themselves what network they hold.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::net::Preprocess;
use leanresnet::onnx::{ImportReport, import};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome, expected};
use crate::verbs::import::{Options, read_file};

/// The largest file that is read, bytes: the bound of protocol buffers.
const LARGEST_FILE: u64 = 1 << 31;

/// What to look at when a file is refused.
const HINT: &str =
    "README, ONNX, lists the operators; onnx.checker.check_model(FILE, full_check=True) in Python finds what is broken";

/// The keys of every import, and those of ONNX.
#[derive(Serialize)]
struct Answer<'a> {
    loaded: usize,
    ignored: usize,
    /// Models bring all tensors of their network and no others: the three lists are empty.
    missing: [&'a str; 0],
    unexpected: [&'a str; 0],
    misshaped: [&'a str; 0],
    output: &'a Path,
    opset: i64,
    producer: &'a str,
    nodes: usize,
    layers: usize,
    input: [usize; 3],
    classes: usize,
}

/// True for files that end in `.onnx`.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// Reads a file.
pub fn read(path: &Path) -> Result<ImportReport, Failure> {
    let name = path.display().to_string();
    import(&read_file(path, LARGEST_FILE)?, &name).map_err(|error| Failure::from(error).with_hint(HINT))
}

/// Reads and writes.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    check(options)?;
    let report = read(&options.file)?;
    let mut model = report.model.clone();
    if !options.mean.is_empty() {
        model = model.with_preprocess(Preprocess::new(&options.mean, &options.std))?;
    }
    model.save(&options.output)?;
    let answer = Answer {
        loaded: report.loaded,
        ignored: report.ignored,
        missing: [],
        unexpected: [],
        misshaped: [],
        output: &options.output,
        opset: report.opset,
        producer: &report.producer,
        nodes: report.nodes,
        layers: model.layers().len(),
        input: model.input(),
        classes: model.classes(),
    };
    context.output.answer(&answer, || text(&report, &answer))?;
    Ok(0)
}

/// Refuses options that describe a network.
fn check(options: &Options) -> Result<(), Failure> {
    let given = [
        ("--preset", options.preset.is_some()),
        ("--config", options.config.is_some()),
        ("--set", !options.set.is_empty()),
        ("--map", options.map.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let message = expected("options", "none that describes the network, which an ONNX file does", option);
            Err(Failure::usage(message, format!("leanresnet import {} -o model.safetensors", options.file.display())))
        }
    }
}

fn text(report: &ImportReport, answer: &Answer<'_>) -> String {
    let [channels, height, width] = answer.input;
    format!(
        "{} nodes of opset {} became {} layers, {channels} x {height} x {width} to {} classes\n\
         {} initialisers loaded, {} ignored\n\
         wrote {}\n",
        report.nodes,
        report.opset,
        answer.layers,
        answer.classes,
        report.loaded,
        report.ignored,
        answer.output.display()
    )
}
