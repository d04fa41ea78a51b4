//! The flags of `leanresnet bench`.
#![forbid(unsafe_code)]

use clap::{Args, Subcommand, ValueEnum};
use leanresnet::train::Recompute;
use leanresnet::{Precision, Stencil};

use crate::network_source::NetworkSource;

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    pub subject: Subject,
}

/// What is measured.
#[derive(Subcommand)]
pub enum Subject {
    /// Inference of a whole network
    #[command(after_help = "Example: leanresnet bench net --preset base --batch 1,64 --threads 1,2")]
    Net(NetOptions),
    /// A single convolution
    #[command(after_help = "Example: leanresnet bench layer --shape 32x32x64,8x8x256 --op lean,dense --isa avx2,avx512")]
    Layer(LayerOptions),
    /// Steps of training
    #[command(after_help = "Example: leanresnet bench train --preset small --batch 128")]
    Train(TrainOptions),
}

/// How it is measured.
#[derive(Args)]
pub struct Measure {
    /// Images at once
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub batch: Vec<u32>,
    /// Number formats: f32; for networks and training also bf16; for networks also bf16x3, which is near f32 on AMX and f32 elsewhere, and the
    /// one of bf16 (auto) or bf16x3 (auto-near-f32) and f32 that is measured to be faster here, by 1.1 times at least
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "f32")]
    pub dtype: Vec<Precision>,
    /// Seconds for each combination, over all rounds
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub seconds: f64,
    /// Rounds: each measures every combination once, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
}

/// Flags of `bench net`.
#[derive(Args)]
pub struct NetOptions {
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Also the time of every layer, beside the bound that applies to it: the multiply-adds at the peak, or the bytes that it has
    /// to move at least once (activations that it reads and writes, weights) at the speed at which as many threads copy memory in
    /// the level of cache that its working set fits: l1, l2, l3 or dram
    #[arg(long)]
    pub layers: bool,
}

/// Flags of `bench train`.
#[derive(Args)]
pub struct TrainOptions {
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Activations to compute twice instead of keeping them: none, block or stage
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "none")]
    pub recompute: Vec<Recompute>,
    /// Also the time of every part of every layer, forward and backward, beside the bound that applies to it, as in `bench net`
    #[arg(long)]
    pub layers: bool,
}

/// Flags of `bench net` and `bench train`.
#[derive(Args)]
pub struct NetworkOptions {
    #[command(flatten)]
    pub network: NetworkSource,
    #[command(flatten)]
    pub measure: Measure,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    Lean,
    Separable,
    Dense,
}

/// How a lean convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    Fused,
    Unfused,
}

/// Flags of `bench layer`.
#[derive(Args)]
pub struct LayerOptions {
    /// Height, width and channels of input and output
    #[arg(long, value_name = "HxWxC,...", value_delimiter = ',', default_value = "32x32x64", value_parser = parse_shape)]
    pub shape: Vec<[usize; 3]>,
    /// Stencils of lean convolutions
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cross5")]
    pub stencil: Vec<Stencil>,
    /// Operators: lean, separable (the stencil, then 1x1 of its result) or dense (3x3)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "lean")]
    pub op: Vec<Operator>,
    /// Lean convolutions in one pass (fused), or stencil and 1x1 part in a pass each (unfused)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "fused")]
    pub variant: Vec<Variant>,
    /// Channels that a tap of the stencil reads
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub group_size: Vec<usize>,
    /// Input pixels from an output pixel to the next
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub stride: Vec<usize>,
    #[command(flatten)]
    pub measure: Measure,
}

/// Most values of a layer's image.
const MOST_VALUES: usize = 1 << 26;

fn parse_shape(text: &str) -> Result<[usize; 3], String> {
    let extents: Option<Vec<usize>> = text.split('x').map(|extent| extent.parse().ok().filter(|&extent| extent > 0)).collect();
    let shape: Option<[usize; 3]> = extents.and_then(|extents| extents.try_into().ok());
    let size = |shape: &[usize; 3]| shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    let is_small = |shape: &[usize; 3]| size(shape).is_some_and(|values| values <= MOST_VALUES) && shape[2] <= 1 << 13;
    shape
        .filter(is_small)
        .ok_or_else(|| "expected HEIGHTxWIDTHxCHANNELS of at most 2^26 values and 8192 channels, as 32x32x64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(parse_shape("7x8x32"), Ok([7, 8, 32]));
        for wrong in ["", "7x8", "7x8x0", "axbxc", "7x8x9x1", "1x1x9999", "99999x99999x64"] {
            assert!(parse_shape(wrong).is_err(), "{wrong}");
        }
    }
}
