//! The layers of a network in forward order, with their sizes and costs.
#![forbid(unsafe_code)]

use crate::net::architecture::{BlockForm, ConnectionForm, Norm, Operator, Stage, StemPool};
use crate::net::network::Network;
use crate::net::parameters::{self, ParameterSpec};

/// Size and cost of one layer, for one image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// Name; parameters of the layer start with it.
    pub name: String,
    /// What it does, such as `lean cross5`.
    pub operation: String,
    /// Channels, height, width of its output.
    pub output: [usize; 3],
    /// Number of values that training can choose: of a spatial weight only the taps.
    pub parameters: u64,
    /// Multiply-accumulate operations of its convolution or product. Taps that fall outside the image count, taps that the
    /// stencil does not have do not; norms, pools and sums count nothing.
    pub macs: u64,
}

/// The layers of a network in forward order.
pub fn layers(network: &Network) -> Vec<LayerSummary> {
    let summary = |layer: Layer| LayerSummary {
        parameters: layer.parameters.iter().map(|parameter| parameter.trainable_values() as u64).sum(),
        name: layer.name,
        operation: layer.operation,
        output: layer.output,
        macs: layer.macs,
    };
    forward_layers(network).into_iter().map(summary).collect()
}

impl Network {
    /// Multiply-accumulate operations per image; see [`LayerSummary::macs`].
    pub fn macs(&self) -> u64 {
        forward_layers(self).iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.macs))
    }

    /// Number of values that training can choose.
    pub fn parameter_count(&self) -> u64 {
        parameters::parameters(self).iter().map(|parameter| parameter.trainable_values() as u64).sum()
    }
}

/// One layer with its tensors.
pub(crate) struct Layer {
    name: String,
    operation: String,
    output: [usize; 3],
    macs: u64,
    pub(crate) parameters: Vec<ParameterSpec>,
}

/// The one walk over a network that lists of layers and of parameters come from.
pub(crate) fn forward_layers(network: &Network) -> Vec<Layer> {
    let mut walk = Walk { layers: Vec::new(), size: [network.input[1], network.input[2]], width: network.input[0] };
    walk.stem(network);
    for (index, stage) in network.stages.iter().enumerate() {
        if index > 0 {
            walk.connection(network, index - 1, stage.width);
        }
        walk.stage(index, stage);
    }
    walk.head(network.classes);
    walk.layers
}

/// The layers so far, and the height, width and channels of the last output.
struct Walk {
    layers: Vec<Layer>,
    size: [usize; 2],
    width: usize,
}

impl Walk {
    /// Appends a layer whose output has the current size and width.
    fn push(&mut self, name: &str, operation: String, products: usize, parameters: Vec<ParameterSpec>) {
        let [height, width] = self.size;
        let pixels = height as u64 * width as u64;
        let macs = pixels.saturating_mul(self.width as u64).saturating_mul(products as u64);
        self.layers.push(Layer { name: name.to_owned(), operation, output: [self.width, height, width], macs, parameters });
    }

    fn convolution(&mut self, name: &str, width: usize, kernel: usize, stride: usize, bias: bool) {
        let input = std::mem::replace(&mut self.width, width);
        let parameters = parameters::convolution(name, width, input, kernel, bias);
        self.size = self.size.map(|extent| extent.div_ceil(stride));
        let stride = if stride > 1 { format!(" stride {stride}") } else { String::new() };
        self.push(name, format!("conv {kernel}x{kernel}{stride}"), input * kernel * kernel, parameters);
    }

    fn norm(&mut self, name: &str, kind: Norm) {
        if kind != Norm::None {
            let parameters = parameters::norm(name, kind, self.width);
            self.push(name, format!("{kind} norm"), 0, parameters);
        }
    }

    fn stem(&mut self, network: &Network) {
        let stem = &network.stem;
        self.convolution("stem.conv", network.stages[0].width, stem.kernel, stem.stride, stem.bias);
        self.norm("stem.norm", stem.norm);
        if stem.pool == StemPool::Max3 {
            self.size = stem.output_size([network.input[1], network.input[2]]);
            self.push("stem.pool", "max pool 3x3 stride 2".to_owned(), 0, Vec::new());
        }
    }

    fn connection(&mut self, network: &Network, index: usize, width: usize) {
        let connection = &network.connection;
        let name = |part: &str| format!("connections.{index}.{part}");
        let pooled = connection.form.output_size(self.size);
        let pool = |walk: &mut Self| {
            walk.size = pooled;
            walk.push(&name("pool"), "average pool 2x2".to_owned(), 0, Vec::new());
        };
        if connection.form == ConnectionForm::PoolConv {
            pool(self);
        }
        let stride = if connection.form == ConnectionForm::StridedConv { 2 } else { 1 };
        self.convolution(&name("conv"), width, connection.form.kernel(), stride, connection.bias);
        self.norm(&name("norm"), connection.norm);
        if connection.form == ConnectionForm::ConvPool {
            pool(self);
        }
    }

    fn stage(&mut self, stage_index: usize, stage: &Stage) {
        let block = &stage.block;
        let norm = |at: usize| if block.norms >= at { block.norm } else { Norm::None };
        let products = block.products(self.width);
        let operations = match block.operator {
            Operator::Dense => ["dense"; 2].map(str::to_owned),
            operator if operator.has_stencil() => block.stencils.map(|stencil| format!("{operator} {stencil}")),
            operator => [operator.to_string(), operator.to_string()],
        };
        for index in 0..stage.blocks {
            let name = |part: &str| format!("stages.{stage_index}.{index}.{part}");
            let parameters = |part: usize, name: &str| parameters::block_convolution(name, block, part, stage.width);
            self.push(&name("conv1"), operations[0].clone(), products[0], parameters(0, &name("conv1")));
            self.norm(&name("norm1"), norm(1));
            match block.form {
                BlockForm::Residual => {
                    self.push(&name("conv2"), operations[1].clone(), products[1], parameters(1, &name("conv2")));
                }
                BlockForm::Symmetric => {
                    self.push(&name("conv1"), format!("{} transposed", operations[0]), products[0], Vec::new());
                }
            }
            self.norm(&name("norm2"), norm(2));
        }
    }

