//! Convolutions as callers plan them, on layers of the presets, on every instruction set, with one and two threads.
//!
//! Ids: `conv/OPERATOR/ISA/nN_hH_wW_cC_tT`, throughput in flops (a multiply-add is two; a lean convolution has C + taps of them
//! per output, whatever computes it). The 1x1 convolution beside the lean one is its matrix without the stencil: the difference is
//! what the stencil costs, and the 3x3 convolution is what a lean one replaces. An engine that computes stencil and matrix in two
//! passes would need kernels of its own, which this crate does not have.
#![forbid(unsafe_code)]

mod common;

use common::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, TensorView, TensorViewMut};
use leanresnet::{Isa, Pool, Stencil};

/// Height (and width) and channels of blocks: `small`, `base` and `imagenet`, from their first to their last stages.
const LAYERS: [(usize, usize); 6] = [(32, 32), (32, 64), (8, 256), (56, 64), (14, 256), (7, 512)];

fn main() {
    common::run(|criterion| {
        for (side, channels) in LAYERS {
            for &stencil in Stencil::ALL {
                let weights = PackedWeights::lean(
                    stencil,
                    channels,
                    &values(channels * stencil.side() * stencil.side()),
                    &values(channels * channels),
                    &[],
                );
                let macs = channels + stencil.taps().len();
                let name = format!("lean_{stencil}");
                layer(criterion, &name, ConvDesc::lean(channels, stencil), &weights.expect("sizes that fit"), (side, macs));
            }
            for kernel in [1, 3] {
                let weight = values(channels * channels * kernel * kernel);
                let weights = PackedWeights::dense(channels, channels, kernel, &weight, &[]).expect("sizes that fit");
                let (name, macs) = (format!("dense_k{kernel}"), channels * kernel * kernel);
                layer(criterion, &name, ConvDesc::dense(channels, channels, kernel), &weights, (side, macs));
            }
        }
    });
}

/// One layer on all instruction sets; `macs`: multiply-adds per output.
fn layer(criterion: &mut Criterion, name: &str, desc: ConvDesc, weights: &PackedWeights, (side, macs): (usize, usize)) {
    let shape = [1, side, side, desc.inputs];
    let values_of_image = side * side * desc.inputs;
    let (x, mut y) = (values(values_of_image), vec![0.0; values_of_image]);
    let mut group = criterion.benchmark_group(format!("conv/{name}"));
    group.throughput(Throughput::Elements((2 * values_of_image * macs) as u64));
    for isa in Isa::available() {
        for threads in [1, 2] {
            let pool = Pool::new(threads).expect("two threads");
            let mut plan = ConvPlan::new(&desc.with_isa(isa), &pool).expect("a layer that has kernels");
            let id = BenchmarkId::new(isa.name(), format!("n1_h{side}_w{side}_c{}_t{threads}", desc.inputs));
            group.bench_function(id, |bench| {
                bench.iter(|| {
                    let x = TensorView::new(&x, shape)?;
                    plan.run(weights, x, TensorViewMut::new(&mut y, shape)?)
                });
            });
        }
    }
    group.finish();
}
