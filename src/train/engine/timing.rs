//! Where the time of training steps goes: a clock for every part of every operator, that all threads add to.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::graph::{Graph, Id, Input, Op, Output};
use super::kernel_weights::Trained;
use super::weights::TrainedConvolution;
use crate::dispatch::Kernels;
use crate::net::LayerTiming;

/// Parts of an operator, in the forward and then in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What a convolution reads is made: norm and ReLU, or a pool.
    Input,
    /// The convolution, or the norm of an operator that has no other part.
    Forward,
    Statistics,
    /// The gradient of a convolution's output is made from that of the norm behind it.
    Gradient,
    /// The input is made again for the gradient of the weights.
    InputAgain,
    Weights,
    Data,
    /// The gradient is masked by the ReLU in front of the convolution, and summed for the norm there.
    Sums,
}

impl Part {
    const ALL: [Part; 8] =
        [Part::Input, Part::Forward, Part::Statistics, Part::Gradient, Part::InputAgain, Part::Weights, Part::Data, Part::Sums];
    /// Parts of the forward pass.
    const FORWARD: usize = 3;

    fn name(self) -> &'static str {
        match self {
            Part::Input => "input",
            Part::Forward => "forward",
            Part::Statistics => "statistics",
            Part::Gradient => "gradient",
            Part::InputAgain => "input again",
            Part::Weights => "weights",
            Part::Data => "data",
            Part::Sums => "sums",
        }
    }
}

/// Work between the operators.
#[derive(Clone, Copy, Debug)]
pub(super) enum Between {
    /// Statistics and gradients of norms from the sums of the images.
    Norms,
    Loss,
    /// Partial gradients are added up.
    Merge,
    Update,
}

impl Between {
    const ALL: [(Between, &str); 4] =
        [(Between::Norms, "norms"), (Between::Loss, "loss"), (Between::Merge, "merge"), (Between::Update, "update")];
}

/// What a worker is at.
#[derive(Debug, Default)]
struct Worker {
    op: AtomicUsize,
    /// Nanoseconds from the timer's start to the last lap's end.
    since: AtomicU64,
}

/// The clocks of an executor.
#[derive(Debug)]
pub(super) struct Timer {
    start: Instant,
    workers: Vec<Worker>,
    /// Nanoseconds of every part of every operator, then of what lies between.
    clocks: Vec<AtomicU64>,
    steps: u64,
    images: u64,
    batch: usize,
}

impl Timer {
    pub(super) fn new<T: Trained>(graph: &Graph<T>) -> Self {
        let clocks = graph.ops.len() * Part::ALL.len() + Between::ALL.len();
        Timer {
            start: Instant::now(),
            workers: Vec::new(),
            clocks: (0..clocks).map(|_| AtomicU64::new(0)).collect(),
            steps: 0,
            images: 0,
            batch: 0,
        }
    }

    /// Notes that a step of `images` images on `workers` threads begins.
    pub(super) fn begin_step(&mut self, images: usize, workers: usize) {
        self.workers.resize_with(workers.max(self.workers.len()), Worker::default);
        (self.steps, self.images, self.batch) = (self.steps + 1, self.images + images as u64, self.batch.max(images));
    }

    pub(super) fn reset(&mut self) {
        self.clocks.iter_mut().for_each(|clock| *clock.get_mut() = 0);
        (self.steps, self.images, self.batch) = (0, 0, 0);
    }

    /// A worker begins an operator; returns the one that it was at.
    pub(super) fn begin(&self, worker: usize, op: usize) -> usize {
        let now = self.now();
        self.workers[worker].since.store(now, Ordering::Relaxed);
        self.workers[worker].op.swap(op, Ordering::Relaxed)
    }

    /// A worker ends a part of its operator and begins the next one.
    pub(super) fn lap(&self, worker: usize, part: Part) {
        let op = self.workers[worker].op.load(Ordering::Relaxed);
        self.add(op * Part::ALL.len() + part as usize, worker);
    }

    /// A worker ends work between the operators.
    pub(super) fn lap_between(&self, worker: usize, what: Between) {
        self.add(self.clocks.len() - Between::ALL.len() + what as usize, worker);
    }

