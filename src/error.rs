//! The one error type of the crate.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// A result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with what was expected and what came instead.
///
/// Every variant maps to one [`ErrorKind`], which the command-line tool maps to its exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, option or configuration value that cannot be used.
    #[error("{what}; expected {expected}, got {got}")]
    Invalid {
        /// The argument or configuration key.
        what: String,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A tensor or slice of the wrong size.
    #[error("shape of {what}; expected {expected}, got {got}")]
    Shape {
        /// The tensor or slice.
        what: String,
        /// The shape or length that fits.
        expected: String,
        /// The shape or length that came.
        got: String,
    },
    /// An instruction set that this machine or this build does not have.
    #[error("instruction set `{requested}` is not available; expected one of {available}, got `{requested}`")]
    Isa {
        /// The name that was asked for.
        requested: String,
        /// The names that would work here, separated by commas.
        available: String,
    },
    /// Something that exists already and is never overwritten.
    #[error("{} exists already; expected a path that is free, got one that holds data", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A data set file that is missing, damaged or of another format.
    #[error("{}: {what}; expected {expected}, got {got}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        got: String,
    },
    /// A model or checkpoint that is damaged, of another format, or does not fit its network.
    #[error("{source_name}: {what}; expected {expected}, got {got}")]
    Model {
        /// The file, or `bytes` when it did not come from one.
        source_name: String,
        /// What is wrong with it.
        what: String,
        /// What the format or the network asks for.
        expected: String,
        /// What the file holds.
        got: String,
    },
    /// An operation of the system that failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// Training produced a value that is not finite.
    #[error("training diverged at step {step}: {layer} is not finite; expected finite values, got NaN or infinity")]
    Diverged {
        /// The optimiser's step, counted from 0.
        step: u64,
        /// The first layer (in forward order) whose values are not finite.
        layer: String,
    },
    /// A worker thread panicked; the pool's region was abandoned.
    #[error("a worker thread panicked: {message}")]
    Panicked {
        /// The panic's message, if it was a string.
        message: String,
    },
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system failed: input or output, disk full.
    Failure,
    /// The call or the command line is wrong.
    Usage,
    /// A data set or a model is wrong.
    Data,
    /// Training diverged.
    Diverged,
    /// A defect of this library.
    Bug,
}

#[expect(clippy::needless_pass_by_value, reason = "callers hand over what they have: literals, numbers, formatted text")]
impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid { .. } | Error::Shape { .. } | Error::Isa { .. } | Error::Exists { .. } => ErrorKind::Usage,
            Error::Data { .. } | Error::Model { .. } => ErrorKind::Data,
            Error::Io { .. } => ErrorKind::Failure,
            Error::Diverged { .. } => ErrorKind::Diverged,
            Error::Panicked { .. } => ErrorKind::Bug,
        }
    }

    /// An [`Error::Invalid`] from anything printable.
    pub(crate) fn invalid(what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Error::Invalid { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// An [`Error::Shape`] from anything printable.
    pub(crate) fn shape(what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Error::Shape { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// An [`Error::Data`] about one file.
    #[cfg(any(feature = "train", feature = "npy", feature = "image"))]
    pub(crate) fn data(path: &Path, what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Error::Data { path: path.to_path_buf(), what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// An [`Error::Model`] about one file or byte slice.
    pub(crate) fn model(source_name: impl ToString, what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Error::Model {
            source_name: source_name.to_string(),
            what: what.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// The same about the content of a model file, where values that do not fit are the file's fault and not the caller's.
    pub(crate) fn in_model(self, source_name: &str) -> Self {
        match self {
            error @ (Error::Model { .. } | Error::Io { .. }) => error,
            other => Error::model(source_name, "metadata", "values that fit the network", other),
        }
    }

    /// An [`Error::Io`] about one path.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Io { action, path: path.to_path_buf(), source }
    }
}
