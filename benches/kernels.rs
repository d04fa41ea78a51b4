//! Every compiled kernel on one call whose data stay in the first or second level of cache, and the machine's peak beside it.
//!
//! Ids: `kernels/OPERATOR/KERNEL/SHAPE`. Convolutions and their gradients count flops (a multiply-add is two), the others, which
//! are bound by memory, the bytes that they read and write. `kernels/peak` is what the ratio of a convolution to the peak is taken
//! against: multiply-adds on registers and nothing else, in the clock state of this run.
#![forbid(unsafe_code)]

mod common;
#[path = "common/data.rs"]
mod data;
#[path = "../kernels/gen/mod.rs"]
#[allow(dead_code, reason = "the names and the rows are all that is needed here")]
mod generator;

use aligned_vec::AVec;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use data::values;
use generator::name::format;
use generator::registry::{ROWS, Row};
use half::bf16;
use leanresnet::internals::compiled;
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::element::Element;
use leanresnet::internals::kernel::elementwise::{Elementwise, MomentumStep};
use leanresnet::internals::kernel::gradient::{
    StencilGradientCall, StencilGradientKernel, WeightGradientCall, WeightGradientKernel,
};
use leanresnet::internals::kernel::rows::{Layout, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::{Aligned, PANEL, PackedWeights, panels};
use leanresnet::{Isa, Stencil};
use std::hint::black_box;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Rows and columns of the image: at 64 channels its 64 KiB stay in the second level of cache.
const SIDE: usize = 16;
const CHANNELS: usize = 64;
const PIXELS: usize = SIDE * SIDE;
/// Independent chains of multiply-adds that show the peak, and their length.
const PEAK_CHAINS: usize = 384;
const PEAK_LENGTH: usize = 512;
/// Rows whose products with a panel show the peak with loads, and how often they are multiplied: whole tiles on all instruction sets.
const PEAK_ROWS: usize = 168;
const PEAK_TURNS: usize = 8;

fn main() {
    common::run(|criterion| {
        let (peaks, others): (Vec<&Row>, Vec<&Row>) = ROWS.iter().partition(|row| row.op.ends_with("peak"));
        for row in peaks.into_iter().chain(others) {
            let name = format(row);
            match kernels_of(row, &name) {
                Ok(kernels) => kernel(criterion, row, &name, kernels),
                Err(reason) => eprintln!("skipped {name}: {reason}"),
            }
        }
    });
}

/// The kernels of a row's instruction set, or why the row cannot be measured.
fn kernels_of(row: &Row, name: &str) -> Result<&'static Kernels, String> {
    let isa = row.isa.parse::<Isa>().map_err(|error| error.to_string())?;
    let kernels = match row.dtype {
        "bf16x3" => Kernels::of_three_products(isa).map(|kernels| kernels.ok_or_else(|| "not compiled".to_string())),
        _ => Kernels::of(isa).map(Ok),
    };
    let kernels = kernels.map_err(|error| error.to_string())??;
    if !compiled().any(|(_, compiled)| compiled == name) {
        return Err("not compiled".into());
    }
    // Of several rows for one operator the first one is in force.
    let operator = |row: &Row| (row.op, row.dtype, row.isa, row.spatial);
    let first = ROWS.iter().find(|other| operator(other) == operator(row));
    if first == Some(row) { Ok(kernels) } else { Err("a candidate that another row stands before".into()) }
}

