//! The native part of the Python package `leanresnet`: models that predict, data sets, and training, on NumPy's arrays.
//!
//! The package's Python files give it its public names; `python/python/leanresnet/_native.pyi` has its types.

mod arrays;
mod configuration;
mod dataset;
mod error;
mod model;
mod observer;
mod pool;
mod sessions;
mod signals;
mod training;

/// The native part of `leanresnet`, whose public names are in the package itself.
#[pyo3::pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::dataset::PyDataset;
    #[pymodule_export]
    use crate::error::{DataError, DivergedError, ModelError};
    #[pymodule_export]
    use crate::model::PyModel;
    #[pymodule_export]
    use crate::training::{fit, parse_augmentation, parse_toml, resume};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's own name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
