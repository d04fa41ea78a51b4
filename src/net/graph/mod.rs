//! Graphs of convolutions, pools and sums: the description of models that are not of this crate's own family of networks.
#![forbid(unsafe_code)]

mod fusion;
mod lower;
mod shapes;
mod sharing;

use serde::{Deserialize, Serialize};

pub(crate) use lower::lower;
#[cfg(feature = "onnx")]
pub(crate) use shapes::{MAX_REACH, output_shape};

use crate::error::Result;
use crate::net::layers::LayerSummary;
use crate::net::parameters::{ParameterRole, ParameterSpec, spec};
use crate::stencil::Stencil;

/// A feed-forward graph of operators from an image to one number per class,
#[cfg_attr(feature = "onnx", doc = "as [`crate::onnx::import`] makes it.")]
#[cfg_attr(not(feature = "onnx"), doc = "as `leanresnet::onnx::import` makes it with the feature `onnx`.")]
///
/// A value of this type is always valid: nodes come after those that they read, sizes fit and are bounded, and the last node's output
/// is one pixel, whose channels are the classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Description", into = "Description")]
pub struct Graph {
    input: [usize; 3],
    nodes: Vec<Node>,
    /// Channels, height, width of the image and of every node's output.
    shapes: Vec<[usize; 3]>,
}

/// What a graph is stored as.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    input: [usize; 3],
    nodes: Vec<Node>,
}

/// One operator of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Node {
    /// Name, which no other node has; names of its tensors start with it.
    pub name: String,
    /// What it reads: 0 is the image, i + 1 the output of node i.
    pub inputs: Vec<usize>,
    /// What it computes.
    #[serde(flatten)]
    pub operation: Operation,
}

/// What a node computes. Images are padded with zeros where nothing else is said; extents are rounded down:
/// (size + padding - reach) / stride + 1, where a kernel of k reaches (k - 1) dilation + 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// A convolution with weight `[outputs, inputs / groups, kernel]`. On images of one pixel, a linear layer.
    Conv {
        /// Output channels.
        outputs: usize,
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Input pixels (and rows) from an output pixel to the next.
        #[serde(default = "one")]
        stride: usize,
        /// Pixels above, left, below and right.
        #[serde(default)]
        padding: [usize; 4],
        /// Pixels from a tap to the next.
        #[serde(default = "one")]
        dilation: usize,
        /// Groups of channels that do not see each other.
        #[serde(default = "one")]
        groups: usize,
        /// Whether it has a bias.
        #[serde(default)]
        bias: bool,
    },
    /// A lean convolution: a stencil in groups of channels and a 1x1 convolution of the same image, summed.
    Lean {
        /// The stencil.
        stencil: Stencil,
        /// Channels that a tap reads; 1 is depth-wise.
        #[serde(default = "one")]
        group_size: usize,
        /// Whether it has a bias.
        #[serde(default)]
        bias: bool,
    },
    /// The maximum over windows; padding is less than any number.
    MaxPool {
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Input pixels (and rows) from a window to the next.
        stride: usize,
        /// Pixels above, left, below and right.
        #[serde(default)]
        padding: [usize; 4],
    },
    /// The mean over windows.
    AveragePool {
        /// Height and width of the window.
        kernel: [usize; 2],
        /// Input pixels (and rows) from a window to the next.
        stride: usize,
        /// Pixels above, left, below and right.
        #[serde(default)]
        padding: [usize; 4],
        /// Whether pixels of the padding count in the divisor.
        #[serde(default)]
        counts_padding: bool,
    },
    /// The mean over all pixels.
    GlobalAveragePool,
    /// All values of the image as the channels of one pixel: all pixels of the first channel, then those of the next.
    Flatten,
    /// The sum of two images.
    Add,
    /// What is below 0 becomes 0.
    Relu,
}

fn one() -> usize {
    1
}

impl TryFrom<Description> for Graph {
    type Error = crate::Error;

    fn try_from(Description { input, nodes }: Description) -> Result<Self> {
        Graph::new(input, nodes)
    }
}

impl From<Graph> for Description {
    fn from(graph: Graph) -> Self {
        Description { input: graph.input, nodes: graph.nodes }
    }
}

impl Graph {
    /// Checks a description. `input`: channels, height and width of the image.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for everything that a graph promises and the nodes do not keep.
    pub fn new(input: [usize; 3], nodes: Vec<Node>) -> Result<Self> {
        let shapes = shapes::shapes(input, &nodes)?;
        Ok(Graph { input, nodes, shapes })
    }

