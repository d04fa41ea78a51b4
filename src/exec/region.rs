//! Phases of tasks on a pool's threads, without a fork and join per phase.
//!
//! Every thread walks through the same list of phases. In each it claims tasks until none is left, then waits until the claimed ones are
//! done. The caller can finish all work alone: a thread that never arrives has claimed nothing, so no phase waits for it. (At the end,
//! rayon keeps a caller from outside of the pool until one of the pool's threads has looked at what it was offered; where all of them are
//! busy with other things for long, it waits for the first one.)
//!
//! A thread that is inside a task, or inside an offer that somebody's `join` waits for, does not help: while rayon waits, it may hand the
//! thread another region's offer, and there the thread could wait for work that cannot go on before what lies below on its own stack. A
//! region inside a task of a caller from outside runs on that caller alone, because all of the pool's threads may be waiting for that very
//! task. So waits only go from a region to those nested in its tasks, and nested use inside one pool cannot deadlock.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::exec::phases::{Pause, Phases, Walker};
use crate::exec::pool::Pool;

/// Work in phases; all tasks of a phase are done before the next one begins.
pub(crate) trait Program: Sync {
    /// Number of phases.
    fn phases(&self) -> usize;
    /// Number of tasks of a phase.
    fn tasks(&self, phase: usize) -> usize;
    /// Does one task. `worker` differs between threads that run at the same time and is less than the pool's threads.
    fn run(&self, phase: usize, task: usize, worker: usize);
}

/// A place to run programs. Its counters are kept between runs, so that a run allocates nothing.
#[derive(Default)]
pub(crate) struct Region {
    phases: Phases,
}

/// What the threads of one run share.
struct Run<'a> {
    program: &'a dyn Program,
    phases: &'a Phases,
    /// Threads that work, and how many others came to help the first one, and are through all phases.
    threads: usize,
    arrived: AtomicUsize,
    left: AtomicUsize,
    panic: Mutex<Option<String>>,
}

impl Region {
    /// Runs the program on the pool and the calling thread.
    ///
    /// # Errors
    /// [`Error::Panicked`] if a task panicked; the other threads have left the region then.
    pub(crate) fn run(&mut self, pool: &Pool, program: &dyn Program) -> Result<()> {
        self.phases.reset(program.phases());
        let threads = pool.threads();
        let (arrived, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let run = Run { program, phases: &self.phases, threads, arrived, left, panic: Mutex::new(None) };
        let is_in_task_outside = INSIDE.get() > 0 && rayon::current_thread_index().is_none();
        if threads == 1 || is_in_task_outside {
            run.work(0);
        } else {
            pool.join(|| run.lead(), || offer(&run, threads - 1));
        }
        match run.panic.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(message)) => Err(Error::Panicked { message }),
            Err(_) => Err(Error::Panicked { message: "a worker failed while it reported a panic".into() }),
        }
    }
}

thread_local! {
    /// Tasks and offers, of any region, that this thread is inside of.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Calls `run` with the thread marked as being inside a task or an offer.
fn inside<R>(run: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.set(INSIDE.get() - 1);
        }
    }
    INSIDE.set(INSIDE.get() + 1);
    let _leave = Leave;
    run()
}

/// Offers a run to `threads` threads that are free. What nobody takes comes back to a thread that has done its part already.
fn offer(run: &Run<'_>, threads: usize) {
    if INSIDE.get() > 0 {
        return;
    }
    inside(|| {
        if threads == 1 {
            run.help();
        } else {
            rayon::join(|| run.help(), || offer(run, threads - 1));
        }
    });
}

impl Run<'_> {
    /// The first thread's way. At its end it waits for the others a little, because rayon would let it sleep at once.
    fn lead(&self) {
        self.work(0);
        let mut pause = Pause::default();
        while self.left.load(Ordering::Acquire) < self.arrived.load(Ordering::Relaxed) && pause.spin() {}
    }

    /// Another thread's way.
    fn help(&self) {
        self.work(1 + self.arrived.fetch_add(1, Ordering::Relaxed));
        self.left.fetch_add(1, Ordering::Release);
    }

    /// One thread's way through all phases.
    fn work(&self, worker: usize) {
        let run = |phase, task| {
            let result = catch_unwind(AssertUnwindSafe(|| inside(|| self.program.run(phase, task, worker))));
            result.map_err(|panic| self.note(panic.as_ref())).is_ok()
        };
        self.phases.walk(Walker { index: worker, threads: self.threads }, |phase| self.program.tasks(phase), run);
    }

    /// Keeps the message of the first panic.
    fn note(&self, panic: &(dyn Any + Send)) {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
        if let Ok(mut slot) = self.panic.lock() {
            slot.get_or_insert(message.unwrap_or_else(|| "no message".into()));
        }
    }
}

