//! Judging a model by a data set.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::time::Instant;

use leanresnet::data::{Dataset, PixelType};
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
    let mut pixels = Pixels::new(dataset, batch);
    let mut evaluation = Evaluation::new(model.classes());
    let mut seconds = 0.0;
    for start in (0..dataset.len()).step_by(batch) {
        if interrupt.received().is_some() {
            return Ok(None);
        }
        let indices = start..(start + batch).min(dataset.len());
        let images = pixels.load(dataset, indices.clone())?;
        let labels: Vec<u32> = indices.clone().map(|index| dataset.label(index)).collect();
        let clock = Instant::now();
        let logits = session.run(images)?;
        seconds += clock.elapsed().as_secs_f64();
        evaluation.add(logits.as_slice(), &labels)?;
        progress(indices.end);
    }
    let ms_per_image = 1e3 * seconds / dataset.len().max(1) as f64;
    Ok(Some(Verdict { evaluation, precision: session.precision(), ms_per_image }))
}

/// The pixels of a batch, as the data set has them.
enum Pixels {
    Bytes(Vec<u8>),
    Numbers(Vec<f32>),
}

impl Pixels {
    /// Room for `batch` images.
    fn new(dataset: &dyn Dataset, batch: usize) -> Self {
        let values = batch * dataset.shape().iter().product::<usize>();
        match dataset.pixel_type() {
            PixelType::U8 => Self::Bytes(vec![0; values]),
            PixelType::F32 => Self::Numbers(vec![0.0; values]),
        }
    }

    fn load(&mut self, dataset: &dyn Dataset, indices: Range<usize>) -> Result<Images<'_>, Failure> {
        let [channels, height, width] = dataset.shape();
        let (shape, image) = ([indices.len(), channels, height, width], channels * height * width);
        Ok(match self {
            Self::Bytes(bytes) => {
                let bytes = &mut bytes[..indices.len() * image];
                indices.zip(bytes.chunks_exact_mut(image)).try_for_each(|(index, pixels)| dataset.image(index, pixels))?;
                Images::nhwc_u8(bytes, shape)?
            }
            Self::Numbers(numbers) => {
                let numbers = &mut numbers[..indices.len() * image];
                indices.zip(numbers.chunks_exact_mut(image)).try_for_each(|(index, pixels)| dataset.image_f32(index, pixels))?;
                Images::nhwc_f32(numbers, shape)?
            }
        })
    }
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
