//! The checks that every network passes before anything is computed or allocated from its numbers.
#![forbid(unsafe_code)]

use std::fmt::Display;

use crate::conv::pack::GROUP_SIZES;
use crate::error::{Error, Result};
use crate::net::architecture::{Block, BlockForm, ConnectionForm, Norm, Operator, Stage, StemPool};
use crate::net::layers::forward_layers;
use crate::net::network::Network;

/// Largest number of channels, classes, rows or columns.
const MAX_EXTENT: usize = 65_536;
/// Largest number of values in one activation tensor of one image.
const MAX_ACTIVATION: u64 = 1 << 31;
/// Largest number of stored parameter values.
const MAX_PARAMETERS: u64 = 1 << 31;
const MAX_STAGES: usize = 64;
/// Largest number of blocks in all stages together.
const MAX_BLOCKS: usize = 1024;
/// Longest name of a class in bytes.
const MAX_NAME: usize = 256;

/// Checks everything that [`Network`] promises.
pub(crate) fn validate(network: &Network) -> Result<()> {
    let [channels, height, width] = network.input;
    extent("network.input channels", channels)?;
    extent("network.input height", height)?;
    extent("network.input width", width)?;
    extent("network.classes", network.classes)?;
    class_names(&network.class_names, network.classes)?;
    number("network.norm_epsilon", network.norm_epsilon, "above 0, at most 1", |value| value > 0.0 && value <= 1.0)?;
    number("network.norm_momentum", network.norm_momentum, "above 0, at most 1", |value| value > 0.0 && value <= 1.0)?;
    stem(network)?;
    supported("network.connection.norm", network.connection.norm, &[Norm::Batch, Norm::None])?;
    stages(&network.stages)?;
    sizes(network)
}

fn extent(what: &str, value: usize) -> Result<()> {
    if (1..=MAX_EXTENT).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(what, format!("1 to {MAX_EXTENT}"), value))
}

fn number(what: &str, value: f32, expected: &str, accepted: impl Fn(f32) -> bool) -> Result<()> {
    if value.is_finite() && accepted(value) {
        return Ok(());
    }
    Err(Error::invalid(what, format!("a number {expected}"), value))
}

/// One of the values that the format knows.
fn one_of<T: PartialEq + Display>(what: &str, value: &T, accepted: &[T]) -> Result<()> {
    if accepted.contains(value) {
        return Ok(());
    }
    Err(Error::invalid(what, format!("one of {}", list(accepted)), value))
}

/// One of the values that the format knows and this version can compute.
fn supported<T: PartialEq + Display + Copy>(what: &str, value: T, supported: &[T]) -> Result<()> {
    if supported.contains(&value) {
        return Ok(());
    }
    not_yet(what, list(supported), format!("`{value}`"))
}

fn not_yet(what: &str, supported: impl Display, got: String) -> Result<()> {
    Err(Error::invalid(format!("{what}: not supported yet"), format!("one of the supported: {supported}"), got))
}

fn list<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Checks that there is a printable name per class, or none at all.
pub(crate) fn class_names(names: &[String], classes: usize) -> Result<()> {
    if !names.is_empty() && names.len() != classes {
        return Err(Error::invalid("class_names", format!("{classes} names, as there are classes"), names.len()));
    }
    match names.iter().find(|name| name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control)) {
        Some(name) => {
            Err(Error::invalid("class_names", format!("names of 1 to {MAX_NAME} printable bytes"), format!("{name:?}")))
        }
        None => Ok(()),
    }
}

fn stem(network: &Network) -> Result<()> {
    one_of("network.stem.kernel", &network.stem.kernel, &[1, 3, 7])?;
    one_of("network.stem.stride", &network.stem.stride, &[1, 2, 4])?;
    supported("network.stem.pool", network.stem.pool, &[StemPool::None])?;
    supported("network.stem.norm", network.stem.norm, &[Norm::Batch, Norm::None])
}

