//! The sessions of one model: kept from call to call, one for each call that runs at the same time.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use leanresnet::{Model, Pool, Precision, Result, Session, default_threads};

/// What a session cannot change: threads and precision.
type Key = (usize, Precision);

/// Sessions that wait for a call, by what they were made for, and a limit to those that run.
///
/// A session keeps the memory that its runs need. So at most as many run at a time as the process has processors: more would be no
/// faster, and a call waits for one of them instead.
pub struct Sessions {
    model: Model,
    limit: usize,
    groups: Mutex<HashMap<Key, Group>>,
    returned: Condvar,
}

#[derive(Default)]
struct Group {
    waiting: Vec<Prepared>,
    running: usize,
}

/// A session with the largest batch that it runs at once.
struct Prepared {
    session: Session,
    batch: usize,
}

impl Sessions {
    /// No session yet.
    pub fn new(model: Model) -> Self {
        let limit = default_threads().map_or(1, |(threads, _)| threads);
        Self { model, limit, groups: Mutex::default(), returned: Condvar::new() }
    }

    /// Calls `run` with a session on `pool` that takes at least `batch` images at once. Any number of threads may call this.
    ///
    /// # Errors
    /// Those of the session's builder.
    pub fn with<R>(&self, pool: Pool, precision: Precision, batch: usize, run: impl FnOnce(&mut Session) -> R) -> Result<R> {
        let key = (pool.threads(), precision);
        let mut turn = Turn { sessions: self, key, prepared: self.take(key) };
        let fitting = turn.prepared.take().filter(|prepared| prepared.batch >= batch);
        let mut prepared = match fitting {
            Some(prepared) => prepared,
            None => self.prepare(pool, precision, batch)?,
        };
        let result = run(&mut prepared.session);
        turn.prepared = Some(prepared);
        Ok(result)
    }

    fn prepare(&self, pool: Pool, precision: Precision, batch: usize) -> Result<Prepared> {
        let session = Session::builder(&self.model).pool(pool).precision(precision).max_batch(batch).build()?;
        Ok(Prepared { session, batch })
    }

    /// Waits for the turn to run; the session that was used last, if one is there.
    fn take(&self, key: Key) -> Option<Prepared> {
        let mut groups = self.lock();
        loop {
            let group = groups.entry(key).or_default();
            if group.running < self.limit {
                group.running += 1;
                return group.waiting.pop();
            }
            groups = self.returned.wait(groups).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run; given back when it is dropped, with the session unless an error or a panic took it.
struct Turn<'a> {
    sessions: &'a Sessions,
    key: Key,
    prepared: Option<Prepared>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut groups = self.sessions.lock();
        let group = groups.entry(self.key).or_default();
        group.running -= 1;
        group.waiting.extend(self.prepared.take());
        // All, because only one with the same key can go on.
        self.sessions.returned.notify_all();
    }
}