fn kernel(criterion: &mut Criterion, row: &Row, name: &str, kernels: &'static Kernels) {
    let stencil = row.spatial.map(|name| name.parse::<Stencil>().expect("the registry's stencils have names"));
    let mut group = criterion.benchmark_group(format!("kernels/{}", row.op));
    let image = format!("h{SIDE}_w{SIDE}_c{CHANNELS}");
    match (row.op, stencil) {
        ("fused", Some(stencil)) => {
            let weights = lean_weights(stencil);
            let (x, mut y) = (values(PIXELS * CHANNELS), values(PIXELS * CHANNELS));
            let layout = Layout::image(SIDE, SIDE, CHANNELS);
            group.throughput(Throughput::Elements((2 * PIXELS * CHANNELS * (CHANNELS + stencil.taps().len())) as u64));
            group.bench_function(BenchmarkId::new(name, image), |bench| {
                if row.dtype == "bf16" {
                    let (kernel, weights, x, mut y) = (kernels.bf16.fused(stencil), weights.to_bf16(), rounded(&x), rounded(&y));
                    bench.iter(|| convolve(kernel, &weights, (black_box(&x), layout), &mut y, (SIDE, SIDE)));
                } else {
                    let kernel = kernels.f32.fused(stencil);
                    let weights = kernel.packed(weights.clone());
                    bench.iter(|| convolve(kernel, &weights, (black_box(&x), layout), &mut y, (SIDE, SIDE)));
                }
            });
        }
        ("grouped", None) => {
            let (x, mut y) = (values(PIXELS * CHANNELS), values(PIXELS * CHANNELS));
            for size in [2, 4, 8, 16, 32] {
                let (spatial, pointwise) = (values(CHANNELS * size * 9), values(CHANNELS * CHANNELS));
                let weights = PackedWeights::lean_grouped(Stencil::Cross5, CHANNELS, size, &spatial, &pointwise, &[]);
                let weights = weights.expect("sizes that fit");
                group.throughput(Throughput::Elements((2 * PIXELS * CHANNELS * (CHANNELS + 5 * size)) as u64));
                group.bench_function(BenchmarkId::new(name, format!("cross5_g{size}_{image}")), |bench| {
                    let layout = Layout::image(SIDE, SIDE, CHANNELS);
                    let kernel = kernels.grouped(Stencil::Cross5);
                    bench.iter(|| convolve(kernel, &weights, (black_box(&x), layout), &mut y, (SIDE, SIDE)));
                });
            }
        }
        ("dense", None) => {
            let outputs = 32;
            let weights = PackedWeights::dense(32, outputs, 3, &values(32 * outputs * 9), &[]).expect("sizes that fit");
            let (x, mut y) = (values((SIDE + 2) * (SIDE + 2) * 32), values(PIXELS * outputs));
            group.throughput(Throughput::Elements((2 * PIXELS * 9 * 32 * outputs) as u64));
            group.bench_function(BenchmarkId::new(name, format!("k3_h{SIDE}_w{SIDE}_c32_o{outputs}")), |bench| {
                let layout = Layout::image(SIDE + 2, SIDE + 2, 32);
                if row.dtype == "bf16" {
                    let (weights, x, mut y) = (weights.to_bf16(), rounded(&x), rounded(&y));
                    bench.iter(|| convolve(kernels.bf16.dense, &weights, (black_box(&x), layout), &mut y, (SIDE, SIDE)));
                } else {
                    let weights = kernels.f32.dense.packed(weights.clone());
                    bench.iter(|| convolve(kernels.f32.dense, &weights, (black_box(&x), layout), &mut y, (SIDE, SIDE)));
                }
            });
        }
        ("weightgradient" | "stencilgradient", _) => match row.dtype {
            "bf16" => gradient::<bf16>(&mut group, name, kernels, stencil),
            _ => gradient::<f32>(&mut group, name, kernels, stencil),
        },
        ("peak", _) => {
            let mut sums = values(PEAK_CHAINS);
            group.throughput(Throughput::Elements((2 * PEAK_CHAINS * PEAK_LENGTH) as u64));
            group.bench_function(BenchmarkId::new(name, format!("c{PEAK_CHAINS}_l{PEAK_LENGTH}")), |bench| {
                bench.iter(|| kernels.f32.elementwise.peak((1e-3, 1e-3), PEAK_LENGTH, black_box(&mut sums)));
            });
        }
        ("loadpeak", _) => {
            let (x, weights, mut y) = (values(PEAK_ROWS * CHANNELS), values(CHANNELS * PANEL), values(PEAK_ROWS * PANEL));
            group.throughput(Throughput::Elements((2 * PEAK_ROWS * CHANNELS * PANEL * PEAK_TURNS) as u64));
            group.bench_function(BenchmarkId::new(name, format!("r{PEAK_ROWS}_c{CHANNELS}_t{PEAK_TURNS}")), |bench| {
                let kernels = &kernels.f32.elementwise;
                bench.iter(|| kernels.load_peak(&x, &weights, CHANNELS, PEAK_TURNS, black_box(&mut y)));
            });
        }
        ("accumulate" | "momentum", _) => update(&mut group, name, row.op, &kernels.f32.elementwise),
        (op, _) => match row.dtype {
            "bf16" => elementwise::<bf16>(&mut group, name, op, kernels),
            _ => elementwise::<f32>(&mut group, name, op, kernels),
        },
    }
    group.finish();
}

