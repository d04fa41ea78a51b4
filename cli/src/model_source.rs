//! MODEL on the command line: a model file, a checkpoint, the folder of a run, or a model that comes with the tool.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::Model;
use leanresnet::train::{RunFolder, model_of_checkpoint};

use crate::answer::Output;
use crate::failure::{Failure, expected};
use crate::shipped::{self, ShippedModel};

/// A model with the place that it came from.
pub struct LoadedModel {
    /// The model.
    pub model: Model,
    /// Its file, or the name of a shipped one.
    pub name: String,
    /// What else is known about it.
    pub origin: Origin,
}

/// What knows which data a model was trained on.
pub enum Origin {
    /// Nothing: a file by itself.
    File,
    /// The folder of its run.
    Run(RunFolder),
    /// The list of shipped models.
    Shipped(&'static ShippedModel),
}

/// Loads a model; of a run folder the best, else the last.
pub fn load(path: &Path) -> Result<LoadedModel, Failure> {
    if let Some(shipped) = ShippedModel::named(path) {
        return load_shipped(shipped);
    }
    if path.is_dir() {
        return load_from_run(path);
    }
    let model = if path.extension().is_some_and(|extension| extension == "ckpt") {
        model_of_checkpoint(path)?
    } else {
        Model::load(path)?
    };
    Ok(LoadedModel { model, name: path.display().to_string(), origin: Origin::File })
}

/// Loads a model, or the shipped one if the command line names none, and then says so.
pub fn load_or_shipped(path: Option<&Path>, output: &Output) -> Result<LoadedModel, Failure> {
    if let Some(path) = path {
        return load(path);
    }
    let loaded = load_shipped(shipped::DEFAULT)?;
    output.note(&format!("no MODEL given: taking the shipped {}, {}", loaded.name, loaded.model.provenance()));
    Ok(loaded)
}

fn load_shipped(shipped: &'static ShippedModel) -> Result<LoadedModel, Failure> {
    Ok(LoadedModel { model: shipped.load()?, name: shipped.name.to_owned(), origin: Origin::Shipped(shipped) })
}

fn load_from_run(path: &Path) -> Result<LoadedModel, Failure> {
    let run = RunFolder::open(path)?;
    let Some(file) = run.model() else {
        let message =
            expected(path.display(), "a run folder, with best.safetensors, last.safetensors or last.ckpt", "none of them");
        return Err(Failure::data(message, "ls runs shows the runs that were made here; leanresnet train makes one"));
    };
    let loaded = load(&file)?;
    Ok(LoadedModel { origin: Origin::Run(run), ..loaded })
}
