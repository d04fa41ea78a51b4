//! Configurations from Python: TOML's text, or its tables as dicts.
#![forbid(unsafe_code)]

use leanresnet::{Error, Result, RunConfig};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pythonize::depythonize;

use crate::error::exception;

/// What messages about a text begin with where the text itself is wrong.
const PLACE: &str = "configuration, line ";

/// Reads a text, or tables, with a parser of the library.
pub fn read_toml<T>(toml: &Bound<'_, PyAny>, parse: impl FnOnce(&str) -> Result<T>) -> PyResult<T> {
    if let Ok(text) = toml.cast::<PyString>() {
        return parse(&text.extract::<String>()?).map_err(exception);
    }
    let text = depythonize::<toml::Table>(toml)?.to_string();
    parse(&text).map_err(|error| exception(quote_line(error, &text)))
}

/// The tables of a text.
pub fn toml_tables(text: &str) -> Result<toml::Table> {
    // The library words the error, with its place.
    text.parse().or_else(|_| RunConfig::from_toml(text).map(|_| unreachable!("the library reads what its own parser does not")))
}

/// Names a line of a text that the user has not seen by what it says.
fn quote_line(error: Error, text: &str) -> Error {
    match error {
        Error::Invalid { what, expected, got } => {
            let number = what.strip_prefix(PLACE).and_then(|place| place.split(',').next()?.parse::<usize>().ok());
            let line = number.and_then(|number| text.lines().nth(number.checked_sub(1)?));
            Error::Invalid { what: line.map_or(what, |line| format!("configuration, `{line}`")), expected, got }
        }
        other => other,
    }
}
