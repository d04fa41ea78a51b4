//! Channel maps into convolutions, sums of sums into one, pairs of convolutions into lean ones.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::net::channel_map::ChannelMap;
use crate::onnx::import::draft::{Convolution, Draft, Op};
use crate::onnx::import::lean;

/// Rewrites a draft, and says which node its output is afterwards. Nodes that nobody needs any more stay where they are.
pub(super) fn simplify(draft: &mut Draft, output: usize) -> usize {
    let mut rewriting = Rewriting { uses: draft.uses(output), stands_for: (0..draft.nodes.len()).collect(), draft };
    for node in 1..=output {
        rewriting.visit(node);
    }
    // Afterwards, when every norm that follows a sum is in the sum's terms.
    for node in 1..=output {
        rewriting.pair(node);
    }
    rewriting.stands_for[output]
}

struct Rewriting<'a> {
    draft: &'a mut Draft,
    uses: Vec<usize>,
    /// The node that has become of each.
    stands_for: Vec<usize>,
}

impl Rewriting<'_> {
    /// Lets a node read what has become of its inputs.
    fn follow_inputs(&mut self, node: usize) {
        for input in &mut self.draft.nodes[node].inputs {
            *input = self.stands_for[*input];
        }
    }

    fn visit(&mut self, node: usize) {
        if self.uses[node] == 0 {
            return;
        }
        self.follow_inputs(node);
        match &self.draft.nodes[node].op {
            Op::Map(map) => {
                let (map, input) = (map.clone(), self.draft.nodes[node].inputs[0]);
                if self.uses[input] == 1 && self.absorb(input, &map) {
                    self.replace(node, input);
                }
            }
            Op::Sum => {
                self.flatten_sum(node);
                self.shift_convolutions(node);
            }
            _ => {}
        }
    }

    /// Another node does what `node` did.
    fn replace(&mut self, node: usize, by: usize) {
        self.uses[by] = self.uses[node];
        self.uses[node] = 0;
        self.stands_for[node] = by;
    }

    /// Applies a map to the output of a node that nobody else reads; false if the node cannot take it.
    fn absorb(&mut self, node: usize, map: &ChannelMap) -> bool {
        if matches!(self.draft.nodes[node].op, Op::Sum) {
            return self.absorb_in_terms(node, map);
        }
        match self.map_of(node) {
            Some(own) => {
                own.then(map);
                true
            }
            None => false,
        }
    }

    /// The map at the end of a node, if it has one.
    fn map_of(&mut self, node: usize) -> Option<&mut ChannelMap> {
        match &mut self.draft.nodes[node].op {
            Op::Convolve(Convolution { map, .. }) | Op::Map(map) => Some(map),
            _ => None,
        }
    }

    /// Applies a map to a sum: its scale to every term, its shift to one.
    fn absorb_in_terms(&mut self, sum: usize, map: &ChannelMap) -> bool {
        let terms = self.draft.nodes[sum].inputs.clone();
        let takes: Vec<usize> =
            terms.iter().copied().filter(|&term| self.uses[term] == 1 && self.map_of(term).is_some()).collect();
        let only_shifts = map.scale.iter().all(|scale| *scale == 1.0);
        if takes.is_empty() || (!only_shifts && takes.len() < terms.len()) {
            return false;
        }
        let mut map = map.clone();
        for term in takes {
            if let Some(own) = self.map_of(term) {
                own.then(&map);
            }
            map.shift.fill(0.0);
            if only_shifts {
                break;
            }
        }
        true
    }

    /// Terms of sums that only this one reads become its own.
    fn flatten_sum(&mut self, sum: usize) {
        let mut terms = Vec::new();
        for input in self.draft.nodes[sum].inputs.clone() {
            if matches!(self.draft.nodes[input].op, Op::Sum) && self.uses[input] == 1 {
                self.uses[input] = 0;
                terms.append(&mut self.draft.nodes[input].inputs);
            } else {
                terms.push(input);
            }
        }
        self.draft.nodes[sum].inputs = terms;
    }

    /// Terms that are shifts of values that others need too: the shifts go into a convolution of the sum, if it has one.
    fn shift_convolutions(&mut self, sum: usize) {
        let terms = self.draft.nodes[sum].inputs.clone();
        let is_own_convolution = |&&term: &&usize| self.uses[term] == 1 && matches!(self.draft.nodes[term].op, Op::Convolve(_));
        let Some(&convolution) = terms.iter().find(is_own_convolution) else { return };
        for (position, &term) in terms.iter().enumerate() {
            let Op::Map(map) = &self.draft.nodes[term].op else { continue };
            if self.uses[term] == 1 && map.scale.iter().all(|scale| *scale == 1.0) {
                let map = map.clone();
                self.absorb(convolution, &map);
                self.uses[term] = 0;
                self.draft.nodes[sum].inputs[position] = self.draft.nodes[term].inputs[0];
            }
        }
    }

    /// Makes lean convolutions of terms of a sum.
    fn pair(&mut self, node: usize) {
        if self.uses[node] == 0 {
            return;
        }
        self.follow_inputs(node);
        if !matches!(self.draft.nodes[node].op, Op::Sum) {
            return;
        }
        for (spatial, pointwise) in self.pairs(node) {
            let name = lean::common_name(&self.draft.nodes[spatial].name, &self.draft.nodes[pointwise].name);
            // The later of the two nodes, so that it comes after what it reads.
            let (kept, dropped) = (spatial.max(pointwise), spatial.min(pointwise));
            let take = |op: &mut Op| match std::mem::replace(op, Op::Sum) {
                Op::Convolve(convolution) => convolution,
                _ => unreachable!("pairs are of convolutions"),
            };
            let parts = [spatial, pointwise].map(|part| take(&mut self.draft.nodes[part].op));
            self.draft.nodes[kept].op = Op::Lean(Box::new(parts));
            self.draft.nodes[kept].name = name;
            self.uses[dropped] = 0;
        }
        let uses = &self.uses;
        self.draft.nodes[node].inputs.retain(|&term| uses[term] > 0);
        if let [only] = self.draft.nodes[node].inputs[..] {
            self.replace(node, only);
        }
    }

    /// Pairs of a stencil and a 1x1 convolution of the same image among the terms of a sum, which nobody else reads.
    fn pairs(&self, sum: usize) -> Vec<(usize, usize)> {
        let mut parts: BTreeMap<usize, [Vec<usize>; 2]> = BTreeMap::new();
        for &term in &self.draft.nodes[sum].inputs {
            let Op::Convolve(convolution) = &self.draft.nodes[term].op else { continue };
            let input = self.draft.nodes[term].inputs[0];
            let channels = self.draft.shape(input)[0];
            if self.uses[term] > 1 {
                continue;
            }
            let [stencils, matrices] = parts.entry(input).or_default();
            if lean::is_pointwise(convolution, channels) {
                matrices.push(term);
            } else if lean::stencil_of(convolution, channels).is_some() {
                stencils.push(term);
            }
        }
        parts.into_values().flat_map(|[stencils, matrices]| stencils.into_iter().zip(matrices)).collect()
    }
}
