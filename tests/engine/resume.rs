//! Training the engine through [`Trainer`]: a run that was stopped and resumed has the bits of one that was not.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::data::{Augmentation, DataConfig, InMemory};
use leanresnet::net::{Block, BlockForm};
use leanresnet::train::{
    Dtype, Executor, NetworkExecutor, Observer, OptimizerConfig, RunConfig, ScheduleConfig, Silent, StateKind, StepReport,
    StopReason, TrainConfig, Trainer,
};
use leanresnet::{Isa, Network, Pool, Precision};

use crate::bits::equal_tiers;
use crate::common::data::Random;

const EPOCHS: u64 = 2;
/// Steps of an epoch: 4 batches of 5 images and one of 3.
const STEPS: u64 = 5;

fn images() -> InMemory {
    let mut random = Random::new(11);
    let labels: Vec<u32> = (0..23).map(|image| image % 3).collect();
    let pixels =
        labels.iter().flat_map(|class| (0..3 * 6 * 5).map(|_| 60 * *class as u8 + random.below(100) as u8).collect::<Vec<_>>());
    InMemory::new([3, 6, 5], ["a", "b", "c"].map(String::from).to_vec(), pixels.collect(), labels.clone()).unwrap()
}

fn config(form: BlockForm, optimizer: OptimizerConfig) -> RunConfig {
    let block = Block::default().with_form(form).with_norms(2).with_scale(0.5);
    let network = Network::builder().with_input([3, 6, 5]).with_classes(3).with_block(&block);
    let augment = Augmentation::default().with_crop(1).with_flip(true).with_mixup(0.2);
    let train = TrainConfig::default()
        .with_epochs(EPOCHS)
        .with_batch(5)
        .with_ema(0.9)
        .with_clip_norm(0.5)
        .with_label_smoothing(0.1)
        .with_optimizer(optimizer)
        .with_schedule(ScheduleConfig::Cosine { lr: 0.05, warmup_epochs: 1.0 });
    let network = network.with_stage(8, 1).with_stage(12, 1).build().unwrap();
    RunConfig::new(network).with_data(DataConfig::default().with_augment(augment)).with_train(train)
}

fn trainer(config: &RunConfig, threads: usize, isa: Isa) -> Trainer {
    let executor = NetworkExecutor::new(&config.network, &config.train, Pool::new(threads).unwrap(), isa).unwrap();
    Trainer::with_executor(config.clone(), Box::new(executor)).unwrap()
}

/// Stops after a number of steps.
struct StopAfter(u64);

impl Observer for StopAfter {
    fn on_step(&mut self, report: &StepReport) {
        assert!(report.loss.is_finite() && report.gradient_norm > 0.0);
        self.0 -= 1;
    }

    fn should_stop(&mut self) -> Option<StopReason> {
        (self.0 == 0).then_some(StopReason::Interrupted)
    }
}

/// Everything of the state that is a tensor, as bits.
fn state(trainer: &Trainer) -> Vec<(StateKind, String, Vec<u32>)> {
    let mut state = Vec::new();
    trainer.executor().visit_state(&mut |kind, name, _, values| {
        state.push((kind, name.to_owned(), values.iter().map(|value| value.to_bits()).collect()));
    });
    state
}

/// The tiers whose results have equal bits.
fn tiers(dtype: Dtype) -> Vec<Isa> {
    match dtype {
        Dtype::Bf16 => vec![Precision::Bf16.isa().unwrap()],
        _ => equal_tiers(),
    }
}

fn stop_and_save(config: &RunConfig, steps: u64, folder: &Path) {
    let mut first = trainer(config, 2, tiers(config.train.dtype)[0]);
    let report = first.fit(&images(), Some(&images()), &mut StopAfter(steps)).unwrap();
    assert_eq!((report.stopped, report.steps), (StopReason::Interrupted, steps));
    first.save(folder).unwrap();
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_never_stopped() {
    let adam = [StateKind::AdamMean, StateKind::AdamSquare];
    for (form, optimizer, dtype, moments) in [
        (BlockForm::Residual, OptimizerConfig::sgd(), Dtype::F32, &[StateKind::Momentum][..]),
        (BlockForm::Symmetric, OptimizerConfig::adamw(), Dtype::F32, &adam),
        (BlockForm::Residual, OptimizerConfig::muon(), Dtype::F32, &[StateKind::Momentum]),
        (BlockForm::Residual, OptimizerConfig::adamw(), Dtype::Bf16, &adam),
    ] {
        let mut config = config(form, optimizer);
        config.train.dtype = dtype;
        let mut whole = trainer(&config, 1, tiers(dtype)[0]);
        whole.fit(&images(), Some(&images()), &mut Silent).unwrap();
        let expected = state(&whole);
        for kind in StateKind::ALL {
            let is_kept = moments.contains(&kind) || [StateKind::Model, StateKind::Ema].contains(&kind);
            assert_eq!(expected.iter().any(|(other, ..)| *other == kind), is_kept, "{kind:?}");
        }
        for stop in [1, 3, STEPS, STEPS + 2, EPOCHS * STEPS - 1] {
            let folder = tempfile::tempdir().unwrap();
            stop_and_save(&config, stop, folder.path());
            for isa in tiers(dtype) {
                let mut second = trainer(&config, 3, isa);
                assert_eq!(second.resume(folder.path(), &mut Silent).unwrap().step, stop);
                second.fit(&images(), Some(&images()), &mut Silent).unwrap();
                assert!(state(&second) == expected, "{form}: stopped after {stop} steps, resumed on {isa}");
                assert_eq!(second.model().unwrap(), whole.model().unwrap());
                assert_eq!(second.history(), whole.history());
            }
        }
    }
}

#[test]
fn evaluation_uses_the_average_and_changes_nothing() {
    let config = config(BlockForm::Residual, OptimizerConfig::sgd());
    let mut trainer = trainer(&config, 2, Isa::active().unwrap());
    trainer.fit(&images(), None, &mut Silent).unwrap();
    let before = state(&trainer);
    let first = trainer.evaluate(&images()).unwrap();
    assert_eq!(trainer.evaluate(&images()).unwrap(), first);
    assert!(state(&trainer) == before);
    // A model without the average's part gives other logits.
    let mut executor = NetworkExecutor::new(&config.network, &config.train, Pool::inline(), Isa::active().unwrap()).unwrap();
    trainer.executor().visit_state(&mut |kind, name, shape, values| executor.restore_state(kind, name, shape, values).unwrap());
    let pixels = crate::common::data::uniform(1, 90);
    let mut logits = [vec![0.0; 3], vec![0.0; 3]];
    executor.forward(&pixels, 1, &mut logits[0]).unwrap();
    let zeros: Vec<(String, Vec<usize>)> = trainer_tensors(&trainer, StateKind::Ema);
    for (name, shape) in zeros {
        executor.restore_state(StateKind::Ema, &name, &shape, &vec![0.0; shape.iter().product()]).unwrap();
    }
    executor.forward(&pixels, 1, &mut logits[1]).unwrap();
    assert!(logits[0].iter().any(|value| *value != 0.0));
    assert_eq!(logits[1], [0.0; 3]);
}

fn trainer_tensors(trainer: &Trainer, wanted: StateKind) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    trainer.executor().visit_state(&mut |kind, name, shape, _| {
        if kind == wanted {
            tensors.push((name.to_owned(), shape.to_vec()));
        }
    });
    tensors
}
