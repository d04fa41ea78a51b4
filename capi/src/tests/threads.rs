//! Handles in the hands of several threads.
#![forbid(unsafe_code)]

use std::sync::Barrier;
use std::thread;

use super::{OwnedSession, expected_logits, fork, loaded, logits, options, session, session_with};
use crate::options::SessionOptions;
use crate::status::Status;

/// Runs of each thread.
const RUNS: usize = 200;

/// Runs batches of 1 to 5 images on every session, each on a thread of its own, at the same time.
fn run_at_once(sessions: Vec<OwnedSession>) {
    let expected: Vec<_> = (0..6).map(expected_logits).collect();
    let (expected, start) = (&expected, &Barrier::new(sessions.len()));
    thread::scope(|scope| {
        for (thread, session) in sessions.into_iter().enumerate() {
            scope.spawn(move || {
                start.wait();
                for run in 0..RUNS {
                    let count = 1 + (run + thread) % 5;
                    assert_eq!(logits(&session, count).unwrap(), expected[count], "thread {thread}, run {run}");
                }
                // Released here, while the others may still run.
                drop(session);
            });
        }
    });
}

#[test]
fn threads_with_a_fork_each() {
    for threads in [1, 2, 3] {
        let model = loaded();
        let first = session_with(&model, &SessionOptions { threads, max_batch: 2, ..options() }).unwrap();
        run_at_once(vec![fork(&first), first]);
    }
}

#[test]
fn threads_with_a_session_each_of_one_pool() {
    let model = loaded();
    let shared = SessionOptions { threads: 0, ..options() };
    run_at_once((0..3).map(|_| session_with(&model, &shared).unwrap()).collect());
}

#[test]
fn threads_make_their_own_sessions_and_forks() {
    let model = loaded();
    let (first, expected) = (session(&model), expected_logits(3));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..RUNS / 10 {
                    assert_eq!(logits(&session(&model), 3).unwrap(), expected);
                    assert_eq!(logits(&fork(&first), 3).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn threads_that_share_a_session_get_their_own_logits_or_a_refusal() {
    let model = loaded();
    let (shared, start) = (session(&model), Barrier::new(2));
    let expected: Vec<_> = (0..6).map(expected_logits).collect();
    let done: usize = thread::scope(|scope| {
        let thread = |count: usize| {
            let (shared, start, expected) = (&shared, &start, &expected);
            move || {
                start.wait();
                let run = |_: &usize| match logits(shared, count) {
                    Ok(logits) => {
                        assert_eq!(logits, expected[count]);
                        true
                    }
                    Err((status, message)) => {
                        assert_eq!(status, Status::Usage, "{message}");
                        false
                    }
                };
                (0..RUNS).filter(run).count()
            }
        };
        let threads = [scope.spawn(thread(2)), scope.spawn(thread(5))];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(done > 0, "the first one that comes finds nobody");
    assert_eq!(logits(&shared, 3).unwrap(), expected[3]);
}
