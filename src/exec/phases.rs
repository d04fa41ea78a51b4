//! How threads share the tasks of phases: the counters, and one thread's way through them.
//!
//! Nothing here knows where threads come from. What it promises, for any number of threads that walk at any time: every task is done
//! once; a task sees all that the tasks of earlier phases wrote; a thread that never comes is not waited for; and after a poisoning
//! every walk ends. `.ci/long loom` tries every order of two threads that the memory model allows.
#![forbid(unsafe_code)]

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counters of one phase, on a cache line of their own.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Counters {
    /// Bits of the tasks that somebody has, or their number where a phase has more tasks than bits.
    claimed: AtomicUsize,
    done: AtomicUsize,
}

/// One of the threads that walk, counted from 0, and how many there can be.
#[derive(Clone, Copy)]
pub(super) struct Walker {
    pub(super) index: usize,
    pub(super) threads: usize,
}

impl Counters {
    /// A task of the phase that nobody has yet. A thread begins with the same part of every phase's tasks, because what it wrote in the
    /// phase before is in its own core's cache, and goes on with what others have left.
    fn claim(&self, tasks: usize, walker: Walker) -> Option<usize> {
        if tasks > usize::BITS as usize {
            return Some(self.claimed.fetch_add(1, Ordering::Relaxed)).filter(|&task| task < tasks);
        }
        let all = usize::MAX.checked_shr(usize::BITS - tasks as u32).unwrap_or(0);
        let own = usize::MAX << (walker.index * tasks / walker.threads).min(tasks.saturating_sub(1));
        loop {
            let free = all & !self.claimed.load(Ordering::Relaxed);
            if free == 0 {
                return None;
            }
            let task = if free & own == 0 { free } else { free & own }.trailing_zeros();
            if self.claimed.fetch_or(1 << task, Ordering::Relaxed) >> task & 1 == 0 {
                return Some(task as usize);
            }
        }
    }
}

/// The counters of all phases, and whether a task failed. Kept between runs, so that a run allocates nothing.
#[derive(Default)]
pub(super) struct Phases {
    counters: Vec<Counters>,
    count: usize,
    poisoned: AtomicBool,
}

impl Phases {
    /// Makes ready for a run through `count` phases. No thread is under way then.
    pub(super) fn reset(&mut self, count: usize) {
        self.counters.resize_with(count.max(self.counters.len()), Counters::default);
        self.counters[..count].fill_with(Counters::default);
        self.count = count;
        self.poisoned = AtomicBool::new(false);
    }

    /// One thread's way through all phases. `tasks`: how many a phase has. `run`: does a task of a phase; false if it failed, which
    /// poisons the run.
    pub(super) fn walk(&self, walker: Walker, tasks: impl Fn(usize) -> usize, run: impl Fn(usize, usize) -> bool) {
        for (phase, counters) in self.counters[..self.count].iter().enumerate() {
            let tasks = tasks(phase);
            while let Some(task) = counters.claim(tasks, walker) {
                if self.poisoned.load(Ordering::Relaxed) {
                    break;
                }
                if !run(phase, task) {
                    self.poisoned.store(true, Ordering::Relaxed);
                    return;
                }
                counters.done.fetch_add(1, Ordering::Release);
            }
            if !self.wait(&counters.done, tasks) {
                return;
            }
        }
    }

    /// Waits until all tasks of a phase are done; false if the run was poisoned instead.
    fn wait(&self, done: &AtomicUsize, tasks: usize) -> bool {
        let mut pause = Pause::default();
        while done.load(Ordering::Acquire) < tasks {
            if self.poisoned.load(Ordering::Relaxed) {
                return false;
            }
            pause.once();
        }
        true
    }
}

/// Waiting a little, again and again.
#[derive(Default)]
pub(super) struct Pause {
    #[cfg(not(all(test, loom)))]
    spins: u32,
    #[cfg(not(all(test, loom)))]
    started: Option<std::time::Instant>,
}

#[cfg(not(all(test, loom)))]
impl Pause {
    /// How long a thread spins before it starts to yield.
    const SPIN: std::time::Duration = std::time::Duration::from_micros(20);
    /// Spins between two looks at the clock, which takes as long as a few of them.
    const SPINS: u32 = 16;

