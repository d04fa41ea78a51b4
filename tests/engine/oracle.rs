//! The oracle's network of a model, with the names of its tensors.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use leanresnet::internals::reference::{
    Block, ChannelStatistics, DenseWeights, HeadWeights, Layer, LeanWeights, Network, Norm, Operator, Real, Shape,
    batch_statistics, relu,
};
use leanresnet::net::{self, BlockForm, ConnectionForm};
use leanresnet::{Model, Stencil};

/// Where the statistics of norms come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Training,
    Evaluation,
}

/// Values by name, in the layout of model files.
pub(crate) type Tensors = BTreeMap<String, Vec<f64>>;

/// A model on the oracle.
pub(crate) struct Oracle<'a, T> {
    model: &'a Model,
    mode: Mode,
    pub(crate) network: Network<T>,
    /// The name of every layer; empty where it has no tensors.
    names: Vec<String>,
}

impl<'a, T: Real> Oracle<'a, T> {
    pub(crate) fn new(model: &'a Model, mode: Mode) -> Self {
        let mut oracle = Oracle { model, mode, network: Network { layers: Vec::new() }, names: Vec::new() };
        let network = model.network().unwrap();
        let stem = network.stem();
        oracle.convolution("stem", (stem.kernel, stem.stride), (network.input()[0], network.stages()[0].width));
        for (index, stage) in network.stages().iter().enumerate() {
            if index > 0 {
                oracle.connection(index, (network.stages()[index - 1].width, stage.width));
            }
            for block in 0..stage.blocks {
                let name = format!("stages.{index}.{block}");
                let block = oracle.block(&name, &stage.block, stage.width);
                oracle.push(&name, Layer::Block(Box::new(block)));
            }
        }
        oracle.push("", Layer::GlobalAveragePool);
        let head = HeadWeights { weight: oracle.tensor("head.weight"), bias: oracle.tensor("head.bias") };
        oracle.push("head", Layer::Head(head));
        oracle
    }

    fn push(&mut self, name: &str, layer: Layer<T>) {
        self.names.push(name.to_string());
        self.network.layers.push(layer);
    }

    fn tensor(&self, name: &str) -> Vec<T> {
        let (_, values) = self.model.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        values.iter().map(|value| T::from_f64(f64::from(*value))).collect()
    }

    fn bias(&self, name: &str, channels: usize) -> Vec<T> {
        if self.model.tensor(name).is_some() { self.tensor(name) } else { vec![T::ZERO; channels] }
    }

    fn norm(&self, name: &str) -> Option<Norm<T>> {
        self.model.tensor(&format!("{name}.weight"))?;
        let statistics = |part: &str| self.tensor(&format!("{name}.{part}")).into_iter().map(T::to_f64).collect();
        let running = (self.mode == Mode::Evaluation)
            .then(|| ChannelStatistics { mean: statistics("running_mean"), variance: statistics("running_var") });
        Some(Norm {
            weight: self.tensor(&format!("{name}.weight")),
            bias: self.tensor(&format!("{name}.bias")),
            epsilon: f64::from(self.model.network().unwrap().norm_epsilon()),
            running,
        })
    }

    fn dense(&self, name: &str, (kernel, stride): (usize, usize), (inputs, outputs): (usize, usize)) -> Operator<T> {
        Operator::Dense(DenseWeights {
            kernel,
            stride,
            inputs,
            outputs,
            weight: self.tensor(&format!("{name}.weight")),
            bias: self.bias(&format!("{name}.bias"), outputs),
        })
    }

    /// Convolution, norm, ReLU of a stem or connection.
    fn convolution(&mut self, name: &str, geometry: (usize, usize), channels: (usize, usize)) {
        let conv = format!("{name}.conv");
        let convolution = self.dense(&conv, geometry, channels);
        self.push(&conv, Layer::Convolution(convolution));
        let norm = format!("{name}.norm");
        if let Some(layer) = self.norm(&norm) {
            self.push(&norm, Layer::Norm(layer));
        }
        self.push("", Layer::Relu);
    }

