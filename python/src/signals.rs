//! Ctrl-C while the library computes without the interpreter.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use pyo3::{PyResult, Python};

/// How often Python is asked. To ask takes the interpreter's lock, for which other threads of Python may let this one wait 5 ms.
const PERIOD: Duration = Duration::from_millis(50);

/// Asks Python now and then whether a signal came, from a thread that does not hold the interpreter's lock.
pub struct Signals {
    asked: Instant,
}

impl Signals {
    /// Asks for the first time after one period.
    pub fn new() -> Self {
        Self { asked: Instant::now() }
    }

    /// Runs Python's handlers of signals, if it is time to: the error is what they raise, `KeyboardInterrupt` for Ctrl-C.
    pub fn check(&mut self) -> PyResult<()> {
        if self.asked.elapsed() < PERIOD {
            return Ok(());
        }
        let asked = Python::attach(run_handlers);
        self.asked = Instant::now();
        asked
    }
}

fn run_handlers(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}
