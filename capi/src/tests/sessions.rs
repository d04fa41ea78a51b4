//! Sessions: results, options, wrong calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use leanresnet::{Images, Precision};

use super::{
    CLASSES, Failure, IMAGE, OwnedModel, OwnedSession, Pixel, bits, bytes, called, expected_logits, fork, loaded, logits, made,
    model, options, session, session_with, text,
};
use crate::options::{
    LEANRESNET_PRECISION_AUTO, LEANRESNET_PRECISION_AUTO_NEAR_F32, LEANRESNET_PRECISION_BF16, LEANRESNET_PRECISION_BF16X3,
    LEANRESNET_PRECISION_F32, PrecisionNumber, SessionOptions, precision_number,
};
use crate::session::{
    LEANRESNET_LAYOUT_NCHW, LEANRESNET_LAYOUT_NHWC, leanresnet_session_create, leanresnet_session_fork, leanresnet_session_free,
    leanresnet_session_instruction_set, leanresnet_session_precision, leanresnet_session_run_f32, leanresnet_session_run_u8,
};
use crate::status::Status;

fn refusal<T>(result: Result<T, Failure>) -> String {
    match result {
        Ok(_) => panic!("a wrong call was accepted"),
        Err((status, message)) => {
            assert_eq!(status, Status::Usage, "{message}");
            message
        }
    }
}

/// The same images, channels last.
fn channels_last<T: Copy>(images: &[T]) -> Vec<T> {
    let place = |at: usize| at / IMAGE * IMAGE + at % 3 * 64 + at % IMAGE / 3;
    (0..images.len()).map(|at| images[place(at)]).collect()
}

fn normalised(bytes: &[u8]) -> Vec<f32> {
    let model = model();
    let preprocess = model.preprocess();
    let value = |(at, &byte): (usize, &u8)| {
        let channel = at % IMAGE / 64;
        (f32::from(byte) / 255.0 - preprocess.mean[channel]) / preprocess.std[channel]
    };
    bytes.iter().enumerate().map(value).collect()
}

#[test]
fn all_types_and_layouts_give_the_bits_of_the_rust_library() {
    let model = loaded();
    for max_batch in [0, 1, 2, 3] {
        let session = session_with(&model, &SessionOptions { max_batch, ..options() }).unwrap();
        for count in [1, 3, 5, 0] {
            let (bytes, expected) = (bytes(count), expected_logits(count));
            let numbers = normalised(&bytes);
            let mut results: [_; 4] = std::array::from_fn(|_| vec![f32::NAN; count * CLASSES]);
            let [a, b, c, d] = &mut results;
            u8::run(&session, count, &bytes, LEANRESNET_LAYOUT_NCHW, a).unwrap();
            u8::run(&session, count, &channels_last(&bytes), LEANRESNET_LAYOUT_NHWC, b).unwrap();
            f32::run(&session, count, &numbers, LEANRESNET_LAYOUT_NCHW, c).unwrap();
            f32::run(&session, count, &channels_last(&numbers), LEANRESNET_LAYOUT_NHWC, d).unwrap();
            for result in &results {
                assert_eq!(bits(result), expected, "{count} images, at most {max_batch} at a time");
            }
        }
    }
}

#[test]
fn lengths_have_to_fit_exactly() {
    let (model, mut logits) = (loaded(), [7.0; 3 * CLASSES]);
    let session = session(&model);
    let mut run = |count, length: usize, room: usize| {
        refusal(u8::run(&session, count, &vec![0; length], LEANRESNET_LAYOUT_NCHW, &mut logits[..room]))
    };
    let images = "shape of images; expected 384 values (2 x 3 x 8 x 8), got ";
    assert_eq!(run(2, 2 * IMAGE - 1, 4), format!("{images}383 values"));
    assert_eq!(run(2, 2 * IMAGE + 1, 4), format!("{images}385 values"));
    assert_eq!(run(2, 0, 4), format!("{images}0 values"));
    assert_eq!(run(2, 2 * IMAGE, 3), "shape of logits; expected 2 x 2 values, got 3 values");
    assert_eq!(run(2, 2 * IMAGE, 5), "shape of logits; expected 2 x 2 values, got 5 values");
    assert_eq!(run(2, 2 * IMAGE, 0), "shape of logits; expected 2 x 2 values, got 0 values");
    assert!(run(usize::MAX, IMAGE, 2).contains("a size that fits memory"));
    assert!(run(usize::MAX / IMAGE + 2, IMAGE, 2).contains("a size that fits memory"));
    assert_eq!(
        refusal(u8::run(&session, 1, &[0; IMAGE], 2, &mut logits[..2])),
        "layout; expected one of LEANRESNET_LAYOUT_*, got 2"
    );
    assert_eq!(
        refusal(f32::run(&session, 1, &[0.0; IMAGE], -1, &mut logits[..2])),
        "layout; expected one of LEANRESNET_LAYOUT_*, got -1"
    );
    assert_eq!(logits, [7.0; 3 * CLASSES], "a refused run writes nothing");
}

