//! Inference: logits against the oracle, equal bits however a batch is run, errors, and sessions that share a pool.
#![forbid(unsafe_code)]

use std::sync::mpsc;
use std::time::Duration;

use leanresnet::internals::reference::Real;
use leanresnet::net::{Preprocess, SessionBuilder};
use leanresnet::{Error, Images, Isa, Logits, Model, Network, Pool, Session, Stencil};
use rayon::prelude::*;

use crate::common::tolerance::{same_bits, widened};
use crate::networks::{Case, cases, groups, wide};
use crate::oracle::{Mode, Oracle, batch_shape};

/// Unit roundoff of f32.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;

fn shape(network: &Network, images: usize) -> [usize; 4] {
    let [channels, height, width] = network.input();
    [images, channels, height, width]
}

pub(crate) fn build(model: &Model, isa: Isa, pool: &Pool, max_batch: usize) -> Session {
    Session::builder(model).isa(isa).pool(pool.clone()).max_batch(max_batch).build().unwrap()
}

/// Logits of images that lie channels last.
fn run(session: &mut Session, network: &Network, images: &[f32]) -> Vec<f32> {
    let count = images.len() / network.input().iter().product::<usize>();
    session.run(Images::nhwc_f32(images, shape(network, count)).unwrap()).unwrap().as_slice().to_vec()
}

/// [n, h, w, c] as [n, c, h, w].
pub(crate) fn channels_first<T: Copy>(network: &Network, images: &[T]) -> Vec<T> {
    let [channels, height, width] = network.input();
    let pixels = height * width;
    let image = |image: &[T]| (0..channels * pixels).map(|at| image[at % pixels * channels + at / pixels]).collect::<Vec<T>>();
    images.chunks_exact(channels * pixels).flat_map(image).collect()
}

pub(crate) fn oracle<T: Real>(case: &Case, model: &Model, count: usize) -> Vec<f64> {
    let images: Vec<T> = case.images(count).into_iter().map(|value| T::from_f64(f64::from(value))).collect();
    let logits = Oracle::<T>::new(model, Mode::Evaluation).network.forward(&images, batch_shape(model, count));
    logits.into_iter().map(T::to_f64).collect()
}

/// Largest and Euclidean distance.
pub(crate) fn distances(a: &[f64], b: &[f64]) -> [f64; 2] {
    assert_eq!(a.len(), b.len());
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect();
    assert!(differences.iter().all(|difference| difference.is_finite()));
    [
        differences.iter().fold(0.0, |most, value| value.max(most)),
        differences.iter().map(|value| value * value).sum::<f64>().sqrt(),
    ]
}