fn stages(stages: &[Stage]) -> Result<()> {
    if !(1..=MAX_STAGES).contains(&stages.len()) {
        return Err(Error::invalid("network.stages", format!("1 to {MAX_STAGES} stages"), stages.len()));
    }
    let mut blocks = 0_usize;
    for (index, stage) in stages.iter().enumerate() {
        extent(&format!("network.stages[{index}].width"), stage.width)?;
        blocks = blocks.saturating_add(stage.blocks);
        if stage.blocks == 0 || blocks > MAX_BLOCKS {
            let what = format!("network.stages[{index}].blocks");
            return Err(Error::invalid(what, format!("at least 1, at most {MAX_BLOCKS} in all stages"), stage.blocks));
        }
        block(index, &stage.block, stage.width)?;
    }
    Ok(())
}

fn block(stage: usize, block: &Block, width: usize) -> Result<()> {
    let key = |name: &str| format!("network.block.{name} (stage {stage})");
    if block.group_size == 0 || !width.is_multiple_of(block.group_size) {
        return Err(Error::invalid(key("group_size"), format!("a divisor of the width {width}"), block.group_size));
    }
    if block.norm == Norm::None {
        return Err(Error::invalid(key("norm"), "batch or tv (norms = 0 leaves the norms out)", "`none`"));
    }
    one_of(&key("norms"), &block.norms, &[0, 1, 2])?;
    number(&key("scale"), block.scale, "that is finite", |_| true)?;
    if block.form == BlockForm::Symmetric && !matches!(block.operator, Operator::Lean | Operator::Dense) {
        let expected = "lean or dense in a symmetric block, whose second convolution is the transpose of the first";
        return Err(Error::invalid(key("operator"), expected, format!("`{}`", block.operator)));
    }
    if block.operator == Operator::Shift && block.group_size != 1 {
        return Err(Error::invalid(key("group_size"), "1 for shifts, which move single channels", block.group_size));
    }
    supported(&key("group_size"), block.group_size, &GROUP_SIZES)?;
    supported(&key("norm"), block.norm, &[Norm::Batch])?;
    if block.operator.has_stencil() {
        let [first, second] = block.stencils;
        if block.form == BlockForm::Symmetric && first != second {
            let expected = "one stencil in a symmetric block, whose second convolution is the transpose of the first";
            return Err(Error::invalid(key("stencil"), expected, format!("`{first}` and `{second}`")));
        }
    }
    Ok(())
}

/// Checks that no stage is empty, and that neither activations nor parameters are absurdly many.
fn sizes(network: &Network) -> Result<()> {
    let sizes = network.stage_sizes();
    for (index, pair) in sizes.windows(2).enumerate() {
        if pair[1].contains(&0) {
            let [height, width] = pair[0];
            let what = format!("network.stages[{}] after the connection's pooling", index + 1);
            return Err(Error::invalid(what, "at least 2x2 pixels before it", format!("{height}x{width}")));
        }
    }
    let pools_last = network.connection.form == ConnectionForm::ConvPool;
    let mut largest: u64 = network.input.iter().map(|&extent| extent as u64).product();
    for (index, stage) in network.stages.iter().enumerate() {
        let [height, width] = if pools_last && index > 0 { sizes[index - 1] } else { sizes[index] };
        // Each factor is at most 2^16, so that neither this product nor that of the input can overflow.
        largest = largest.max(stage.width as u64 * height as u64 * width as u64);
    }
    if largest > MAX_ACTIVATION {
        return Err(Error::invalid("network: activations of one image", format!("at most {MAX_ACTIVATION} values"), largest));
    }
    let values = |shape: &[usize]| shape.iter().fold(1_u64, |product, &extent| product.saturating_mul(extent as u64));
    let parameters = forward_layers(network)
        .into_iter()
        .flat_map(|layer| layer.parameters)
        .fold(0_u64, |sum, parameter| sum.saturating_add(values(&parameter.shape)));
    if parameters > MAX_PARAMETERS {
        return Err(Error::invalid("network: parameters", format!("at most {MAX_PARAMETERS}"), parameters));
    }
    Ok(())
}