#[test]
fn null_and_misaligned_addresses_are_refused() {
    let model = loaded();
    let session = session(&model);
    let (bytes, numbers, mut logits) = ([0_u8; IMAGE], [0.0_f32; IMAGE + 1], [7.0_f32; CLASSES + 1]);
    let (first_byte, first, out) = (bytes.as_ptr(), numbers.as_ptr(), logits.as_mut_ptr());
    // SAFETY: C1: the arrays' own extents, NULL, or addresses that are refused unread; C3: NULL, or an owned handle.
    unsafe {
        let run_u8 = |session, images, out| {
            refusal(called(|error| {
                leanresnet_session_run_u8(session, 1, images, IMAGE, LEANRESNET_LAYOUT_NCHW, out, CLASSES, error)
            }))
        };
        let run_f32 = |session, images, out| {
            refusal(called(|error| {
                leanresnet_session_run_f32(session, 1, images, IMAGE, LEANRESNET_LAYOUT_NCHW, out, CLASSES, error)
            }))
        };
        assert_eq!(run_u8(ptr::null_mut(), first_byte, out), "session; expected a handle, got NULL");
        assert_eq!(run_u8(session.0, ptr::null(), out), "images; expected an address, got NULL");
        assert_eq!(run_u8(session.0, first_byte, ptr::null_mut()), "logits; expected an address, got NULL");
        assert_eq!(run_f32(ptr::null_mut(), first, out), "session; expected a handle, got NULL");
        assert_eq!(run_f32(session.0, ptr::null(), out), "images; expected an address, got NULL");
        assert_eq!(run_f32(session.0, first, ptr::null_mut()), "logits; expected an address, got NULL");
        assert!(
            run_f32(session.0, first.byte_add(1), out).starts_with("images; expected an address that is a multiple of 4, got 0x")
        );
        assert!(
            run_f32(session.0, first, out.byte_add(2)).starts_with("logits; expected an address that is a multiple of 4, got 0x")
        );
        let status = leanresnet_session_run_u8(session.0, 1, ptr::null(), IMAGE, 0, out, CLASSES, ptr::null_mut());
        assert_eq!(status, Status::Usage);
        let nothing = leanresnet_session_run_f32(session.0, 0, ptr::null(), 0, 0, ptr::null_mut(), 0, ptr::null_mut());
        assert_eq!(nothing, Status::Ok);

        let created = made(|session, error| leanresnet_session_create(ptr::null(), ptr::null(), session, error));
        assert_eq!(refusal(created), "model; expected a handle, got NULL");
        let created = called(|error| leanresnet_session_create(model.0, ptr::null(), ptr::null_mut(), error));
        assert_eq!(refusal(created), "session; expected an address, got NULL");
        let forked = made(|fork, error| leanresnet_session_fork(ptr::null(), fork, error));
        assert_eq!(refusal(forked), "session; expected a handle, got NULL");
        let forked = called(|error| leanresnet_session_fork(session.0, ptr::null_mut(), error));
        assert_eq!(refusal(forked), "fork; expected an address, got NULL");
        leanresnet_session_free(ptr::null_mut());

        let (mut name, mut precision) = (ptr::null(), 7);
        let statuses = [
            leanresnet_session_instruction_set(ptr::null(), &raw mut name),
            leanresnet_session_instruction_set(session.0, ptr::null_mut()),
            leanresnet_session_precision(ptr::null(), &raw mut precision),
            leanresnet_session_precision(session.0, ptr::null_mut()),
        ];
        assert_eq!((statuses, name, precision), ([Status::Usage; 4], ptr::null(), 7));
    }
    assert_eq!(logits, [7.0; CLASSES + 1]);
}

#[test]
fn null_options_are_the_defaults() {
    let model = loaded();
    // SAFETY: C1: places for one handle and one text; C3: an owned handle.
    let session = made(|session, error| unsafe { leanresnet_session_create(model.0, ptr::null(), session, error) });
    assert_eq!(logits(&OwnedSession(session.unwrap()), 70).unwrap(), expected_logits(70));
}

#[test]
fn options_out_of_range_are_refused() {
    let model = loaded();
    let refused = |options: SessionOptions| refusal(session_with(&model, &options));
    assert_eq!(
        refused(SessionOptions { max_batch: (1 << 20) + 1, ..options() }),
        "options.max_batch; expected 0 to 1048576, got 1048577"
    );
    assert_eq!(refused(SessionOptions { threads: 4097, ..options() }), "options.threads; expected 0 to 4096, got 4097");
    assert_eq!(
        refused(SessionOptions { precision: 5, ..options() }),
        "options.precision; expected one of LEANRESNET_PRECISION_*, got 5"
    );
    assert_eq!(
        refused(SessionOptions { precision: -1, ..options() }),
        "options.precision; expected one of LEANRESNET_PRECISION_*, got -1"
    );
    assert_eq!(refused(SessionOptions { reserved: 1, ..options() }), "options.reserved; expected 0, got 1");
}

