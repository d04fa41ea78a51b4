//! The threads of this process, shared by all models.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use leanresnet::{Pool, Result, default_threads};
use pyo3::Python;

/// The pools by their number of threads.
static POOLS: Mutex<OfProcess<BTreeMap<usize, Pool>>> = Mutex::new(OfProcess::none());

/// A value that threads belong to, and that a child of `fork` therefore cannot use: it has memory of its parent, but not its threads.
pub struct OfProcess<T>(Option<(u32, T)>);

impl<T> OfProcess<T> {
    /// No value yet.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The value of this process, made by `make` at first use.
    pub fn get(&mut self, make: impl FnOnce() -> T) -> &mut T {
        let process = std::process::id();
        if self.0.as_ref().is_some_and(|(made_in, _)| *made_in != process) {
            // Dropped, it would wait for threads that are not there.
            std::mem::forget(self.0.take());
        }
        &mut self.0.get_or_insert_with(|| (process, make())).1
    }
}

/// As many threads as `threads` says; `None` for the default of the library.
///
/// The caller holds the interpreter's lock: no other thread of Python can fork meanwhile and leave the child a lock that stays closed.
///
/// # Errors
/// Those of [`Pool::new`] and [`default_threads`].
pub fn pool(_py: Python<'_>, threads: Option<usize>) -> Result<Pool> {
    let threads = threads.map_or_else(|| default_threads().map(|(threads, _)| threads), Ok)?;
    let mut pools = POOLS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pools = pools.get(BTreeMap::new);
    if let Some(pool) = pools.get(&threads) {
        return Ok(pool.clone());
    }
    let pool = Pool::new(threads)?;
    pools.insert(threads, pool.clone());
    Ok(pool)
}