    fn connection(&mut self, stage: usize, channels: (usize, usize)) {
        let name = format!("connections.{}", stage - 1);
        match self.model.network().unwrap().connection().form {
            ConnectionForm::PoolConv => {
                self.push("", Layer::AveragePool);
                self.convolution(&name, (1, 1), channels);
            }
            ConnectionForm::ConvPool => {
                self.convolution(&name, (1, 1), channels);
                self.push("", Layer::AveragePool);
            }
            _ => self.convolution(&name, (3, 2), channels),
        }
    }

    fn block(&self, name: &str, block: &net::Block, width: usize) -> Block<T> {
        let operator = |index: usize| {
            let name = format!("{name}.conv{}", index + 1);
            if block.operator == net::Operator::Dense {
                return self.dense(&name, (3, 1), (width, width));
            }
            let stencil = stencil_of(block, index);
            let spatial = self.tensor(&format!("{name}.spatial.weight"));
            let lean = LeanWeights {
                taps: stencil.taps().to_vec(),
                group_size: block.group_size,
                spatial: stored_positions(stencil, width, block.group_size)
                    .into_iter()
                    .map(|position| spatial[position])
                    .collect(),
                pointwise: self.tensor(&format!("{name}.pointwise.weight")),
                bias: self.bias(&format!("{name}.pointwise.bias"), width),
            };
            if block.operator == net::Operator::Lean {
                return Operator::Lean(lean);
            }
            let zeros = |values: &[T]| vec![T::ZERO; values.len()];
            let (no_matrix, no_bias) = (zeros(&lean.pointwise), zeros(&lean.bias));
            let LeanWeights { pointwise: weight, bias, .. } = lean.clone();
            let pointwise = DenseWeights { kernel: 1, stride: 1, inputs: width, outputs: width, weight, bias };
            Operator::Separable(LeanWeights { pointwise: no_matrix, bias: no_bias, ..lean }, pointwise)
        };
        Block {
            conv1: operator(0),
            norm1: self.norm(&format!("{name}.norm1")),
            conv2: (block.form == BlockForm::Residual).then(|| operator(1)),
            norm2: self.norm(&format!("{name}.norm2")),
            scale: T::from_f64(f64::from(block.scale)),
            relu_after_sum: block.relu_after_sum,
        }
    }

    /// The name of every tensor of [`Network::parameters`], in the same order.
    pub(crate) fn parameter_names(&self) -> Vec<String> {
        let operator = |name: &str, operator: &Operator<T>| match operator {
            Operator::Lean(_) | Operator::Separable(..) => {
                vec![format!("{name}.spatial.weight"), format!("{name}.pointwise.weight"), format!("{name}.pointwise.bias")]
            }
            Operator::Dense(_) => vec![format!("{name}.weight"), format!("{name}.bias")],
        };
        let pair = |name: &str| vec![format!("{name}.weight"), format!("{name}.bias")];
        let mut names = Vec::new();
        for (name, layer) in self.names.iter().zip(&self.network.layers) {
            match layer {
                Layer::Convolution(convolution) => names.extend(operator(name, convolution)),
                Layer::Norm(_) | Layer::Head(_) => names.extend(pair(name)),
                Layer::Block(block) => {
                    names.extend(operator(&format!("{name}.conv1"), &block.conv1));
                    names.extend(block.norm1.iter().flat_map(|_| pair(&format!("{name}.norm1"))));
                    names.extend(block.conv2.iter().flat_map(|conv2| operator(&format!("{name}.conv2"), conv2)));
                    names.extend(block.norm2.iter().flat_map(|_| pair(&format!("{name}.norm2"))));
                }
                Layer::Relu | Layer::AveragePool | Layer::GlobalAveragePool => {}
            }
        }
        names
    }

