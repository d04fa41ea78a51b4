//! What a phase uses next and is not in cache, so that convolutions can fetch it while they multiply.
//!
//! A phase takes one image after the other through its operators. The tensors of a batch come from beyond the second level of cache; what
//! the operators before used of the same image is in it.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::graph::{Id, Input, Op, Output};
use super::kernel_weights::Trained;
use super::step::Step;
use crate::kernel::conv::RUN_PIXELS;
use crate::kernel::upcoming::{UPCOMING, Upcoming};

/// Bytes of an image that are worth fetching: of larger ones the beginning, so that what several operands need stays in the second level of
/// cache together with what is in use.
const MOST_BYTES: usize = 256 * 1024;

/// The direction in which a phase goes through its operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// Most operands of an operator.
const OPERANDS: usize = 4;

/// Images that an operator reads or writes.
#[derive(Default)]
struct Operands {
    /// Those that have to be fetched for it.
    wanted: [Upcoming; OPERANDS],
    /// Those that a convolution fetches itself as it writes them.
    own: [Upcoming; 2],
    /// Bytes at their beginning that it uses before it could have fetched them.
    unfetched: usize,
}

impl Operands {
    fn contains(&self, operand: Upcoming) -> bool {
        self.wanted.iter().chain(&self.own).any(|used| used.is_at(operand))
    }
}

impl<T: Trained> Step<'_, T> {
    /// What the operators that follow `op` on an image use, up to and with the first convolution; from the last operator on, those on the
    /// next image.
    pub(super) fn upcoming(&self, ops: &Range<usize>, direction: Direction, op: usize, image: usize) -> [Upcoming; UPCOMING] {
        let mut upcoming = [Upcoming::default(); UPCOMING];
        let mut found = 0;
        let mut at = (op, image);
        let mut in_cache = self.operands(op, direction, image);
        while let Some((op, image)) = self.following(ops, direction, at) {
            let operands = self.operands(op, direction, image);
            let beginnings = operands.own.into_iter().map(|own| own.first(operands.unfetched));
            let used = operands.wanted.into_iter().chain(beginnings);
            for operand in used.filter(|operand| operand.bytes() > 0 && !in_cache.contains(*operand)) {
                if let Some(place) = upcoming.get_mut(found) {
                    *place = operand.first(MOST_BYTES);
                    found += 1;
                }
            }
            if let Op::Convolve { .. } = self.graph.ops[op] {
                break;
            }
            (at, in_cache) = ((op, image), operands);
        }
        upcoming
    }

    /// The operator after another one of a phase, with its image.
    fn following(&self, ops: &Range<usize>, direction: Direction, (op, image): (usize, usize)) -> Option<(usize, usize)> {
        let (first, last) = match direction {
            Direction::Forward => (ops.start, ops.end - 1),
            Direction::Backward => (ops.end - 1, ops.start),
        };
        if op == last {
            return (image + 1 < self.count()).then_some((first, image + 1));
        }
        Some((if direction == Direction::Forward { op + 1 } else { op - 1 }, image))
    }

    /// The images of the batch's tensors that an operator uses.
    fn operands(&self, op: usize, direction: Direction, image: usize) -> Operands {
        match direction {
            Direction::Forward => self.forward_operands(&self.graph.ops[op], image),
            Direction::Backward => self.backward_operands(&self.graph.ops[op], image),
        }
    }

    /// Bytes of the first pixels of a tensor's image, which a kernel computes together.
    fn first_run(&self, tensor: Id) -> usize {
        size_of::<T>() * RUN_PIXELS * self.memory.tensors[tensor].extent.channels
    }

    fn forward_operands(&self, op: &Op, image: usize) -> Operands {
        let tensor = |id: Id| self.memory.tensors[id].upcoming(image);
        let none = Upcoming::default();
        match *op {
            Op::Convolve { input, output, .. } => {
                let (own, to) = match output {
                    Output::Raw { raw, .. } => ([tensor(raw), none], raw),
                    Output::Sum { x, to, .. } => ([tensor(x), tensor(to)], to),
                };
                let wanted = [input_tensor(input).map_or(none, tensor), none, none, none];
                Operands { wanted, own, unfetched: self.first_run(to) }
            }
            Op::Head { from, .. } => Operands { wanted: [tensor(from), none, none, none], ..Operands::default() },
            Op::AddNorm { raw, x, to, .. } => {
                Operands { wanted: [tensor(raw), tensor(x), tensor(to), none], ..Operands::default() }
            }
            Op::Activate { raw, to, .. } => Operands { wanted: [tensor(raw), tensor(to), none, none], ..Operands::default() },
        }
    }

    fn backward_operands(&self, op: &Op, image: usize) -> Operands {
        let tensor = |id: Id| self.memory.tensors[id].upcoming(image);
        let gradient = |id: Id| self.gradient_of(id).upcoming(image);
        let none = Upcoming::default();
        let raw_gradient = self.memory.raw_gradient.upcoming(image..image + 1);
        match *op {
            Op::Convolve { input, output, .. } => {
                let x = input_tensor(input).map_or(none, tensor);
                let (own, unfetched, masked) = match input {
                    Input::Tensor(id) => (gradient(id), self.first_run(id), none),
                    Input::Pooled(id) => (gradient(id), 0, none),
                    Input::Activated { .. } => (none, 0, raw_gradient),
                    Input::Images => (none, 0, none),
                };
                let wanted = match output {
                    Output::Raw { raw, .. } => [tensor(raw), raw_gradient, x, none],
                    Output::Sum { to, relu, .. } => [gradient(to), if relu { tensor(to) } else { none }, x, masked],
                };
                Operands { wanted, own: [own, none], unfetched }
            }
            Op::AddNorm { raw, to, relu, .. } => {
                let output = if relu { tensor(to) } else { none };
                Operands { wanted: [gradient(to), output, tensor(raw), raw_gradient], ..Operands::default() }
            }
            Op::Activate { raw, to, .. } => {
                Operands { wanted: [gradient(to), tensor(raw), raw_gradient, none], ..Operands::default() }
            }
            Op::Head { from, .. } => Operands { wanted: [none; OPERANDS], own: [gradient(from), none], ..Operands::default() },
        }
    }
}

