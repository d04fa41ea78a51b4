//! The first steps of `small` against PyTorch: golden losses of `tests/golden/pytorch_losses.py`, which says how they were made.
#![forbid(unsafe_code)]

use leanresnet::data::SoftLabel;
use leanresnet::net::{ParameterRole, ParameterSpec, parameters};
use leanresnet::train::{Executor, NetworkExecutor, TrainConfig, Update};
use leanresnet::{Isa, Model, Network, Pool};

use crate::common::data::{Random, uniform};

const BATCHES: u64 = 4;
const BATCH: usize = 32;
const CLASSES: usize = 10;
const PIXELS: usize = 32 * 32 * 3;
const LEARNING_RATE: f32 = 0.005;
/// Largest relative difference of a loss.
const TOLERANCE: f64 = 1e-4;

fn initial(spec: &ParameterSpec) -> Vec<f32> {
    let seed = spec.name.bytes().fold(7, |seed: u64, byte| seed * 31 % 1_000_003 + u64::from(byte));
    let values = uniform(seed, spec.values());
    let scaled = |centre: f32, width: f32| values.iter().map(|value| centre + value * width).collect();
    match spec.role {
        ParameterRole::NormWeight => scaled(1.0, 0.25),
        ParameterRole::NormBias | ParameterRole::HeadBias => scaled(0.0, 0.125),
        ParameterRole::RunningMean => vec![0.0; spec.values()],
        ParameterRole::RunningVar => vec![1.0; spec.values()],
        ParameterRole::SpatialWeight { stencil } => {
            let mask = stencil.mask();
            values.iter().enumerate().map(|(at, value)| if mask[at % mask.len()] { value * 0.25 } else { 0.0 }).collect()
        }
        _ => {
            let fan_in: usize = spec.shape[1..].iter().product();
            scaled(0.0, (3.0 / fan_in as f32).sqrt().log2().floor().exp2())
        }
    }
}

fn labels(batch: u64) -> Vec<SoftLabel> {
    let mut random = Random::new(20_000 + batch);
    (0..BATCH).map(|_| SoftLabel::hard(random.below(CLASSES) as u32)).collect()
}

#[test]
fn the_first_losses_of_small_are_those_of_pytorch() {
    let golden = include_str!("../golden/pytorch_losses.txt");
    let golden: Vec<f64> = golden.lines().filter(|line| !line.starts_with('#')).map(|line| line.parse().unwrap()).collect();
    assert_eq!(golden.len(), 20);
    let network = Network::preset("small").unwrap();
    let specs = parameters(&network).into_iter().filter(|spec| spec.role != ParameterRole::NumBatchesTracked);
    let model = Model::from_tensors(&network, specs.map(|spec| (spec.name.clone(), spec.shape.clone(), initial(&spec)))).unwrap();
    let config = TrainConfig::default().with_label_smoothing(0.1);
    // Portable code takes seconds for what kernels do at once: the first batches have to do.
    for (isa, steps) in [(Isa::active().unwrap(), golden.len()), (Isa::Portable, 4)] {
        let mut executor = NetworkExecutor::new(&network, &config, Pool::inline(), isa).unwrap();
        executor.set_model(&model).unwrap();
        for (step, expected) in golden.iter().take(steps).enumerate() {
            let batch = step as u64 % BATCHES;
            let loss = executor.forward_backward(&uniform(10_000 + batch, BATCH * PIXELS), &labels(batch)).unwrap();
            let loss = loss.loss_sum / BATCH as f64;
            let difference = (loss / expected - 1.0).abs();
            assert!(difference <= TOLERANCE, "step {step} on {isa}: loss {loss}, PyTorch's {expected}");
            executor.update(&Update::new(LEARNING_RATE)).unwrap();
        }
    }
}
