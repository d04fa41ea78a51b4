//! The library's errors as Python's exceptions.
#![forbid(unsafe_code)]

use std::fmt::Display;

use leanresnet::{Error, ErrorKind};
use pyo3::exceptions::{PyArithmeticError, PyFileExistsError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::{PyErr, create_exception};

create_exception!(
    leanresnet,
    ModelError,
    PyValueError,
    "A model or checkpoint is damaged, of another format, or does not fit its network."
);
create_exception!(leanresnet, DataError, PyValueError, "A file of a data set is missing, damaged or of another format.");
create_exception!(leanresnet, DivergedError, PyArithmeticError, "Training produced a value that is not finite.");

/// The exception for an error of the library, with its message.
///
/// Arguments that cannot be used are a `ValueError`; what the system refused is an `OSError` of the class that Python has for its number.
pub fn exception(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Io { source, .. } => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, message)),
            None => PyOSError::new_err(message),
        },
        Error::Exists { .. } => PyFileExistsError::new_err(message),
        Error::Data { .. } => DataError::new_err(message),
        Error::Model { .. } => ModelError::new_err(message),
        Error::Diverged { .. } => DivergedError::new_err(message),
        other if other.kind() == ErrorKind::Usage => PyValueError::new_err(message),
        _ => PyRuntimeError::new_err(message),
    }
}

/// A `ValueError` in the words of the library.
pub fn value_error(what: impl Display, expected: impl Display, got: impl Display) -> PyErr {
    PyValueError::new_err(format!("{what}; expected {expected}, got {got}"))
}

/// A `TypeError` in the words of the library.
pub fn type_error(what: impl Display, expected: impl Display, got: impl Display) -> PyErr {
    PyTypeError::new_err(format!("{what}; expected {expected}, got {got}"))
}
