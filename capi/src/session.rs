//! Sessions: models made ready to run.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use leanresnet::{Images, Result};

use crate::boundary::Boundary;
use crate::error::ErrorText;
use crate::model::Model;
use crate::options::{PrecisionNumber, SessionOptions, precision_number};
use crate::pointer::{Output, elements, handle, invalid, misshaped, release};
use crate::status::Status;

/// The order of the numbers of an image: one of the constants LEANRESNET_LAYOUT_*.
pub type Layout = i32;

/// [images, channels, height, width], the last one fastest: as PyTorch holds images.
pub const LEANRESNET_LAYOUT_NCHW: Layout = 0;
/// [images, height, width, channels], the last one fastest: as decoders of image files give them.
pub const LEANRESNET_LAYOUT_NHWC: Layout = 1;

/// A model that is ready to run: packed weights, kernels, memory, threads. It keeps what it needs of the model.
///
/// Thread safety: one run at a time. A second one at the same time is refused, never mixed with the first; threads that are to run at
/// the same time have a session each, by leanresnet_session_fork(). The release must be the last use.
pub struct Session {
    input: [usize; 3],
    classes: usize,
    instruction_set: CString,
    precision: PrecisionNumber,
    runner: Mutex<leanresnet::Session>,
}

impl Session {
    fn new(model: &leanresnet::Model, session: leanresnet::Session) -> Self {
        Self {
            input: model.input(),
            classes: model.classes(),
            instruction_set: CString::new(session.isa().name()).expect("names of instruction sets hold no NUL"),
            precision: precision_number(session.precision()),
            runner: Mutex::new(session),
        }
    }

    /// Another one on the same weights. Waits for a run that is under way.
    fn fork(&self) -> Self {
        let session = self.runner.lock().unwrap_or_else(PoisonError::into_inner).fork();
        Self { instruction_set: self.instruction_set.clone(), runner: Mutex::new(session), ..*self }
    }

    /// The right to run. After a panic too: a run writes all that it reads.
    pub(crate) fn exclusive(&self) -> Result<MutexGuard<'_, leanresnet::Session>> {
        match self.runner.try_lock() {
            Ok(session) => Ok(session),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let expected = "one run at a time, and leanresnet_session_fork() for every other thread";
                Err(invalid("session", expected, "a run while another one is under way"))
            }
        }
    }

    /// Runs images that `view` makes of a shape, and writes their logits.
    fn run<'a>(&self, count: usize, view: impl FnOnce([usize; 4]) -> Result<Images<'a>>, logits: &Output<f32>) -> Result<()> {
        let [channels, height, width] = self.input;
        let images = view([count, channels, height, width])?;
        if count.checked_mul(self.classes) != Some(logits.length()) {
            let expected = format!("{count} x {} values", self.classes);
            return Err(misshaped("logits", expected, format!("{} values", logits.length())));
        }
        let mut session = self.exclusive()?;
        logits.copy_from(session.run(images)?.as_slice());
        Ok(())
    }
}

fn unknown_layout(layout: Layout) -> leanresnet::Error {
    invalid("layout", "one of LEANRESNET_LAYOUT_*", layout.to_string())
}

/// Makes a model ready to run: packs its weights, picks kernels for this machine, takes memory and threads.
///
/// options: NULL for the defaults.
/// session: gets a handle that the caller releases by leanresnet_session_free(); NULL after a failure.
/// error: gets the reason of a failure; may be NULL.
///
/// The environment variable LEANRESNET_ISA forces an instruction set; LEANRESNET_STATUS_USAGE if this machine does not have it.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_create(
    model: *const Model,
    options: *const SessionOptions,
    session: *mut *mut Session,
    error: *mut ErrorText,
) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C1.
        let session = unsafe { Output::handle(session, "session") }?;
        // SAFETY: C3.
        let model = unsafe { handle(model, "model") }?;
        // SAFETY: C1.
        let options = unsafe { SessionOptions::read(options) }?;
        session.set_handle(Session::new(&model.model, options.build(&model.model)?));
        Ok(())
    })
}