    /// The trained tensors of this network, or those of its gradient, by name. Biases that the model does not have are left out.
    pub(crate) fn tensors(&self, of: &Network<T>) -> Tensors {
        let mut network = of.clone();
        let values = network.parameters().into_iter().map(|values| values.iter().map(|value| value.to_f64()).collect::<Vec<_>>());
        let named = self.parameter_names().into_iter().zip(values);
        named
            .filter(|(name, _)| self.model.tensor(name).is_some())
            .map(|(name, values)| {
                let stored = if name.ends_with("spatial.weight") { self.stored_spatial(&name, &values) } else { values };
                (name, stored)
            })
            .collect()
    }

    /// Stencil weights in the layout of model files.
    fn stored_spatial(&self, name: &str, values: &[f64]) -> Vec<f64> {
        let stage: usize = name.split('.').nth(1).and_then(|stage| stage.parse().ok()).expect("a block's tensor");
        let stage = &self.model.network().unwrap().stages()[stage];
        let stencil = stencil_of(&stage.block, usize::from(name.contains(".conv2.")));
        let mut stored = vec![0.0; stage.width * stencil.side() * stencil.side()];
        for (value, position) in values.iter().zip(stored_positions(stencil, stage.width, 1)) {
            stored[position] = *value;
        }
        stored
    }

    /// The statistics of the batch at every norm, by its name, with the number of pixels.
    pub(crate) fn statistics(&self, x: &[T], shape: Shape) -> BTreeMap<String, (ChannelStatistics, usize)> {
        let mut found = BTreeMap::new();
        let mut insert = |name: String, norm: Option<&Norm<T>>, x: &[T]| {
            if let Some(norm) = norm {
                let channels = norm.weight.len();
                found.insert(name, (batch_statistics(x, channels), x.len() / channels));
            }
        };
        let (mut x, mut shape) = (x.to_vec(), shape);
        for (name, layer) in self.names.iter().zip(&self.network.layers) {
            match layer {
                Layer::Norm(norm) => insert(name.clone(), Some(norm), &x),
                Layer::Block(block) => {
                    let first = block.conv1.forward(&x, shape);
                    insert(format!("{name}.norm1"), block.norm1.as_ref(), &first);
                    let normalised = block.norm1.as_ref().map_or(first.clone(), |norm| norm.forward(&first));
                    let hidden: Vec<T> = normalised.into_iter().map(relu).collect();
                    let second = match &block.conv2 {
                        Some(conv2) => conv2.forward(&hidden, shape),
                        None => block.conv1.data_gradient(&hidden, shape),
                    };
                    insert(format!("{name}.norm2"), block.norm2.as_ref(), &second);
                }
                _ => {}
            }
            (x, shape) = layer.forward(&x, shape);
        }
        found
    }
}

/// The stencil of a block's convolution `index`; shifts can take any neighbour.
fn stencil_of(block: &net::Block, index: usize) -> Stencil {
    if block.operator == net::Operator::Shift { Stencil::Box9 } else { block.stencils[index] }
}

/// For every tap, channel of the group and output channel, the position of its weight in `[channels, group, side, side]`.
fn stored_positions(stencil: Stencil, channels: usize, group: usize) -> Vec<usize> {
    let (side, radius) = (stencil.side(), stencil.radius());
    let mut positions = Vec::new();
    for &(dy, dx) in stencil.taps() {
        let inside = (radius as isize + dy as isize) as usize * side + (radius as isize + dx as isize) as usize;
        for member in 0..group {
            positions.extend((0..channels).map(|channel| (channel * group + member) * side * side + inside));
        }
    }
    positions
}

/// The shape of a batch, channels last.
pub(crate) fn batch_shape(model: &Model, images: usize) -> Shape {
    let [channels, height, width] = model.input();
    Shape::new(images, height, width, channels)
}
