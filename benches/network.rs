//! Inference: the presets at batches of 1, 8 and 64 with one and two threads, in images per second.
//!
//! Ids: `network/PRESET/ISA/nN_tT`, on every instruction set that has C kernels; portable Rust is too slow for all but `small` at batch 1.
#![forbid(unsafe_code)]

mod common;
#[path = "common/data.rs"]
mod data;

use criterion::{BenchmarkId, Criterion, Throughput};
use data::values;
use leanresnet::{Images, Isa, Model, Network, Pool, Session};

fn main() {
    common::run(|criterion| {
        for preset in ["small", "base", "imagenet"] {
            let model = Model::random(&Network::preset(preset).expect("a preset"), 1);
            for isa in Isa::available().filter(|isa| isa.base() == *isa) {
                for batch in [1, 8, 64].into_iter().filter(|&batch| isa != Isa::Portable || (preset, batch) == ("small", 1)) {
                    for threads in [1, 2] {
                        network(criterion, preset, &model, isa, (batch, threads));
                    }
                }
            }
        }
    });
}

fn network(criterion: &mut Criterion, preset: &str, model: &Model, isa: Isa, (batch, threads): (usize, usize)) {
    let [channels, height, width] = model.input();
    let pixels = values(batch * channels * height * width);
    let pool = Pool::new(threads).expect("two threads");
    let session = Session::builder(model).isa(isa).pool(pool).max_batch(batch).build();
    let mut session = session.expect("an available instruction set");
    let mut group = criterion.benchmark_group(format!("network/{preset}"));
    group.sample_size(10).throughput(Throughput::Elements(batch as u64));
    group.bench_function(BenchmarkId::new(isa.name(), format!("n{batch}_t{threads}")), |bench| {
        let images = Images::nhwc_f32(&pixels, [batch, channels, height, width]).expect("sizes that fit");
        bench.iter(|| session.run(images).map(|logits| logits.row(0)[0]));
    });
    group.finish();
}
