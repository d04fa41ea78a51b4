//! Where the time of a session's runs goes: a clock per layer that all threads add to.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::exec::activation::Activation;
use crate::log;
use crate::net::cost::{Cut, PARTS, costs};
use crate::net::log_report::timing_report;
use crate::net::plan::Plan;

/// The time that a session spent on one layer, and what the layer costs; see [`Session::timings`](super::Session::timings).
///
/// Norms are folded into convolutions and have no entry. `input` copies the caller's images, names that end in `.pad` copy
/// activations into a border of zeros; `head` includes the global average pool.
///
/// With several threads, the time for which some wait for others is in no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerTiming {
    /// Name of the layer, as in [`layers`](super::layers()) where that has it.
    pub name: String,
    /// Kernel of a convolution; none for layers that only move or add values.
    pub kernel: Option<&'static str>,
    /// Time in all runs, summed over threads.
    pub time: Duration,
    /// Calls of [`Session::run`](super::Session::run).
    pub runs: u64,
    /// Images in all runs.
    pub images: u64,
    /// Threads of the last run.
    pub threads: usize,
    /// Multiply-accumulate operations per image.
    pub macs: u64,
    /// Bytes per image that the layer has to move at least once, wherever they lie: the activations that it reads and writes
    /// (what it adds to is read and written) and its packed weights.
    pub bytes: u64,
    /// Bytes that one thread goes through before it comes back to the same values, in the largest run: it tells which level of
    /// cache `bytes` come from. Activations between stages count for a group of images, the caller's images for the thread's share of
    /// the batch, others for one image; weights count once.
    pub working_set: u64,
}

impl LayerTiming {
    /// Milliseconds per image that the layer adds to a run: its time by the number of threads and images.
    pub fn milliseconds(&self) -> f64 {
        1e3 * self.time.as_secs_f64() / (self.threads as u64 * self.images.max(1)) as f64
    }
}

/// The clocks of a session.
pub(crate) struct Timer<T: Activation> {
    plan: Arc<Plan<T>>,
    /// Nanoseconds of every part of every step.
    clocks: Box<[AtomicU64]>,
    runs: u64,
    images: u64,
    cut: Cut,
}

impl<T: Activation> Timer<T> {
    pub(crate) fn new(plan: &Arc<Plan<T>>) -> Self {
        let clocks = (0..PARTS * plan.steps.len()).map(|_| AtomicU64::new(0)).collect();
        Timer { plan: Arc::clone(plan), clocks, runs: 0, images: 0, cut: Cut { images: 0, threads: 1 } }
    }

    /// Notes that `count` images have run, at most `max_batch` at a time.
    pub(crate) fn end_run(&mut self, count: usize, max_batch: usize, threads: usize) {
        self.runs += 1;
        self.images += count as u64;
        self.cut = Cut { images: self.cut.images.max(count.min(max_batch)), threads };
    }

    pub(crate) fn reset(&mut self) {
        self.clocks.iter_mut().for_each(|clock| *clock.get_mut() = 0);
        (self.runs, self.images, self.cut.images) = (0, 0, 0);
    }

    pub(crate) fn timings(&self) -> Vec<LayerTiming> {
        let costs = costs(&self.plan, self.cut).into_iter();
        costs
            .map(|cost| LayerTiming {
                name: cost.name,
                kernel: cost.kernel,
                time: Duration::from_nanos(self.clocks[PARTS * cost.step + cost.part].load(Ordering::Relaxed)),
                runs: self.runs,
                images: self.images,
                threads: self.cut.threads,
                macs: cost.macs,
                bytes: cost.bytes as u64,
                working_set: cost.working_set as u64,
            })
            .collect()
    }
}

impl<T: Activation> Drop for Timer<T> {
    /// What `LEANRESNET_LOG=timing` is for.
    fn drop(&mut self) {
        if self.runs > 0 && log::words().timing {
            log::write(&timing_report(&self.timings()));
        }
    }
}

/// One thread's stopwatch: each lap goes to the part of a step that it ends. Without a timer it does nothing.
pub(crate) struct Lap<'a>(Option<(&'a [AtomicU64], Instant)>);

