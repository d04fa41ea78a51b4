//! Weights for inference: every norm folded into the convolution before it, in f64, rounded once.
#![forbid(unsafe_code)]

use crate::conv::pack::PackedWeights;
use crate::error::Result;
use crate::net::architecture::{Block, BlockForm, Norm, Operator};
use crate::net::channel_map::ChannelMap;
use crate::net::model::Model;
use crate::net::network::Network;
use crate::stencil::Stencil;

/// The map of a norm after a convolution; the identity for no norm.
pub(crate) fn norm_map(model: &Model, kind: Norm, name: &str, channels: usize) -> ChannelMap {
    if kind == Norm::None {
        return ChannelMap::identity(channels);
    }
    let value = |part: &str| values(model, &format!("{name}.{part}"));
    // Only networks have norms.
    let epsilon = f64::from(model.network().map_or(0.0, Network::norm_epsilon));
    ChannelMap::batch_norm(value("weight"), value("bias"), value("running_mean"), value("running_var"), epsilon)
}

/// The values of a tensor; none if the network has no such tensor.
pub(crate) fn values<'a>(model: &'a Model, name: &str) -> &'a [f32] {
    model.tensor(name).map_or(&[], |(_, values)| values)
}

/// A dense convolution `name`.conv and the norm `name`.norm after it.
pub(crate) fn dense_with_norm(
    model: &Model,
    name: &str,
    norm: Norm,
    inputs: usize,
    outputs: usize,
    side: usize,
) -> Result<PackedWeights> {
    let map = norm_map(model, norm, &format!("{name}.norm"), outputs);
    let weight = map.weights(values(model, &format!("{name}.conv.weight")));
    PackedWeights::dense(inputs, outputs, side, &weight, &map.bias(values(model, &format!("{name}.conv.bias"))))
}

/// What follows each convolution of a block: its norm, and after the second one the scale, with the sign of the form.
pub(crate) fn block_maps(model: &Model, name: &str, block: &Block, width: usize) -> [ChannelMap; 2] {
    let norm = |index: usize| {
        let kind = if block.norms >= index { block.norm } else { Norm::None };
        norm_map(model, kind, &format!("{name}.norm{index}"), width)
    };
    [norm(1), norm(2).times(factor(block))]
}

/// What the second half of a block is multiplied with.
pub(crate) fn factor(block: &Block) -> f64 {
    match block.form {
        BlockForm::Residual => f64::from(block.scale),
        BlockForm::Symmetric => -f64::from(block.scale),
    }
}

/// The tensors of a convolution of a block with a map folded in, in the layout of model files.
pub(crate) struct Folded {
    /// Weights of the stencil; none of a dense convolution.
    pub(crate) spatial: Vec<f32>,
    /// Weights of the 1x1 convolution, or of the dense one.
    pub(crate) matrix: Vec<f32>,
    /// A value per channel.
    pub(crate) bias: Vec<f32>,
}

/// Convolution `index` of a block, followed by `map`.
pub(crate) fn block_convolution(
    model: &Model,
    name: &str,
    block: &Block,
    index: usize,
    map: &ChannelMap,
    width: usize,
) -> Folded {
    if (block.form, index) == (BlockForm::Symmetric, 1) {
        return transposed(model, &format!("{name}.conv1"), block, map, width);
    }
    let tensor = |part: &str| values(model, &format!("{name}.conv{}.{part}", index + 1));
    if block.operator == Operator::Dense {
        return Folded { spatial: Vec::new(), matrix: map.weights(tensor("weight")), bias: map.bias(tensor("bias")) };
    }
    let spatial = match block.operator {
        // Summed with the matrix; in the others the matrix comes after it.
        Operator::Lean => map.weights(tensor("spatial.weight")),
        _ => tensor("spatial.weight").to_vec(),
    };
    Folded { spatial, matrix: map.weights(tensor("pointwise.weight")), bias: map.bias(tensor("pointwise.bias")) }
}

/// The two convolutions of a lean or dense block with their norms, and the block's scale in the second one.
pub(crate) fn block(model: &Model, name: &str, block: &Block, width: usize) -> Result<[PackedWeights; 2]> {
    let [first, second] = block_maps(model, name, block, width);
    let packed = |index: usize, map: &ChannelMap| {
        let Folded { spatial, matrix, bias } = block_convolution(model, name, block, index, map, width);
        match block.operator {
            Operator::Dense => PackedWeights::dense(width, width, 3, &matrix, &bias),
            _ => lean(block.stencils[index], width, block.group_size, &spatial, matrix, &bias),
        }
    };
    Ok([packed(0, &first)?, packed(1, &second)?])
}

/// The spatial and the 1x1 part of convolution `index` of a separable or shift block, with norm and scale in the latter.
pub(crate) fn separable(model: &Model, name: &str, block: &Block, index: usize, width: usize) -> Result<[PackedWeights; 2]> {
    let map = &block_maps(model, name, block, width)[index];
    let Folded { spatial, matrix, bias } = block_convolution(model, name, block, index, map, width);
    let stencil = block.stencil_of(index).unwrap_or(block.stencils[index]);
    let spatial = PackedWeights::depthwise_grouped(stencil, width, block.group_size, &spatial, &[])?;
    Ok([spatial, PackedWeights::dense(width, width, 1, &matrix, &bias)?])
}

/// Packs a lean convolution. The centre of a `cross5` is a part of the diagonal of the matrix (of its blocks, for groups): one tap less.
pub(crate) fn lean(
    stencil: Stencil,
    width: usize,
    group_size: usize,
    spatial: &[f32],
    mut pointwise: Vec<f32>,
    bias: &[f32],
) -> Result<PackedWeights> {
    if stencil != Stencil::Cross5 {
        return PackedWeights::lean_grouped(stencil, width, group_size, spatial, &pointwise, bias);
    }
    for (at, square) in spatial.chunks_exact(stencil.side() * stencil.side()).enumerate() {
        let (output, member) = (at / group_size, at % group_size);
        pointwise[output * width + output / group_size * group_size + member] += square[square.len() / 2];
    }
    PackedWeights::lean_grouped(Stencil::Cross4, width, group_size, spatial, &pointwise, bias)
}

/// The transpose of a convolution: it has no bias of its own.
fn transposed(model: &Model, name: &str, block: &Block, map: &ChannelMap, width: usize) -> Folded {
    let bias = map.bias(&[]);
    if block.operator == Operator::Dense {
        let weight = transpose(values(model, &format!("{name}.weight")), width, 9);
        return Folded { spatial: Vec::new(), matrix: map.weights(&weight), bias };
    }
    let area = block.stencils[0].side() * block.stencils[0].side();
    // Every group of channels is a dense convolution of its own.
    let groups = values(model, &format!("{name}.spatial.weight")).chunks_exact(block.group_size * block.group_size * area);
    let spatial: Vec<f32> = groups.flat_map(|group| transpose(group, block.group_size, area)).collect();
    let pointwise = transpose(values(model, &format!("{name}.pointwise.weight")), width, 1);
    Folded { spatial: map.weights(&spatial), matrix: map.weights(&pointwise), bias }
}

/// [outputs, inputs, kernel] with outputs and inputs exchanged and the kernel turned by 180 degrees.
fn transpose(weight: &[f32], width: usize, kernel: usize) -> Vec<f32> {
    let at = |output: usize, input: usize, tap: usize| weight[(input * width + output) * kernel + kernel - 1 - tap];
    (0..weight.len()).map(|index| at(index / kernel / width, index / kernel % width, index % kernel)).collect()
}
