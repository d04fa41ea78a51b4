//! A new run: configuration, data, initial weights and folder from the command line.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use leanresnet::data::{Dataset, Flip, PixelType, Split, open_for};
use leanresnet::net::parameters;
use leanresnet::train::{FitOptions, NetworkExecutor, RunFolder, Trainer};
use leanresnet::{Error, Model, Network, RunConfig};

use super::options::Options;
use super::session::{TrainingSession, split};
use crate::configuration::Configuration;
use crate::context::Context;
use crate::failure::{Failure, expected};
use crate::interrupt::Interrupt;
use crate::model_source;
use crate::progress::TrainingProgress;

/// Passes over the generated images where nothing else says how many: enough for a good model, within two minutes on two cores.
const SYNTHETIC_EPOCHS: i64 = 5;
/// Where runs without `--out` go.
const RUNS: &str = "runs";

/// Everything that a run needs; makes its folder last, when nothing else can be wrong.
pub fn prepare<'a>(context: &Context<'a>, options: &Options, interrupt: &Interrupt) -> Result<TrainingSession<'a>, Failure> {
    let init = options.settings.init.as_deref().map(model_source::load).transpose()?.map(|loaded| loaded.model);
    let (config, train_part) = configure(options, init.as_ref())?;
    let fit = fit_options(options)?;
    let (train, validation) = split(train_part, &config)?;
    let isa = context.isa_for(config.train.dtype.into())?;
    let mut executor = NetworkExecutor::new(&config.network, &config.train, context.pool()?, isa)?;
    if let Some(model) = &init {
        check_tensors(model, &config.network)?;
        executor.set_model(model)?;
    }
    let mut trainer = Trainer::with_executor(config.clone(), Box::new(executor))?.with_options(fit);
    if let Some(model) = &init {
        trainer = trainer.with_preprocess(model.preprocess().clone());
    }
    let folder = folder(options, &config)?;
    context.output.note(&format!(
        "training {} on {} ({} images): {}",
        config.network,
        config.data.name,
        train.len(),
        folder.path().display()
    ));
    if train.pixel_type() == PixelType::F32 {
        context.output.note("note: the images are numbers and are taken as they are; only bytes are normalised");
    }
    if config.data.name == "mnist" && config.data.augment.flip != Flip::Off {
        context.output.note("note: mirrored digits are no digits; --augment crop=4 trains without them");
    }
    let progress = TrainingProgress::new(context, folder.clone(), interrupt.clone(), config.train.epochs, &[]);
    Ok(TrainingSession { trainer: trainer.in_folder(folder.clone()), folder, train, validation, progress, label: label(options) })
}

/// The configuration of the command line, and the training part of its data. A network that is a preset takes the shape and
/// number of classes of the data, unless it is told otherwise.
fn configure(options: &Options, init: Option<&Model>) -> Result<(RunConfig, Box<dyn Dataset>), Failure> {
    let source = &options.network;
    let mut configuration = match init {
        Some(model) if source.is_empty() => Configuration::of_network(model.network()?)?,
        _ => source.configuration()?,
    };
    options.apply(&mut configuration)?;
    let RunConfig { data, network, .. } = configuration.run_config()?;
    if data.name == "synthetic" && configuration.get("train.epochs").is_none() {
        configuration.set("train.epochs", SYNTHETIC_EPOCHS)?;
    }
    let resize = init.and_then(|model| model.preprocess().resize);
    let train = open_for(&data, Split::Train, network.input(), resize)?;
    if source.is_preset() && configuration.get("network.input").is_none() {
        let shape = train.shape().map(|extent| toml::Value::from(extent as i64));
        configuration.set("network.input", shape.to_vec())?;
    }
    let has_classes = configuration.get("network.classes").or(configuration.get("network.class_names")).is_some();
    if source.is_preset() && !has_classes {
        configuration.set("network.classes", train.class_names().len() as i64)?;
    }
    Ok((configuration.run_config()?, train))
}

fn fit_options(options: &Options) -> Result<FitOptions, Failure> {
    let settings = &options.settings;
    let mut fit = FitOptions::default().with_early_stop(settings.early_stop);
    if let Some(epochs) = settings.eval_every {
        fit = fit.with_evaluate_every(epochs);
    }
    if let Some(minutes) = settings.checkpoint_every {
        let age = Duration::try_from_secs_f64(60.0 * minutes).map_err(|_| {
            Failure::usage(
                expected("--checkpoint-every", "minutes, at least 0", minutes),
                "leanresnet train --checkpoint-every 5",
            )
        })?;
        fit = fit.with_checkpoint_every(age);
    }
    fit.validate()?;
    Ok(fit)
}

/// Checks that a model has the tensors of the network.
fn check_tensors(model: &Model, network: &Network) -> Result<(), Failure> {
    let tensors = |network: &Network| -> Vec<(String, Vec<usize>)> {
        parameters(network).into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
    };
    if tensors(model.network()?) == tensors(network) {
        return Ok(());
    }
    let message = expected("--init", format!("a model of {network}"), format!("one of {}", model.network()?));
    Err(Failure::usage(message, "leave out the flags of the network: --init MODEL brings its own"))
}

fn label(options: &Options) -> String {
    match &options.settings.init {
        Some(path) if options.network.preset.is_none() && options.network.config.is_none() && options.network.model.is_none() => {
            path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
        }
        _ => options.network.label(),
    }
}

/// Makes the folder of `--out`, or the next free one of the default name.
fn folder(options: &Options, config: &RunConfig) -> Result<RunFolder, Failure> {
    if let Some(path) = &options.settings.out {
        return Ok(RunFolder::create(path)?);
    }
    for number in 1_u32.. {
        let path: PathBuf = Path::new(RUNS).join(format!("{}-{}-{number}", label(options), config.data.name));
        match RunFolder::create(&path) {
            Err(Error::Exists { .. }) => {}
            result => return Ok(result?),
        }
    }
    Err(Failure::bug("no number is free"))
}
