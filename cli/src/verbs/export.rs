//! `leanresnet export`: a model in the formats of other programs.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use leanresnet::net::ParameterSpec;
use leanresnet::onnx::{self, ExportOptions};
use leanresnet::{Images, Model, Session, npy};
use serde::Serialize;

use crate::comparison::Comparison;
use crate::context::Context;
use crate::failure::{Failure, Outcome, expected};
use crate::images::RandomImages;
use crate::table::bytes;
use crate::{model_source, whole_file};

/// Random images that measure what folding changes.
const IMAGES: usize = 16;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// A model file, a checkpoint, a run folder (its best model, else its last), or cifar10-s, which comes with this tool
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    formats: Formats,
    /// Keep batch norms as nodes of their own in the ONNX file, instead of folding them into convolutions
    #[arg(long, requires = "onnx")]
    keep_norm: bool,
}

/// The files to write, at least one.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Formats {
    /// Write an ONNX file, opset 17: input `images` [batch, channels, height, width], normalised; output `logits` [batch, classes]
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    /// Write the tensors as a PyTorch state dict in a safetensors file, which `import` reads back
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Write the tensors as an archive of NumPy arrays
    #[arg(long, value_name = "FILE")]
    npz: Option<PathBuf>,
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    outputs: Vec<OutputKeys<'a>>,
    /// Nothing where no norms were to be folded: without ONNX, with --keep-norm.
    max_difference_folded: Option<f64>,
}

#[derive(Serialize)]
struct OutputKeys<'a> {
    format: &'static str,
    path: &'a Path,
    bytes: u64,
}

/// Exports.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let Formats { onnx, safetensors, npz } = &options.formats;
    let files = [("onnx", onnx), ("safetensors", safetensors), ("npz", npz)];
    let files: Vec<(&str, &Path)> = files.into_iter().filter_map(|(format, file)| Some((format, file.as_deref()?))).collect();
    check(&options.model, &files)?;
    let loaded = model_source::load(&options.model)?;
    let export = ExportOptions::default().with_keep_norm(options.keep_norm);
    let mut outputs = Vec::new();
    for (format, path) in files {
        match format {
            "onnx" => whole_file::write(path, &onnx::export(&loaded.model, &export)?)?,
            "safetensors" => whole_file::write(path, &loaded.model.to_state_dict()?)?,
            _ => write_npz(path, &loaded.model)?,
        }
        let bytes = path.metadata().map_err(|error| Failure::io("read", path, &error))?.len();
        outputs.push(OutputKeys { format, path, bytes });
    }
    let is_folded = onnx.is_some() && !options.keep_norm;
    let max_difference_folded = is_folded.then(|| folding_difference(context, &loaded.model)).transpose()?;
    let answer = Answer { model: &loaded.name, outputs, max_difference_folded };
    context.output.answer(&answer, || text(&answer))?;
    Ok(0)
}

/// Writes the model's tensors as an archive of arrays. The counters of batch norms, which models do not hold, are 0.
fn write_npz(path: &Path, model: &Model) -> Result<(), Failure> {
    let parameters = model.parameters();
    let array = |spec: &ParameterSpec| match model.tensor(&spec.name) {
        Some((_, values)) => npy::Values::F32(values),
        None => npy::Values::I64(&[0]),
    };
    let arrays: Vec<_> = parameters.iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice(), array(spec))).collect();
    Ok(npy::write_npz(path, &arrays)?)
}

/// Checks that no file is written twice or in place of the model.
fn check(model: &Path, files: &[(&str, &Path)]) -> Result<(), Failure> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for (index, (format, path)) in files.iter().enumerate() {
        let is_taken = files[..index].iter().any(|(_, other)| place(other) == place(path));
        if is_taken || place(model) == place(path) {
            let got = format!("`{}`, which is {}", path.display(), if is_taken { "that of another format" } else { "MODEL" });
            return Err(Failure::usage(expected(format!("--{format}"), "a file of its own", got), "give another name"));
        }
    }
    Ok(())
}

/// The largest difference of two logits on random images when the model runs in f32 with norms folded into convolutions, and with norms
/// as operators of their own, each node as in the file.
fn folding_difference(context: &Context<'_>, model: &Model) -> Result<f64, Failure> {
    let run = |keep_norm: bool| {
        let graph = onnx::as_graph(model, &ExportOptions::default().with_keep_norm(keep_norm))?;
        let mut session = Session::builder(&graph).pool(context.pool()?).max_batch(IMAGES).isa(context.isa()?).build()?;
        let [channels, height, width] = model.input();
        let mut values = vec![0.0; IMAGES * channels * height * width];
        RandomImages::new(model, 0).read(&mut values);
        let logits = session.run(Images::nchw_f32(&values, [IMAGES, channels, height, width])?)?;
        Ok::<_, Failure>(logits.as_slice().to_vec())
    };
    let mut comparison = Comparison::default();
    comparison.add(&run(false)?, &run(true)?, model.classes());
    Ok(comparison.max_difference)
}

fn text(answer: &Answer<'_>) -> String {
    let mut text = String::new();
    for output in &answer.outputs {
        let _ = writeln!(text, "wrote {} ({}, {})", output.path.display(), output.format, bytes(output.bytes));
    }
    if let Some(difference) = answer.max_difference_folded {
        let _ = writeln!(
            text,
            "folding the norms changes logits by at most {difference:.2e} ({IMAGES} random images, beside norms as operators of their own)"
        );
    }
    text
}
