//! `leanresnet eval`: how good a model is on a data set.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use leanresnet::data::{DataConfig, Split, open_for};
use leanresnet::train::Evaluation;
use leanresnet::{Precision, RunConfig};
use serde::Serialize;

use crate::configuration::Configuration;
use crate::context::Context;
use crate::data_source::DataSource;
use crate::evaluate::{Verdict, evaluate};
use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::model_source::{self, Origin};
use crate::table::{Table, percent};
use crate::{failure, progress};

/// Most classes whose confusion matrix is printed as text.
const MOST_PRINTED_CLASSES: usize = 20;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    /// A model file, a checkpoint, a run folder (its best model, else its last), or cifar10-s, which comes with this tool
    /// [default: cifar10-s]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    data: DataSource,
    /// The part of the data set: test or train
    #[arg(long, value_name = "PART", default_value = "test")]
    split: Split,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    batch: u32,
    /// Number formats to compute in: f32; bf16; bf16x3, which is near f32 on AMX and f32 elsewhere; or the one of bf16 (auto) or bf16x3
    /// (auto-near-f32) and f32 that is measured to be faster here, by 1.1 times at least
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "f32")]
    dtype: Vec<Precision>,
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    dtype: &'static str,
    images: u64,
    loss: f64,
    top1: f64,
    top5: f64,
    ms_per_image: f64,
    classes: Vec<ClassKeys>,
    /// Rows are the images' classes, columns the guesses.
    confusion: Vec<Vec<u64>>,
}

#[derive(Serialize)]
struct ClassKeys {
    name: String,
    images: u64,
    correct: u64,
}

/// Evaluates.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let interrupt = Interrupt::install()?;
    let loaded = model_source::load_or_shipped(options.model.as_deref(), context.output)?;
    let data = data_config(options, &loaded.origin)?;
    let dataset = open_for(&data, options.split, loaded.model.input(), loaded.model.preprocess().resize)?;
    let names = dataset.class_names().to_vec();
    context.output.detail(&format!("{}: {} images of {}", loaded.name, dataset.len(), data.name));
    for &dtype in &options.dtype {
        let bar = progress::bar(context.progress(), dataset.len() as u64, "{wide_bar} {pos}/{len} images  ETA {eta}");
        let on_progress = |done: usize| bar.set_position(done as u64);
        let machine = (context.pool()?, context.isa_for(dtype)?, dtype);
        let verdict = evaluate(&loaded.model, &*dataset, options.batch as usize, machine, &interrupt, on_progress)?;
        bar.finish_and_clear();
        let Some(verdict) = verdict else {
            return Ok(failure::interrupted(context.output, &interrupt, "nothing was written"));
        };
        let answer = answer(&loaded.name, &names, &verdict);
        context.output.answer(&answer, || text(&answer, options.split, &data))?;
    }
    Ok(0)
}

/// The data set of the flags, else that which the model was trained on, else the generated one.
fn data_config(options: &Options, origin: &Origin) -> Result<DataConfig, failure::Failure> {
    let mut configuration = match origin {
        Origin::Run(run) if run.config().exists() => Configuration::read(&run.config())?,
        _ => Configuration::of_preset("small"),
    };
    if let Origin::Shipped(shipped) = origin {
        configuration.set("data.name", shipped.data)?;
    }
    options.data.apply(&mut configuration)?;
    let RunConfig { data, .. } = configuration.run_config()?;
    Ok(data)
}

fn answer<'a>(model: &'a str, names: &[String], verdict: &Verdict) -> Answer<'a> {
    let evaluation = &verdict.evaluation;
    let class = |(index, name): (usize, &String)| ClassKeys {
        name: name.clone(),
        images: evaluation.class_images(index),
        correct: evaluation.confusion(index, index),
    };
    Answer {
        model,
        dtype: verdict.precision.name(),
        images: evaluation.images(),
        loss: evaluation.loss(),
        top1: evaluation.top1(),
        top5: evaluation.top5(),
        ms_per_image: verdict.ms_per_image,
        classes: names.iter().enumerate().map(class).collect(),
        confusion: confusion(evaluation),
    }
}

fn confusion(evaluation: &Evaluation) -> Vec<Vec<u64>> {
    let row = |label| (0..evaluation.classes()).map(|guess| evaluation.confusion(label, guess)).collect();
    (0..evaluation.classes()).map(row).collect()
}

fn text(answer: &Answer<'_>, split: Split, data: &DataConfig) -> String {
    let mut text = format!(
        "{} {split} images of {}: top-1 {}, top-5 {}, loss {:.4}, {:.3} ms per image ({})\n\n",
        answer.images,
        data.name,
        percent(answer.top1),
        percent(answer.top5),
        answer.loss,
        answer.ms_per_image,
        answer.dtype
    );
    let mut table = Table::new(&["class", "images", "correct", "share"]);
    for class in &answer.classes {
        let share = if class.images == 0 { 0.0 } else { class.correct as f64 / class.images as f64 };
        table.row(vec![class.name.clone(), class.images.to_string(), class.correct.to_string(), percent(share)]);
    }
    text.push_str(&table.render());
    let classes = answer.classes.len();
    if classes > MOST_PRINTED_CLASSES {
        let _ = writeln!(text, "\nthe confusion matrix of {classes} classes is in the output of --json");
        return text;
    }
    let numbers: Vec<String> = (0..classes).map(|guess| guess.to_string()).collect();
    let header: Vec<&str> = ["class \\ guess"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let mut table = Table::new(&header);
    for (index, (class, row)) in answer.classes.iter().zip(&answer.confusion).enumerate() {
        let cells = row.iter().map(ToString::to_string);
        table.row([format!("{} {index}", class.name)].into_iter().chain(cells).collect());
    }
    let _ = write!(text, "\nconfusion: images of each class, by guess\n{}", table.render());
    text
}
