//! Inference in three products of bf16: logits against the oracle, equal bits however a batch is run, and f32 where there are no kernels.
#![forbid(unsafe_code)]

use leanresnet::data::{Dataset, Split, Synthetic};
use leanresnet::internals::dispatch::Kernels;
use leanresnet::{Calibration, Images, Isa, Model, Network, Pool, Precision};

use crate::networks::{cases, groups, wide};
use crate::precision::{assert_that_bits_depend_on_the_image_alone, build_in, exact, relative_error, run};

/// The part of a layer's terms by which its error may be larger than in f32.
const UNIT: f64 = 1.0 / (1 << 15) as f64;

/// Portable code, which stays in f32, and the best tier of this machine.
fn isas() -> [Isa; 2] {
    [Isa::Portable, Precision::Bf16x3.isa().unwrap()]
}

fn has_kernels(isa: Isa) -> bool {
    Kernels::of_three_products(isa).unwrap().is_some()
}

/// As in bf16, errors of the layers add up like a random walk; most products miss far less than they may.
#[test]
fn logits_are_as_near_as_three_products_allow() {
    const IMAGES: usize = 16;
    let mut failures = Vec::new();
    for case in cases().into_iter().chain(wide()).chain(groups()) {
        let model = case.model();
        let exact = exact(&case, &model, IMAGES);
        for isa in isas() {
            let mut session = build_in(Precision::Bf16x3, &model, isa, &Pool::inline(), 5);
            let error = relative_error(&run(&mut session, &case.network, &case.images(IMAGES)), &exact);
            let allowed = UNIT * (session.kernels().len() as f64).sqrt();
            if error > allowed || error.is_nan() {
                failures.push(format!("{} on {isa}: relative error {error:.2e}, allowed {allowed:.2e}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn bits_depend_on_the_image_alone() {
    assert_that_bits_depend_on_the_image_alone(Precision::Bf16x3, &[Precision::Bf16x3.isa().unwrap()]);
}

#[test]
fn a_session_says_which_kernels_it_runs() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    for isa in Isa::available() {
        let session = build_in(Precision::Bf16x3, &model, isa, &Pool::inline(), 1);
        let expected = if has_kernels(isa) { Precision::Bf16x3 } else { Precision::F32 };
        assert_eq!((session.precision(), session.fork().precision(), session.isa()), (expected, expected, isa));
        for (layer, kernel) in session.kernels() {
            assert!(kernel.contains(&format!("_{expected}_")), "{layer}: {kernel}");
        }
    }
    for case in groups() {
        let session = build_in(Precision::Bf16x3, &case.model(), Precision::Bf16x3.isa().unwrap(), &Pool::inline(), 1);
        assert_eq!(session.precision(), Precision::F32, "{}", case.name);
    }
}

/// The bits of f32 where it is f32, and others where it is not.
#[test]
fn without_a_tile_unit_it_is_f32() {
    for case in cases() {
        let (model, images) = (case.model(), case.images(3));
        for isa in Isa::available() {
            let logits = |precision| run(&mut build_in(precision, &model, isa, &Pool::inline(), 3), &case.network, &images);
            let is_same = logits(Precision::Bf16x3) == logits(Precision::F32);
            assert_eq!(is_same, !has_kernels(isa), "{} on {isa}", case.name);
        }
    }
}

#[test]
fn auto_near_f32_is_the_precision_that_it_says() {
    let model = Model::random(&Network::preset("small").unwrap(), 1);
    for isa in Isa::available() {
        let chosen = Calibration::of(isa).unwrap().map_or(Precision::F32, |calibration| calibration.near_f32());
        let session = build_in(Precision::AutoNearF32, &model, isa, &Pool::inline(), 1);
        assert_eq!((session.precision(), session.isa()), (chosen, isa));
        assert!(chosen == Precision::F32 || has_kernels(isa));
    }
    for case in groups() {
        let session = build_in(Precision::AutoNearF32, &case.model(), Isa::Portable, &Pool::inline(), 1);
        assert_eq!(session.precision(), Precision::F32, "{}", case.name);
    }
}

/// The model that comes with the tool sees the same in pictures, in both precisions.
#[test]
fn the_shipped_model_decides_as_in_f32() {
    const IMAGES: usize = 32;
    let isa = Precision::Bf16x3.isa().unwrap();
    if !has_kernels(isa) {
        return; // f32 on both sides
    }
    let model = Model::load(concat!(env!("CARGO_MANIFEST_DIR"), "/cli/models/cifar10-s.safetensors")).unwrap();
    let pictures = Synthetic::standard(Split::Test);
    let mut pixels = vec![0; IMAGES * 3 * 32 * 32];
    for (index, image) in pixels.chunks_exact_mut(3 * 32 * 32).enumerate() {
        pictures.image(index, image).unwrap();
    }
    let decisions = |precision| {
        let mut session = build_in(precision, &model, isa, &Pool::inline(), IMAGES);
        let logits = session.run(Images::nhwc_u8(&pixels, [IMAGES, 3, 32, 32]).unwrap()).unwrap();
        let largest = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        (0..IMAGES).map(|image| largest(logits.row(image))).collect::<Vec<_>>()
    };
    assert_eq!(decisions(Precision::Bf16x3), decisions(Precision::F32));
}