#[test]
fn logits_are_no_worse_than_twice_the_plain_computation() {
    const IMAGES: usize = 16;
    let mut failures = Vec::new();
    for case in cases().into_iter().chain(groups()).chain(wide()) {
        let model = case.model();
        let (exact, naive) = (oracle::<f64>(&case, &model, IMAGES), oracle::<f32>(&case, &model, IMAGES));
        let scale = exact.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let naive_error = distances(&naive, &exact);
        for isa in [Isa::Portable, Isa::active().unwrap()] {
            let logits = run(&mut build(&model, isa, &Pool::inline(), 5), &case.network, &case.images(IMAGES));
            let error = distances(&widened(&logits), &exact);
            let roundings = 4.0 * UNIT * scale;
            let allowed = [2.0 * naive_error[0] + roundings, 2.0 * naive_error[1] + roundings * (exact.len() as f64).sqrt()];
            if error[0] > allowed[0] || error[1] > allowed[1] {
                failures.push(format!("{} on {isa}: errors {error:.2?} of {scale:.2}, allowed {allowed:.2?}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The instruction sets with fused multiply-add; their results have equal bits.
fn fused_isas() -> Vec<Isa> {
    let fused: Vec<Isa> = Isa::available().filter(|isa| *isa != Isa::Portable).collect();
    if fused.is_empty() { vec![Isa::Portable] } else { fused }
}

pub(crate) fn assert_bits(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let different = actual.iter().zip(expected).position(|(a, b)| !same_bits(*a, *b));
    assert!(different.is_none(), "{what}: logit {different:?} differs: {actual:?} and {expected:?}");
}

#[test]
fn bits_depend_on_the_image_alone() {
    const IMAGES: usize = 7;
    let pools: Vec<Pool> = (1..=3).map(|threads| Pool::new(threads).unwrap()).collect();
    for case in cases().into_iter().chain(groups()).chain(wide()) {
        let (model, images) = (case.model(), case.images(IMAGES));
        let isas = fused_isas();
        let expected = run(&mut build(&model, isas[0], &Pool::inline(), 64), &case.network, &images);
        for (isa, pool) in isas.iter().flat_map(|isa| pools.iter().map(move |pool| (*isa, pool))) {
            for max_batch in [1, 3, 64] {
                let what = format!("{} on {isa}, {} threads, max_batch {max_batch}", case.name, pool.threads());
                let mut session = build(&model, isa, pool, max_batch);
                assert_bits(&what, &run(&mut session, &case.network, &images), &expected);
                // A second run, on memory that is not fresh, and a fork.
                assert_bits(&what, &run(&mut session.fork(), &case.network, &images), &expected);
                assert_bits(&what, &run(&mut session, &case.network, &images), &expected);
            }
        }
        let mut session = build(&model, isas[0], &pools[1], 64);
        let image = images.len() / IMAGES;
        for (index, expected) in expected.chunks_exact(case.network.classes()).enumerate() {
            let alone = run(&mut session, &case.network, &images[index * image..(index + 1) * image]);
            assert_bits(&format!("{}, image {index} alone", case.name), &alone, expected);
        }
        let first = channels_first(&case.network, &images);
        let logits = session.run(Images::nchw_f32(&first, shape(&case.network, IMAGES)).unwrap()).unwrap();
        assert_bits(&format!("{}, channels first", case.name), logits.as_slice(), &expected);
    }
}

#[test]
fn bytes_are_normalised_by_the_model() {
    const IMAGES: usize = 5;
    let case = cases().into_iter().find(|case| case.network.input()[0] == 3).unwrap();
    let (mean, std) = ([0.5, 0.25, 0.4], [0.2, 0.3, 2.0]);
    let model = case.model().with_preprocess(Preprocess::new(&mean, &std)).unwrap();
    let bytes: Vec<u8> = case.images(IMAGES).iter().map(|value| (127.5 + 127.5 * value) as u8).collect();
    let normalise = |(at, byte): (usize, &u8)| (f32::from(*byte) / 255.0 - mean[at % 3]) / std[at % 3];
    let numbers: Vec<f32> = bytes.iter().enumerate().map(normalise).collect();
    let shape = shape(&case.network, IMAGES);
    let mut session = build(&model, fused_isas()[0], &Pool::inline(), 2);
    let expected = run(&mut session, &case.network, &numbers);
    assert_bits("bytes", session.run(Images::nhwc_u8(&bytes, shape).unwrap()).unwrap().as_slice(), &expected);
    let first = channels_first(&case.network, &bytes);
    assert_bits("bytes, channels first", session.run(Images::nchw_u8(&first, shape).unwrap()).unwrap().as_slice(), &expected);
}

/// A small network to run on pools, with images.
fn small() -> (Model, Vec<f32>) {
    let case = cases().swap_remove(2);
    (case.model(), case.images(6))
}

#[test]
fn an_empty_batch_has_no_logits() {
    let (model, _) = small();
    let mut session = build(&model, Isa::active().unwrap(), &Pool::new(2).unwrap(), 4);
    let logits = session.run(Images::nhwc_f32(&[], shape(model.network().unwrap(), 0)).unwrap()).unwrap();
    assert_eq!((logits.images(), logits.as_slice().len()), (0, 0));
}

#[test]
fn wrong_shapes_and_options_are_errors() {
    let (model, images) = small();
    let error = Images::nhwc_f32(&images[1..], [6, 3, 9, 7]).unwrap_err();
    assert_eq!(error.to_string(), "shape of images; expected 1134 values (6 x 3 x 9 x 7), got 1133 values");
    assert!(matches!(error, Error::Shape { .. }));
    let error = Images::nchw_u8(&[0; 4], [usize::MAX, 2, 1, 1]).unwrap_err();
    assert_eq!(error.to_string(), "shape of images; expected a size that fits memory, got 4 values");
    let mut session = build(&model, Isa::active().unwrap(), &Pool::inline(), 4);
    let error = session.run(Images::nhwc_f32(&images, [6, 3, 7, 9]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "shape of images; expected 3 x 9 x 7 each, got 3 x 7 x 9");
    assert!(matches!(error, Error::Shape { .. }));
    let error = session.run(Images::nhwc_f32(&images, [18, 1, 9, 7]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "shape of images; expected 3 x 9 x 7 each, got 1 x 9 x 7");
    let error = session.run_into(Images::nhwc_f32(&images, [6, 3, 9, 7]).unwrap(), &mut [0.0; 41]).unwrap_err();
    assert_eq!(error.to_string(), "shape of logits; expected 42 values, got 41 values");
    assert!(session.run(Images::nhwc_f32(&[], [usize::MAX, 0, 9, 7]).unwrap()).is_err());
    let error = Session::builder(&model).max_batch(0).build().map(drop).unwrap_err();
    assert_eq!(error.to_string(), "max_batch; expected at least 1, got 0");
    if let Some(missing) = Isa::ALL.into_iter().find(|isa| !isa.is_available()) {
        let error = Session::builder(&model).isa(missing).build().map(drop).unwrap_err();
        assert!(matches!(error, Error::Isa { requested, .. } if requested == missing.name()));
    }
    // The session still works.
    assert_eq!(run(&mut session, model.network().unwrap(), &images).len(), 6 * 7);
}

#[test]
fn outputs_can_go_to_memory_of_the_caller() {
    let (model, images) = small();
    let mut session = build(&model, Isa::active().unwrap(), &Pool::inline(), 4);
    let mut logits = vec![f32::NAN; 6 * 7];
    session.run_into(Images::nhwc_f32(&images, [6, 3, 9, 7]).unwrap(), &mut logits).unwrap();
    assert_eq!(logits, run(&mut session, model.network().unwrap(), &images));
}

/// Fails, instead of hanging, if `work` does not end.
fn within_a_minute(work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        done.send(()).expect("the test waits");
    });
    match wait.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end after a minute: a deadlock"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn sessions_on_one_pool_run_at_once() {
    within_a_minute(|| {
        let (model, images) = small();
        let pool = Pool::new(2).unwrap();
        let expected = run(&mut build(&model, Isa::active().unwrap(), &Pool::inline(), 6), model.network().unwrap(), &images);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut session = build(&model, Isa::active().unwrap(), &pool, 4);
                    for _ in 0..50 {
                        assert_bits("one of three sessions", &run(&mut session, model.network().unwrap(), &images), &expected);
                    }
                });
            }
        });
    });
}

/// Calls itself from all threads of the pool it runs in, then runs a session there.
fn nested(depth: usize, model: &Model, pool: &Pool, images: &[f32], expected: &[f32]) {
    if depth > 0 {
        (0..4).into_par_iter().for_each(|_| nested(depth - 1, model, pool, images, expected));
    }
    for pool in [pool, &Pool::shared()] {
        let mut session = build(model, Isa::active().unwrap(), pool, 4);
        assert_bits(&format!("at depth {depth}"), &run(&mut session, model.network().unwrap(), images), expected);
    }
}

#[test]
fn sessions_run_inside_the_pool_that_they_use() {
    within_a_minute(|| {
        let (model, images) = small();
        let expected = run(&mut build(&model, Isa::active().unwrap(), &Pool::inline(), 6), model.network().unwrap(), &images);
        for threads in [2, 3, 5] {
            let threads = std::sync::Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
            let pool = Pool::from_rayon(threads.clone());
            threads.install(|| nested(3, &model, &pool, &images, &expected));
        }
    });
}

#[test]
fn kernels_are_listed_by_layer() {
    let (model, _) = small();
    for isa in Isa::available() {
        let kernels = build(&model, isa, &Pool::inline(), 1).kernels();
        let layers: Vec<&str> = kernels.iter().map(|(layer, _)| layer.as_str()).collect();
        assert_eq!(layers[..3], ["stem.conv", "stages.0.0.conv1", "stages.0.0.conv2"]);
        assert_eq!(layers[layers.len() - 1], "head");
        for (layer, kernel) in &kernels {
            let expected = if layer.starts_with("stages") { "lean_fused_f32_" } else { "lean_dense_f32_" };
            assert!(kernel.starts_with(&format!("{expected}{}", isa.base())), "{layer}: {kernel}");
        }
    }
}

#[test]
fn more_images_at_a_time_need_more_memory() {
    let (model, _) = small();
    let bytes = [1, 8, 64].map(|batch| build(&model, Isa::active().unwrap(), &Pool::inline(), batch).workspace_bytes());
    assert!(0 < bytes[0] && bytes[0] < bytes[1] && bytes[1] < bytes[2], "{bytes:?}");
}

const _: () = {
    const fn assert_send<T: Send>() {}
    const fn assert_send_and_sync<T: Send + Sync>() {}
    assert_send::<Session>();
    assert_send_and_sync::<SessionBuilder>();
    assert_send_and_sync::<Images<'_>>();
    assert_send_and_sync::<Logits<'_>>();
    assert_send_and_sync::<Model>();
    assert_send_and_sync::<Network>();
    assert_send_and_sync::<Pool>();
    assert_send_and_sync::<Isa>();
    assert_send_and_sync::<Stencil>();
    assert_send_and_sync::<Error>();
    assert_send::<leanresnet::train::NetworkExecutor>();
};