/// The tensor that a convolution reads.
fn input_tensor(input: Input) -> Option<Id> {
    match input {
        Input::Images => None,
        Input::Tensor(id) | Input::Pooled(id) | Input::Activated { raw: id, .. } => Some(id),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::data::SoftLabel;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::net::{Block, Network};
    use crate::train::Recompute;
    use crate::train::engine::graph::Graph;
    use crate::train::engine::memory::Memory;
    use crate::train::engine::slots::Slots;
    use crate::train::engine::step::{Phase, phases};
    use crate::train::loss::StepLoss;

    /// Bytes of 64 pixels of the networks' 8 channels.
    const FIRST_RUN: usize = 64 * 8 * 4;

    /// Calls `check` with a step on two images of 120 pixels, of a network with two blocks of two norms each.
    fn on_a_step(check: impl Fn(&Step<'_, f32>)) {
        let kernels = Kernels::of(Isa::Portable).unwrap();
        let block = Block::default().with_norms(2).with_relu_after_sum(true);
        let network = Network::builder().with_input([3, 12, 10]).with_stage_of(8, 2, &block).build().unwrap();
        let graph = Graph::new(&network, kernels).unwrap();
        let (slots, phases) = (Slots::new(&graph, Recompute::None), phases(&graph, Recompute::None));
        let memory = Memory::new(&graph, &slots, network.input(), 2, 1);
        check(&Step {
            graph: &graph,
            slots: &slots,
            phases: &phases,
            memory: &memory,
            kernels,
            images: &[],
            channels: 3,
            labels: &[SoftLabel::hard(0); 2],
            label_smoothing: 0.0,
            loss: Mutex::new(Ok(StepLoss::default())),
            timer: None,
        });
    }

    /// The operators of the first phase of a direction that ends the sum of a block and begins the next block.
    fn phase_of_two(step: &Step<'_, f32>, direction: Direction) -> Range<usize> {
        let ops = |phase: &Phase| match (phase, direction) {
            (Phase::Forward(ops), Direction::Forward) | (Phase::Backward(ops), Direction::Backward) => Some(ops.clone()),
            _ => None,
        };
        let sums = |ops: &Range<usize>| matches!(&step.graph.ops[ops.clone()], [Op::AddNorm { .. }, Op::Convolve { .. }]);
        step.phases.iter().filter_map(ops).find(sums).expect("a phase of a sum and a convolution")
    }

    fn upcoming(wanted: &[Upcoming]) -> [Upcoming; UPCOMING] {
        std::array::from_fn(|index| wanted.get(index).copied().unwrap_or_default())
    }

    #[test]
    fn forward_a_convolution_fetches_what_the_sum_of_the_next_image_uses() {
        on_a_step(|step| {
            let ops = phase_of_two(step, Direction::Forward);
            let Op::AddNorm { raw, x, to, .. } = step.graph.ops[ops.start] else { panic!("a sum") };
            let Op::Convolve { output: Output::Raw { raw: next_raw, .. }, .. } = step.graph.ops[ops.start + 1] else {
                panic!("the first convolution of a block")
            };
            let of_next = |id: Id| step.memory.tensors[id].upcoming(1);
            // The convolution itself fetches its output of the next image, but for the 64 pixels that it writes first.
            let expected = upcoming(&[of_next(raw), of_next(x), of_next(to), of_next(next_raw).first(FIRST_RUN)]);
            assert_eq!(step.upcoming(&ops, Direction::Forward, ops.start + 1, 0), expected);
            assert_eq!(step.upcoming(&ops, Direction::Forward, ops.start + 1, 1), [Upcoming::default(); UPCOMING]);
        });
    }

    #[test]
    fn backward_what_the_convolution_used_is_not_fetched_again() {
        on_a_step(|step| {
            let ops = phase_of_two(step, Direction::Backward);
            let Op::AddNorm { raw, .. } = step.graph.ops[ops.start] else { panic!("a sum") };
            let Op::Convolve { input: Input::Tensor(x), output: Output::Raw { raw: next_raw, .. }, .. } =
                step.graph.ops[ops.start + 1]
            else {
                panic!("the first convolution of a block")
            };
            let tensor = |id: Id, image| step.memory.tensors[id].upcoming(image);
            // Of this image only the raw tensor before the sum: its output is the convolution's input, and its gradient was just written.
            let gradient = step.gradient_of(x).upcoming(1).first(FIRST_RUN);
            let expected =
                upcoming(&[tensor(raw, 0), tensor(next_raw, 1), step.memory.raw_gradient.upcoming(1..2), tensor(x, 1), gradient]);
            assert_eq!(step.upcoming(&ops, Direction::Backward, ops.start + 1, 0), expected);
        });
    }
}
