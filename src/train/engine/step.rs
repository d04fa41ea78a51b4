//! One training step as phases: the forward pass, the loss, the backward pass, the sum of the partial gradients.
//!
//! A phase runs between two norms, which need the whole batch. Its tasks are chunks of consecutive images; inside a chunk, an
//! image goes through all operators of the phase while it is in cache. The number of chunks depends on the batch alone, and each
//! chunk sums its own partial gradients in image order, so results do not depend on threads.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Mutex;

use super::graph::{Graph, Id, Op, Output};
use super::kernel_weights::Trained;
use super::memory::Memory;
use super::norm::Values;
use super::slots::Slots;
use super::timing::{Between, Part, Timer};
use super::upcoming::Direction;
use super::visit::Visit;
use crate::data::SoftLabel;
use crate::dispatch::Kernels;
use crate::error::Result;
use crate::exec::region::Program;
use crate::kernel::elementwise::Elementwise;
use crate::train::Recompute;
use crate::train::loss::{StepLoss, softmax_cross_entropy};

/// Chunks of a batch: partial gradients, and tasks of a phase.
pub(crate) const CHUNKS: usize = 16;

/// A phase of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Operators in forward order.
    Forward(Range<usize>),
    /// Statistics of the batch at a norm.
    Statistics { norm: Id, raw: Id },
    /// Loss and gradient of the logits.
    Loss,
    /// The adjoints of operators, the last one first.
    Backward(Range<usize>),
    /// Operators of a stage in forward order once more, whose results are gone.
    Recompute(Range<usize>),
    /// What a part of the backward pass has completed: sums of the gradient at a norm, and partial gradients of convolutions.
    Sums { norm: Option<(Id, Id)>, convolutions: Vec<Id> },
}

/// The phases of a graph.
pub(crate) fn phases<T: Trained>(graph: &Graph<T>, recompute: Recompute) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut first = 0;
    for (index, op) in graph.ops.iter().enumerate() {
        if let Op::Convolve { output: Output::Raw { raw, norm }, .. } = *op {
            phases.push(Phase::Forward(first..index + 1));
            phases.push(Phase::Statistics { norm, raw });
            first = index + 1;
        }
    }
    phases.push(Phase::Forward(first..graph.ops.len()));
    phases.push(Phase::Loss);
    // Backward, the sums at a norm are complete once the operator that reads the norm's output has run.
    let mut end = graph.ops.len();
    for (index, op) in graph.ops.iter().enumerate().rev() {
        let norm = normalised_input(op);
        if norm.is_none() && index > 0 {
            continue;
        }
        phases.extend(recomputed_stage(graph, recompute, end));
        phases.push(Phase::Backward(index..end));
        let norm = norm.map(|(raw, norm)| (norm, raw));
        phases.push(Phase::Sums { norm, convolutions: completed(graph, index..end) });
        end = index;
    }
    phases
}

/// Convolutions whose first use is among some operators, so that the backward pass has been through all of their uses.
fn completed<T: Trained>(graph: &Graph<T>, ops: Range<usize>) -> Vec<Id> {
    let convolution = |op: &Op| match *op {
        Op::Convolve { conv, .. } | Op::Head { conv, .. } => Some(conv),
        Op::Activate { .. } | Op::AddNorm { .. } => None,
    };
    let is_first = |conv: &Id| !graph.ops[..ops.start].iter().any(|op| convolution(op) == Some(*conv));
    let mut found: Vec<Id> = graph.ops[ops.clone()].iter().filter_map(convolution).filter(is_first).collect();
    found.dedup();
    found
}

/// Where the backward pass comes to a connection, the operator before `end`: the blocks of the stage before it, if they have to be
/// computed again.
fn recomputed_stage<T: Trained>(graph: &Graph<T>, recompute: Recompute, end: usize) -> Option<Phase> {
    let enters = |index: &usize| graph.enters_stage(&graph.ops[*index]);
    let connection = end.checked_sub(1).filter(|last| recompute == Recompute::Stage && *last > 0 && enters(last))?;
    // The stage's own entrance and the norm and ReLU behind it are kept.
    let entrance = (0..connection).rev().find(enters)?;
    Some(Phase::Recompute(entrance + 2..connection))
}

/// The raw tensor and norm that an operator applies to its input.
pub(super) fn normalised_input(op: &Op) -> Option<(Id, Id)> {
    match *op {
        Op::Convolve { input: super::graph::Input::Activated { raw, norm }, .. }
        | Op::Activate { raw, norm, .. }
        | Op::AddNorm { raw, norm, .. } => Some((raw, norm)),
        _ => None,
    }
}

/// Whether an operator runs for the first time in a step, or because its result is gone: then the norms have their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    Again,
}

/// A step on one batch.
pub(crate) struct Step<'a, T: Trained> {
    pub(crate) graph: &'a Graph<T>,
    pub(crate) slots: &'a Slots,
    pub(crate) phases: &'a [Phase],
    pub(crate) memory: &'a Memory<T>,
    pub(crate) kernels: &'static Kernels,
    pub(crate) images: &'a [f32],
    /// Channels of the images.
    pub(crate) channels: usize,
    pub(crate) labels: &'a [SoftLabel],
    pub(crate) label_smoothing: f64,
    /// The loss, once its phase has run.
    pub(crate) loss: Mutex<Result<StepLoss>>,
    pub(super) timer: Option<&'a Timer>,
}

