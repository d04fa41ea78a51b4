//! The functions as C callers use them, and misuse them.

mod hostile;
mod models;
mod sessions;
mod threads;

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;

use leanresnet::net::Preprocess;
use leanresnet::{Images, Network};

use crate::error::ErrorText;
use crate::model::{Model, leanresnet_model_free, leanresnet_model_from_memory};
use crate::options::SessionOptions;
use crate::session::{
    LEANRESNET_LAYOUT_NCHW, Layout, Session, leanresnet_session_create, leanresnet_session_fork, leanresnet_session_free,
    leanresnet_session_run_f32, leanresnet_session_run_u8,
};
use crate::status::{Status, leanresnet_status_text};
use crate::version::leanresnet_version;

/// Numbers of an image of [`model`].
const IMAGE: usize = 3 * 8 * 8;
/// Its classes.
const CLASSES: usize = 2;

/// What a caller learns of a call that failed.
type Failure = (Status, String);

/// A handle that is released at the end.
struct OwnedModel(*mut Model);

impl Drop for OwnedModel {
    fn drop(&mut self) {
        // SAFETY: C3 and C4: made by a function of this library, and owned.
        unsafe { leanresnet_model_free(self.0) };
    }
}

/// A handle that is released at the end.
struct OwnedSession(*mut Session);

impl Drop for OwnedSession {
    fn drop(&mut self) {
        // SAFETY: C3 and C4: made by a function of this library, and owned.
        unsafe { leanresnet_session_free(self.0) };
    }
}

// SAFETY: the header lets threads share handles.
unsafe impl Send for OwnedModel {}
// SAFETY: as above.
unsafe impl Sync for OwnedModel {}
// SAFETY: as above.
unsafe impl Send for OwnedSession {}
// SAFETY: as above.
unsafe impl Sync for OwnedSession {}

/// Calls a function with a place for the reason of a failure that holds garbage.
fn called(call: impl FnOnce(*mut ErrorText) -> Status) -> Result<(), Failure> {
    let mut error = MaybeUninit::<ErrorText>::uninit();
    // SAFETY: one place of this type; every byte is valid.
    let (status, text) = unsafe {
        error.as_mut_ptr().write_bytes(0x41, 1);
        let status = call(error.as_mut_ptr());
        (status, error.assume_init().text())
    };
    if status == Status::Ok {
        assert_eq!(text, "", "the reason of a success");
        return Ok(());
    }
    assert!(!text.is_empty() && !text.starts_with('A'), "a reason: {text}");
    Err((status, text))
}

/// Calls a function that makes a handle; after a failure it has to be NULL.
fn made<T>(call: impl FnOnce(*mut *mut T, *mut ErrorText) -> Status) -> Result<*mut T, Failure> {
    let mut handle = ptr::dangling_mut();
    match called(|error| call(&raw mut handle, error)) {
        Ok(()) => {
            assert!(!handle.is_null());
            Ok(handle)
        }
        Err(failure) => {
            assert!(handle.is_null(), "{failure:?}");
            Err(failure)
        }
    }
}

/// A small model with everything that a model can have.
fn model() -> leanresnet::Model {
    let network = Network::builder()
        .with_input([3, 8, 8])
        .with_class_names(["cat", "d\u{f6}g"])
        .with_stage(4, 1)
        .with_stage(6, 1)
        .build()
        .unwrap();
    let preprocess = Preprocess::new(&[0.4, 0.5, 0.6], &[0.2, 0.3, 0.25]).with_resize(Some(12));
    leanresnet::Model::random(&network, 5).with_preprocess(preprocess).unwrap()
}

fn from_memory(bytes: &[u8]) -> Result<OwnedModel, Failure> {
    // SAFETY: C1: the slice's own extent, and places for one handle and one text.
    made(|model, error| unsafe { leanresnet_model_from_memory(bytes.as_ptr(), bytes.len(), model, error) }).map(OwnedModel)
}

fn loaded() -> OwnedModel {
    from_memory(&model().to_bytes().unwrap()).unwrap()
}

