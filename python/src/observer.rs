//! What Python hears about a training run, and how it stops one.
#![forbid(unsafe_code)]

use leanresnet::train::{EpochMetrics, EpochReport, Observer, StopReason};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pythonize::pythonize;

use crate::signals::Signals;

/// Calls a function of Python after every epoch, and looks for signals between steps. Runs without the interpreter's lock.
pub struct PythonObserver {
    callback: Option<Py<PyAny>>,
    signals: Signals,
    stopped: bool,
    error: Option<PyErr>,
}

impl PythonObserver {
    /// With a function that takes the results of an epoch.
    pub fn new(callback: Option<Py<PyAny>>) -> Self {
        Self { callback, signals: Signals::new(), stopped: false, error: None }
    }

    /// What a callback or the handler of a signal raised.
    pub fn into_error(self) -> Option<PyErr> {
        self.error
    }

    /// What the callback says: `False` stops the run.
    fn call(&self, py: Python<'_>, report: &EpochReport<'_>) -> PyResult<bool> {
        let Some(callback) = &self.callback else { return Ok(false) };
        let epoch = metrics(py, report.metrics)?;
        epoch.set_item("train_seconds", report.timing.train_seconds)?;
        epoch.set_item("images_per_second", report.timing.images_per_second)?;
        epoch.set_item("evaluate_seconds", report.timing.evaluate_seconds)?;
        epoch.set_item("best", report.best)?;
        let answer = callback.bind(py).call1((epoch,))?;
        Ok(answer.is(pyo3::types::PyBool::new(py, false)))
    }
}

impl Observer for PythonObserver {
    fn on_epoch(&mut self, report: &EpochReport<'_>) {
        match Python::attach(|py| self.call(py, report)) {
            Ok(stop) => self.stopped |= stop,
            Err(error) => self.error = Some(error),
        }
    }

    fn should_stop(&mut self) -> Option<StopReason> {
        if self.error.is_none() {
            self.error = self.signals.check().err();
        }
        (self.stopped || self.error.is_some()).then_some(StopReason::Interrupted)
    }

    fn on_notice(&mut self, message: &str) {
        let warned = Python::attach(|py| {
            let warnings = py.import("warnings")?;
            warnings.call_method1("warn", (message,)).map(drop)
        });
        // A filter can make an error of it.
        self.error = warned.err().or(self.error.take());
    }
}

/// The results of one epoch.
pub fn metrics<'py>(py: Python<'py>, metrics: &EpochMetrics) -> PyResult<Bound<'py, PyDict>> {
    Ok(pythonize(py, metrics)?.cast_into::<PyDict>()?)
}