    /// Spins, or yields after some time.
    pub(super) fn once(&mut self) {
        if !self.spin() {
            std::thread::yield_now();
        }
    }

    /// Spins; false without that after some time.
    pub(super) fn spin(&mut self) -> bool {
        if self.spins.is_multiple_of(Self::SPINS)
            && self.started.get_or_insert_with(std::time::Instant::now).elapsed() >= Self::SPIN
        {
            return false;
        }
        self.spins += 1;
        std::hint::spin_loop();
        true
    }
}

#[cfg(all(test, loom))]
impl Pause {
    #[expect(clippy::unused_self, reason = "the shape of the real one")]
    pub(super) fn once(&mut self) {
        loom::thread::yield_now();
    }

    #[expect(clippy::unused_self, reason = "the shape of the real one")]
    pub(super) fn spin(&mut self) -> bool {
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_begin_with_their_own_tasks_and_leave_none() {
        for (tasks, threads, expected) in [(0, 1, vec![]), (1, 2, vec![0]), (2, 2, vec![1, 0]), (5, 2, vec![2, 3, 4, 0, 1])] {
            let counters = Counters::default();
            let walker = Walker { index: threads - 1, threads };
            let claimed: Vec<usize> = std::iter::from_fn(|| counters.claim(tasks, walker)).collect();
            assert_eq!(claimed, expected, "{tasks} tasks");
        }
        for tasks in [63, 64, 65, 200] {
            let counters = Counters::default();
            let walkers = (0..3).cycle().map(|index| Walker { index, threads: 3 });
            let mut claimed: Vec<usize> = walkers.map_while(|walker| counters.claim(tasks, walker)).collect();
            claimed.sort_unstable();
            assert_eq!(claimed, (0..tasks).collect::<Vec<_>>());
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const PHASES: usize = 2;
    const TASKS: usize = 2;

    /// What all threads share: the phases, for every task how often it was done, and what tasks saw of earlier phases.
    struct Shared {
        phases: Phases,
        done: [[AtomicUsize; TASKS]; PHASES],
        seen: AtomicUsize,
    }

    /// A task that fails.
    type Failing = Option<(usize, usize)>;

    /// One walk. Every task of the second phase adds up what it sees of the first one, by loads that promise nothing themselves.
    fn walk(shared: &Shared, index: usize, failing: Failing) {
        let run = |phase, task| {
            if failing == Some((phase, task)) {
                return false;
            }
            if phase == 1 {
                let seen: usize = shared.done[0].iter().map(|task: &AtomicUsize| task.load(Ordering::Relaxed)).sum();
                shared.seen.fetch_add(seen, Ordering::Relaxed);
            }
            shared.done[phase][task].fetch_add(1, Ordering::Relaxed);
            true
        };
        shared.phases.walk(Walker { index, threads: 2 }, |_| TASKS, run);
    }

    /// Walks on a second thread beside the caller, in every order that the memory model allows; `then` looks at what is left. Two
    /// threads, because loom cannot try three that wait by spinning: it lets two of them take turns without end.
    fn check(failing: Failing, then: fn(&[[usize; TASKS]; PHASES], usize)) {
        loom::model(move || {
            let mut phases = Phases::default();
            phases.reset(PHASES);
            let shared = Arc::new(Shared { phases, done: Default::default(), seen: AtomicUsize::new(0) });
            let helper = thread::spawn({
                let shared = shared.clone();
                move || walk(&shared, 1, failing)
            });
            walk(&shared, 0, failing);
            helper.join().unwrap();
            let done = shared.done.each_ref().map(|phase| phase.each_ref().map(|task| task.load(Ordering::Relaxed)));
            then(&done, shared.seen.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn every_task_is_done_once_and_sees_the_phase_before() {
        check(None, |done, seen| {
            assert_eq!(*done, [[1; TASKS]; PHASES]);
            assert_eq!(seen, TASKS * TASKS);
        });
    }

    #[test]
    fn a_failure_ends_every_walk_and_no_later_phase_begins() {
        check(Some((0, 1)), |done, _| assert_eq!(done[1], [0; TASKS]));
    }
}
