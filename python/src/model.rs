//! Models: loading, tensors, prediction.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use leanresnet::net::{ParameterSpec, Preprocess, parameters};
use leanresnet::train::{RunFolder, model_of_checkpoint};
use leanresnet::{Model, Network, Precision, Session};
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::arrays::{Batch, ImageArray, Layout};
use crate::configuration::read_toml;
use crate::error::{exception, type_error, value_error};
use crate::pool::{OfProcess, pool};
use crate::sessions::Sessions;
use crate::signals::Signals;

/// The ending of the names of tensors that only files have: how many batches a norm has seen.
const COUNTER: &str = ".num_batches_tracked";

/// A network with its weights. It never changes; any number of threads may use one.
#[pyclass(name = "Model", module = "leanresnet", frozen)]
pub struct PyModel {
    model: Model,
    /// Taken with the interpreter's lock held, and given back before that, so that no child of `fork` finds it closed.
    sessions: Mutex<OfProcess<Arc<Sessions>>>,
}

impl PyModel {
    /// A model without sessions.
    pub fn new(model: Model) -> Self {
        Self { model, sessions: Mutex::new(OfProcess::none()) }
    }

    /// The model itself.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn sessions(&self, _py: Python<'_>) -> Arc<Sessions> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(|| Arc::new(Sessions::new(self.model.clone()))).clone()
    }

    /// What the tensors of a model file are, in forward order.
    fn specs(&self) -> PyResult<Vec<ParameterSpec>> {
        match self.model.graph() {
            Some(graph) => Ok(graph.parameters()),
            None => self.model.network().map(parameters).map_err(exception),
        }
    }
}

#[pymethods]
impl PyModel {
    /// Reads a model: a model file, a checkpoint (.ckpt), or the folder of a training run, of which it is the best model, or else the
    /// last one.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(move || load(&path)).map(Self::new).map_err(exception)
    }

    /// Reads the content of a model file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, content: &[u8]) -> PyResult<Self> {
        py.detach(|| Model::from_bytes(content)).map(Self::new).map_err(exception)
    }

    /// A model with the initial weights of a training with this seed. The network is a preset, "small" if nothing is said, or the table
    /// [network] of `toml`, a text or tables as dicts.
    #[staticmethod]
    #[pyo3(signature = (preset=None, seed=1, *, toml=None))]
    fn random(py: Python<'_>, preset: Option<&str>, seed: u64, toml: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let network = network(preset.or(toml.is_none().then_some("small")), toml)?;
        Ok(Self::new(py.detach(|| Model::random(&network, seed))))
    }

    /// A model from a state dict as `state_dict` gives it: float32 arrays, or what NumPy turns into them without a change of type, such as
    /// tensors of PyTorch. The network is a preset or the table [network] of `toml`.
    ///
    /// A channel's bytes are normalised as (byte / 255 - mean) / std with its entry in `mean` and `std`; by default the mean is 0, std 1.
    #[staticmethod]
    #[pyo3(signature = (state, *, preset=None, toml=None, mean=None, std=None, class_names=None))]
    fn from_state_dict(
        py: Python<'_>,
        state: &Bound<'_, PyAny>,
        preset: Option<&str>,
        toml: Option<&Bound<'_, PyAny>>,
        mean: Option<Vec<f32>>,
        std: Option<Vec<f32>>,
        class_names: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let network = network(preset, toml)?;
        let numpy = py.import("numpy")?;
        let mut tensors = Vec::new();
        for item in state.call_method0("items")?.try_iter()? {
            let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
            if !name.ends_with(COUNTER) {
                let array = numpy.call_method1("ascontiguousarray", (value,))?;
                let (shape, values) = tensor(&name, &array)?;
                tensors.push((name, shape, values));
            }
        }
        let model = py.detach(|| {
            let model = Model::from_tensors(&network, tensors)?;
            let model = if let Some(preprocess) = preprocess(network.input()[0], mean, std) {
                model.with_preprocess(preprocess)?
            } else {
                model
            };
            class_names.map_or(Ok(model.clone()), |names| model.with_class_names(names))
        });
        model.map(Self::new).map_err(exception)
    }

    /// The outputs of the network for a batch of images: float32, [n, classes], before any softmax.
    ///
    /// `images` has the axes that `layout` names, "nchw" or "nhwc". float32 is taken as normalised; uint8 is normalised by the model.
    /// The array is read where it is if its memory is contiguous in either order of axes; otherwise it is copied first. It must not be
    /// written to until this returns: the interpreter's lock is free meanwhile, and other threads go on.
    ///
    /// `threads` work on it, by default all that the process may use. `precision` is "f32", "bf16", or "auto" for the faster one;
    /// "bf16x3" is near f32, in three products of bf16 on processors with AMX, and f32 elsewhere; "auto-near-f32" is the faster one of these.
    /// `batch` images at most are computed at once: more need more memory. What a call has prepared, the next one uses again. The same
    /// image has the same bits at any place of any batch, on any number of threads.
    #[pyo3(signature = (images, *, layout="nchw", threads=None, precision="f32", batch=64))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        layout: &str,
        threads: Option<usize>,
        precision: &str,
        batch: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let precision: Precision = precision.parse().map_err(exception)?;
        if batch == 0 {
            return Err(value_error("batch", "at least 1", 0));
        }
        let images = ImageArray::read(images, layout.parse::<Layout>()?)?;
        let (pool, sessions) = (pool(py, threads).map_err(exception)?, self.sessions(py));
        let (images, classes) = (images.batch(), self.model.classes());
        let logits = PyArray2::zeros(py, [images.len(), classes], false);
        {
            let mut logits = logits.readwrite();
            let logits = logits.as_slice_mut()?;
            let at_once = batch.min(images.len().max(1));
            let ran =
                py.detach(|| sessions.with(pool, precision, at_once, |session| run(session, images, at_once, classes, logits)));
            ran.map_err(exception)??;
        }
        Ok(logits)
    }

    /// The tensors as a state dict of PyTorch has them: names in forward order with copies of the values, float32, and for each batch norm
    /// an int64 `num_batches_tracked` of 0.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = PyDict::new(py);
        for ParameterSpec { name, .. } in self.specs()? {
            match self.model.tensor(&name) {
                Some((shape, values)) => state.set_item(name, PyArray1::from_slice(py, values).reshape(shape)?)?,
                None => state.set_item(name, PyArrayDyn::<i64>::zeros(py, &[][..], false))?,
            }
        }
        Ok(state)
    }

    /// Writes a model file, whole or not at all; a file that is there already is replaced.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(move || self.model.save(path)).map_err(exception)
    }

    /// The content of a model file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.model.to_bytes()).map_err(exception)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Channels, height and width of an image.
    #[getter]
    fn input_shape(&self) -> (usize, usize, usize) {
        self.model.input().into()
    }

    /// Number of classes.
    #[getter]
    fn classes(&self) -> usize {
        self.model.classes()
    }

    /// Names of the classes: as many as there are classes, or none.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.model.class_names().to_vec()
    }

    /// The mean of each channel that bytes are normalised by, of values from 0 to 1; empty if the model was trained on numbers and takes no
    /// bytes.
    #[getter]
    fn mean(&self) -> Vec<f32> {
        self.model.preprocess().mean.clone()
    }

    /// The standard deviation of each channel that bytes are normalised by, of values from 0 to 1; empty as `mean`.
    #[getter]
    fn std(&self) -> Vec<f32> {
        self.model.preprocess().std.clone()
    }

    /// Where the weights come from, in words.
    #[getter]
    fn provenance(&self) -> &str {
        self.model.provenance()
    }

    /// The network as the table [network] of a configuration. A graph that came from another program has none: `ValueError`.
    #[getter]
    fn toml(&self) -> PyResult<String> {
        self.model.network().map(Network::to_toml).map_err(exception)
    }

    fn __repr__(&self) -> String {
        match self.model.network() {
            Ok(network) => format!("<leanresnet.Model: {network}>"),
            Err(_) => format!("<leanresnet.Model: graph, input {:?}, {} classes>", self.model.input(), self.model.classes()),
        }
    }

    /// For pickle and copy: the content of a model file.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("from_bytes")?, (self.to_bytes(py)?,)))
    }
}

