//! A graph and its tensors from a draft, in an order in which sums fuse with the convolutions before them.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::error::Result;
use crate::net::{Graph, Node, Operation};
use crate::onnx::import::draft::{Convolution, Draft, Op};
use crate::onnx::import::lean::{self, Spatial};

/// Longest name of a node, bytes; a number may follow.
const MAX_NAME: usize = 200;

/// A tensor by its name in a model.
pub(super) type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// The graph that ends with node `output` of a draft, and its tensors.
///
/// # Errors
/// Those of [`Graph::new`], for an output of several pixels for example.
pub(super) fn emit(draft: &Draft, output: usize) -> Result<(Graph, Vec<NamedTensor>)> {
    let uses = draft.uses(output);
    let mut emission = Emission {
        draft,
        only_read_by_sum: vec![false; draft.nodes.len()],
        nodes: Vec::new(),
        tensors: Vec::new(),
        names: HashMap::new(),
        values: vec![0; draft.nodes.len()],
    };
    for (_, node) in draft.nodes.iter().enumerate().filter(|(index, node)| uses[*index] > 0 && matches!(node.op, Op::Sum)) {
        node.inputs.iter().for_each(|&term| emission.only_read_by_sum[term] |= uses[term] == 1);
    }
    for node in (1..=output).filter(|&node| uses[node] > 0) {
        emission.node(node);
    }
    let Emission { nodes, tensors, .. } = emission;
    Ok((Graph::new(draft.shape(0), nodes)?, tensors))
}

struct Emission<'a> {
    draft: &'a Draft,
    /// Convolutions of these come right before their sum.
    only_read_by_sum: Vec<bool>,
    nodes: Vec<Node>,
    tensors: Vec<NamedTensor>,
    /// Names that are taken, and the number to try first for another node that wants one.
    names: HashMap<String, usize>,
    /// The value of the graph that each node of the draft is.
    values: Vec<usize>,
}

impl Emission<'_> {
    fn is_convolution(&self, node: usize) -> bool {
        matches!(self.draft.nodes[node].op, Op::Convolve(_) | Op::Lean(_) | Op::Map(_) | Op::Pad(_))
    }

    fn node(&mut self, node: usize) {
        if self.is_convolution(node) {
            if !self.only_read_by_sum[node] {
                self.convolution(node);
            }
            return;
        }
        let inputs = &self.draft.nodes[node].inputs;
        match &self.draft.nodes[node].op {
            Op::Sum => self.sum(node),
            Op::Plain(operation) => {
                let name = self.free_name(&self.draft.nodes[node].name, &[]);
                self.values[node] = self.push(name, &[self.values[inputs[0]]], operation.clone());
            }
            _ => unreachable!("the image is no output of a node, convolutions are above"),
        }
    }

    fn push(&mut self, name: String, inputs: &[usize], operation: Operation) -> usize {
        self.nodes.push(Node::new(name, inputs, operation));
        self.nodes.len()
    }

    /// The sum of all terms: first those that are there, then one convolution after another, each followed by the sum that it fuses with.
    fn sum(&mut self, node: usize) {
        let terms = self.draft.nodes[node].inputs.iter().copied();
        let (late, there): (Vec<usize>, Vec<usize>) =
            terms.partition(|&term| self.only_read_by_sum[term] && self.is_convolution(term));
        let mut sum = None;
        for (term, is_late) in there.into_iter().map(|term| (term, false)).chain(late.into_iter().map(|term| (term, true))) {
            if is_late {
                self.convolution(term);
            }
            let value = self.values[term];
            sum = Some(match sum {
                None => value,
                Some(sum) => {
                    let name = self.free_name(&self.draft.nodes[node].name, &[]);
                    self.push(name, &[sum, value], Operation::Add)
                }
            });
        }
        self.values[node] = sum.expect("sums have terms");
    }

    fn convolution(&mut self, node: usize) {
        let draft_node = &self.draft.nodes[node];
        let input = draft_node.inputs[0];
        let parts: &[&str] = if matches!(draft_node.op, Op::Lean(_)) { &["spatial", "pointwise"] } else { &[] };
        let name = self.free_name(&draft_node.name, parts);
        let channels = self.draft.shape(input)[0];
        let operation = match &draft_node.op {
            Op::Convolve(convolution) => self.plain_convolution(&name, convolution, channels),
            Op::Map(map) => self.plain_convolution(&name, &Convolution::of_map(map.clone()), channels),
            Op::Pad(padding) => self.plain_convolution(&name, &Convolution::of_padding(channels, *padding), channels),
            Op::Lean(parts) => self.lean(&name, parts, channels),
            _ => unreachable!("only convolutions come here"),
        };
        self.values[node] = self.push(name, &[self.values[input]], operation);
    }

    fn plain_convolution(&mut self, name: &str, convolution: &Convolution, channels: usize) -> Operation {
        let Convolution { window, groups, weight, map } = convolution;
        let shape = vec![convolution.outputs(), channels / groups, window.kernel[0], window.kernel[1]];
        self.tensors.push((format!("{name}.weight"), shape, map.weights(weight)));
        if convolution.has_bias() {
            self.tensors.push((format!("{name}.bias"), vec![convolution.outputs()], map.bias(&[])));
        }
        convolution.operation()
    }

    fn lean(&mut self, name: &str, [spatial, pointwise]: &[Convolution; 2], channels: usize) -> Operation {
        let Spatial { stencil, group_size, weight } = lean::stencil_of(spatial, channels).expect("a stencil, as it was paired");
        let side = stencil.side();
        self.tensors.push((format!("{name}.spatial.weight"), vec![channels, group_size, side, side], weight));
        let matrix = pointwise.map.weights(&pointwise.weight);
        self.tensors.push((format!("{name}.pointwise.weight"), vec![channels, channels, 1, 1], matrix));
        let bias = spatial.has_bias() || pointwise.has_bias();
        if bias {
            let sums = spatial.map.shift.iter().zip(&pointwise.map.shift).map(|(a, b)| (a + b) as f32).collect();
            self.tensors.push((format!("{name}.pointwise.bias"), vec![channels], sums));
        }
        Operation::Lean { stencil, group_size, bias }
    }

    /// A name for a node that no other has, and whose tensors, named after these parts of it, are no other's.
    fn free_name(&mut self, wanted: &str, parts: &[&str]) -> String {
        let mut name: String = wanted.chars().filter(|character| !character.is_control()).collect();
        while name.len() > MAX_NAME {
            name.pop();
        }
        if name.is_empty() {
            name.push_str("node");
        }
        let mut number = self.names.get(&name).copied().unwrap_or(0);
        loop {
            let free = if number == 0 { name.clone() } else { format!("{name}.{number}") };
            number += 1;
            let all: Vec<String> =
                std::iter::once(free.clone()).chain(parts.iter().map(|part| format!("{free}.{part}"))).collect();
            if all.iter().all(|name| !self.names.contains_key(name)) {
                // The number after the last one that was tried: many nodes of one name take no longer than others.
                self.names.extend(all.into_iter().map(|name| (name, 1)));
                self.names.insert(name, number);
                return free;
            }
        }
    }
}
