//! `leanresnet predict`: what a model sees in pictures, or its outputs for an array of images.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use leanresnet::{Error, Images, Model, Precision, Session, npy, picture};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome, expected};
use crate::images::ImageArray;
use crate::model_source::{self, LoadedModel};
use crate::table::percent;

/// What the array of logits in an archive is called.
const OUTPUT_ARRAY: &str = "logits";

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// A model file, a checkpoint, a run folder (its best model, else its last), or cifar10-s, which comes with this tool
    /// [default: cifar10-s]
    ///
    /// May be left out: a first word that is a picture, by the content of the file or the extension of its name, is no model.
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Pictures (PNG, JPEG, PPM); scaled to the network's input, or as the model says to a shorter side whose centre is cut out
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Classes to list per picture
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// An array of images instead: .npy, or .npz with the array x or a single one; [n, channels, height, width]; float32 or float64 as the network
    /// reads them, or uint8, which the model normalises
    #[arg(long, value_name = "X.npy", requires = "output")]
    input: Option<PathBuf>,
    /// Where the logits go: .npy, or .npz with the array logits; float32, [n, classes]
    #[arg(long, value_name = "Y.npy", requires = "input")]
    output: Option<PathBuf>,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    batch: u32,
    /// Number format to compute in: f32; bf16; bf16x3, which is near f32 on AMX and f32 elsewhere; or the one of bf16 (auto) or bf16x3
    /// (auto-near-f32) and f32 that is measured to be faster here, by 1.1 times at least
    #[arg(long, value_name = "NAME", default_value = "f32")]
    dtype: Precision,
}

#[derive(Serialize)]
struct PictureAnswer<'a> {
    model: &'a str,
    file: &'a Path,
    top: Vec<Guess<'a>>,
}

#[derive(Serialize)]
struct Guess<'a> {
    index: usize,
    class: &'a str,
    probability: f64,
}

#[derive(Serialize)]
struct ArrayAnswer<'a> {
    model: &'a str,
    images: usize,
    shape: [usize; 2],
    output: &'a Path,
}

/// Predicts.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let isa = context.isa_for(options.dtype)?;
    let (path, images) = model_and_images(options);
    check(options, path, &images)?;
    let loaded = model_source::load_or_shipped(path, context.output)?;
    let work = images.len().max(if options.input.is_some() { options.batch as usize } else { 1 });
    let batch = (options.batch as usize).min(work);
    let session =
        Session::builder(&loaded.model).pool(context.pool()?).max_batch(batch).isa(isa).precision(options.dtype).build()?;
    context.output.detail(&format!("computing in {} on {isa}", session.precision()));
    match (&options.input, &options.output) {
        (Some(input), Some(output)) => array(context, &loaded, session, (input, output), batch),
        _ => pictures(context, &loaded, session, (&images, options.top as usize), batch),
    }
}

/// What the words of the command line mean: the first one is a model unless it is a picture.
fn model_and_images(options: &Options) -> (Option<&Path>, Vec<&Path>) {
    let (first, rest) = (options.model.as_deref(), options.images.iter().map(PathBuf::as_path));
    match first {
        Some(first) if picture::is_picture(first) => (None, std::iter::once(first).chain(rest).collect()),
        first => (first, rest.collect()),
    }
}

/// Checks that there are pictures or an array, and not both, and no model among the pictures.
fn check(options: &Options, model: Option<&Path>, images: &[&Path]) -> Result<(), Failure> {
    if let Some(folder) = images.iter().find(|image| image.is_dir()) {
        let message = expected("IMAGE", "a picture", format!("the folder `{}`", folder.display()));
        return Err(Failure::usage(message, format!("a MODEL comes first: leanresnet predict {} picture.png", folder.display())));
    }
    let got = match (&options.input, images, model) {
        (None, [], None) => "neither".to_owned(),
        (None, [], Some(model)) => format!("only `{}`, which is taken for a MODEL", model.display()),
        (Some(_), [image, ..], _) => format!("both --input and `{}`", image.display()),
        _ => return Ok(()),
    };
    let hint = "leanresnet predict picture.png, or leanresnet predict MODEL picture.png";
    Err(Failure::usage(expected("predict", "an IMAGE (PNG, JPEG, PPM) or more, or --input X.npy", got), hint))
}

