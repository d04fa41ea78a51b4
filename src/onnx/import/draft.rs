//! The graph between ONNX's nodes and [`Graph`](crate::net::Graph): convolutions carry what happens to their channels afterwards, sums have
//! any number of terms.
#![forbid(unsafe_code)]

use std::rc::Rc;

use crate::net::Operation;
use crate::net::channel_map::ChannelMap;
use crate::net::graph::output_shape;
use crate::onnx::import::refusal::{Checked, refusal};

/// Values of weights and channel maps per byte of the file, at most: nodes may share an initialiser, but a small file becomes no huge model.
const VALUES_PER_BYTE: usize = 4;
/// Values that a file of any size may have.
const SMALL: usize = 1 << 22;

/// The draft of a graph. Node 0 is the image that comes in.
pub(super) struct Draft {
    pub(super) nodes: Vec<DraftNode>,
    /// The number of images, if the file fixes it.
    pub(super) batch: Option<usize>,
    /// Values that may still be stored.
    room: usize,
}

pub(super) struct DraftNode {
    pub(super) name: String,
    pub(super) op: Op,
    /// Nodes before this one.
    pub(super) inputs: Vec<usize>,
    /// Channels, height and width of the output.
    pub(super) shape: [usize; 3],
    /// Whether no value of the output can be below 0.
    pub(super) is_nonnegative: bool,
}

pub(super) enum Op {
    /// The image that comes in.
    Image,
    Convolve(Convolution),
    /// The sum of two convolutions of the same image, a stencil and a 1x1 convolution.
    Lean(Box<[Convolution; 2]>),
    Map(ChannelMap),
    /// Zeros above, left, below and right.
    Pad([usize; 4]),
    /// The sum of all inputs.
    Sum,
    /// An operation without weights.
    Plain(Operation),
}

/// A convolution and what happens to each of its output channels; its bias is the map's shift.
#[derive(Clone)]
pub(super) struct Convolution {
    pub(super) window: Window,
    pub(super) groups: usize,
    /// `[outputs, inputs of a group, rows, columns]`.
    pub(super) weight: Rc<Vec<f32>>,
    pub(super) map: ChannelMap,
}

/// Which pixels a kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    /// Above, left, below and right.
    pub(super) padding: [usize; 4],
    pub(super) dilation: usize,
}

impl Window {
    /// A single pixel.
    pub(super) const PIXEL: Window = Window { kernel: [1, 1], stride: 1, padding: [0; 4], dilation: 1 };
}

impl Convolution {
    /// A convolution that does what a map does.
    pub(super) fn of_map(map: ChannelMap) -> Self {
        let groups = map.scale.len();
        Convolution { window: Window::PIXEL, groups, weight: Rc::new(vec![1.0; groups]), map }
    }

    /// A convolution that only puts zeros around images.
    pub(super) fn of_padding(channels: usize, padding: [usize; 4]) -> Self {
        let mut convolution = Convolution::of_map(ChannelMap::identity(channels));
        convolution.window.padding = padding;
        convolution
    }

    pub(super) fn outputs(&self) -> usize {
        self.map.scale.len()
    }

    pub(super) fn has_bias(&self) -> bool {
        self.map.shift.iter().any(|shift| *shift != 0.0)
    }

    /// The operation of a graph.
    pub(super) fn operation(&self) -> Operation {
        let Window { kernel, stride, padding, dilation } = self.window;
        let bias = self.has_bias();
        Operation::Conv { outputs: self.outputs(), kernel, stride, padding, dilation, groups: self.groups, bias }
    }
}

impl Draft {
    /// A draft without nodes for a file of so many bytes.
    pub(super) fn new(input: [usize; 3], batch: Option<usize>, file_bytes: usize) -> Self {
        let image =
            DraftNode { name: "image".to_owned(), op: Op::Image, inputs: Vec::new(), shape: input, is_nonnegative: false };
        Draft { nodes: vec![image], batch, room: SMALL + VALUES_PER_BYTE * file_bytes }
    }

    pub(super) fn shape(&self, node: usize) -> [usize; 3] {
        self.nodes[node].shape
    }

    /// Makes sure that values to be stored are within the bound for the file.
    pub(super) fn charge(&mut self, values: usize) -> Checked<()> {
        let Some(left) = self.room.checked_sub(values) else {
            return Err(refusal("weights", format!("at most {} values more for a file of this size", self.room), values));
        };
        self.room = left;
        Ok(())
    }

    /// Adds a node; the bounds and shapes of [`Graph`](crate::net::Graph) are checked here already, so that a refusal can name it.
    pub(super) fn push(&mut self, name: String, op: Op, inputs: &[usize]) -> Checked<usize> {
        let shape = self.shape(inputs[0]);
        let operation = match &op {
            Op::Convolve(convolution) => Some(convolution.operation()),
            // Never more weights than numbers: shapes are the same with and without the map.
            Op::Pad(padding) => Some(Operation::Conv {
                outputs: shape[0],
                kernel: [1, 1],
                stride: 1,
                padding: *padding,
                dilation: 1,
                groups: shape[0],
                bias: false,
            }),
            Op::Plain(operation) => Some(operation.clone()),
            Op::Image | Op::Lean(_) | Op::Map(_) | Op::Sum => None,
        };
        let values = match &op {
            Op::Convolve(convolution) => convolution.weight.len() + 4 * convolution.outputs(),
            Op::Map(_) | Op::Pad(_) => 6 * shape[0],
            _ => 0,
        };
        let output = match &operation {
            Some(operation) => output_shape(&name, operation, &[shape])?,
            None => shape,
        };
        let all_inputs = inputs.iter().all(|&input| self.nodes[input].is_nonnegative);
        let is_nonnegative = match &op {
            Op::Plain(Operation::Relu) => true,
            Op::Plain(_) | Op::Pad(_) | Op::Sum => all_inputs,
            Op::Image | Op::Convolve(_) | Op::Lean(_) | Op::Map(_) => false,
        };
        self.charge(values)?;
        self.nodes.push(DraftNode { name, op, inputs: inputs.to_vec(), shape: output, is_nonnegative });
        Ok(self.nodes.len() - 1)
    }

    /// How often every node is read on the way to `output`, which counts as read once; 0 for nodes that it does not need.
    pub(super) fn uses(&self, output: usize) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        uses[output] = 1;
        for node in (0..=output).rev() {
            if uses[node] > 0 {
                self.nodes[node].inputs.iter().for_each(|&input| uses[input] += 1);
            }
        }
        uses
    }
}
