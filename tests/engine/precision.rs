//! Inference in bf16: logits against the oracle, equal bits however a batch is run, and what is refused.
#![forbid(unsafe_code)]

use leanresnet::internals::reference::Real;
use leanresnet::{Calibration, Images, Isa, Model, Network, Pool, Precision, Session};

use crate::networks::{Case, cases, groups, wide};
use crate::oracle::{Mode, Oracle, batch_shape};

/// Unit roundoff of bf16.
const UNIT: f64 = 1.0 / (1 << 8) as f64;

fn build(model: &Model, isa: Isa, pool: &Pool, max_batch: usize) -> Session {
    build_in(Precision::Bf16, model, isa, pool, max_batch)
}

pub(crate) fn build_in(precision: Precision, model: &Model, isa: Isa, pool: &Pool, max_batch: usize) -> Session {
    Session::builder(model).isa(isa).pool(pool.clone()).max_batch(max_batch).precision(precision).build().unwrap()
}

pub(crate) fn run(session: &mut Session, network: &Network, images: &[f32]) -> Vec<f32> {
    let [channels, height, width] = network.input();
    let count = images.len() / (channels * height * width);
    session.run(Images::nhwc_f32(images, [count, channels, height, width]).unwrap()).unwrap().as_slice().to_vec()
}

pub(crate) fn exact(case: &Case, model: &Model, count: usize) -> Vec<f64> {
    let images: Vec<f64> = case.images(count).into_iter().map(f64::from).collect();
    let logits = Oracle::<f64>::new(model, Mode::Evaluation).network.forward(&images, batch_shape(model, count));
    logits.into_iter().map(Real::to_f64).collect()
}

/// Portable code, and the best tier of this machine.
fn isas() -> [Isa; 2] {
    [Isa::Portable, Precision::Bf16.isa().unwrap()]
}

/// The distance of logits from the oracle's, as a share of their norm.
pub(crate) fn relative_error(logits: &[f32], exact: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut logits.iter().zip(exact).map(|(a, b)| f64::from(*a) - b)) / norm(&mut exact.iter().copied())
}

