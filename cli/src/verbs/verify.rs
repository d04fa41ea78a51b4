//! `leanresnet verify`: whether a model computes what another one, or another program, computes.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use clap::Args;
use leanresnet::{Error, Images, Model, Session, npy};
use serde::Serialize;

use crate::comparison::{Comparison, default_tolerance};
use crate::context::Context;
use crate::failure::{Failure, Outcome, expected};
use crate::images::{ImageArray, RandomImages};
use crate::model_source;
use crate::table::percent;
use crate::verbs::import::onnx;

/// Images at once.
const BATCH: usize = 64;
/// What the array of logits in an archive is called.
const LOGITS_ARRAY: &str = "logits";
/// The images without --input.
const SEED: u64 = 1;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// A model file, a checkpoint, a run folder (its best model, else its last), or cifar10-s, which comes with this tool
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What to compare with: another model, an ONNX file (.onnx), or the logits that another program made of the images of --input: .npy,
    /// or .npz with the array logits or a single one; float32, [n, classes]
    #[arg(long, value_name = "FILE")]
    against: PathBuf,
    /// The images: .npy, or .npz with the array x or a single one; [n, channels, height, width]; float32 as the network reads them, or uint8,
    /// which the model normalises
    #[arg(long, value_name = "X.npy", conflicts_with = "samples")]
    input: Option<PathBuf>,
    /// Number of random images, without --input
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    samples: u32,
    /// Largest difference, relative to the largest logit of the image, that is no disagreement
    /// [default: 8 u sqrt(n), u = 2^-24 and n the roundings on the way through all layers; 2e-5 for small, 4e-5 for imagenet]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = parse_tolerance)]
    tolerance: Option<f64>,
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "a number that is not negative is expected".to_owned())
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    against: &'a Path,
    images: usize,
    /// Nothing if a logit is no finite number; the same below.
    max_difference: Option<f64>,
    max_relative: Option<f64>,
    tolerance: f64,
    top1_agreement: f64,
    passed: bool,
}

/// Where the images come from.
enum Source {
    File(Box<ImageArray>),
    /// With room for the images of a part.
    Random(Box<RandomImages>, Vec<f32>),
}

/// Where the logits to compare with come from.
enum Reference {
    Model(Box<Session>),
    File(Box<npy::Reader>),
}

/// Compares.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let loaded = model_source::load(&options.model)?;
    let model = &loaded.model;
    let [channels, height, width] = model.input();
    let (image, classes) = (channels * height * width, model.classes());
    let (count, mut source) = if let Some(path) = &options.input {
        let array = ImageArray::open(path, model, BATCH)?;
        (array.count(), Source::File(Box::new(array)))
    } else {
        let count = options.samples as usize;
        (count, Source::Random(Box::new(RandomImages::new(model, SEED)), vec![0.0; BATCH.min(count) * image]))
    };
    if count == 0 {
        return Err(Failure::usage(expected("--input", "at least one image", "none"), "leanresnet verify --help"));
    }
    let mut reference = reference(context, options, model, count)?;
    let mut session = session(context, model)?;
    let mut expected_logits = vec![0.0; BATCH.min(count) * classes];
    let mut comparison = Comparison::default();
    for start in (0..count).step_by(BATCH) {
        let batch = BATCH.min(count - start);
        let expected_logits = &mut expected_logits[..batch * classes];
        let images = match &mut source {
            Source::File(array) => array.read(batch)?,
            Source::Random(random, room) => {
                let values = &mut room[..batch * image];
                random.read(values);
                Images::nchw_f32(values, [batch, channels, height, width])?
            }
        };
        match &mut reference {
            Reference::File(reader) => {
                reader.read_f32(expected_logits).map_err(of_logits)?;
            }
            Reference::Model(session) => expected_logits.copy_from_slice(session.run(images)?.as_slice()),
        }
        comparison.add(session.run(images)?.as_slice(), expected_logits, classes);
    }
    answer(context, options, &loaded.name, &comparison, options.tolerance.unwrap_or_else(|| default_tolerance(model)))
}

fn answer(context: &Context<'_>, options: &Options, model: &str, comparison: &Comparison, tolerance: f64) -> Outcome {
    let Comparison { images, max_difference, max_relative, .. } = *comparison;
    let finite = |value: f64| value.is_finite().then_some(value);
    let passed = max_relative <= tolerance;
    let top1_agreement = comparison.top1_agreement();
    let answer = Answer {
        model,
        against: &options.against,
        images,
        max_difference: finite(max_difference),
        max_relative: finite(max_relative),
        tolerance,
        top1_agreement,
        passed,
    };
    context.output.answer(&answer, || {
        format!(
            "{images} images: largest difference {max_difference:.2e}, relative {max_relative:.2e} (at most {tolerance:.2e}), top-1 agreement {}\n",
            percent(top1_agreement)
        )
    })?;
    if passed {
        return Ok(0);
    }
    let what = format!("logits of {model} and {}", options.against.display());
    let message = expected(what, format!("a relative difference of at most {tolerance:.2e}"), format!("{max_relative:.2e}"));
    Err(Failure::disagreement(
        message,
        "leanresnet summary MODEL shows what each of them is; --tolerance X allows larger differences",
    ))
}

/// What to compare with.
fn reference(context: &Context<'_>, options: &Options, model: &Model, images: usize) -> Result<Reference, Failure> {
    let path = &options.against;
    let fits = |what: &str, wanted: String, got: String| {
        if wanted == got {
            return Ok(());
        }
        let hint = "leanresnet summary MODEL shows the input and the classes of a model";
        Err(Failure::data(expected(format!("{}: {what}", path.display()), wanted, got), hint))
    };
    if path.extension().is_some_and(|extension| ["npy", "npz"].iter().any(|array| extension.eq_ignore_ascii_case(array))) {
        if options.input.is_none() {
            let message = expected("--against", "--input beside logits, with the images that they were made of", "no --input");
            return Err(Failure::usage(message, "leanresnet verify MODEL --input x.npy --against y.npy"));
        }
        let reader = npy::open(path, LOGITS_ARRAY).map_err(of_logits)?;
        fits("shape", format!("{:?}", [images, model.classes()]), format!("{:?}", reader.shape()))?;
        return Ok(Reference::File(Box::new(reader)));
    }
    let other = if onnx::is_onnx(path) { onnx::read(path)?.model } else { model_source::load(path)?.model };
    fits("input", format!("{:?}", model.input()), format!("{:?}", other.input()))?;
    fits("classes", model.classes().to_string(), other.classes().to_string())?;
    Ok(Reference::Model(Box::new(session(context, &other)?)))
}

/// An error in an array of logits that is read, with the way to make a right one.
fn of_logits(error: Error) -> Failure {
    let is_of_data = matches!(error, Error::Data { .. });
    let failure = Failure::from(error);
    if is_of_data {
        failure.with_hint("in Python: numpy.save('y.npy', logits.astype('float32')) with logits [n, classes]")
    } else {
        failure
    }
}

fn session(context: &Context<'_>, model: &Model) -> Result<Session, Failure> {
    Ok(Session::builder(model).pool(context.pool()?).max_batch(BATCH).isa(context.isa()?).build()?)
}
