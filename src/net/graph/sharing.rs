//! Stages and memory of a graph's plan: where images wait for others of their group, and which tensors use the same memory in turns.
#![forbid(unsafe_code)]

use crate::exec::activation::Activation;
use crate::exec::tensor::Extent;
use crate::net::op::{Op, TensorId};
use crate::net::plan::{GROUP_BYTES, Plan, PlannedTensor};

/// Elements of the smallest image that is worth the end of a stage, where threads wait for each other.
const SMALLEST_HANDED_ON: usize = 1 << 10;

/// Cuts the steps into stages, decides which tensors hold the images of a whole group, and lets tensors share memory.
pub(super) fn share<T: Activation>(plan: &mut Plan<T>) {
    let lives = lives(plan);
    plan.stages = cuts(plan, &lives);
    hold_groups(plan, &lives);
    assign(plan, &lives);
}

/// The first and the last step that a tensor is used in.
#[derive(Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
}

impl Life {
    /// True if it is used before or in a step, and after it.
    fn spans(&self, step: usize) -> bool {
        self.first <= step && self.last > step
    }
}

fn lives<T: Activation>(plan: &mut Plan<T>) -> Vec<Life> {
    let mut lives = vec![Life { first: usize::MAX, last: 0 }; plan.tensors.len()];
    for (index, step) in plan.steps.iter_mut().enumerate() {
        for tensor in step.op.tensors_mut() {
            let life = &mut lives[*tensor];
            *life = Life { first: life.first.min(index), last: index };
        }
    }
    lives
}

/// The only tensor whose values are needed after a step, if there is one.
fn only_survivor(lives: &[Life], step: usize) -> Option<TensorId> {
    let mut survivors = (0..lives.len()).filter(|&tensor| lives[tensor].spans(step));
    survivors.next().filter(|_| survivors.next().is_none())
}

/// First steps of the stages. A stage ends where a single tensor goes on that is at most half as large as the one that the stage began
/// with: what goes from one stage to the next, for all images of a batch, is small then.
fn cuts<T: Activation>(plan: &Plan<T>, lives: &[Life]) -> Vec<usize> {
    let mut cuts = vec![0];
    // The elements that the stage began to hand on; the caller's image does not count.
    let mut held = None;
    for step in 1..plan.steps.len().saturating_sub(1) {
        let Some(tensor) = only_survivor(lives, step) else { continue };
        let elements = plan.tensors[tensor].extent.elements();
        match held {
            None => held = Some(elements),
            Some(of_stage) if elements <= of_stage / 2 && elements >= SMALLEST_HANDED_ON => {
                cuts.push(step + 1);
                held = Some(elements);
            }
            Some(_) => {}
        }
    }
    cuts
}

/// Tensors that more than one image of a group needs at a time: those that go from stage to stage, those that go from block to block in a
/// stage with many weights, which are read once for the group then, and all that are needed beyond a step that writes one of these.
fn hold_groups<T: Activation>(plan: &mut Plan<T>, lives: &[Life]) {
    for stage in 0..plan.stages.len() {
        let steps = plan.stage(stage);
        let weights: usize = plan.steps[steps.clone()].iter().map(|step| step.op.weight_bytes()).sum();
        let is_heavy = weights > GROUP_BYTES / 2;
        for step in steps.clone() {
            if let Some(tensor) = only_survivor(lives, step)
                && step > 0
                && (is_heavy || step + 1 == steps.end)
            {
                plan.tensors[tensor].between_stages = true;
            }
        }
    }
    let mut is_settled = false;
    while !is_settled {
        is_settled = true;
        for step in 0..plan.steps.len() {
            let Some(output) = plan.steps[step].op.output() else { continue };
            if !plan.tensors[output].between_stages {
                continue;
            }
            for tensor in 0..lives.len() {
                if lives[tensor].spans(step) && !plan.tensors[tensor].between_stages {
                    plan.tensors[tensor].between_stages = true;
                    is_settled = false;
                }
            }
        }
    }
}

/// What tensors must have in common to use the same memory: zeros around the image at the same places.
type Place = (Extent, bool, [usize; 2]);

/// Gives tensors the memory of others that are not needed any more.
fn assign<T: Activation>(plan: &mut Plan<T>, lives: &[Life]) {
    let mut at = vec![None; plan.tensors.len()];
    for step in &plan.steps {
        if let Op::Pad { to, at: place, .. } = &step.op {
            at[*to] = Some(*place);
        }
    }
    let place = |tensor: TensorId| -> Place {
        let PlannedTensor { extent, between_stages, .. } = plan.tensors[tensor];
        (extent, between_stages, at[tensor].unwrap_or([extent.border; 2]))
    };
    let mut order: Vec<TensorId> = (0..plan.tensors.len()).collect();
    order.sort_by_key(|&tensor| lives[tensor].first);
    // Of every memory: what it is for, and the last step that uses it.
    let mut memories: Vec<(Place, usize)> = Vec::new();
    let mut memory_of = vec![0; plan.tensors.len()];
    for tensor in order {
        let (place, life) = (place(tensor), lives[tensor]);
        let free = memories.iter().position(|(other, last)| *other == place && *last < life.first);
        let memory = free.unwrap_or(memories.len());
        match free {
            Some(memory) => memories[memory].1 = life.last,
            None => memories.push((place, life.last)),
        }
        memory_of[tensor] = memory;
    }
    let planned = |(extent, between_stages, _): Place| PlannedTensor { extent, between_stages, is_scratch: false };
    let tensors = memories.into_iter().map(|(place, _)| planned(place)).collect();
    plan.tensors = tensors;
    for step in &mut plan.steps {
        step.op.tensors_mut().into_iter().for_each(|tensor| *tensor = memory_of[*tensor]);
    }
}
