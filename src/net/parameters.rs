//! The tensors of a network: names and shapes as in a PyTorch state dict, in forward order.
#![forbid(unsafe_code)]

use crate::net::architecture::{Block, Norm, Operator};
use crate::net::layers::forward_layers;
use crate::net::network::Network;
use crate::stencil::Stencil;

/// What a tensor of a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParameterRole {
    /// Weight of a full or 1x1 convolution, `[out, in, k, k]`.
    ConvWeight,
    /// Weight of the spatial part of a lean convolution, `[channels, group_size, side, side]`.
    SpatialWeight {
        /// Values outside of it are 0.
        stencil: Stencil,
    },
    /// Weight of the depth-wise convolution that a separable one begins with, `[channels, group_size, side, side]`.
    DepthwiseWeight {
        /// Values outside of it are 0.
        stencil: Stencil,
    },
    /// Fixed weight of a shift, `[channels, 1, 3, 3]`: per channel a single 1, at the neighbour that the channel comes from.
    ShiftWeight,
    /// Bias of a convolution, `[out]`.
    Bias,
    /// Factor of a norm, `[channels]`.
    NormWeight,
    /// Summand of a norm, `[channels]`.
    NormBias,
    /// Mean that batch norm uses at inference, `[channels]`.
    RunningMean,
    /// Variance that batch norm uses at inference, `[channels]`; the unbiased one.
    RunningVar,
    /// Number of training steps of a batch norm, `[]`, a 64-bit integer: written to files for others, never read.
    NumBatchesTracked,
    /// Weight of the head, `[classes, width]`.
    HeadWeight,
    /// Bias of the head, `[classes]`.
    HeadBias,
}

impl ParameterRole {
    /// Whether the optimiser changes it. A shift is fixed; the running statistics and their counter follow the data instead.
    pub fn is_trainable(self) -> bool {
        !matches!(self, Self::ShiftWeight | Self::RunningMean | Self::RunningVar | Self::NumBatchesTracked)
    }

    /// Whether weight decay acts on it: weights of convolutions and of the head, neither norms nor biases.
    pub fn decays(self) -> bool {
        matches!(self, Self::ConvWeight | Self::SpatialWeight { .. } | Self::DepthwiseWeight { .. } | Self::HeadWeight)
    }

    /// The stencil of a spatial weight.
    pub(crate) fn stencil(self) -> Option<Stencil> {
        match self {
            Self::SpatialWeight { stencil } | Self::DepthwiseWeight { stencil } => Some(stencil),
            Self::ShiftWeight => Some(Stencil::Box9),
            _ => None,
        }
    }
}

/// One tensor of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParameterSpec {
    /// Name in model files.
    pub name: String,
    /// Extents, the slowest first.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: ParameterRole,
    /// For weights, the number of products that are summed into one output value; for the two parts of a lean convolution, which are summed,
    /// twice that of the part. 0 for the others.
    pub fan_in: usize,
}

impl ParameterSpec {
    /// Number of stored values.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of values that training can choose: none in running statistics and shifts, only the taps in spatial weights.
    pub fn trainable_values(&self) -> usize {
        match (self.role.is_trainable(), self.role.stencil()) {
            (false, _) => 0,
            (true, Some(stencil)) => self.shape[0] * self.shape[1] * stencil.taps().len(),
            (true, None) => self.values(),
        }
    }
}

/// The tensors of a network in forward order.
pub fn parameters(network: &Network) -> Vec<ParameterSpec> {
    forward_layers(network).into_iter().flat_map(|layer| layer.parameters).collect()
}

pub(crate) fn spec(layer: &str, name: &str, shape: &[usize], role: ParameterRole, fan_in: usize) -> ParameterSpec {
    ParameterSpec { name: format!("{layer}.{name}"), shape: shape.to_vec(), role, fan_in }
}

/// The tensors of a full convolution from `input` to `output` channels.
pub(crate) fn convolution(layer: &str, output: usize, input: usize, kernel: usize, bias: bool) -> Vec<ParameterSpec> {
    let shape = [output, input, kernel, kernel];
    let weight = spec(layer, "weight", &shape, ParameterRole::ConvWeight, input * kernel * kernel);
    let bias = bias.then(|| spec(layer, "bias", &[output], ParameterRole::Bias, 0));
    std::iter::once(weight).chain(bias).collect()
}