/// Makes another session on the same packed weights and the same pool of threads, with memory of its own, to run at the same time.
///
/// fork: gets a handle that the caller releases by leanresnet_session_free(), before or after that of `session`; NULL after a failure.
/// error: gets the reason of a failure; may be NULL.
///
/// Thread safety: any thread, at any time. It waits for a run of `session` that is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_fork(
    session: *const Session,
    fork: *mut *mut Session,
    error: *mut ErrorText,
) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C1.
        let fork = unsafe { Output::handle(fork, "fork") }?;
        // SAFETY: C3.
        let session = unsafe { handle(session, "session") }?;
        fork.set_handle(session.fork());
        Ok(())
    })
}

/// Releases a session. NULL is allowed.
///
/// Thread safety: any thread; no other call may use the session at the same time or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_free(session: *mut Session) {
    Boundary::status_only().run(|| {
        // SAFETY: C3 and C4.
        unsafe { release(session) };
        Ok(())
    });
}

/// Runs a batch of any size of images of f32, normalised as leanresnet_model_preprocess() says.
///
/// count: the number of images; 0 is allowed.
/// images, images_length: their numbers, and how many there are: count x channels x height x width.
/// layout: one of LEANRESNET_LAYOUT_*.
/// logits, logits_length: an array of the caller's that gets the logits, [count, classes], and its length: count x classes.
/// error: gets the reason of a failure; may be NULL.
///
/// Lengths are numbers of elements, not of bytes. After a failure the logits are as they were.
/// An image gets the same bits at any place of any batch, on any number of threads. The calling thread works too. After the first run
/// with a batch of some size, runs of up to that size allocate nothing but a few words for the threads of a pool.
/// Thread safety: one run of a session at a time; another one at the same time is refused with LEANRESNET_STATUS_USAGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_run_f32(
    session: *mut Session,
    count: usize,
    images: *const f32,
    images_length: usize,
    layout: Layout,
    logits: *mut f32,
    logits_length: usize,
    error: *mut ErrorText,
) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C3.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: C1; every number is valid.
        let images = unsafe { elements(images, images_length, "images") }?;
        // SAFETY: C1.
        let logits = unsafe { Output::array(logits, logits_length, "logits") }?;
        let view = |shape| match layout {
            LEANRESNET_LAYOUT_NCHW => Images::nchw_f32(images, shape),
            LEANRESNET_LAYOUT_NHWC => Images::nhwc_f32(images, shape),
            other => Err(unknown_layout(other)),
        };
        session.run(count, view, &logits)
    })
}

/// Runs a batch of any size of images of bytes, which the model normalises as leanresnet_model_preprocess() says.
///
/// Everything else is as with leanresnet_session_run_f32().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_run_u8(
    session: *mut Session,
    count: usize,
    images: *const u8,
    images_length: usize,
    layout: Layout,
    logits: *mut f32,
    logits_length: usize,
    error: *mut ErrorText,
) -> Status {
    // SAFETY: C1.
    let boundary = unsafe { Boundary::new(error) };
    boundary.run(|| {
        // SAFETY: C3.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: C1; every byte is valid.
        let images = unsafe { elements(images, images_length, "images") }?;
        // SAFETY: C1.
        let logits = unsafe { Output::array(logits, logits_length, "logits") }?;
        let view = |shape| match layout {
            LEANRESNET_LAYOUT_NCHW => Images::nchw_u8(images, shape),
            LEANRESNET_LAYOUT_NHWC => Images::nhwc_u8(images, shape),
            other => Err(unknown_layout(other)),
        };
        session.run(count, view, &logits)
    })
}

/// The instruction set that a session runs on: "portable", "neon", "neonbf16", "avx2", "avx512", "avx512bf16" or "amx"; later versions may know more.
///
/// name: gets a text that ends with NUL. It belongs to the session and lives as long.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_instruction_set(session: *const Session, name: *mut *const c_char) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: C1.
        unsafe { Output::new(name, "name") }?.set(session.instruction_set.as_ptr());
        Ok(())
    })
}

/// The precision that a session computes in: the one that was asked for, the one that a measurement chose, or f32 where there are no kernels for
/// LEANRESNET_PRECISION_BF16X3.
///
/// Returns LEANRESNET_STATUS_USAGE if a pointer is NULL.
/// Thread safety: any thread, at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leanresnet_session_precision(session: *const Session, precision: *mut PrecisionNumber) -> Status {
    Boundary::status_only().run(|| {
        // SAFETY: C3.
        let session = unsafe { handle(session, "session") }?;
        // SAFETY: C1.
        unsafe { Output::new(precision, "precision") }?.set(session.precision);
        Ok(())
    })
}