/// Every convolution rounds its inputs, its matrix and its outputs: errors of a unit each, which add up like a random walk over the
/// convolutions of the network. The largest error of these cases is a third of what is allowed, the smallest a twenty-fifth.
#[test]
fn logits_are_as_near_as_roundings_to_bf16_allow() {
    const IMAGES: usize = 16;
    let mut failures = Vec::new();
    for case in cases().into_iter().chain(wide()) {
        let model = case.model();
        let exact = exact(&case, &model, IMAGES);
        for isa in isas() {
            let mut session = build(&model, isa, &Pool::inline(), 5);
            let error = relative_error(&run(&mut session, &case.network, &case.images(IMAGES)), &exact);
            let allowed = UNIT * (3.0 * session.kernels().len() as f64).sqrt();
            if error > allowed || error < UNIT / 64.0 || error.is_nan() {
                failures.push(format!("{} on {isa}: relative error {error:.2e}, allowed {allowed:.2e}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Threads, batches, memory that is not fresh, forks and the other images of a batch change nothing.
pub(crate) fn assert_that_bits_depend_on_the_image_alone(precision: Precision, isas: &[Isa]) {
    const IMAGES: usize = 7;
    let pools: Vec<Pool> = (1..=3).map(|threads| Pool::new(threads).unwrap()).collect();
    for case in cases().into_iter().chain(wide()) {
        let (model, images) = (case.model(), case.images(IMAGES));
        for &isa in isas {
            let build = |pool: &Pool, max_batch| build_in(precision, &model, isa, pool, max_batch);
            let expected = run(&mut build(&Pool::inline(), 64), &case.network, &images);
            for (pool, max_batch) in pools.iter().flat_map(|pool| [1, 3, 64].map(|max_batch| (pool, max_batch))) {
                let what = format!("{} on {isa}, {} threads, max_batch {max_batch}", case.name, pool.threads());
                let mut session = build(pool, max_batch);
                assert_eq!(run(&mut session, &case.network, &images), expected, "{what}");
                assert_eq!(run(&mut session.fork(), &case.network, &images), expected, "{what}");
                assert_eq!(run(&mut session, &case.network, &images), expected, "{what}");
            }
            let mut session = build(&pools[1], 64);
            let (image, classes) = (images.len() / IMAGES, case.network.classes());
            for (index, expected) in expected.chunks_exact(classes).enumerate() {
                let alone = run(&mut session, &case.network, &images[index * image..(index + 1) * image]);
                assert_eq!(alone, expected, "{}, image {index} alone on {isa}", case.name);
            }
        }
    }
}

#[test]
fn bits_depend_on_the_image_alone() {
    assert_that_bits_depend_on_the_image_alone(Precision::Bf16, &isas());
}

#[test]
fn kernels_are_those_of_the_precision() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    for isa in isas() {
        let session = build(&model, isa, &Pool::inline(), 1);
        assert_eq!(session.isa(), isa);
        for (layer, kernel) in session.kernels() {
            // The linear layer works on means in f32.
            let dtype = if layer == "head" { "f32" } else { "bf16" };
            assert!(kernel.contains(&format!("_{dtype}_")), "{layer}: {kernel}");
        }
    }
}

#[test]
fn activations_take_half_the_memory() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    let bytes = |precision| Session::builder(&model).precision(precision).max_batch(64).build().unwrap().workspace_bytes() as f64;
    let ratio = bytes(Precision::Bf16) / bytes(Precision::F32);
    assert!((0.48..0.56).contains(&ratio), "{ratio}");
}

#[test]
fn groups_of_channels_are_refused() {
    for case in groups() {
        let error = Session::builder(&case.model()).precision(Precision::Bf16).build().err().expect("no kernels for groups");
        let expected = "precision; expected f32 for stencils that read groups of channels, got bf16";
        assert_eq!(error.to_string(), expected, "{}", case.name);
    }
}

#[test]
fn auto_is_the_precision_that_it_says() {
    for case in cases() {
        let (model, images) = (case.model(), case.images(3));
        for isa in Isa::available() {
            let in_precision = |precision| build_in(precision, &model, isa, &Pool::inline(), 3);
            let mut auto = in_precision(Precision::Auto);
            let chosen = Calibration::of(isa).unwrap().map_or(Precision::F32, |calibration| calibration.precision());
            assert_eq!((auto.precision(), auto.fork().precision(), auto.isa()), (chosen, chosen, isa), "{}", case.name);
            assert_eq!(in_precision(Precision::Auto).precision(), chosen, "{} on {isa}, again", case.name);
            let mut named = in_precision(chosen);
            assert_eq!(named.precision(), chosen);
            assert_eq!(auto.kernels(), named.kernels(), "{} on {isa}", case.name);
            let logits = run(&mut named, &case.network, &images);
            assert_eq!(run(&mut auto, &case.network, &images), logits, "{} on {isa}", case.name);
        }
    }
}

#[test]
fn auto_is_f32_without_kernels_of_bf16() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    for isa in Isa::available().filter(|isa| isa.base() == *isa) {
        assert_eq!(build_in(Precision::Auto, &model, isa, &Pool::inline(), 1).precision(), Precision::F32, "{isa}");
    }
    for case in groups() {
        let session = Session::builder(&case.model()).precision(Precision::Auto).build().unwrap();
        assert_eq!(session.precision(), Precision::F32, "{}", case.name);
    }
}

#[test]
fn auto_without_a_named_tier_runs_on_that_of_bf16() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    let session = Session::builder(&model).precision(Precision::Auto).build().unwrap();
    let isa = Precision::Bf16.isa().unwrap();
    assert_eq!((session.isa(), Precision::Auto.isa().unwrap()), (isa, isa));
    assert_eq!(session.precision(), build_in(Precision::Auto, &model, isa, &Pool::inline(), 1).precision());
}