/// The tensors of a block's convolution number `index` at width `width`.
pub(crate) fn block_convolution(layer: &str, block: &Block, index: usize, width: usize) -> Vec<ParameterSpec> {
    let Some(stencil) = block.stencil_of(index) else {
        return convolution(layer, width, width, 3, block.bias);
    };
    let shape = [width, block.group_size, stencil.side(), stencil.side()];
    let taps = block.group_size * stencil.taps().len();
    let (role, spatial_fan_in, pointwise_fan_in) = match block.operator {
        Operator::Separable => (ParameterRole::DepthwiseWeight { stencil }, taps, width),
        Operator::Shift => (ParameterRole::ShiftWeight, 1, width),
        // Both parts read the same input and are summed: each brings half of the output's variance.
        Operator::Lean | Operator::Dense => (ParameterRole::SpatialWeight { stencil }, 2 * taps, 2 * width),
    };
    let mut parameters = vec![
        spec(layer, "spatial.weight", &shape, role, spatial_fan_in),
        spec(layer, "pointwise.weight", &[width, width, 1, 1], ParameterRole::ConvWeight, pointwise_fan_in),
    ];
    if block.bias {
        parameters.push(spec(layer, "pointwise.bias", &[width], ParameterRole::Bias, 0));
    }
    parameters
}

/// The tensors of a norm over `width` channels.
pub(crate) fn norm(layer: &str, kind: Norm, width: usize) -> Vec<ParameterSpec> {
    let mut parameters = Vec::new();
    if kind != Norm::None {
        parameters.push(spec(layer, "weight", &[width], ParameterRole::NormWeight, 0));
        parameters.push(spec(layer, "bias", &[width], ParameterRole::NormBias, 0));
    }
    if kind == Norm::Batch {
        parameters.push(spec(layer, "running_mean", &[width], ParameterRole::RunningMean, 0));
        parameters.push(spec(layer, "running_var", &[width], ParameterRole::RunningVar, 0));
        parameters.push(spec(layer, "num_batches_tracked", &[], ParameterRole::NumBatchesTracked, 0));
    }
    parameters
}