impl<'a> Lap<'a> {
    pub(crate) fn start<T: Activation>(timer: Option<&'a Timer<T>>) -> Self {
        Lap(timer.map(|timer| (&*timer.clocks, Instant::now())))
    }

    /// Ends a lap, which belongs to a part of a step, and begins the next one.
    pub(crate) fn end(&mut self, step: usize, part: usize) {
        if let Some((clocks, begin)) = &mut self.0 {
            let now = Instant::now();
            let nanoseconds = now.duration_since(*begin).as_nanos() as u64;
            clocks[PARTS * step + part].fetch_add(nanoseconds, Ordering::Relaxed);
            *begin = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Model, Network, Session};
    use crate::{Images, Pool};

    /// `small` in 8 x 8 pixels.
    fn model() -> Model {
        let network = Network::builder().with_input([3, 8, 8]).with_stage(32, 2).with_stage(64, 1).build().unwrap();
        Model::random(&network, 1)
    }

    fn run(session: &mut Session, images: usize) -> Duration {
        let pixels = vec![0.5; images * 3 * 8 * 8];
        let begin = Instant::now();
        session.run(Images::nhwc_f32(&pixels, [images, 3, 8, 8]).unwrap()).unwrap();
        begin.elapsed()
    }

    fn sum(session: &Session) -> Duration {
        session.timings().iter().map(|layer| layer.time).sum()
    }

    #[test]
    fn there_are_none_unless_asked_for() {
        let mut session = Session::builder(&model()).pool(Pool::inline()).build().unwrap();
        run(&mut session, 1);
        assert_eq!(session.timings().is_empty(), !log::words().timing);
    }

    #[test]
    fn every_layer_has_a_time_however_images_are_cut() {
        let names = [
            "input",
            "stem.conv",
            "stages.0.0.conv1",
            "stages.0.0.conv2",
            "stages.0.1.conv1",
            "stages.0.1.conv2",
            "connections.0.pool",
            "connections.0.conv",
            "stages.1.0.conv1",
            "stages.1.0.conv2",
            "head",
        ];
        for (threads, images) in [(1, 5), (3, 5), (3, 1)] {
            let pool = Pool::new(threads).unwrap();
            let mut session = Session::builder(&model()).pool(pool).max_batch(4).timing(true).build().unwrap();
            // A clock may have steps of a microsecond.
            for _ in 0..50 {
                run(&mut session, images);
            }
            let timings = session.timings();
            assert_eq!(timings.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), names);
            for layer in &timings {
                assert!(layer.time > Duration::ZERO, "{}", layer.name);
                assert_eq!((layer.runs, layer.images, layer.threads), (50, 50 * images as u64, threads));
                let moves_only = layer.name == "input" || layer.name.ends_with("pool");
                assert_eq!((layer.kernel.is_none(), layer.macs == 0), (moves_only, moves_only), "{}", layer.name);
            }
        }
    }

    /// The bound below is far from what is measured (98 %), since other processes may take the time between two layers.
    #[test]
    fn on_one_thread_layers_take_the_time_of_the_run() {
        let mut session = Session::builder(&model()).pool(Pool::inline()).timing(true).build().unwrap();
        run(&mut session, 8);
        let shares = (0..20).map(|_| {
            session.reset_timings();
            let wall: Duration = (0..20).map(|_| run(&mut session, 8)).sum();
            sum(&session).as_secs_f64() / wall.as_secs_f64()
        });
        let shares: Vec<f64> = shares.collect();
        assert!(shares.iter().all(|share| *share <= 1.01), "{shares:?}");
        assert!(shares.iter().any(|share| *share >= 0.5), "{shares:?}");
    }

    #[test]
    fn forks_measure_for_themselves() {
        let mut session = Session::builder(&model()).pool(Pool::inline()).timing(true).build().unwrap();
        run(&mut session, 1);
        let mut fork = session.fork();
        assert!(sum(&fork).is_zero());
        let before = session.timings();
        run(&mut fork, 1);
        assert!(!sum(&fork).is_zero());
        assert_eq!(session.timings(), before);
        session.reset_timings();
        assert!(sum(&session).is_zero());
    }
}
