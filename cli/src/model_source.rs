//! MODEL on the command line: a model file, a checkpoint, or the folder of a run.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use leanresnet::Model;
use leanresnet::train::{RunFolder, model_of_checkpoint};

use crate::failure::{Failure, expected};

/// A model with the file that it came from.
pub struct LoadedModel {
    /// The model.
    pub model: Model,
    /// The file.
    pub path: PathBuf,
    /// The folder of the run, if the command line named one.
    pub run: Option<RunFolder>,
}

/// Loads a model; of a run folder the best, else the last.
pub fn load(path: &Path) -> Result<LoadedModel, Failure> {
    if path.is_dir() {
        return load_from_run(path);
    }
    let model = if path.extension().is_some_and(|extension| extension == "ckpt") {
        model_of_checkpoint(path)?
    } else {
        Model::load(path)?
    };
    Ok(LoadedModel { model, path: path.to_owned(), run: None })
}

fn load_from_run(path: &Path) -> Result<LoadedModel, Failure> {
    let run = RunFolder::open(path)?;
    let candidates = [run.best_model(), run.last_model(), run.last_checkpoint()];
    let Some(file) = candidates.iter().find(|file| file.exists()) else {
        let message =
            expected(path.display(), "a run folder, with best.safetensors, last.safetensors or last.ckpt", "none of them");
        return Err(Failure::data(message, "ls runs shows the runs that were made here; leanresnet train makes one"));
    };
    let loaded = load(file)?;
    Ok(LoadedModel { run: Some(run), ..loaded })
}