/// The options of a program that was compiled for a version with two more.
#[repr(C)]
struct LaterOptions {
    known: SessionOptions,
    later: [usize; 2],
}

impl LaterOptions {
    fn create(&self, model: &OwnedModel) -> Result<OwnedSession, Failure> {
        let options = ptr::from_ref(self).cast();
        // SAFETY: C1: a struct that is at least as long as its size says, unless that is refused unread; C3: an owned handle.
        made(|session, error| unsafe { leanresnet_session_create(model.0, options, session, error) }).map(OwnedSession)
    }
}

#[test]
fn programs_of_later_versions_run_unless_they_set_what_this_one_does_not_know() {
    let model = loaded();
    let with = |size, later| LaterOptions { known: SessionOptions { size, ..options() }, later }.create(&model);
    let (known, longer) = (size_of::<SessionOptions>(), size_of::<LaterOptions>());
    assert_eq!(logits(&with(longer, [0, 0]).unwrap(), 2).unwrap(), expected_logits(2));
    // What lies beyond the size that a program names is not looked at.
    assert!(with(known, [1, 1]).is_ok());
    let message = refusal(with(longer, [0, 1]));
    assert!(message.ends_with("got an option of a later version"), "{message}");
    for size in [0, 1, known - 1, 4097, usize::MAX] {
        let expected = format!("options.size; expected sizeof(leanresnet_session_options), {known}, got {size}");
        assert_eq!(refusal(with(size, [0, 0])), expected);
    }
}

#[test]
fn every_precision_has_a_number() {
    let mut numbers: Vec<PrecisionNumber> = Precision::ALL.iter().map(|&precision| precision_number(precision)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn a_session_says_what_it_became() {
    let (rust_model, model) = (model(), loaded());
    for (number, precision) in [
        (LEANRESNET_PRECISION_F32, Precision::F32),
        (LEANRESNET_PRECISION_BF16, Precision::Bf16),
        (LEANRESNET_PRECISION_AUTO, Precision::Auto),
        (LEANRESNET_PRECISION_BF16X3, Precision::Bf16x3),
        (LEANRESNET_PRECISION_AUTO_NEAR_F32, Precision::AutoNearF32),
    ] {
        let mut expected = leanresnet::Session::builder(&rust_model).precision(precision).build().unwrap();
        let session = session_with(&model, &SessionOptions { precision: number, ..options() }).unwrap();
        for session in [&session, &fork(&session)] {
            let (mut name, mut precision) = (ptr::null(), -1);
            // SAFETY: C1: places for a text and a number; C3: an owned handle.
            let statuses = unsafe {
                [
                    leanresnet_session_instruction_set(session.0, &raw mut name),
                    leanresnet_session_precision(session.0, &raw mut precision),
                ]
            };
            assert_eq!(statuses, [Status::Ok; 2]);
            assert_eq!(text(name), expected.isa().name());
            assert_eq!(precision, precision_number(expected.precision()));
            let images = bytes(3);
            let images = Images::nchw_u8(&images, [3, 3, 8, 8]).unwrap();
            assert_eq!(logits(session, 3).unwrap(), bits(expected.run(images).unwrap().as_slice()));
        }
    }
}

#[test]
fn sessions_need_neither_their_model_nor_their_origin() {
    let expected = expected_logits(4);
    let model = loaded();
    let first = session(&model);
    drop(model);
    assert_eq!(logits(&first, 4).unwrap(), expected);
    let second = fork(&first);
    let third = fork(&second);
    drop(first);
    assert_eq!(logits(&second, 4).unwrap(), expected);
    drop(second);
    assert_eq!(logits(&third, 4).unwrap(), expected);
}

#[test]
fn a_session_that_runs_refuses_a_second_run() {
    let model = loaded();
    let session = session(&model);
    // SAFETY: an owned handle, which a caller may share.
    let inner = unsafe { &*session.0 };
    let running = inner.exclusive().unwrap();
    let message = refusal(logits(&session, 1));
    assert!(message.contains("leanresnet_session_fork()"), "{message}");
    drop(running);
    assert_eq!(logits(&session, 1).unwrap(), expected_logits(1));
}

#[test]
fn a_session_runs_again_after_a_panic() {
    let model = loaded();
    let session = session(&model);
    // SAFETY: an owned handle, which a caller may share.
    let inner = unsafe { &*session.0 };
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _running = inner.exclusive();
        panic!("in the middle of a run");
    }));
    assert!(panicked.is_err());
    assert_eq!(logits(&session, 2).unwrap(), expected_logits(2));
    assert_eq!(logits(&fork(&session), 2).unwrap(), expected_logits(2));
}