    fn head(&mut self, classes: usize) {
        self.size = [1, 1];
        self.push("pool", "global average pool".to_owned(), 0, Vec::new());
        let width = std::mem::replace(&mut self.width, classes);
        self.push("head", "linear".to_owned(), width, parameters::head(classes, width));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::architecture::{Block, Connection};

    /// Twice the multiply-accumulates of the stencils and of everything else, per image.
    fn flops(network: &Network) -> (u64, u64) {
        let stencil: u64 = network
            .stages()
            .iter()
            .zip(network.stage_sizes())
            .map(|(stage, [height, width])| {
                2 * 2 * (stage.blocks * height * width * stage.width * stage.block.stencils[0].taps().len()) as u64
            })
            .sum();
        (2 * network.macs() - stencil, stencil)
    }

    /// The constants are worked out by hand from 2 H W Cin Cout (k k) per convolution and 2 H W C 5 per stencil:
    /// the 41.6 and 3.4 million of `small` that the comparison with other engines states.
    #[test]
    fn presets_cost_what_their_formulas_say() {
        // Stem 2*1024*32*27; per stage 2*2*3*HW*C*C; connections 2*HW*Cin*Cout; head 2*128*10.
        let matrix = 1_769_472 + 3 * 12_582_912 + 2 * 1_048_576 + 2_560;
        let stencil = 3 * 2 * 2 * 5 * (1024 * 32 + 256 * 64 + 64 * 128);
        assert_eq!(flops(&Network::preset("small").unwrap()), (matrix, stencil));
        assert_eq!((matrix, stencil), (41_617_920, 3_440_640));

        let matrix = 2 * 1024 * 64 * 27 + 3 * (5 * 2 * 2 * 1024 * 64 * 64) + 2 * (2 * 256 * 64 * 128) + 2 * 256 * 10;
        let stencil = 5 * 2 * 2 * 5 * (1024 * 64 + 256 * 128 + 64 * 256);
        assert_eq!(flops(&Network::preset("base").unwrap()), (matrix, stencil));
        assert_eq!((matrix, stencil), (263_590_912, 11_468_800));

        let matrix = 2 * 3136 * 64 * 147 + 16 * (2 * 2 * 3136 * 64 * 64) + 3 * (2 * 784 * 64 * 128) + 2 * 512 * 1000;
        let stencil = 2 * 2 * 5 * (3 * 3136 * 64 + 4 * 784 * 128 + 6 * 196 * 256 + 3 * 49 * 512);
        assert_eq!(flops(&Network::preset("imagenet").unwrap()), (matrix, stencil));
        assert_eq!((matrix, stencil), (920_649_728, 27_596_800));
    }

    #[test]
    fn parameters_of_small_are_counted_by_taps() {
        let network = Network::preset("small").unwrap();
        let norms = 2 * (32 + 3 * 32 + 64 + 3 * 64 + 128 + 3 * 128);
        let lean: u64 = [32, 64, 128].iter().map(|width| 3 * 2 * (width * width + 5 * width)).sum();
        let other = 32 * 27 + 32 * 64 + 64 * 128 + 10 * 128 + 10;
        assert_eq!(network.parameter_count(), norms + lean + other);
        assert_eq!(network.parameter_count(), layers(&network).iter().map(|layer| layer.parameters).sum::<u64>());
    }

    #[test]
    fn layers_are_in_forward_order_with_their_outputs() {
        let network = Network::builder()
            .with_input([3, 9, 8])
            .with_stage(8, 1)
            .with_stage_of(16, 1, &Block::default().with_form(BlockForm::Symmetric).with_norms(2))
            .with_connection(&Connection::default().with_form(ConnectionForm::ConvPool))
            .build()
            .unwrap();
        let lines: Vec<String> = layers(&network)
            .into_iter()
            .map(|layer| {
                format!("{} | {} | {:?} | {} | {}", layer.name, layer.operation, layer.output, layer.parameters, layer.macs)
            })
            .collect();
        assert_eq!(
            lines,
            [
                "stem.conv | conv 3x3 | [8, 9, 8] | 216 | 15552",
                "stem.norm | batch norm | [8, 9, 8] | 16 | 0",
                "stages.0.0.conv1 | lean cross5 | [8, 9, 8] | 104 | 7488",
                "stages.0.0.norm1 | batch norm | [8, 9, 8] | 16 | 0",
                "stages.0.0.conv2 | lean cross5 | [8, 9, 8] | 104 | 7488",
                "connections.0.conv | conv 1x1 | [16, 9, 8] | 128 | 9216",
                "connections.0.norm | batch norm | [16, 9, 8] | 32 | 0",
                "connections.0.pool | average pool 2x2 | [16, 4, 4] | 0 | 0",
                "stages.1.0.conv1 | lean cross5 | [16, 4, 4] | 336 | 5376",
                "stages.1.0.norm1 | batch norm | [16, 4, 4] | 32 | 0",
                "stages.1.0.conv1 | lean cross5 transposed | [16, 4, 4] | 0 | 5376",
                "stages.1.0.norm2 | batch norm | [16, 4, 4] | 32 | 0",
                "pool | global average pool | [16, 1, 1] | 0 | 0",
                "head | linear | [10, 1, 1] | 170 | 160",
            ]
        );
    }
}