fn pictures(
    context: &Context<'_>,
    loaded: &LoadedModel,
    mut session: Session,
    (images, top): (&[&Path], usize),
    batch: usize,
) -> Outcome {
    let LoadedModel { model, name, .. } = loaded;
    let [channels, height, width] = model.input();
    for files in images.chunks(batch) {
        let mut pixels = Vec::with_capacity(files.len() * channels * height * width);
        for file in files {
            pixels.extend(load(file, model)?);
        }
        let logits = session.run(Images::nhwc_u8(&pixels, [files.len(), channels, height, width])?)?;
        for (index, file) in files.iter().enumerate() {
            let answer = PictureAnswer { model: name, file, top: guesses(model, logits.row(index), top) };
            context.output.answer(&answer, || text(&answer))?;
        }
    }
    Ok(0)
}

/// A picture as the model reads it.
fn load(file: &Path, model: &Model) -> Result<Vec<u8>, Failure> {
    picture::load(file, model.input(), model.preprocess().resize).map_err(|error| match error {
        Error::Data { .. } => {
            Failure::from(error).with_hint(format!("file {} shows what it is; PNG, JPEG and PPM can be read", file.display()))
        }
        Error::Invalid { .. } => {
            Failure::from(error).with_hint("leanresnet predict MODEL --input x.npy --output y.npy takes images of any kind")
        }
        other => other.into(),
    })
}

/// The classes with the largest probabilities.
fn guesses<'a>(model: &'a Model, logits: &[f32], count: usize) -> Vec<Guess<'a>> {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
    let class = |index: usize| model.class_names().get(index).map_or("", String::as_str);
    let guess = |index: usize| Guess { index, class: class(index), probability: probabilities[index] };
    order.into_iter().take(count).map(guess).collect()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| libm::exp(f64::from(logit) - f64::from(largest))).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn text(answer: &PictureAnswer<'_>) -> String {
    let mut text = format!("{}\n", answer.file.display());
    for guess in &answer.top {
        let _ = writeln!(text, "  {:>8}  {} {}", percent(guess.probability), guess.index, guess.class);
    }
    text
}

fn array(
    context: &Context<'_>,
    loaded: &LoadedModel,
    mut session: Session,
    (input, output): (&Path, &Path),
    batch: usize,
) -> Outcome {
    let LoadedModel { model, name, .. } = loaded;
    let mut array = ImageArray::open(input, model, batch)?;
    let (images, classes) = (array.count(), model.classes());
    npy::write(output, OUTPUT_ARRAY, &[images, classes], |writer| {
        for start in (0..images).step_by(batch) {
            writer.write(session.run(array.read(batch.min(images - start))?)?.as_slice())?;
        }
        Ok::<(), Failure>(())
    })?;
    let answer = ArrayAnswer { model: name, images, shape: [images, classes], output };
    context.output.answer(&answer, || format!("{images} images; logits [{images}, {classes}] in {}\n", output.display()))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leanresnet::Network;

    #[test]
    fn guesses_are_ordered_probabilities() {
        let model = Model::random(&Network::preset("small").unwrap(), 1);
        let logits = [0.0, 3.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0];
        let guesses = guesses(&model, &logits, 3);
        assert_eq!(guesses.iter().map(|guess| guess.index).collect::<Vec<_>>(), [1, 3, 2]);
        let sum: f64 = softmax(&logits).iter().sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((guesses[0].probability / guesses[2].probability - 2_f64.exp()).abs() < 1e-9);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(softmax(&[1e38, 0.0]), [1.0, 0.0]);
    }
}
