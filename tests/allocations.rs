//! How often memory is allocated, counted by the allocator itself; and how many threads are started.

mod common;
#[path = "engine/networks.rs"]
mod networks;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
#[cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leanresnet::train::{Dtype, Executor, NetworkExecutor, OptimizerConfig, TrainConfig, Update};
use leanresnet::{Images, Pool, Precision, Session};
use networks::{Case, cases};

/// The system's allocator, counting.
struct Counting;

/// Allocations of the threads that are workers of [`two_threads`].
static WORKERS: AtomicU64 = AtomicU64::new(0);
thread_local! {
    /// Allocations of this thread.
    static HERE: Cell<u64> = const { Cell::new(0) };
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = HERE.try_with(|here| here.set(here.get() + 1));
    if IS_WORKER.try_with(Cell::get).unwrap_or(false) {
        WORKERS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A pool of two threads that have started, and whose allocations are counted.
fn two_threads() -> Pool {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(2).start_handler(|_| IS_WORKER.set(true));
    let threads = builder.build().unwrap();
    threads.broadcast(|_| ());
    Pool::from_rayon(Arc::new(threads))
}

/// One test at a time: the workers' counter belongs to the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Allocations of this thread, and of the workers, during `work`.
fn allocations(work: impl FnOnce()) -> (u64, u64) {
    let counters = || (HERE.get(), WORKERS.load(Ordering::Relaxed));
    let (here, workers) = counters();
    work();
    let (here_after, workers_after) = counters();
    (here_after - here, workers_after - workers)
}

fn session(case: &Case, pool: Pool, max_batch: usize) -> Session {
    Session::builder(&case.model()).pool(pool).max_batch(max_batch).build().unwrap()
}

fn images<'a>(case: &Case, pixels: &'a [f32], count: usize) -> Images<'a> {
    let [channels, height, width] = case.network.input();
    Images::nhwc_f32(&pixels[..count * channels * height * width], [count, channels, height, width]).unwrap()
}

