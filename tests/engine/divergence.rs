//! When values stop being finite: which layer is named, and what is kept.
#![forbid(unsafe_code)]

use leanresnet::data::SoftLabel;
use leanresnet::net::Block;
use leanresnet::train::{
    Batch, Executor, NetworkExecutor, Recompute, RunConfig, ScheduleConfig, StateKind, TrainConfig, Trainer,
};
use leanresnet::{Error, Isa, Network, Pool};

use crate::networks::{Case, cases};
use crate::updates::model_state;

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).expect("a case of the table")
}

/// Sets the first value of a tensor.
fn inject(executor: &mut NetworkExecutor, name: &str, value: f32) {
    let mut found = None;
    executor.visit_state(&mut |kind, other, shape, values| {
        if (kind, other) == (StateKind::Model, name) {
            found = Some((shape.to_vec(), values.to_vec()));
        }
    });
    let (shape, mut values) = found.expect("a tensor of the network");
    // The last value: a stencil's first one may lie outside of it.
    let middle = values.len() / 2;
    values[middle] = value;
    executor.restore_state(StateKind::Model, name, &shape, &values).unwrap();
}

#[test]
fn the_layer_of_an_infinite_weight_is_named() {
    let case = case("residual, 2 norms, box9, relu, scale 0.5");
    for (tensor, layer) in [
        ("stem.conv.weight", "stem.conv"),
        ("stem.norm.bias", "stem.norm"),
        ("stages.0.0.conv1.spatial.weight", "stages.0.0.conv1"),
        ("stages.0.1.norm1.weight", "stages.0.1.norm1"),
        ("stages.0.1.conv2.pointwise.weight", "stages.0.1.conv2"),
        ("stages.0.1.norm2.running_var", "stages.0.1.norm2"),
        ("connections.0.conv.weight", "connections.0.conv"),
        ("connections.0.norm.weight", "connections.0.norm"),
        ("stages.1.0.norm2.bias", "stages.1.0.norm2"),
        ("head.weight", "head"),
        ("head.bias", "head"),
    ] {
        let values = [f32::INFINITY, f32::NAN].into_iter();
        for (value, recompute) in values.flat_map(|value| Recompute::ALL.iter().map(move |recompute| (value, *recompute))) {
            let mut executor = recomputing(&case, recompute);
            inject(&mut executor, tensor, value);
            assert_eq!(executor.first_non_finite().as_deref(), Some(layer), "{tensor} before a step");
            let loss = executor.forward_backward(&case.images(3), &case.labels(3)).unwrap();
            assert_eq!(executor.first_non_finite().as_deref(), Some(layer), "{tensor} after a step, recompute {recompute}");
            let finite = loss.loss_sum.is_finite() && executor.gradient_norm().is_finite();
            // In training, the batch's statistics stand in for the running ones.
            assert_eq!(finite, tensor.ends_with("running_var"), "{tensor}");
        }
    }
}

#[test]
fn the_layer_whose_output_overflows_is_named_though_its_weights_are_finite() {
    let case = case("residual, 0 norms, cross4, bias");
    for recompute in Recompute::ALL {
        let mut executor = recomputing(&case, *recompute);
        assert_eq!(executor.first_non_finite(), None);
        inject(&mut executor, "stages.0.1.conv1.pointwise.bias", 3e38);
        inject(&mut executor, "stages.0.1.conv2.pointwise.bias", 3e38);
        executor.forward_backward(&case.images(3), &case.labels(3)).unwrap();
        assert_eq!(executor.first_non_finite().as_deref(), Some("stages.0.1.conv2"), "recompute {recompute}");
    }
}

fn recomputing(case: &Case, recompute: Recompute) -> NetworkExecutor {
    let config = TrainConfig::default().with_recompute(recompute);
    let mut executor = NetworkExecutor::new(&case.network, &config, Pool::inline(), Isa::active().unwrap()).unwrap();
    executor.set_model(&case.model()).unwrap();
    executor
}

#[test]
fn a_learning_rate_of_a_million_ends_in_an_error_that_names_a_layer() {
    for norms in [0, 1, 2] {
        let network = Network::builder().with_input([3, 6, 5]).with_classes(4).with_block(&Block::default().with_norms(norms));
        let network = network.with_stage(8, 2).with_stage(12, 1).build().unwrap();
        let train = TrainConfig::default().with_batch(6).with_schedule(ScheduleConfig::Constant { lr: 1e6 });
        let executor = NetworkExecutor::new(&network, &train, Pool::inline(), Isa::active().unwrap()).unwrap();
        let config = RunConfig::new(network).with_train(train);
        let mut trainer = Trainer::with_executor(config, Box::new(executor)).unwrap().with_training_images(600);
        let images = crate::common::data::uniform(3, 6 * 90);
        let labels: Vec<SoftLabel> = (0..6).map(|image| SoftLabel::hard(image % 4)).collect();
        let step = |trainer: &mut Trainer| trainer.step(&Batch { images: &images, labels: &labels });
        let error = (0..100).find_map(|_| step(&mut trainer).err()).expect("divergence within a hundred steps");
        let Error::Diverged { step: at, layer } = error else { panic!("{error}") };
        assert_eq!(at, trainer.steps());
        let is_named = trainer.executor().first_non_finite().is_some_and(|name| name == layer);
        assert!(is_named, "{norms} norms: step {at}: {layer}");
        // The same error again: the weights are those before the step, so nothing makes them finite.
        assert!(matches!(step(&mut trainer), Err(Error::Diverged { step: again, .. }) if again == at));
        let folder = tempfile::tempdir().unwrap();
        match trainer.save(folder.path()) {
            Err(Error::Diverged { .. }) => assert!(!folder.path().join("last.ckpt").exists()),
            other => other.expect("a finite state can be saved"),
        }
    }
}

#[test]
fn a_step_that_overflows_leaves_the_weights_alone() {
    let case = case("residual, 1 norm, cross5");
    let model = case.model();
    let mut images = case.images(3);
    images[0] = f32::INFINITY;
    let train = TrainConfig::default().with_batch(3);
    let mut executor = NetworkExecutor::new(&case.network, &train, Pool::inline(), Isa::active().unwrap()).unwrap();
    executor.set_model(&model).unwrap();
    let before = model_state(&executor);
    let loss = executor.forward_backward(&images, &case.labels(3)).unwrap();
    assert!(!loss.loss_sum.is_finite());
    assert_eq!(executor.first_non_finite().as_deref(), Some("stem.conv"));
    for (name, values) in model_state(&executor) {
        assert!(name.contains("running") || values == before[&name], "{name} changed");
    }
}
