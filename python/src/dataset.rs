//! Labelled images: arrays of the caller's, or the files of a data set.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use leanresnet::data::{DataConfig, Dataset, InMemory, open};
use numpy::{IntoPyArray, PyArray1, PyArray4, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::arrays::{Contiguous, Layout};
use crate::error::{exception, value_error};

/// The largest number of classes that a network can have.
const MOST_CLASSES: usize = 65_536;

/// Images and labels as arrays.
type Arrays<'py> = (Bound<'py, PyArray4<u8>>, Bound<'py, PyArray1<i64>>);

/// Labelled images of one size, to train on or to be judged by.
///
/// The images are bytes; a model or a training run normalises them.
#[pyclass(name = "Dataset", module = "leanresnet", frozen)]
pub struct PyDataset {
    images: Arc<dyn Dataset>,
}

impl PyDataset {
    /// The images.
    pub fn images(&self) -> Arc<dyn Dataset> {
        self.images.clone()
    }
}

#[pymethods]
impl PyDataset {
    /// Opens the data set `name`: "synthetic", which is generated and needs no `dir`, or "cifar10", "cifar100", "mnist" or
    /// "fashion-mnist", whose files are in the folder `dir`. `split` is "train" or "test".
    #[staticmethod]
    #[pyo3(signature = (name, dir=None, *, split="train"))]
    fn open(py: Python<'_>, name: &str, dir: Option<PathBuf>, split: &str) -> PyResult<Self> {
        let split = split.parse().map_err(exception)?;
        let mut config = DataConfig::default().with_name(name);
        config.dir = dir;
        let images = py.detach(|| open(&config, split)).map_err(exception)?;
        Ok(Self { images: Arc::from(images) })
    }

    /// Copies images from arrays: `x`, uint8 with the axes that `layout` names, "nchw" or "nhwc", and `y`, one integer from 0 on
    /// per image.
    ///
    /// The names of the classes are `class_names`, or else their numbers; without either, there are as many classes as the largest
    /// label needs.
    #[staticmethod]
    #[pyo3(signature = (x, y, *, layout="nchw", class_names=None))]
    fn from_arrays(x: &Bound<'_, PyAny>, y: &Bound<'_, PyAny>, layout: &str, class_names: Option<Vec<String>>) -> PyResult<Self> {
        let pixels = Contiguous::read(x, layout.parse::<Layout>()?, "x")?;
        let labels = labels(y)?;
        let [_, channels, height, width] = pixels.shape();
        let class_names = class_names.unwrap_or_else(|| numbers_of_classes(&labels));
        let images = InMemory::new([channels, height, width], class_names, pixels.to_channels_last(), labels);
        Ok(Self { images: Arc::new(images.map_err(exception)?) })
    }

    /// All images, uint8 of shape [n, height, width, channels], and their labels, int64 of shape [n]. Copies.
    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<Arrays<'py>> {
        let ([channels, height, width], count) = (self.images.shape(), self.images.len());
        let image = channels * height * width;
        let pixels = py.detach(|| {
            let mut pixels = vec![0; count * image];
            let mut images = pixels.chunks_exact_mut(image).enumerate();
            images.try_for_each(|(index, pixels)| self.images.image(index, pixels)).map(|()| pixels)
        });
        let labels: Vec<i64> = (0..count).map(|index| i64::from(self.images.label(index))).collect();
        let pixels = pixels.map_err(exception)?.into_pyarray(py).reshape([count, height, width, channels])?;
        Ok((pixels, labels.into_pyarray(py)))
    }

    /// Channels, height and width of an image.
    #[getter]
    fn image_shape(&self) -> (usize, usize, usize) {
        self.images.shape().into()
    }

    /// The names of the classes; labels are positions in it.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.images.class_names().to_vec()
    }

    fn __len__(&self) -> usize {
        self.images.len()
    }

    fn __repr__(&self) -> String {
        let [channels, height, width] = self.images.shape();
        let classes = self.images.class_names().len();
        format!("<leanresnet.Dataset: {} images of {channels}x{height}x{width}, {classes} classes>", self.images.len())
    }
}

/// As many numbers as the largest label needs, if a network can have so many classes.
fn numbers_of_classes(labels: &[u32]) -> Vec<String> {
    let classes = labels.iter().map(|&label| label as usize + 1).max().unwrap_or(0);
    (0..classes.min(MOST_CLASSES)).map(|class| class.to_string()).collect()
}

/// The labels of `y`, anything that NumPy takes for a one-dimensional array of integers.
fn labels(y: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    // NumPy's own cast, which refuses numbers that are no integers and those that are too large.
    let numpy = y.py().import("numpy")?;
    let array = numpy.call_method1("asarray", (y,))?;
    let array = array.call_method1("astype", ("int64", "K", "same_kind"))?;
    let labels: PyReadonlyArray1<'_, i64> = array.extract()?;
    let label = |(position, label): (usize, &i64)| {
        u32::try_from(*label).map_err(|_| value_error(format!("label of image {position}"), "0 to 4294967295", label))
    };
    labels.as_array().iter().enumerate().map(label).collect()
}