/// Runs all images, part by part. The outer error is Python's, if a signal came.
fn run(session: &mut Session, images: Batch<'_>, at_once: usize, classes: usize, logits: &mut [f32]) -> PyResult<()> {
    if images.len() == 0 {
        // Their size is checked all the same.
        return images.part(0, 0).and_then(|none| session.run_into(none, logits)).map_err(exception);
    }
    let mut signals = Signals::new();
    for (index, logits) in logits.chunks_mut(at_once * classes).enumerate() {
        let part = images.part(index * at_once, logits.len() / classes);
        part.and_then(|part| session.run_into(part, logits)).map_err(exception)?;
        signals.check()?;
    }
    Ok(())
}

fn load(path: &Path) -> leanresnet::Result<Model> {
    if path.is_dir() {
        let run = RunFolder::open(path)?;
        return load(&run.model().unwrap_or_else(|| run.last_model()));
    }
    if path.extension().is_some_and(|extension| extension == "ckpt") { model_of_checkpoint(path) } else { Model::load(path) }
}

/// The network of a preset or of a configuration.
fn network(preset: Option<&str>, toml: Option<&Bound<'_, PyAny>>) -> PyResult<Network> {
    match (preset, toml) {
        (Some(preset), None) => Network::preset(preset).map_err(exception),
        (None, Some(toml)) => read_toml(toml, Network::from_toml),
        (None, None) => Err(value_error("network", "preset or toml", "neither")),
        (Some(_), Some(_)) => Err(value_error("network", "preset or toml", "both")),
    }
}

/// Shape and values of an array of float32 in C order.
fn tensor(name: &str, array: &Bound<'_, PyAny>) -> PyResult<(Vec<usize>, Vec<f32>)> {
    let Ok(array) = array.extract::<PyReadonlyArrayDyn<'_, f32>>() else {
        return Err(type_error(format!("tensor `{name}`"), "float32", array.getattr("dtype")?));
    };
    Ok((array.shape().to_vec(), array.as_slice()?.to_vec()))
}

/// How bytes are normalised, if anything is said about it.
pub fn preprocess(channels: usize, mean: Option<Vec<f32>>, std: Option<Vec<f32>>) -> Option<Preprocess> {
    if mean.is_none() && std.is_none() {
        return None;
    }
    let mut preprocess = Preprocess::identity(channels);
    preprocess.mean = mean.unwrap_or(preprocess.mean);
    preprocess.std = std.unwrap_or(preprocess.std);
    Some(preprocess)
}
