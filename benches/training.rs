//! Training: whole steps (forward, backward, update) of the preset `small` at a batch of 64, in images per second.
//!
//! Ids: `training/small/ISA/n64_tT`, on the instruction set in force (`LEANRESNET_ISA` chooses another one).
#![forbid(unsafe_code)]

mod common;
#[path = "common/data.rs"]
mod data;

use criterion::{BenchmarkId, Criterion, Throughput};
use data::values;
use leanresnet::data::SoftLabel;
use leanresnet::train::{Batch, NetworkExecutor, ScheduleConfig};
use leanresnet::{Isa, Network, Pool, RunConfig, TrainConfig, Trainer};

const BATCH: usize = 64;

fn main() {
    common::run(|criterion| {
        for threads in [1, 2] {
            step(criterion, threads);
        }
    });
}

fn step(criterion: &mut Criterion, threads: usize) {
    let isa = Isa::active().expect("an available instruction set");
    let network = Network::preset("small").expect("a preset");
    // So low a rate that the loss of one batch, seen again and again, stays away from 0.
    let config = TrainConfig::default().with_batch(BATCH).with_schedule(ScheduleConfig::Constant { lr: 1e-6 });
    let pool = Pool::new(threads).expect("two threads");
    let executor = NetworkExecutor::new(&network, &config, pool, isa).expect("a preset can be trained");
    let images = values(BATCH * network.input().iter().product::<usize>());
    let labels: Vec<SoftLabel> = (0..BATCH as u32).map(|image| SoftLabel::hard(image % 10)).collect();
    let run = RunConfig::new(network).with_train(config);
    let trainer = Trainer::with_executor(run, Box::new(executor)).expect("a configuration that fits");
    let mut trainer = trainer.with_training_images(1 << 30);

    let mut group = criterion.benchmark_group("training/small");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(BenchmarkId::new(isa.name(), format!("n{BATCH}_t{threads}")), |bench| {
        bench.iter(|| trainer.step(&Batch { images: &images, labels: &labels }).expect("a finite loss"));
    });
    group.finish();
}
