//! `leanresnet import`: a model file from the state dict or the ONNX model of another program.

pub mod onnx;

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use leanresnet::Network;
use leanresnet::net::{ImportReport, Preprocess, import, parse_name_map};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome, expected};
use crate::network_source::NetworkSource;

/// The largest file that is read, bytes: the largest network in f64.
const LARGEST_FILE: u64 = 1 << 35;
/// The largest map of names that is read, bytes.
const LARGEST_MAP: u64 = 1 << 24;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// A state dict, a safetensors file, for a network that --preset or --config names; or a model in ONNX, a file that ends in .onnx
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    #[arg(help = format!("The network of a state dict by name: {}", Network::PRESETS.join(", ")))]
    preset: Option<String>,
    /// The network of a state dict in a configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a key of the configuration, for example network.classes=100; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A file with lines `their.name = our.name`; a `*` at the end stands for any rest, nothing after `=` leaves a tensor out
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Mean of each channel that the network was trained with, for pixels in 0 to 1 [default: 0 for each]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviation of each channel that the network was trained with [default: 1 for each]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// The model file to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
}

#[derive(Serialize)]
struct Answer<'a> {
    loaded: usize,
    ignored: usize,
    missing: &'a [String],
    unexpected: &'a [String],
    misshaped: Vec<MisshapedKeys<'a>>,
    output: Option<&'a Path>,
}

#[derive(Serialize)]
struct MisshapedKeys<'a> {
    name: &'a str,
    expected: &'a [usize],
    got: &'a [usize],
}

/// Reads and writes.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    if onnx::is_onnx(&options.file) { onnx::run(context, options) } else { state_dict(context, options) }
}

/// Reads a state dict, compares it with a network, writes.
fn state_dict(context: &Context<'_>, options: &Options) -> Outcome {
    if options.preset.is_none() && options.config.is_none() {
        let message = expected("the network of a state dict", "--preset NAME or --config FILE", "neither");
        return Err(Failure::usage(message, "--preset base, for example; a file that ends in .onnx needs neither"));
    }
    let source =
        NetworkSource { model: None, preset: options.preset.clone(), config: options.config.clone(), set: options.set.clone() };
    let network = source.network()?;
    let map = match &options.map {
        Some(path) => parse_name_map(&read_text(path)?).map_err(|error| Failure::from(error).about(path))?,
        None => Vec::new(),
    };
    let name = options.file.display().to_string();
    let report = import(&read_file(&options.file, LARGEST_FILE)?, &name, &network, &map)?;
    let output = match &report.model {
        Some(model) => {
            let mut model = model.clone();
            if !options.mean.is_empty() {
                model = model.with_preprocess(Preprocess::new(&options.mean, &options.std))?;
            }
            model.save(&options.output)?;
            Some(options.output.as_path())
        }
        None => None,
    };
    let misshaped = report.misshaped.iter().map(|one| MisshapedKeys { name: &one.name, expected: &one.expected, got: &one.got });
    let answer = Answer {
        loaded: report.loaded,
        ignored: report.ignored,
        missing: &report.missing,
        unexpected: &report.unexpected,
        misshaped: misshaped.collect(),
        output,
    };
    context.output.answer(&answer, || text(&report, output))?;
    if output.is_some() { Ok(0) } else { Err(mismatch(&name, &report)) }
}

fn text(report: &ImportReport, output: Option<&Path>) -> String {
    let mut text = format!("{} tensors loaded, {} ignored\n", report.loaded, report.ignored);
    for (what, names) in [("missing", &report.missing), ("unexpected", &report.unexpected)] {
        for name in names {
            let _ = writeln!(text, "{what}: {name}");
        }
    }
    for one in &report.misshaped {
        let _ = writeln!(text, "misshaped: {}; expected {:?}, got {:?}", one.name, one.expected, one.got);
    }
    if let Some(path) = output {
        let _ = writeln!(text, "wrote {}", path.display());
    }
    text
}

fn mismatch(name: &str, report: &ImportReport) -> Failure {
    let got =
        format!("{} missing, {} unexpected, {} misshaped", report.missing.len(), report.unexpected.len(), report.misshaped.len());
    Failure::data(
        expected(format!("{name}: tensors"), "those of the network", got),
        "another --preset or --config, or --map FILE with lines `their.name = our.name`; leanresnet summary shows a network's layers",
    )
}

/// Reads a file of at most `largest` bytes, and no more of one that grows or never ends.
fn read_file(path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    let io = |error| Failure::io("read", path, &error);
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > largest {
        let message = expected(path.display(), format!("a file of at most {largest} bytes"), "a larger one");
        return Err(Failure::data(message, format!("ls -l {}", path.display())));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path, LARGEST_MAP)?).map_err(|_| {
        let message = expected(path.display(), "text", "bytes that are no UTF-8");
        Failure::data(message, "--map takes a text file with lines `their.name = our.name`")
    })
}
