//! A network as a graph with one node per operator: what an exported file says, in a form that sessions run too.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::error::Result;
use crate::net::channel_map::ChannelMap;
use crate::net::fold::{self, Folded};
use crate::net::{Block, BlockForm, ConnectionForm, Graph, Model, Network, Node, Norm, Operation, Operator, StemPool};

/// A model of a graph, and which of its nodes are norms.
pub(super) struct Expanded {
    pub(super) model: Model,
    /// The norms by the names of their nodes. As nodes they are 1x1 convolutions of single channels.
    pub(super) norms: BTreeMap<String, BatchNorm>,
}

/// The numbers of a batch norm.
pub(super) struct BatchNorm {
    pub(super) epsilon: f32,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
}

/// The graph of a model: residual blocks of scale 1, whose second convolution has the scale in its weights, or its norm has it. The
/// symmetric form's second convolution is the transpose of the first, written out. A model that is a graph stays as it is.
///
/// # Errors
/// [`crate::Error::Invalid`] for networks that are too large for a graph.
pub(super) fn expand(model: &Model, keep_norm: bool) -> Result<Expanded> {
    let Ok(network) = model.network() else {
        return Ok(Expanded { model: model.clone(), norms: BTreeMap::new() });
    };
    let mut expansion = Expansion { model, network, keep_norm, nodes: Vec::new(), tensors: Vec::new(), norms: BTreeMap::new() };
    expansion.run();
    let Expansion { nodes, tensors, norms, .. } = expansion;
    let model = Model::from_graph(&Graph::new(network.input(), nodes)?, tensors)?
        .with_preprocess(model.preprocess().clone())?
        .with_class_names(model.class_names().to_vec())?
        .with_provenance(model.provenance())?;
    Ok(Expanded { model, norms })
}

struct Expansion<'a> {
    model: &'a Model,
    network: &'a Network,
    keep_norm: bool,
    nodes: Vec<Node>,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    norms: BTreeMap<String, BatchNorm>,
}

/// The extents of a convolution with padding `(side - 1) / 2`.
#[derive(Clone, Copy)]
struct Extents {
    outputs: usize,
    /// Input channels of a group.
    inputs: usize,
    groups: usize,
    side: usize,
    stride: usize,
}

impl Extents {
    /// A convolution of all channels, without stride.
    fn dense(outputs: usize, inputs: usize, side: usize) -> Self {
        Extents { outputs, inputs, groups: 1, side, stride: 1 }
    }

    /// A convolution from a group of channels to as many, without stride.
    fn grouped(channels: usize, group_size: usize, side: usize) -> Self {
        Extents { outputs: channels, inputs: group_size, groups: channels / group_size, side, stride: 1 }
    }
}

