//! `leanresnet bench train`: steps of training, without reading the data.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use leanresnet::data::SoftLabel;
use leanresnet::train::{Dtype, Executor, NetworkExecutor, RunConfig, Update};
use leanresnet::{Network, Precision, TrainConfig};

use super::cell::{Cell, Setting, Subject, settings};
use super::layers::LayerClock;
use super::options::{NetworkOptions, TrainOptions};
use crate::context::Context;
use crate::failure::Failure;
use crate::stopwatch::Work;

/// Forward pass, gradient of the activations, gradient of the weights: each as many multiply-adds as the forward pass.
const PASSES: u64 = 3;
/// Low, so that weights stay finite however long the measurement takes.
const LEARNING_RATE: f32 = 1e-6;

/// All combinations, with the optimiser of the configuration.
pub fn cells(context: &Context<'_>, options: &TrainOptions) -> Result<Vec<Cell>, Failure> {
    let TrainOptions { network: NetworkOptions { network: source, measure }, recompute, layers } = options;
    let RunConfig { network, train: TrainConfig { optimizer, .. }, .. } = source.configuration()?.run_config()?;
    let mut cells = Vec::new();
    for setting in settings(context, measure, &[128], &[Precision::F32, Precision::Bf16])? {
        for &recompute in recompute {
            let Setting { batch, ref pool, isa, dtype, .. } = setting;
            let dtype = if dtype == Precision::Bf16 { Dtype::Bf16 } else { Dtype::F32 };
            let config = TrainConfig::default().with_batch(batch).with_recompute(recompute).with_optimizer(optimizer.clone());
            let config = config.with_dtype(dtype);
            let bytes = NetworkExecutor::training_bytes(&network, &config, pool.threads())?;
            let subject = Subject {
                preset: Some(source.label()),
                recompute: Some(recompute.name()),
                training_bytes: Some(bytes),
                ..setting.subject("train")
            };
            let executor = NetworkExecutor::new(&network, &config, pool.clone(), isa)?;
            let executor = Rc::new(RefCell::new(if *layers { executor.with_timing() } else { executor }));
            let layers = layers.then(|| LayerClock::new(executor.clone()));
            cells.push(Cell { subject, kernel: None, isa, work: work(&network, executor, batch), layers });
        }
    }
    Ok(cells)
}

fn work(network: &Network, executor: Rc<RefCell<NetworkExecutor>>, batch: usize) -> Work<'static> {
    let image: usize = network.input().iter().product();
    let values: Vec<f32> = (0..batch * image).map(|index| (index % 17) as f32 / 8.0 - 1.0).collect();
    let classes = network.classes();
    let labels: Vec<SoftLabel> = (0..batch).map(|index| SoftLabel::hard((index % classes) as u32)).collect();
    let run = move || {
        let mut executor = executor.borrow_mut();
        executor.forward_backward(&values, &labels)?;
        std::hint::black_box(executor.gradient_norm());
        executor.update(&Update::new(LEARNING_RATE))?;
        Ok(())
    };
    Work { images: batch, flops: PASSES * 2 * network.macs() * batch as u64, run: Box::new(run) }
}
