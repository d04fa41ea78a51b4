//! Threads: an opaque handle on a rayon pool.
#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::error::{Error, Result};

/// The threads that work on a call. Cheap to clone; several sessions can share one.
#[derive(Clone, Debug, Default)]
pub struct Pool(Kind);

#[derive(Clone, Debug, Default)]
enum Kind {
    Inline,
    #[default]
    Shared,
    Own(Arc<rayon::ThreadPool>),
}

impl Pool {
    /// The caller's thread alone. Starts no thread.
    pub fn inline() -> Self {
        Pool(Kind::Inline)
    }

    /// The default: inside a rayon pool, that pool; elsewhere one pool for the whole process, made at first use, with
    /// `LEANRESNET_NUM_THREADS` threads or as many as the process may use.
    pub fn shared() -> Self {
        Pool(Kind::Shared)
    }

    /// A pool of its own; one thread means the caller's.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 threads, or more than the system can start.
    pub fn new(threads: usize) -> Result<Self> {
        match threads {
            0 => Err(Error::invalid("threads", "at least 1", 0)),
            1 => Ok(Self::inline()),
            _ => build(threads).map(|pool| Pool(Kind::Own(Arc::new(pool)))),
        }
    }

    /// The threads of an existing rayon pool.
    pub fn from_rayon(pool: Arc<rayon::ThreadPool>) -> Self {
        Pool(Kind::Own(pool))
    }

    /// Number of threads that can work at once.
    pub fn threads(&self) -> usize {
        match &self.0 {
            Kind::Inline => 1,
            Kind::Shared if rayon::current_thread_index().is_some() => rayon::current_num_threads(),
            Kind::Shared => shared().map_or(1, rayon::ThreadPool::current_num_threads),
            Kind::Own(pool) => pool.current_num_threads(),
        }
    }

    /// Calls `run` inside the pool, so that `rayon::join` reaches its threads.
    pub(crate) fn enter<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Kind::Own(pool) => pool.install(run),
            Kind::Shared if rayon::current_thread_index().is_none() => match shared() {
                Some(pool) => pool.install(run),
                None => run(),
            },
            _ => run(),
        }
    }

    /// Calls `here` on this thread, and `helpers` on a thread of the pool if one is free before `here` ends, or after that. A thread of
    /// another rayon pool goes into this one and waits there, since its own pool's work may have to go on meanwhile.
    pub(crate) fn join(&self, here: impl FnOnce() + Send, helpers: impl FnOnce() + Send) {
        let outside = match &self.0 {
            _ if rayon::current_thread_index().is_some() => None,
            Kind::Own(pool) => Some(&**pool),
            Kind::Shared => shared(),
            Kind::Inline => None,
        };
        match outside {
            Some(pool) => pool.in_place_scope(|scope| {
                scope.spawn(|_| helpers());
                here();
            }),
            None => self.enter(|| {
                rayon::join(here, helpers);
            }),
        }
    }

    /// Calls `run` for every item, on all threads; for one thread in order, on the caller's. Stops at an error.
    pub(crate) fn try_for_each<I, T>(&self, items: I, run: impl Fn(T) -> Result<()> + Send + Sync) -> Result<()>
    where
        I: IntoIterator<Item = T> + IntoParallelIterator<Item = T, Iter: IndexedParallelIterator> + Send,
        T: Send,
    {
        // Not by rayon: outside of a pool it would start one for the whole process.
        if self.threads() == 1 {
            items.into_iter().try_for_each(run)
        } else {
            // One by one: rayon would take the last of a network's layers, which have most of its weights, as one piece.
            self.enter(|| items.into_par_iter().with_max_len(1).try_for_each(run))
        }
    }
}

/// How many threads the default pool gets: `LEANRESNET_NUM_THREADS` if it is a positive number, else what the process may use
/// (affinity and the quota of its control group, as the standard library reads them). The second value says which it was.
///
/// # Errors
/// [`Error::Invalid`] if the variable is set to something else than a positive number.
pub fn default_threads() -> Result<(usize, &'static str)> {
    match std::env::var_os("LEANRESNET_NUM_THREADS") {
        Some(text) => {
            let text = text.to_string_lossy();
            let threads = text.parse().ok().filter(|threads| *threads > 0);
            threads
                .map(|threads| (threads, "LEANRESNET_NUM_THREADS"))
                .ok_or_else(|| Error::invalid("LEANRESNET_NUM_THREADS", "a positive number", &text))
        }
        None => Ok((std::thread::available_parallelism().map_or(1, usize::from), "available parallelism")),
    }
}

/// The process's pool; `None` for one thread, or where no thread can be started.
fn shared() -> Option<&'static rayon::ThreadPool> {
    static SHARED: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    let made = SHARED.get_or_init(|| {
        let (threads, _) = default_threads().unwrap_or((1, "fallback"));
        if threads == 1 { None } else { build(threads).ok() }
    });
    made.as_ref()
}

fn build(threads: usize) -> Result<rayon::ThreadPool> {
    let name = |index| format!("leanresnet-{index}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
    pool.map_err(|error| Error::invalid("threads", "a number that the system can start", format!("{threads} ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_the_caller() {
        assert_eq!(Pool::new(1).unwrap().threads(), 1);
        let caller = std::thread::current().id();
        assert_eq!(Pool::new(1).unwrap().enter(|| std::thread::current().id()), caller);
    }

    #[test]
    fn items_on_one_thread_stay_with_the_caller_and_stop_at_an_error() {
        let caller = std::thread::current().id();
        let mut items = [0; 5];
        let run = |item: &mut usize| {
            *item = 1;
            assert_eq!(std::thread::current().id(), caller);
            Ok(())
        };
        Pool::inline().try_for_each(&mut items[..], run).unwrap();
        assert_eq!(items, [1; 5]);
        for pool in [Pool::inline(), Pool::new(3).unwrap()] {
            let fail = |item: usize| if item == 7 { Err(Error::invalid("item", "another", item)) } else { Ok(()) };
            assert_eq!(pool.try_for_each(0..100, fail).unwrap_err().to_string(), "item; expected another, got 7");
        }
    }

    #[test]
    fn zero_threads_are_refused() {
        assert_eq!(Pool::new(0).unwrap_err().to_string(), "threads; expected at least 1, got 0");
    }

    #[test]
    fn the_shared_pool_is_the_callers_inside_one() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| Pool::shared().threads()), 3);
    }
}
