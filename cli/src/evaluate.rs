//! Judging a model by a data set.
#![forbid(unsafe_code)]

use std::time::Instant;

use leanresnet::data::Dataset;
use leanresnet::train::Evaluation;
use leanresnet::{Images, Isa, Model, Pool, Precision, Session};

use crate::failure::{Failure, expected};
use crate::interrupt::Interrupt;

/// How a model does on a data set.
pub struct Verdict {
    /// Counts and loss.
    pub evaluation: Evaluation,
    /// What it was computed in.
    pub precision: Precision,
    /// Milliseconds of computation per image, without reading the data.
    pub ms_per_image: f64,
}

/// Runs `model` on every image of `dataset` in batches of `batch`. `None` after a signal.
///
/// `progress` hears how many images are done.
pub fn evaluate(
    model: &Model,
    dataset: &dyn Dataset,
    batch: usize,
    (pool, isa, precision): (Pool, Isa, Precision),
    interrupt: &Interrupt,
    mut progress: impl FnMut(usize),
) -> Result<Option<Verdict>, Failure> {
    check(model, dataset)?;
    let batch = batch.min(dataset.len()).max(1);
    let mut session = Session::builder(model).pool(pool).max_batch(batch).isa(isa).precision(precision).build()?;
    let [channels, height, width] = dataset.shape();
    let image = channels * height * width;
    let mut pixels = vec![0; batch * image];
    let mut evaluation = Evaluation::new(model.classes());
    let mut seconds = 0.0;
    for start in (0..dataset.len()).step_by(batch) {
        if interrupt.received().is_some() {
            return Ok(None);
        }
        let indices = start..(start + batch).min(dataset.len());
        let pixels = &mut pixels[..indices.len() * image];
        for (index, pixels) in indices.clone().zip(pixels.chunks_exact_mut(image)) {
            dataset.image(index, pixels)?;
        }
        let labels: Vec<u32> = indices.clone().map(|index| dataset.label(index)).collect();
        let images = Images::nhwc_u8(pixels, [indices.len(), channels, height, width])?;
        let clock = Instant::now();
        let logits = session.run(images)?;
        seconds += clock.elapsed().as_secs_f64();
        evaluation.add(logits.as_slice(), &labels)?;
        progress(indices.end);
    }
    let ms_per_image = 1e3 * seconds / dataset.len().max(1) as f64;
    Ok(Some(Verdict { evaluation, precision: session.precision(), ms_per_image }))
}

/// Checks that the model can read the images and knows their classes.
fn check(model: &Model, dataset: &dyn Dataset) -> Result<(), Failure> {
    let hint = "--data names the data set that the model was trained on; leanresnet summary MODEL shows its input and classes";
    let mismatch = |what: &str, wanted: String, got: String| Err(Failure::usage(expected(what, wanted, got), hint));
    if model.input() != dataset.shape() {
        return mismatch(
            "images of the data set",
            format!("{:?}, as the model's input", model.input()),
            format!("{:?}", dataset.shape()),
        );
    }
    let names = dataset.class_names();
    if model.classes() != names.len() {
        return mismatch("classes of the data set", format!("{}, as the model has", model.classes()), names.len().to_string());
    }
    Ok(())
}