    /// Channels, height, width of the images.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.shapes[self.nodes.len()][0]
    }

    /// The nodes in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Channels, height, width of the image (0) or of the output of node i (i + 1).
    pub fn shape(&self, value: usize) -> [usize; 3] {
        self.shapes[value]
    }

    /// The tensors of the graph in the order of its nodes.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        self.nodes.iter().flat_map(|node| node.parameters(self.shapes[node.inputs[0]][0])).collect()
    }

    /// Size and cost of every node.
    pub fn layers(&self) -> Vec<LayerSummary> {
        let layer = |(index, node): (usize, &Node)| {
            let (inputs, output) = (self.shapes[node.inputs[0]][0], self.shapes[index + 1]);
            let pixels = output[1] as u64 * output[2] as u64;
            LayerSummary {
                name: node.name.clone(),
                operation: node.operation.to_string(),
                output,
                parameters: node.parameters(inputs).iter().map(|parameter| parameter.trainable_values() as u64).sum(),
                macs: (pixels * output[0] as u64).saturating_mul(node.operation.products(inputs) as u64),
            }
        };
        self.nodes.iter().enumerate().map(layer).collect()
    }

    /// True if a stencil reads groups of several channels.
    pub(crate) fn has_groups(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.operation, Operation::Lean { group_size, .. } if group_size > 1))
    }
}

impl Node {
    /// A node with this name that reads these values.
    pub fn new(name: impl Into<String>, inputs: &[usize], operation: Operation) -> Self {
        Node { name: name.into(), inputs: inputs.to_vec(), operation }
    }

    /// The tensors of the node for an image of so many channels.
    fn parameters(&self, inputs: usize) -> Vec<ParameterSpec> {
        let tensor = |part: &str, shape: &[usize], role, fan_in| spec(&self.name, part, shape, role, fan_in);
        let (mut tensors, bias) = match self.operation {
            Operation::Conv { outputs, kernel: [rows, columns], groups, bias, .. } => {
                let shape = [outputs, inputs / groups, rows, columns];
                let weight = tensor("weight", &shape, ParameterRole::ConvWeight, shape[1..].iter().product());
                (vec![weight], bias.then(|| tensor("bias", &[outputs], ParameterRole::Bias, 0)))
            }
            Operation::Lean { stencil, group_size, bias } => {
                let shape = [inputs, group_size, stencil.side(), stencil.side()];
                let role = ParameterRole::SpatialWeight { stencil };
                let spatial = tensor("spatial.weight", &shape, role, 2 * group_size * stencil.taps().len());
                let matrix = tensor("pointwise.weight", &[inputs, inputs, 1, 1], ParameterRole::ConvWeight, 2 * inputs);
                (vec![spatial, matrix], bias.then(|| tensor("pointwise.bias", &[inputs], ParameterRole::Bias, 0)))
            }
            _ => (Vec::new(), None),
        };
        tensors.extend(bias);
        tensors
    }
}

impl Operation {
    /// Multiply-adds of one output value for an image of so many channels.
    fn products(&self, inputs: usize) -> usize {
        match *self {
            Operation::Conv { kernel: [rows, columns], groups, .. } => inputs / groups * rows * columns,
            Operation::Lean { stencil, group_size, .. } => inputs + group_size * stencil.taps().len(),
            _ => 0,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let window = |f: &mut std::fmt::Formatter<'_>, name: &str, [rows, columns]: [usize; 2], stride: usize| {
            write!(f, "{name} {rows}x{columns}")?;
            if stride > 1 { write!(f, " stride {stride}") } else { Ok(()) }
        };
        match *self {
            Operation::Conv { kernel, stride, dilation, groups, .. } => {
                window(f, "conv", kernel, stride)?;
                if dilation > 1 {
                    write!(f, " dilation {dilation}")?;
                }
                if groups > 1 { write!(f, " groups {groups}") } else { Ok(()) }
            }
            Operation::Lean { stencil, group_size: 1, .. } => write!(f, "lean {stencil}"),
            Operation::Lean { stencil, group_size, .. } => write!(f, "lean {stencil} g{group_size}"),
            Operation::MaxPool { kernel, stride, .. } => window(f, "max pool", kernel, stride),
            Operation::AveragePool { kernel, stride, .. } => window(f, "average pool", kernel, stride),
            Operation::GlobalAveragePool => f.write_str("global average pool"),
            Operation::Flatten => f.write_str("flatten"),
            Operation::Add => f.write_str("sum"),
            Operation::Relu => f.write_str("ReLU"),
        }
    }
}