impl<T: Trained> Step<'_, T> {
    /// The operators that work value by value.
    pub(super) fn elementwise(&self) -> &'static Elementwise<T> {
        &T::kernels(self.kernels).elementwise
    }

    /// Images of the batch.
    pub(crate) fn count(&self) -> usize {
        self.labels.len()
    }

    /// Number of chunks of the batch.
    pub(crate) fn chunks(&self) -> usize {
        CHUNKS.min(self.count())
    }

    fn chunk(&self, chunk: usize) -> Range<usize> {
        let (count, chunks) = (self.count(), self.chunks());
        count * chunk / chunks..count * (chunk + 1) / chunks
    }

    /// A worker begins an operator; returns the one that it was at.
    pub(super) fn begin(&self, worker: usize, op: usize) -> usize {
        self.timer.map_or(0, |timer| timer.begin(worker, op))
    }

    /// A worker has done a part of its operator.
    pub(super) fn lap(&self, worker: usize, part: Part) {
        if let Some(timer) = self.timer {
            timer.lap(worker, part);
        }
    }

    fn lap_between(&self, worker: usize, what: Between) {
        if let Some(timer) = self.timer {
            timer.lap_between(worker, what);
        }
    }

    fn statistics(&self, norm: Id, raw: Id) {
        let tensor = &self.memory.tensors[raw];
        let images = (0..self.count()).map(|image| (tensor.read(image), self.memory.sums.read(image..image + 1)));
        self.graph.norms[norm].finish_statistics(images, tensor.extent.pixels());
    }

    fn gradient_statistics(&self, norm: Id, raw: Id) {
        let images = (0..self.count()).map(|image| self.memory.sums.read(image..image + 1));
        self.graph.norms[norm].finish_gradient(images, self.count() * self.memory.tensors[raw].extent.pixels());
    }

    fn loss(&self) {
        let classes = self.memory.logits.tile();
        let logits = self.memory.logits.read(0..self.count());
        let mut gradient = self.memory.logits_gradient.write(0..self.count());
        let loss = softmax_cross_entropy(&logits, self.labels, classes, self.label_smoothing, &mut gradient);
        if let Ok(mut slot) = self.loss.lock() {
            *slot = loss;
        }
    }

    /// Runs operators on the images of a chunk.
    fn forward_chunk(&self, ops: &Range<usize>, pass: Pass, chunk: usize, worker: usize) {
        for image in self.chunk(chunk) {
            for op in ops.clone() {
                let upcoming = self.upcoming(ops, Direction::Forward, op, image);
                self.forward(op, pass, Visit::new(image, worker, upcoming));
            }
        }
    }

    /// The affine map of a norm as slices, for as long as `use_map` runs.
    pub(super) fn with_map<R>(&self, norm: Id, use_map: impl FnOnce(&[f32], &[f32]) -> R) -> R {
        let norm = &self.graph.norms[norm];
        use_map(&norm.read(Values::Scale), &norm.read(Values::Shift))
    }
}

impl<T: Trained> Program for Step<'_, T> {
    fn phases(&self) -> usize {
        self.phases.len()
    }

    fn tasks(&self, phase: usize) -> usize {
        match &self.phases[phase] {
            Phase::Forward(_) | Phase::Backward(_) | Phase::Recompute(_) => self.chunks(),
            Phase::Statistics { .. } | Phase::Loss => 1,
            Phase::Sums { norm, convolutions } => convolutions.len() + usize::from(norm.is_some()),
        }
    }

    fn run(&self, phase: usize, task: usize, worker: usize) {
        // Waiting for other threads is in no part.
        self.begin(worker, 0);
        match &self.phases[phase] {
            Phase::Forward(ops) => self.forward_chunk(ops, Pass::First, task, worker),
            Phase::Recompute(ops) => self.forward_chunk(ops, Pass::Again, task, worker),
            Phase::Backward(ops) => {
                let images = self.chunk(task);
                for image in images.clone() {
                    for op in ops.clone().rev() {
                        let upcoming = self.upcoming(ops, Direction::Backward, op, image);
                        self.backward(op, (task, image == images.start), Visit::new(image, worker, upcoming));
                    }
                }
            }
            Phase::Statistics { norm, raw } => {
                self.statistics(*norm, *raw);
                self.lap_between(worker, Between::Norms);
            }
            Phase::Sums { norm, convolutions } => match (convolutions.get(task), norm) {
                (Some(&conv), _) => {
                    self.graph.convolutions[conv].merge(self.memory.partial(conv), self.chunks(), self.kernels);
                    self.lap_between(worker, Between::Merge);
                }
                (None, Some((norm, raw))) => {
                    self.gradient_statistics(*norm, *raw);
                    self.lap_between(worker, Between::Norms);
                }
                (None, None) => {}
            },
            Phase::Loss => {
                self.loss();
                self.lap_between(worker, Between::Loss);
            }
        }
    }
}