/// Phases of one task per thread, each of which takes a given time: what phases take beyond that is the synchronisation.
#[cfg(feature = "__internals")]
pub struct TimedPhases {
    region: Region,
    phases: usize,
    task: std::time::Duration,
}

#[cfg(feature = "__internals")]
impl TimedPhases {
    /// So many phases of tasks that take so long.
    pub fn new(phases: usize, task: std::time::Duration) -> Self {
        TimedPhases { region: Region::default(), phases, task }
    }

    /// Runs all of them once on the threads of a pool.
    ///
    /// # Errors
    /// Those of a region.
    pub fn run(&mut self, pool: &Pool) -> Result<()> {
        struct Spin(usize, usize, std::time::Duration);
        impl Program for Spin {
            fn phases(&self) -> usize {
                self.0
            }
            fn tasks(&self, _: usize) -> usize {
                self.1
            }
            fn run(&self, _: usize, _: usize, _: usize) {
                let start = std::time::Instant::now();
                while start.elapsed() < self.2 {}
            }
        }
        self.region.run(pool, &Spin(self.phases, pool.threads(), self.task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each phase adds up what the phase before wrote: wrong if a phase begins before the last one ended.
    struct Sums {
        values: Vec<Vec<AtomicUsize>>,
    }

    impl Sums {
        fn new(phases: usize, tasks: usize) -> Self {
            Sums { values: (0..phases).map(|_| (0..tasks).map(|_| AtomicUsize::new(0)).collect()).collect() }
        }
    }

    impl Program for Sums {
        fn phases(&self) -> usize {
            self.values.len()
        }
        fn tasks(&self, phase: usize) -> usize {
            self.values[phase].len()
        }
        fn run(&self, phase: usize, task: usize, _: usize) {
            let before =
                if phase == 0 { 1 } else { self.values[phase - 1].iter().map(|value| value.load(Ordering::Relaxed)).sum() };
            self.values[phase][task].fetch_add(before % 1009, Ordering::Relaxed);
        }
    }

    fn check(pool: &Pool) {
        let sums = Sums::new(50, 7);
        Region::default().run(pool, &sums).unwrap();
        let mut expected = 1;
        for phase in &sums.values {
            assert!(phase.iter().all(|value| value.load(Ordering::Relaxed) == expected % 1009));
            expected = 7 * (expected % 1009);
        }
    }

    #[test]
    fn phases_follow_each_other_on_any_number_of_threads() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..20 {
                check(&pool);
            }
        }
    }

    /// Regions inside regions on one pool, three deep.
    struct Nested(usize, Pool);

    impl Program for Nested {
        fn phases(&self) -> usize {
            2
        }
        fn tasks(&self, _: usize) -> usize {
            3
        }
        fn run(&self, _: usize, _: usize, _: usize) {
            if self.0 == 0 {
                check(&self.1);
            } else {
                Region::default().run(&self.1, &Nested(self.0 - 1, self.1.clone())).unwrap();
            }
        }
    }

    #[test]
    fn nested_regions_end() {
        for threads in [2, 3, 5] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..20 {
                Region::default().run(&pool, &Nested(2, pool.clone())).unwrap();
            }
        }
    }

    /// A thread of the pool that does something else for as long as the region runs.
    #[test]
    fn a_busy_thread_is_not_waited_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let pool = std::sync::Arc::new(pool);
        let (started, has_started) = std::sync::mpsc::channel();
        let (finish, may_finish) = std::sync::mpsc::channel::<()>();
        pool.spawn(move || {
            started.send(()).unwrap();
            may_finish.recv().unwrap();
        });
        has_started.recv().unwrap();
        for _ in 0..20 {
            check(&Pool::from_rayon(pool.clone()));
        }
        finish.send(()).unwrap();
    }

    struct Panics;

    impl Program for Panics {
        fn phases(&self) -> usize {
            3
        }
        fn tasks(&self, _: usize) -> usize {
            8
        }
        fn run(&self, phase: usize, task: usize, _: usize) {
            assert!(phase != 1 || task != 5, "task five of phase one");
        }
    }

    #[test]
    fn a_panic_ends_every_wait_and_the_region_works_again() {
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let mut region = Region::default();
            let error = region.run(&pool, &Panics).unwrap_err();
            assert!(error.to_string().contains("task five of phase one"), "{error}");
            region.run(&pool, &Sums::new(4, 4)).unwrap();
        }
    }
}