/// The methods that add nodes return the number of the value that comes out.
impl Expansion<'_> {
    fn run(&mut self) {
        let (network, stem) = (self.network, self.network.stem());
        let mut width = network.stages()[0].width;
        let extents = Extents { stride: stem.stride, ..Extents::dense(width, network.input()[0], stem.kernel) };
        let mut x = self.convolution("stem", 0, extents, stem.norm);
        if stem.pool == StemPool::Max3 {
            x = self.push("stem.pool", &[x], Operation::MaxPool { kernel: [3; 2], stride: 2, padding: [1; 4] });
        }
        for (index, stage) in network.stages().iter().enumerate() {
            if index > 0 {
                x = self.connection(&format!("connections.{}", index - 1), x, [stage.width, width]);
            }
            width = stage.width;
            for block in 0..stage.blocks {
                x = self.block(&format!("stages.{index}.{block}"), x, &stage.block, width);
            }
        }
        x = self.push("pool", &[x], Operation::GlobalAveragePool);
        let tensor = |part: &str| fold::values(self.model, &format!("head.{part}")).to_vec();
        let (weight, bias) = (tensor("weight"), tensor("bias"));
        self.conv("head", x, Extents::dense(network.classes(), width, 1), weight, Some(bias));
    }

    fn push(&mut self, name: &str, inputs: &[usize], operation: Operation) -> usize {
        self.nodes.push(Node::new(name, inputs, operation));
        self.nodes.len()
    }

    fn tensor(&mut self, name: String, shape: &[usize], values: Vec<f32>) {
        self.tensors.push((name, shape.to_vec(), values));
    }

    fn conv(&mut self, name: &str, x: usize, extents: Extents, weight: Vec<f32>, bias: Option<Vec<f32>>) -> usize {
        let Extents { outputs, inputs, groups, side, stride } = extents;
        let (kernel, padding) = ([side; 2], [(side - 1) / 2; 4]);
        let operation = Operation::Conv { outputs, kernel, stride, padding, dilation: 1, groups, bias: bias.is_some() };
        self.tensor(format!("{name}.weight"), &[outputs, inputs, side, side], weight);
        if let Some(bias) = bias {
            self.tensor(format!("{name}.bias"), &[outputs], bias);
        }
        self.push(name, &[x], operation)
    }

    /// A kept norm of so many channels, times `factor`.
    fn norm(&mut self, name: &str, x: usize, channels: usize, factor: f64) -> usize {
        let map = fold::norm_map(self.model, Norm::Batch, name, channels).times(factor);
        let tensor = |part: &str| fold::values(self.model, &format!("{name}.{part}")).to_vec();
        let times = |values: Vec<f32>| values.into_iter().map(|value| (f64::from(value) * factor) as f32).collect();
        let norm = BatchNorm {
            epsilon: self.network.norm_epsilon(),
            weight: times(tensor("weight")),
            bias: times(tensor("bias")),
            mean: tensor("running_mean"),
            variance: tensor("running_var"),
        };
        self.norms.insert(name.to_owned(), norm);
        let (weight, bias) = (map.weights(&vec![1.0; channels]), map.bias(&[]));
        self.conv(name, x, Extents::grouped(channels, 1, 1), weight, Some(bias))
    }

    /// The convolution `name`.conv, the norm and the ReLU after it.
    fn convolution(&mut self, name: &str, x: usize, extents: Extents, norm: Norm) -> usize {
        let (conv_name, norm_name, channels) = (format!("{name}.conv"), format!("{name}.norm"), extents.outputs);
        let is_kept = self.keep_norm && norm != Norm::None;
        let folded = if is_kept { Norm::None } else { norm };
        let map = fold::norm_map(self.model, folded, &norm_name, channels);
        let tensor = |part: &str| fold::values(self.model, &format!("{conv_name}.{part}"));
        let (weight, bias) = (map.weights(tensor("weight")), tensor("bias"));
        let bias = (!bias.is_empty() || folded != Norm::None).then(|| map.bias(bias));
        let mut value = self.conv(&conv_name, x, extents, weight, bias);
        if is_kept {
            value = self.norm(&norm_name, value, channels, 1.0);
        }
        self.push(&format!("{name}.relu"), &[value], Operation::Relu)
    }

    fn connection(&mut self, name: &str, x: usize, [outputs, inputs]: [usize; 2]) -> usize {
        let connection = self.network.connection();
        let pool = |expansion: &mut Self, x| {
            let operation = Operation::AveragePool { kernel: [2; 2], stride: 2, padding: [0; 4], counts_padding: false };
            expansion.push(&format!("{name}.pool"), &[x], operation)
        };
        let extents = Extents::dense(outputs, inputs, connection.form.kernel());
        match connection.form {
            ConnectionForm::PoolConv => {
                let x = pool(self, x);
                self.convolution(name, x, extents, connection.norm)
            }
            ConnectionForm::ConvPool => {
                let x = self.convolution(name, x, extents, connection.norm);
                pool(self, x)
            }
            ConnectionForm::StridedConv => self.convolution(name, x, Extents { stride: 2, ..extents }, connection.norm),
        }
    }

    fn block(&mut self, name: &str, x: usize, block: &Block, width: usize) -> usize {
        let factors = [1.0, fold::factor(block)];
        let is_kept = [1, 2].map(|norm| self.keep_norm && block.norms >= norm);
        let maps = if self.keep_norm {
            [0, 1].map(|index| ChannelMap::identity(width).times(if is_kept[index] { 1.0 } else { factors[index] }))
        } else {
            fold::block_maps(self.model, name, block, width)
        };
        let mut value = x;
        for (index, map) in maps.iter().enumerate() {
            value = self.block_convolution(name, value, block, index, map, width);
            if is_kept[index] {
                value = self.norm(&format!("{name}.norm{}", index + 1), value, width, factors[index]);
            }
            if index == 0 {
                value = self.push(&format!("{name}.relu1"), &[value], Operation::Relu);
            }
        }
        value = self.push(&format!("{name}.sum"), &[x, value], Operation::Add);
        if block.relu_after_sum { self.push(&format!("{name}.relu2"), &[value], Operation::Relu) } else { value }
    }

    fn block_convolution(&mut self, name: &str, x: usize, block: &Block, index: usize, map: &ChannelMap, width: usize) -> usize {
        let is_transposed = (block.form, index) == (BlockForm::Symmetric, 1);
        let Folded { spatial, matrix, bias } = fold::block_convolution(self.model, name, block, index, map, width);
        let has_bias = (block.bias && !is_transposed) || (!self.keep_norm && block.norms > index);
        let bias = has_bias.then_some(bias);
        let name = if is_transposed { format!("{name}.conv1.transposed") } else { format!("{name}.conv{}", index + 1) };
        let Some(stencil) = block.stencil_of(index) else {
            return self.conv(&name, x, Extents::dense(width, width, 3), matrix, bias);
        };
        let (side, group_size) = (stencil.side(), block.group_size);
        if block.operator != Operator::Lean {
            let x = self.conv(&format!("{name}.spatial"), x, Extents::grouped(width, group_size, side), spatial, None);
            return self.conv(&format!("{name}.pointwise"), x, Extents::dense(width, width, 1), matrix, bias);
        }
        self.tensor(format!("{name}.spatial.weight"), &[width, group_size, side, side], spatial);
        self.tensor(format!("{name}.pointwise.weight"), &[width, width, 1, 1], matrix);
        if let Some(bias) = bias {
            self.tensor(format!("{name}.pointwise.bias"), &[width], bias);
        }
        self.push(&name, &[x], Operation::Lean { stencil, group_size, bias: has_bias })
    }
}
