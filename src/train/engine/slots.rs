//! Which tensors share memory. What the backward pass computes again needs its place for one block at a time, or for one stage.
#![forbid(unsafe_code)]

use super::graph::{Graph, Id, Input, Op, Output};
use super::kernel_weights::Trained;
use crate::train::Recompute;

/// What the tensors of one place have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Kept from the forward to the backward pass.
    Own(Id),
    /// Before a norm, the first or second one of a block. The tensors of the last stage and the first one of the next are needed at the
    /// same time, unless those that enter a stage are kept: stages with odd and with even numbers have places of their own, or
    /// all have the same.
    Raw { odd: Option<bool>, second: bool },
    /// After the block of this number, in every stage.
    Block(usize),
}

/// The places of a graph's tensors.
pub(crate) struct Slots {
    places: Vec<Place>,
    distinct: Vec<Place>,
}

impl Slots {
    pub(crate) fn new<T: Trained>(graph: &Graph<T>, recompute: Recompute) -> Self {
        let places = places(graph, recompute);
        let mut distinct: Vec<Place> = Vec::new();
        for place in &places {
            if !distinct.contains(place) {
                distinct.push(*place);
            }
        }
        Slots { places, distinct }
    }

    /// Number of places.
    pub(crate) fn len(&self) -> usize {
        self.distinct.len()
    }

    /// The place of a tensor.
    pub(crate) fn of(&self, tensor: Id) -> usize {
        self.distinct.iter().position(|place| *place == self.places[tensor]).unwrap_or(0)
    }

    /// True if a tensor before a norm is gone when the backward pass comes to it.
    pub(crate) fn recomputes(&self, raw: Id) -> bool {
        matches!(self.places[raw], Place::Raw { .. })
    }
}

/// True for the result of a connection's convolution that is pooled behind its norm.
fn is_pooled<T: Trained>(graph: &Graph<T>, tensor: Id) -> bool {
    graph.ops.iter().any(|op| matches!(op, Op::Activate { raw, pool: true, .. } if *raw == tensor))
}

fn places<T: Trained>(graph: &Graph<T>, recompute: Recompute) -> Vec<Place> {
    let mut places: Vec<Place> = (0..graph.tensors.len()).map(Place::Own).collect();
    if recompute == Recompute::None {
        return places;
    }
    let by_stage = recompute == Recompute::Stage;
    let mut blocks = vec![0; graph.tensors.len()];
    for op in &graph.ops {
        match *op {
            Op::Convolve { input, output: Output::Raw { raw, .. }, .. } => {
                let stage = graph.tensors[raw].stage;
                // The backward pass of a connection needs its result while its input's stage is computed again. What is pooled later
                // is larger than the others: one image would overwrite another one.
                let is_kept = by_stage && graph.enters_stage(op) && stage > 0 || is_pooled(graph, raw);
                if !is_kept {
                    let odd = (!by_stage).then_some(stage % 2 == 1);
                    places[raw] = Place::Raw { odd, second: matches!(input, Input::Activated { .. }) };
                }
            }
            Op::Convolve { output: Output::Sum { to, .. }, .. } | Op::AddNorm { to, .. } if by_stage => {
                let stage = graph.tensors[to].stage;
                places[to] = Place::Block(blocks[stage]);
                blocks[stage] += 1;
            }
            _ => {}
        }
    }
    places
}