/// The gradient of a matrix, or of a stencil.
fn gradient<T: Element>(group: &mut Group<'_>, name: &str, kernels: &Kernels, stencil: Option<Stencil>) {
    let image = format!("h{SIDE}_w{SIDE}_c{CHANNELS}");
    let (x, g) = (values_of::<T>(PIXELS * CHANNELS), values_of::<T>(PIXELS * CHANNELS));
    let Some(stencil) = stencil else {
        let mut dw = values(panels(CHANNELS) * CHANNELS * PANEL);
        group.throughput(Throughput::Elements((2 * PIXELS * CHANNELS * CHANNELS) as u64));
        group.bench_function(BenchmarkId::new(name, image), |bench| {
            bench.iter(|| weight_gradient(T::kernels(kernels).weight_gradient, black_box(&x), &g, &mut dw));
        });
        return;
    };
    let (mut dstencil, mut dbias) = (values(stencil.taps().len() * CHANNELS), values(CHANNELS));
    group.throughput(Throughput::Elements((PIXELS * CHANNELS * (2 * stencil.taps().len() + 1)) as u64));
    group.bench_function(BenchmarkId::new(name, image), |bench| {
        let kernel = T::kernels(kernels).stencil_gradient(stencil);
        bench.iter(|| stencil_gradient(kernel, black_box(&x), &g, (&mut dstencil, &mut dbias)));
    });
}

/// An operator that works value by value.
fn elementwise<T: Element>(group: &mut Group<'_>, name: &str, op: &str, kernels: &Kernels) {
    let mut buffers = Buffers::<T>::new();
    let kernels = &T::kernels(kernels).elementwise;
    group.throughput(Throughput::Bytes(buffers.run(op, kernels)));
    group.bench_function(BenchmarkId::new(name, format!("h{SIDE}_w{SIDE}_c{CHANNELS}")), |bench| {
        bench.iter(|| black_box(&mut buffers).run(op, kernels));
    });
}

/// An operator that changes weights or their gradients.
fn update(group: &mut Group<'_>, name: &str, op: &str, kernels: &Elementwise) {
    let [a, mut b, mut y] = [(); 3].map(|()| values(PIXELS * CHANNELS));
    let (learning_rate, momentum, weight_decay) = (1e-3, 0.9, 5e-4);
    let step = MomentumStep { learning_rate, momentum, weight_decay, gradient_factor: 1.0, nesterov: true };
    let tensors = if op == "momentum" { 5 } else { 3 };
    group.throughput(Throughput::Bytes((tensors * 4 * PIXELS * CHANNELS) as u64));
    group.bench_function(BenchmarkId::new(name, format!("h{SIDE}_w{SIDE}_c{CHANNELS}")), |bench| {
        bench.iter(|| match op {
            "momentum" => kernels.momentum(black_box(&a), &mut b, &mut y, &step),
            _ => kernels.accumulate(black_box(&a), &mut y),
        });
    });
}

fn lean_weights(stencil: Stencil) -> PackedWeights {
    let (spatial, pointwise) = (values(CHANNELS * stencil.side() * stencil.side()), values(CHANNELS * CHANNELS));
    PackedWeights::lean(stencil, CHANNELS, &spatial, &pointwise, &[]).expect("sizes that fit")
}

/// The same values in bf16.
fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().copied().map(bf16::from_f32).collect()
}

fn values_of<T: Element>(count: usize) -> AVec<T> {
    AVec::from_iter(64, values(count).iter().map(|value| T::nearest(*value)))
}