    /// Adds time that all threads wait for.
    pub(super) fn add_for_all(&self, what: Between, time: Duration, threads: usize) {
        let nanoseconds = time.as_nanos() as u64 * threads as u64;
        self.clocks[self.clocks.len() - Between::ALL.len() + what as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn add(&self, clock: usize, worker: usize) {
        let now = self.now();
        let before = self.workers[worker].since.swap(now, Ordering::Relaxed);
        self.clocks[clock].fetch_add(now - before, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// One entry per part that took time: the forward pass, the backward pass, what lies between.
    pub(super) fn timings<T: Trained>(&self, graph: &Graph<T>, kernels: &Kernels, threads: usize) -> Vec<LayerTiming> {
        let forward = (0..graph.ops.len()).flat_map(|op| Part::ALL[..Part::FORWARD].iter().map(move |part| (op, *part)));
        let backward = (0..graph.ops.len()).rev().flat_map(|op| Part::ALL[Part::FORWARD..].iter().map(move |part| (op, *part)));
        let entry = |name: String, clock: usize, cost: Cost| LayerTiming {
            name,
            kernel: cost.kernel,
            time: Duration::from_nanos(self.clocks[clock].load(Ordering::Relaxed)),
            runs: self.steps,
            images: self.images,
            threads,
            macs: cost.macs,
            bytes: cost.bytes,
            working_set: cost.bytes * if cost.is_kept { (self.batch / threads.max(1)).max(1) as u64 } else { 1 },
        };
        let parts = forward.chain(backward).filter_map(|(op, part)| {
            let mut cost = Cost::new(graph, &graph.ops[op], part);
            if let Op::Convolve { conv, .. } | Op::Head { conv, .. } = graph.ops[op]
                && cost.macs > 0
            {
                let conv = &graph.convolutions[conv];
                let is_gradient = part == Part::Weights;
                cost.kernel = Some(if is_gradient { conv.weight_gradient_kernel(kernels) } else { conv.matrix_kernel(kernels) });
            }
            let name = format!("{} {}", layer(graph, &graph.ops[op]), part.name());
            (cost.bytes > 0).then(|| entry(name, op * Part::ALL.len() + part as usize, cost))
        });
        let first = self.clocks.len() - Between::ALL.len();
        let between = Between::ALL.into_iter().map(|(what, name)| entry(name.to_owned(), first + what as usize, Cost::default()));
        parts.chain(between).filter(|timing| !timing.time.is_zero()).collect()
    }
}

/// The layer that an operator belongs to.
fn layer<'a, T: Trained>(graph: &'a Graph<T>, op: &Op) -> &'a str {
    match *op {
        Op::Convolve { conv, .. } | Op::Head { conv, .. } => &graph.convolutions[conv].name,
        Op::Activate { norm, .. } | Op::AddNorm { norm, .. } => &graph.norms[norm].name,
    }
}

/// What a part costs for one image.
#[derive(Default)]
struct Cost {
    kernel: Option<&'static str>,
    macs: u64,
    /// Activations that it reads and writes, and weights.
    bytes: u64,
    /// True if some of them are kept for the whole batch, so that they come from far away.
    is_kept: bool,
}

impl Cost {
    fn new<T: Trained>(graph: &Graph<T>, op: &Op, part: Part) -> Self {
        let values = |tensor: Id| graph.tensors[tensor].extent.elements();
        let kept = |values: usize| Cost { bytes: (size_of::<T>() * values) as u64, is_kept: true, ..Cost::default() };
        match *op {
            Op::Activate { raw, to, .. } | Op::AddNorm { raw, to, .. } => {
                let added = if matches!(op, Op::AddNorm { .. }) { values(to) } else { 0 };
                match part {
                    Part::Forward => kept(values(raw) + values(to) + added),
                    Part::Sums => kept(3 * values(raw)),
                    _ => Cost::default(),
                }
            }
            Op::Head { from, conv } => {
                let conv = &graph.convolutions[conv];
                // The backward pass has one part: the gradients of the weights and of the pooled pixel.
                let passes = match part {
                    Part::Forward => 1,
                    Part::Sums => 2,
                    _ => return Cost::default(),
                };
                let bytes = size_of::<T>() * values(from) + passes * conv.values.bytes();
                Cost { is_kept: false, ..multiply_adds(conv, passes, bytes) }
            }
            Op::Convolve { conv, input, output, .. } => {
                let conv = &graph.convolutions[conv];
                let (Output::Raw { raw: to, .. } | Output::Sum { to, .. }) = output;
                let sum = matches!(output, Output::Sum { .. });
                let (before, read) = match input {
                    Input::Images => (0, values(to) / conv.outputs() * conv.inputs * conv.kind.stride() * conv.kind.stride()),
                    Input::Tensor(from) => (0, values(from)),
                    Input::Activated { raw, .. } => (2 * values(raw), values(raw)),
                    Input::Pooled(from) => (values(from) + values(from) / 4, values(from) / 4),
                };
                match part {
                    Part::Input | Part::InputAgain => kept(before),
                    Part::Statistics => Cost { is_kept: false, ..kept(values(to)) },
                    Part::Gradient => match output {
                        Output::Raw { .. } => kept(3 * values(to)),
                        // The gradient of the sum is that of the branch, unless ReLU masks it or a scale makes another one.
                        Output::Sum { scale, relu, .. } => {
                            kept(values(to) * if relu { 5 } else { 0 } + values(to) * if scale == 1.0 { 0 } else { 2 })
                        }
                    },
                    Part::Sums => kept(3 * read),
                    Part::Data if input == Input::Images => Cost::default(),
                    Part::Forward | Part::Weights | Part::Data => {
                        // A sum also reads what it adds to, a data gradient the gradient that came past the block, and that of a pool
                        // becomes that of its input.
                        let others = match (part, input) {
                            (Part::Forward, _) if sum => values(to),
                            (Part::Data, Input::Tensor(_)) if !graph.enters_stage(op) => read,
                            (Part::Data, Input::Pooled(from)) => read + values(from),
                            _ => 0,
                        };
                        let bytes = size_of::<T>() * (read + values(to) + others) + conv.values.bytes();
                        multiply_adds(conv, graph.tensors[to].extent.pixels(), bytes)
                    }
                }
            }
        }
    }
}

fn multiply_adds<T: Trained>(conv: &TrainedConvolution<T>, pixels: usize, bytes: usize) -> Cost {
    let macs = pixels * conv.outputs() * conv.products();
    Cost { macs: macs as u64, bytes: bytes as u64, is_kept: true, kernel: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use crate::data::SoftLabel;
    use crate::isa::Isa;
    use crate::net::{Block, Network, Operator};
    use crate::train::{Executor, NetworkExecutor, Recompute, TrainConfig};

    fn timings(operator: Operator, recompute: Recompute, threads: usize) -> (Network, Vec<LayerTiming>) {
        let builder = Network::builder().with_input([3, 9, 8]).with_block(&Block::default().with_operator(operator));
        let network = builder.with_stage(8, 2).with_stage(16, 1).build().unwrap();
        let config = TrainConfig::default().with_recompute(recompute);
        let executor = NetworkExecutor::new(&network, &config, Pool::new(threads).unwrap(), Isa::Portable).unwrap();
        let mut executor = executor.with_timing();
        executor.forward_backward(&vec![0.5; 4 * 3 * 9 * 8], &[SoftLabel::hard(1); 4]).unwrap();
        let timings = executor.timings();
        executor.reset_timings();
        assert!(executor.timings().is_empty());
        (network, timings)
    }

    #[test]
    fn parts_are_named_once_and_do_all_multiply_adds() {
        for (operator, recompute, threads) in [
            (Operator::Lean, Recompute::None, 1),
            (Operator::Lean, Recompute::Stage, 2),
            (Operator::Separable, Recompute::None, 1),
            (Operator::Shift, Recompute::Block, 1),
        ] {
            let (network, timings) = timings(operator, recompute, threads);
            let mut names: Vec<&str> = timings.iter().map(|timing| timing.name.as_str()).collect();
            for part in
                ["stem.conv forward", "stages.0.1.conv2 input again", "stages.1.0.conv1 data", "head sums", "norms", "loss"]
            {
                assert!(names.contains(&part), "{part} in {names:?}");
            }
            assert!(!names.contains(&"stem.conv data"));
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), timings.len());
            // Nobody needs the gradient of the images.
            let stem = 9 * 8 * 8 * 27;
            assert_eq!(timings.iter().map(|timing| timing.macs).sum::<u64>(), 3 * network.macs() - stem);
            assert!(timings.iter().all(|timing| (timing.runs, timing.images, timing.threads) == (1, 4, threads)));
        }
    }
}
