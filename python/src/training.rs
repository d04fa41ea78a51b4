//! Training: a run from its configuration to the model.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use leanresnet::data::{Augmentation, Dataset, Split, open, split_validation};
use leanresnet::train::{FitOptions, NetworkExecutor, RunFolder, Trainer, config_of_checkpoint};
use leanresnet::{Model, Precision, RunConfig};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pythonize::pythonize;

use crate::configuration::{read_toml, toml_tables};
use crate::dataset::PyDataset;
use crate::error::exception;
use crate::model::{PyModel, preprocess};
use crate::observer::{PythonObserver, metrics};
use crate::pool::pool;

/// What training gives back: the model, and the results of every epoch.
type Fitted<'py> = (PyModel, Vec<Bound<'py, PyDict>>);

/// The tables of a configuration, a text or dicts.
#[pyfunction]
pub fn parse_toml<'py>(py: Python<'py>, toml: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize(py, &read_toml(toml, toml_tables)?)?)
}

/// The table of random changes to images from their spelling on the command line, such as "crop=4,flip".
#[pyfunction]
pub fn parse_augmentation<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let augmentation: Augmentation = text.parse().map_err(exception)?;
    Ok(pythonize(py, &augmentation)?)
}

/// Trains the network of a configuration, given as its tables, with `train` for its data, and `validation` instead of images held out
/// of them.
#[pyfunction]
#[pyo3(signature = (tables, train, validation=None, *, init=None, mean=None, std=None, threads=None, out=None,
                    evaluate_every=None, early_stop=None, callback=None))]
pub fn fit<'py>(
    py: Python<'py>,
    tables: &Bound<'py, PyAny>,
    train: &PyDataset,
    validation: Option<&PyDataset>,
    init: Option<&PyModel>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    threads: Option<usize>,
    out: Option<PathBuf>,
    evaluate_every: Option<u64>,
    early_stop: Option<u64>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Fitted<'py>> {
    let config = read_toml(tables, RunConfig::from_toml)?;
    let options = FitOptions::default().with_early_stop(early_stop).with_evaluate_every(evaluate_every.unwrap_or(1));
    let pool = pool(py, threads).map_err(exception)?;
    let init = init.map(|model| model.model().clone());
    let (train, validation) = (Some(train.images()), validation.map(PyDataset::images));
    py.detach(|| {
        options.validate()?;
        let data = Data::new(train, validation, &config)?;
        let mut executor = executor(&config, pool)?;
        if let Some(model) = &init {
            executor.set_model(model)?;
        }
        let channels = config.network.input()[0];
        let preprocess = preprocess(channels, mean, std).or(init.map(|model| model.preprocess().clone()));
        let mut trainer = Trainer::with_executor(config, Box::new(executor))?.with_options(options);
        if let Some(preprocess) = preprocess {
            trainer = trainer.with_preprocess(preprocess);
        }
        if let Some(out) = out {
            trainer = trainer.in_folder(RunFolder::create(out)?);
        }
        Ok((trainer, data))
    })
    .map_err(exception)
    .and_then(|(trainer, data)| run(py, trainer, &data, PythonObserver::new(callback)))
}

/// Goes on with the run in `folder`, on the same data as before: those that its configuration names, or `train`.
#[pyfunction]
#[pyo3(signature = (folder, train=None, validation=None, *, epochs=None, threads=None, callback=None))]
pub fn resume<'py>(
    py: Python<'py>,
    folder: PathBuf,
    train: Option<&PyDataset>,
    validation: Option<&PyDataset>,
    epochs: Option<u64>,
    threads: Option<usize>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Fitted<'py>> {
    let pool = pool(py, threads).map_err(exception)?;
    let (train, validation) = (train.map(PyDataset::images), validation.map(PyDataset::images));
    let (trainer, data, observer) = py
        .detach(move || {
            let run = RunFolder::open(&folder)?;
            let mut config = config_of_checkpoint(&folder)?;
            config.train.epochs = epochs.unwrap_or(config.train.epochs);
            let data = Data::new(train, validation, &config)?;
            let executor = executor(&config, pool)?;
            let mut trainer = Trainer::with_executor(config, Box::new(executor))?.in_folder(run);
            let mut observer = PythonObserver::new(callback);
            trainer.resume(&folder, &mut observer)?;
            Ok((trainer, data, observer))
        })
        .map_err(exception)?;
    run(py, trainer, &data, observer)
}

/// The images of a run: those to train on, and those to find the best epoch with.
struct Data {
    train: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
}

impl Data {
    /// The caller's images, or those that the configuration names; it may hold some of them out.
    fn new(
        train: Option<Arc<dyn Dataset>>,
        validation: Option<Arc<dyn Dataset>>,
        config: &RunConfig,
    ) -> leanresnet::Result<Self> {
        let train = match train {
            Some(train) => train,
            None => Arc::from(open(&config.data, Split::Train)?),
        };
        let held_out = config.data.validation;
        if validation.is_some() || held_out == 0 {
            return Ok(Self { train, validation });
        }
        let (train, validation) = split_validation(train, held_out, config.train.seed)?;
        Ok(Self { train: Arc::new(train), validation: Some(Arc::new(validation)) })
    }
}

fn executor(config: &RunConfig, pool: leanresnet::Pool) -> leanresnet::Result<NetworkExecutor> {
    NetworkExecutor::new(&config.network, &config.train, pool, Precision::from(config.train.dtype).isa()?)
}

/// Trains to the end; the error of a callback or a signal comes before that of the library.
fn run<'py>(py: Python<'py>, mut trainer: Trainer, data: &Data, mut observer: PythonObserver) -> PyResult<Fitted<'py>> {
    let (fitted, observer): (leanresnet::Result<Model>, _) = py.detach(|| {
        let fitted = trainer.fit(&*data.train, data.validation.as_deref(), &mut observer).and_then(|_| trainer.model());
        (fitted, observer)
    });
    if let Some(error) = observer.into_error() {
        return Err(error);
    }
    let history = trainer.history().iter().map(|epoch| metrics(py, epoch)).collect::<PyResult<_>>()?;
    Ok((PyModel::new(fitted.map_err(exception)?), history))
}