fn convolve<T: Element>(
    kernel: ConvKernel<T>,
    weights: &PackedWeights<T>,
    (x, layout): (&[T], Layout),
    y: &mut [T],
    (height, width): (usize, usize),
) {
    let y = Target::new(y, Layout::image(height, width, weights.channels()));
    kernel.run(&mut ConvCall::new(weights, Source { data: x, layout }, y, (height, width)));
}

fn weight_gradient<T: Element>(kernel: WeightGradientKernel<T>, x: &[T], g: &[T], dw: &mut [f32]) {
    kernel.run(&mut WeightGradientCall {
        x,
        x_step: CHANNELS,
        x_row: SIDE * CHANNELS,
        g,
        g_step: CHANNELS,
        g_row: SIDE * CHANNELS,
        dw,
        panel_step: CHANNELS * PANEL,
        offset: 0,
        rows: SIDE,
        pixels: SIDE,
        k: CHANNELS,
        channels: CHANNELS,
        accumulate: false,
        upcoming: Default::default(),
    });
}

fn stencil_gradient<T: Element>(kernel: StencilGradientKernel<T>, x: &[T], g: &[T], (dstencil, dbias): (&mut [f32], &mut [f32])) {
    kernel.run(&mut StencilGradientCall {
        stencil: kernel.stencil,
        x,
        g,
        dstencil,
        dbias,
        rows: 0..SIDE,
        height: SIDE,
        width: SIDE,
        channels: CHANNELS,
        accumulate: false,
    });
}

/// Memory of the elementwise operators.
struct Buffers<T> {
    a: AVec<T>,
    b: AVec<T>,
    y: AVec<T>,
    p: Aligned,
    q: Aligned,
    r: Aligned,
    small: AVec<T>,
    sums: (Vec<f64>, Vec<f64>),
}

impl<T: Element> Buffers<T> {
    fn new() -> Self {
        let large = || values_of(PIXELS * CHANNELS);
        let channel = || values(CHANNELS);
        Buffers {
            a: large(),
            b: large(),
            y: large(),
            p: channel(),
            q: channel(),
            r: channel(),
            small: values_of(PIXELS / 4 * CHANNELS),
            sums: (vec![0.0; CHANNELS], vec![0.0; CHANNELS]),
        }
    }

    /// Runs an operator on the whole image; returns the bytes of activations or weights that it reads and writes.
    fn run(&mut self, op: &str, kernels: &Elementwise<T>) -> u64 {
        let Buffers { a, b, y, p, q, r, small, sums: (sum, sum2) } = self;
        let (row, large) = (SIDE * CHANNELS, size_of::<T>() * PIXELS * CHANNELS);
        let bytes = match op {
            "normalize" => {
                kernels.normalize(a, None, y, (p, q), true);
                2 * large
            }
            "statistics" => {
                kernels.statistics(a, p, sum, sum2);
                large
            }
            "gradientstatistics" => {
                kernels.gradient_statistics(a, Some(b), y, (p, q, r), true, (sum, sum2));
                3 * large
            }
            "normgradient" => {
                kernels.norm_gradient(a, Some(b), y, (p, q, r));
                3 * large
            }
            "relugradient" => {
                kernels.relu_gradient(a, b, None, y);
                3 * large
            }
            "scale" => {
                kernels.scale(a, y, 0.5);
                2 * large
            }
            "pool" => {
                for (x, y) in a.chunks_exact(2 * row).zip(small.chunks_exact_mut(row / 2)) {
                    kernels.pool(x, row, y, CHANNELS, 0.25);
                }
                large + large / 4
            }
            "unpool" => {
                for (x, y) in small.chunks_exact(row / 2).zip(y.chunks_exact_mut(2 * row)) {
                    kernels.unpool(x, y, row, CHANNELS, 0.25);
                }
                large + large / 4
            }
            "globalpool" => {
                kernels.global_pool(a, r, 1.0 / PIXELS as f32);
                large
            }
            "spread" => {
                kernels.spread(p, y, 1.0);
                large
            }
            _ => panic!("no bench for the operator `{op}`"),
        };
        bytes as u64
    }
}
