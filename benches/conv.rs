//! Convolutions as callers plan them, on layers of the presets, on every instruction set, with one and two threads.
//!
//! Ids: `conv/OPERATOR/ISA/nN_hH_wW_cC_tT`, throughput in flops (a multiply-add is two; a lean convolution has C + taps * group of
//! them per output, whatever computes it). Beside the lean convolution of each stencil stands the same in two passes, `_unfused`: the
//! stencil, then a 1x1 convolution that adds to it. The 3x3 convolution is what a lean one replaces. `_cold` walks through images that no
//! cache holds together, where the others find theirs in the cache that it fits.
#![forbid(unsafe_code)]

mod common;
#[path = "common/data.rs"]
mod data;

use criterion::{BenchmarkId, Criterion, Throughput};
use data::values;
use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::internals::pack::zeros;
use leanresnet::{Isa, Pool, Result, Stencil};

/// Height (and width) and channels of blocks: `small`, `base` and `imagenet`, from their first to their last stages.
const LAYERS: [(usize, usize); 6] = [(32, 32), (32, 64), (8, 256), (56, 64), (14, 256), (7, 512)];
/// Layers that are measured cold, in groups and at strides too.
const SOME_LAYERS: [(usize, usize); 2] = [(32, 32), (14, 256)];
/// Bytes of the images that a cold run walks through: more than a shared cache.
const COLD_BYTES: usize = 256 << 20;

fn main() {
    common::run(|criterion| {
        for (side, channels) in LAYERS {
            for &stencil in Stencil::ALL {
                let name = format!("lean_{stencil}");
                measure(criterion, &name, side, &Layer::lean(stencil, channels, 1, 1), 1);
                measure(criterion, &format!("{name}_unfused"), side, &Layer::unfused(stencil, channels), 1);
            }
            for kernel in [1, 3] {
                measure(criterion, &format!("dense_k{kernel}"), side, &Layer::dense(channels, kernel), 1);
            }
        }
        for (side, channels) in SOME_LAYERS {
            let stencil = Stencil::Cross5;
            measure(criterion, "lean_cross5_s2", side, &Layer::lean(stencil, channels, 1, 2), 1);
            for group_size in [2, 4, 8, 16, 32] {
                let name = format!("lean_cross5_g{group_size}");
                measure(criterion, &name, side, &Layer::lean(stencil, channels, group_size, 1), 1);
            }
            let images = COLD_BYTES / (8 * side * side * channels);
            measure(criterion, "lean_cross5_cold", side, &Layer::lean(stencil, channels, 1, 1), images);
            measure(criterion, "lean_cross5_unfused_cold", side, &Layer::unfused(stencil, channels), images);
        }
    });
}

/// One or two convolutions of the same input, of which the second adds to the first one's output.
struct Layer {
    passes: Vec<(ConvDesc, PackedWeights)>,
    /// Multiply-adds of an output.
    macs: usize,
}

impl Layer {
    fn lean(stencil: Stencil, channels: usize, group_size: usize, stride: usize) -> Self {
        let spatial = values(channels * group_size * stencil.side() * stencil.side());
        let weights = PackedWeights::lean_grouped(stencil, channels, group_size, &spatial, &values(channels * channels), &[]);
        let desc = ConvDesc::lean(channels, stencil).with_group_size(group_size).with_stride(stride);
        Layer { passes: vec![(desc, weights.expect("sizes that fit"))], macs: channels + group_size * stencil.taps().len() }
    }

    fn unfused(stencil: Stencil, channels: usize) -> Self {
        let spatial = PackedWeights::depthwise(stencil, channels, &values(channels * stencil.side() * stencil.side()), &[]);
        let pointwise = PackedWeights::dense(channels, channels, 1, &values(channels * channels), &[]);
        let first = (ConvDesc::depthwise(channels, stencil), spatial.expect("sizes that fit"));
        let second = (ConvDesc::dense(channels, channels, 1).with_residual(true), pointwise.expect("sizes that fit"));
        Layer { passes: vec![first, second], macs: channels + stencil.taps().len() }
    }

    fn dense(channels: usize, kernel: usize) -> Self {
        let macs = channels * kernel * kernel;
        let weights = PackedWeights::dense(channels, channels, kernel, &values(channels * macs), &[]).expect("sizes that fit");
        Layer { passes: vec![(ConvDesc::dense(channels, channels, kernel), weights)], macs }
    }
}

/// A layer on all instruction sets, on one image after the other of `images`.
fn measure(criterion: &mut Criterion, name: &str, side: usize, layer: &Layer, images: usize) {
    let channels = layer.passes[0].0.inputs;
    let shape = [1, side, side, channels];
    let mut group = criterion.benchmark_group(format!("conv/{name}"));
    for isa in Isa::available().filter(|isa| isa.base() == *isa) {
        for threads in [1, 2] {
            let pool = Pool::new(threads).expect("two threads");
            let plan = |(desc, _): &(ConvDesc, PackedWeights)| ConvPlan::new(&desc.with_isa(isa), &pool);
            let mut plans: Vec<ConvPlan> =
                layer.passes.iter().map(|pass| plan(pass).expect("a layer that has kernels")).collect();
            let output = plans[0].output_shape(shape).expect("images that fit");
            let (x_length, y_length) = (shape.iter().product::<usize>(), output.iter().product::<usize>());
            let (x, mut y) = (values(images * x_length), zeros(images * y_length));
            group.throughput(Throughput::Elements((2 * y_length * layer.macs) as u64));
            let id = BenchmarkId::new(isa.name(), format!("n1_h{side}_w{side}_c{channels}_t{threads}"));
            let mut image = 0;
            group.bench_function(id, |bench| {
                bench.iter(|| {
                    image = (image + 1) % images;
                    let x = &x[image * x_length..(image + 1) * x_length];
                    run(&mut plans, layer, (x, shape), (&mut y[image * y_length..(image + 1) * y_length], output))
                });
            });
        }
    }
    group.finish();
}

fn run(
    plans: &mut [ConvPlan],
    layer: &Layer,
    (x, x_shape): (&[f32], [usize; 4]),
    (y, y_shape): (&mut [f32], [usize; 4]),
) -> Result<()> {
    for (plan, (desc, weights)) in plans.iter_mut().zip(&layer.passes) {
        let residual = if desc.residual { Residual::Output } else { Residual::None };
        let (x, y) = (TensorView::new(x, x_shape)?, TensorViewMut::new(y, y_shape)?);
        plan.run_with_residual(weights, x, residual, y)?;
    }
    Ok(())
}