/// Options that differ from the defaults in the number of threads: tests that say nothing else need no pool.
fn options() -> SessionOptions {
    SessionOptions { size: size_of::<SessionOptions>(), max_batch: 0, threads: 1, precision: 0, reserved: 0 }
}

fn session_with(model: &OwnedModel, options: &SessionOptions) -> Result<OwnedSession, Failure> {
    // SAFETY: C1: one struct, places for one handle and one text; C3: an owned handle.
    made(|session, error| unsafe { leanresnet_session_create(model.0, options, session, error) }).map(OwnedSession)
}

fn session(model: &OwnedModel) -> OwnedSession {
    session_with(model, &options()).unwrap()
}

fn fork(session: &OwnedSession) -> OwnedSession {
    // SAFETY: C1: places for one handle and one text; C3: an owned handle.
    OwnedSession(made(|fork, error| unsafe { leanresnet_session_fork(session.0, fork, error) }).unwrap())
}

/// Bytes of some images; no two images are equal.
fn bytes(images: usize) -> Vec<u8> {
    (0..images * IMAGE).map(|at| (at * 7 + at / IMAGE * 31 + at / 64 * 5) as u8).collect()
}

/// The type of images.
trait Pixel: Sized {
    /// Calls the function for images of this type.
    fn run(session: &OwnedSession, count: usize, images: &[Self], layout: Layout, logits: &mut [f32]) -> Result<(), Failure>;
}

impl Pixel for f32 {
    fn run(session: &OwnedSession, count: usize, images: &[f32], layout: Layout, logits: &mut [f32]) -> Result<(), Failure> {
        let (pixels, length) = (images.as_ptr(), images.len());
        // SAFETY: C1: the slices' own extents, and a place for one text; C3: an owned handle.
        called(|error| unsafe {
            leanresnet_session_run_f32(session.0, count, pixels, length, layout, logits.as_mut_ptr(), logits.len(), error)
        })
    }
}

impl Pixel for u8 {
    fn run(session: &OwnedSession, count: usize, images: &[u8], layout: Layout, logits: &mut [f32]) -> Result<(), Failure> {
        let (pixels, length) = (images.as_ptr(), images.len());
        // SAFETY: C1: the slices' own extents, and a place for one text; C3: an owned handle.
        called(|error| unsafe {
            leanresnet_session_run_u8(session.0, count, pixels, length, layout, logits.as_mut_ptr(), logits.len(), error)
        })
    }
}

/// The logits of some [`bytes`], as bits.
fn logits(session: &OwnedSession, images: usize) -> Result<Vec<u32>, Failure> {
    let mut logits = vec![f32::NAN; images * CLASSES];
    u8::run(session, images, &bytes(images), LEANRESNET_LAYOUT_NCHW, &mut logits)?;
    Ok(bits(&logits))
}

/// What [`logits`] has to be, by the Rust library.
fn expected_logits(images: usize) -> Vec<u32> {
    let mut session = leanresnet::Session::builder(&model()).pool(leanresnet::Pool::inline()).build().unwrap();
    bits(session.run(Images::nchw_u8(&bytes(images), [images, 3, 8, 8]).unwrap()).unwrap().as_slice())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A text that a function gave out.
fn text(pointer: *const c_char) -> String {
    assert!(!pointer.is_null());
    // SAFETY: not NULL, and texts of this library end with NUL.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

#[test]
fn constant_texts() {
    assert_eq!(text(leanresnet_version()), env!("CARGO_PKG_VERSION"));
    let statuses = [Status::Ok, Status::Failure, Status::Usage, Status::Data, Status::Diverged, Status::Bug];
    let mut texts: Vec<String> = statuses.iter().map(|&status| text(leanresnet_status_text(status as i32))).collect();
    assert!(!texts.contains(&"unknown status".to_owned()), "{texts:?}");
    for unknown in [-1, 5, 100, i32::MAX, i32::MIN] {
        assert_eq!(text(leanresnet_status_text(unknown)), "unknown status");
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), statuses.len());
}