/// The tensors of the linear head.
pub(crate) fn head(classes: usize, width: usize) -> Vec<ParameterSpec> {
    vec![
        spec("head", "weight", &[classes, width], ParameterRole::HeadWeight, width),
        spec("head", "bias", &[classes], ParameterRole::HeadBias, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::architecture::{BlockForm, Connection, ConnectionForm, Stem};

    fn names(network: &Network) -> Vec<String> {
        parameters(network).into_iter().map(|parameter| format!("{} {:?}", parameter.name, parameter.shape)).collect()
    }

    #[test]
    fn lean_residual_network_has_the_names_of_a_state_dict() {
        let network = Network::builder().with_stage(8, 1).with_stage(16, 1).build().unwrap();
        let norm = |layer: &str, width: usize| {
            ["weight", "bias", "running_mean", "running_var"]
                .map(|name| format!("{layer}.{name} [{width}]"))
                .into_iter()
                .chain([format!("{layer}.num_batches_tracked []")])
        };
        let lean = |layer: &str, width: usize| {
            [format!("{layer}.spatial.weight [{width}, 1, 3, 3]"), format!("{layer}.pointwise.weight [{width}, {width}, 1, 1]")]
        };
        let mut expected = vec!["stem.conv.weight [8, 3, 3, 3]".to_owned()];
        expected.extend(norm("stem.norm", 8));
        expected.extend(lean("stages.0.0.conv1", 8));
        expected.extend(norm("stages.0.0.norm1", 8));
        expected.extend(lean("stages.0.0.conv2", 8));
        expected.push("connections.0.conv.weight [16, 8, 1, 1]".to_owned());
        expected.extend(norm("connections.0.norm", 16));
        expected.extend(lean("stages.1.0.conv1", 16));
        expected.extend(norm("stages.1.0.norm1", 16));
        expected.extend(lean("stages.1.0.conv2", 16));
        expected.push("head.weight [10, 16]".to_owned());
        expected.push("head.bias [10]".to_owned());
        assert_eq!(names(&network), expected);
    }

    #[test]
    fn biases_norms_and_dense_operators_follow_the_description() {
        let block = Block::default().with_operator(Operator::Dense).with_norms(0).with_bias(true);
        let symmetric = Block::default().with_form(BlockForm::Symmetric).with_norms(2);
        let network = Network::builder()
            .with_stem(&Stem::default().with_norm(Norm::None).with_bias(true))
            .with_connection(&Connection::default().with_form(ConnectionForm::StridedConv).with_norm(Norm::None))
            .with_stage_of(4, 1, &block)
            .with_stage_of(6, 1, &symmetric)
            .build()
            .unwrap();
        let names = names(&network);
        let without_statistics: Vec<&String> =
            names.iter().filter(|name| !name.contains("running") && !name.contains("tracked")).collect();
        assert_eq!(
            without_statistics,
            [
                "stem.conv.weight [4, 3, 3, 3]",
                "stem.conv.bias [4]",
                "stages.0.0.conv1.weight [4, 4, 3, 3]",
                "stages.0.0.conv1.bias [4]",
                "stages.0.0.conv2.weight [4, 4, 3, 3]",
                "stages.0.0.conv2.bias [4]",
                "connections.0.conv.weight [6, 4, 3, 3]",
                "stages.1.0.conv1.spatial.weight [6, 1, 3, 3]",
                "stages.1.0.conv1.pointwise.weight [6, 6, 1, 1]",
                "stages.1.0.norm1.weight [6]",
                "stages.1.0.norm1.bias [6]",
                "stages.1.0.norm2.weight [6]",
                "stages.1.0.norm2.bias [6]",
                "head.weight [10, 6]",
                "head.bias [10]",
            ]
        );
    }

    #[test]
    fn roles_tell_the_optimiser_what_to_decay() {
        for parameter in parameters(&Network::preset("small").unwrap()) {
            let is_weight_of_product = parameter.shape.len() > 1;
            assert_eq!(parameter.role.decays(), is_weight_of_product, "{}", parameter.name);
            assert_eq!(parameter.fan_in > 0, is_weight_of_product, "{}", parameter.name);
            let is_statistic = parameter.name.contains("running_") || parameter.name.ends_with("num_batches_tracked");
            assert_eq!(parameter.role.is_trainable(), !is_statistic, "{}", parameter.name);
        }
    }

    #[test]
    fn shifts_are_fixed_and_parts_of_separable_convolutions_have_a_fan_in_each() {
        let of = |operator| {
            let block = Block::default().with_operator(operator);
            let network = Network::builder().with_stage_of(18, 1, &block).build().unwrap();
            parameters(&network).into_iter().filter(|spec| spec.name.starts_with("stages.0.0.conv1")).collect::<Vec<_>>()
        };
        let (separable, shift) = (of(Operator::Separable), of(Operator::Shift));
        assert_eq!(separable.iter().map(|spec| spec.fan_in).collect::<Vec<_>>(), [5, 18]);
        assert_eq!(separable.iter().map(ParameterSpec::trainable_values).collect::<Vec<_>>(), [5 * 18, 18 * 18]);
        assert_eq!(shift.iter().map(ParameterSpec::trainable_values).collect::<Vec<_>>(), [0, 18 * 18]);
        assert_eq!((shift[0].shape.as_slice(), shift[0].role.decays()), (&[18, 1, 3, 3][..], false));
    }

    #[test]
    fn parts_of_a_lean_convolution_share_the_variance() {
        let all = parameters(&Network::preset("small").unwrap());
        let fan_in = |name: &str| all.iter().find(|parameter| parameter.name == name).unwrap().fan_in;
        assert_eq!(fan_in("stem.conv.weight"), 27);
        assert_eq!(fan_in("stages.1.0.conv1.spatial.weight"), 2 * 5);
        assert_eq!(fan_in("stages.1.0.conv1.pointwise.weight"), 2 * 64);
        assert_eq!(fan_in("connections.0.conv.weight"), 32);
        assert_eq!(fan_in("head.weight"), 128);
    }
}
