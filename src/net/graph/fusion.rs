//! Which nodes of a graph run as one operator: convolutions with the sum and the ReLU after them, blocks of two lean convolutions, a
//! pool with the 1x1 convolution after it, and the head.
#![forbid(unsafe_code)]

use crate::net::graph::{Graph, Operation};

/// Nodes that run together. Numbers of values count as in [`Graph`]: 0 is the image, i + 1 the output of node i.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fused {
    pub(super) kind: Kind,
    /// Whether a ReLU follows.
    pub(super) relu: bool,
    /// The value that comes out.
    pub(super) output: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A node by itself.
    Node(usize),
    /// A convolution whose output is added to a value.
    AddedTo { conv: usize, value: usize },
    /// Two lean convolutions, the second of which adds to what the first one reads; whether there is a ReLU between them.
    Block { first: usize, second: usize, relu_between: bool },
    /// A 2x2 average pool and a 1x1 convolution.
    PooledConvolve { pool: usize, conv: usize },
    /// Global average pool and linear layer at the end.
    Head { pool: usize, linear: usize },
}

/// All nodes of a graph, in an order in which they can run.
pub(super) fn fuse(graph: &Graph) -> Vec<Fused> {
    let mut fusion =
        Fusion { graph, readers: vec![Vec::new(); graph.nodes().len() + 1], is_done: vec![false; graph.nodes().len()] };
    for (index, node) in graph.nodes().iter().enumerate() {
        for &value in &node.inputs {
            fusion.readers[value].push(index);
        }
    }
    (0..graph.nodes().len()).filter_map(|node| fusion.next(node)).collect()
}

struct Fusion<'a> {
    graph: &'a Graph,
    /// The nodes that read each value.
    readers: Vec<Vec<usize>>,
    is_done: Vec<bool>,
}

impl Fusion<'_> {
    fn operation(&self, node: usize) -> &Operation {
        &self.graph.nodes()[node].operation
    }

    fn input(&self, node: usize) -> usize {
        self.graph.nodes()[node].inputs[0]
    }

    /// The node that alone reads a value.
    fn only_reader(&self, value: usize) -> Option<usize> {
        match self.readers[value][..] {
            [reader] => Some(reader),
            _ => None,
        }
    }

    /// What runs when it is a node's turn; nothing if it ran with an earlier one.
    fn next(&mut self, node: usize) -> Option<Fused> {
        if self.is_done[node] {
            return None;
        }
        let (kind, output) =
            self.block(node).or_else(|| self.pooled(node)).or_else(|| self.added(node)).unwrap_or((Kind::Node(node), node + 1));
        let (relu, output) = match self.only_reader(output) {
            Some(reader) if self.takes_relu(&kind) && *self.operation(reader) == Operation::Relu => (true, reader + 1),
            _ => (false, output),
        };
        self.mark(&kind, output);
        Some(Fused { kind, relu, output })
    }

    /// Marks the nodes that ran.
    fn mark(&mut self, kind: &Kind, output: usize) {
        let mut ran = vec![output - 1];
        match *kind {
            Kind::Node(node) => ran.push(node),
            Kind::AddedTo { conv, .. } => ran.extend([conv, self.readers[conv + 1][0]]),
            Kind::Block { first, second, relu_between } => {
                ran.extend([first, second, self.readers[second + 1][0]]);
                if relu_between {
                    ran.push(self.readers[first + 1][0]);
                }
            }
            Kind::PooledConvolve { pool, conv } => ran.extend([pool, conv]),
            Kind::Head { pool, linear } => ran.extend([pool, linear]),
        }
        for node in ran {
            self.is_done[node] = true;
        }
    }

    /// Whether a ReLU can end it.
    fn takes_relu(&self, kind: &Kind) -> bool {
        match *kind {
            Kind::Node(node) => matches!(self.operation(node), Operation::Conv { .. } | Operation::Lean { .. } | Operation::Add),
            Kind::AddedTo { .. } | Kind::Block { .. } | Kind::PooledConvolve { .. } => true,
            Kind::Head { .. } => false,
        }
    }

    /// The sum that alone reads the output of a convolution and the other value of that sum, if that is there before the convolution.
    fn sum_after(&self, conv: usize) -> Option<(usize, usize)> {
        let sum = self.only_reader(conv + 1)?;
        let other = self.graph.nodes()[sum].inputs.iter().copied().find(|&value| value != conv + 1)?;
        (*self.operation(sum) == Operation::Add && other <= conv).then_some((sum, other))
    }

    fn added(&self, node: usize) -> Option<(Kind, usize)> {
        if !matches!(self.operation(node), Operation::Conv { .. } | Operation::Lean { .. }) {
            return None;
        }
        let (sum, value) = self.sum_after(node)?;
        Some((Kind::AddedTo { conv: node, value }, sum + 1))
    }

    fn block(&self, first: usize) -> Option<(Kind, usize)> {
        let is_lean = |node: usize| matches!(self.operation(node), Operation::Lean { .. });
        let mut second = self.only_reader(first + 1)?;
        let relu_between = *self.operation(second) == Operation::Relu;
        if relu_between {
            second = self.only_reader(second + 1)?;
        }
        let (sum, value) = self.sum_after(second)?;
        let is_block = is_lean(first) && is_lean(second) && value == self.input(first);
        is_block.then_some((Kind::Block { first, second, relu_between }, sum + 1))
    }

    fn pooled(&self, pool: usize) -> Option<(Kind, usize)> {
        let conv = self.only_reader(pool + 1)?;
        let is_pointwise =
            matches!(*self.operation(conv), Operation::Conv { kernel: [1, 1], stride: 1, padding: [0, 0, 0, 0], groups: 1, .. });
        if !is_pointwise {
            return None;
        }
        match *self.operation(pool) {
            Operation::AveragePool { kernel: [2, 2], stride: 2, padding: [0, 0, 0, 0], .. } => {
                Some((Kind::PooledConvolve { pool, conv }, conv + 1))
            }
            Operation::GlobalAveragePool if conv + 1 == self.graph.nodes().len() => {
                Some((Kind::Head { pool, linear: conv }, conv + 1))
            }
            _ => None,
        }
    }
}