#[test]
fn the_counters_count() {
    let _alone = alone();
    let (here, _) = allocations(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!(here, 1);
    let (here, _) = allocations(|| {
        let mut grown = std::hint::black_box(vec![1_u8; 100]);
        grown.resize(1000, 0);
        drop(std::hint::black_box(grown));
    });
    assert_eq!(here, 2);
}

#[test]
fn an_inline_session_allocates_at_its_first_run_only() {
    let _alone = alone();
    for case in cases() {
        let pixels = case.images(7);
        let (f32, bf16, bf16x3) = (Precision::F32, Precision::Bf16, Precision::Bf16x3);
        for (max_batch, timing, precision) in
            [(1, false, f32), (3, true, f32), (64, false, f32), (3, true, bf16), (64, false, bf16), (3, false, bf16x3)]
        {
            let builder = Session::builder(&case.model()).pool(Pool::inline()).max_batch(max_batch).timing(timing);
            let mut session = builder.precision(precision).build().unwrap();
            session.run(images(&case, &pixels, 7)).unwrap();
            let (here, _) = allocations(|| {
                for count in [7, 1, 3, 7] {
                    session.run(images(&case, &pixels, count)).unwrap();
                }
            });
            assert_eq!(here, 0, "{}, max_batch {max_batch}, {precision}", case.name);
        }
    }
}

/// Handing work to a rayon pool from outside takes a record of the task, and pushes it to a queue of blocks of 63 entries.
const QUEUE_BLOCK: u64 = 63;

/// The most allocations of a thread that enters the pool so many times.
fn of_entries(entries: u64) -> u64 {
    entries + entries / QUEUE_BLOCK + 1
}

#[test]
fn a_session_on_two_threads_allocates_what_the_pools_queue_takes_only() {
    let _alone = alone();
    let pool = two_threads();
    for case in cases().into_iter().step_by(5) {
        let pixels = case.images(7);
        let mut session = session(&case, pool.clone(), 64);
        let mut run_many = |runs: u64| {
            for run in 0..runs {
                // One image goes another way, that of split rows.
                session.run(images(&case, &pixels, if run % 2 == 0 { 7 } else { 1 })).unwrap();
            }
        };
        // Until every worker has tried to steal once, for which it registers.
        run_many(50);
        let runs = 4 * QUEUE_BLOCK;
        let (here, elsewhere) = allocations(|| run_many(runs));
        assert!(here <= of_entries(runs), "{}: {here} allocations in {runs} runs", case.name);
        assert_eq!(elsewhere, 0, "{}: the workers allocate", case.name);
    }
}

/// Allocations of this thread and of the workers in each of some steps.
fn steps(case: &Case, (optimizer, dtype): (OptimizerConfig, Dtype), pool: Pool, count: usize) -> Vec<(u64, u64)> {
    let config = TrainConfig::default().with_ema(0.9).with_label_smoothing(case.smoothing).with_optimizer(optimizer);
    let isa = Precision::from(dtype).isa().unwrap();
    let mut executor = NetworkExecutor::new(&case.network, &config.with_dtype(dtype), pool, isa).unwrap();
    executor.set_model(&case.model()).unwrap();
    let (images, labels) = (case.images(case.batch), case.labels(case.batch));
    let step = || {
        executor.forward_backward(&images, &labels).unwrap();
        let mut update = Update::new(0.02);
        update.gradient_scale = if executor.gradient_norm() > 1.0 { 0.5 } else { 1.0 };
        update.average_decay = Some(0.9);
        executor.update(&update).unwrap();
    };
    let mut step = step;
    (0..count).map(|_| allocations(&mut step)).collect()
}

fn rules() -> [(OptimizerConfig, Dtype); 3] {
    [(OptimizerConfig::sgd(), Dtype::F32), (OptimizerConfig::muon(), Dtype::F32), (OptimizerConfig::sgd(), Dtype::Bf16)]
}

#[test]
fn training_allocates_at_its_first_step_only() {
    let _alone = alone();
    for case in cases() {
        for rule in rules() {
            let counts = steps(&case, rule, Pool::inline(), 4);
            assert!(counts[0].0 > 0);
            assert!(counts[1..].iter().all(|(here, _)| *here == 0), "{}: {counts:?}", case.name);
        }
    }
}

#[test]
fn training_on_two_threads_allocates_what_the_pools_queue_takes_only() {
    let _alone = alone();
    let pool = two_threads();
    for case in cases().into_iter().step_by(5) {
        for rule in rules() {
            let counts = &steps(&case, rule, pool.clone(), 60)[20..];
            // A step enters the pool twice: for the passes and for the update.
            let here: u64 = counts.iter().map(|(here, _)| here).sum();
            assert!(here <= of_entries(2 * 40), "{}: {counts:?}", case.name);
            assert!(counts.iter().all(|(_, elsewhere)| *elsewhere == 0), "{}: {counts:?}", case.name);
        }
    }
}

/// The threads of this process, by their numbers, which the system gives when a thread is made.
#[cfg(target_os = "linux")]
fn threads() -> BTreeSet<std::ffi::OsString> {
    std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name()).collect()
}

/// Threads of a pool of this crate that are not among `before`; a thread names itself, some time after it is made.
#[cfg(target_os = "linux")]
fn pool_threads(before: &BTreeSet<std::ffi::OsString>) -> usize {
    let name = |task| std::fs::read_to_string(std::path::Path::new("/proc/self/task").join(task).join("comm")).ok();
    let names = threads().into_iter().filter(|task| !before.contains(task)).filter_map(name);
    names.filter(|name| name.starts_with("leanresnet-")).count()
}

#[cfg(target_os = "linux")]
#[test]
fn an_inline_pool_starts_no_thread() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_millis(100);
    let _alone = alone();
    let before = threads();
    let case = &cases()[0];
    for pool in [Pool::inline(), Pool::new(1).unwrap()] {
        session(case, pool.clone(), 4).run(images(case, &case.images(4), 4)).unwrap();
        steps(case, (OptimizerConfig::sgd(), Dtype::F32), pool, 1);
    }
    std::thread::sleep(PATIENCE);
    assert_eq!(pool_threads(&before), 0, "threads were started");
    let pool = Pool::new(2).unwrap();
    session(case, pool.clone(), 4).run(images(case, &case.images(4), 4)).unwrap();
    let appeared = (0..300).any(|_| {
        std::thread::sleep(PATIENCE);
        pool_threads(&before) == 2
    });
    assert!(appeared, "the names of threads have changed");
}
