//! Options of sessions, in a struct that later versions can extend.

use std::mem::MaybeUninit;

use leanresnet::{Pool, Precision, Result, default_threads};

use crate::pointer::{elements, invalid};

/// The type of activations and matrices: one of the constants LEANRESNET_PRECISION_*.
pub type PrecisionNumber = i32;

/// 24 bits: results as the model says.
pub const LEANRESNET_PRECISION_F32: PrecisionNumber = 0;
/// bf16, 8 bits: half the memory, and faster where the processor multiplies it; many times slower elsewhere.
pub const LEANRESNET_PRECISION_BF16: PrecisionNumber = 1;
/// bf16 where a measurement, once per process and some 5 ms, says that it is at least 1.1 times faster; else f32.
pub const LEANRESNET_PRECISION_AUTO: PrecisionNumber = 2;
/// Near f32: three products of bf16 for each of f32 where the processor has a tile unit (AMX); else f32.
pub const LEANRESNET_PRECISION_BF16X3: PrecisionNumber = 3;
/// The same where a measurement says that it is at least 1.1 times faster; else f32.
pub const LEANRESNET_PRECISION_AUTO_NEAR_F32: PrecisionNumber = 4;

/// Images at a time, unless an option says so.
const DEFAULT_MAX_BATCH: usize = 64;
/// More images would not be faster, and take memory that few machines have.
const MAX_BATCH: usize = 1 << 20;
/// More threads than processors have, and few enough for a system to start.
const MAX_THREADS: usize = 4096;
/// A larger struct is not one of a later version, but a `size` that nobody wrote.
const MAX_SIZE: usize = 4096;

/// Options of a session. LEANRESNET_SESSION_OPTIONS_INIT sets `size` and, for every option, 0, which stands for its default:
///
///     leanresnet_session_options options = LEANRESNET_SESSION_OPTIONS_INIT;
///     options.threads = 1;
///
/// Later versions may add options at the end. `size` tells the library which ones a program knows: those that it does not know keep
/// their defaults, and a program that sets one that the library does not know gets LEANRESNET_STATUS_USAGE.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// sizeof(leanresnet_session_options).
    pub size: usize,
    /// The most images that run at a time, up to 1048576; larger batches are cut up. Memory grows with it. 0: 64.
    pub max_batch: usize,
    /// The threads that work on a run, up to 4096, the caller's among them. 1: the caller's alone. More: a pool of this session and
    /// its forks. 0: one pool for the whole process, with LEANRESNET_NUM_THREADS threads if that environment variable is set, else as
    /// many as the process may use.
    pub threads: usize,
    /// One of LEANRESNET_PRECISION_*. 0: LEANRESNET_PRECISION_F32.
    pub precision: PrecisionNumber,
    /// Has to be 0.
    pub reserved: u32,
}

// No padding: bytes that no caller sets would stand where a later version has an option.
const _: () = assert!(size_of::<SessionOptions>() == 3 * size_of::<usize>() + 8);

impl SessionOptions {
    /// The defaults, as an older version or a caller without options has them.
    const DEFAULTS: Self = Self { size: size_of::<Self>(), max_batch: 0, threads: 0, precision: 0, reserved: 0 };

    /// Copies the options of a caller, who may know fewer or more; the defaults for NULL.
    ///
    /// # Safety
    /// C1 holds for `options` with as many bytes as its `size` says, or for its `size` alone.
    pub(crate) unsafe fn read(options: *const Self) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::DEFAULTS);
        }
        // SAFETY: C1: `size` is the first member.
        let size = unsafe { elements(options.cast::<usize>(), 1, "options") }?[0];
        let known = size_of::<Self>();
        if !(known..=MAX_SIZE).contains(&size) {
            return Err(invalid("options.size", format!("sizeof(leanresnet_session_options), {known}"), size.to_string()));
        }
        // SAFETY: C1; every byte is valid.
        let bytes = unsafe { elements(options.cast::<u8>(), size, "options") }?;
        if bytes[known..].iter().any(|&byte| byte != 0) {
            return Err(invalid(
                "options",
                format!("zeros after the {known} bytes that version {} knows", env!("CARGO_PKG_VERSION")),
                "an option of a later version",
            ));
        }
        let mut copy = MaybeUninit::<Self>::uninit();
        // SAFETY: `bytes` has at least `known` bytes, `copy` as many; every pattern of bytes is valid for the members.
        Ok(unsafe {
            copy.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), known);
            copy.assume_init()
        })
    }

    /// A session of a model.
    pub(crate) fn build(&self, model: &leanresnet::Model) -> Result<leanresnet::Session> {
        if self.reserved != 0 {
            return Err(invalid("options.reserved", "0", self.reserved.to_string()));
        }
        let max_batch = match self.max_batch {
            0 => DEFAULT_MAX_BATCH,
            images @ 1..=MAX_BATCH => images,
            images => return Err(invalid("options.max_batch", format!("0 to {MAX_BATCH}"), images.to_string())),
        };
        let builder = leanresnet::Session::builder(model);
        builder.pool(self.pool()?).max_batch(max_batch).precision(self.precision()?).build()
    }

    fn pool(&self) -> Result<Pool> {
        match self.threads {
            // The pool would take a variable that is no number for one that is not set.
            0 => default_threads().map(|_| Pool::shared()),
            threads @ 1..=MAX_THREADS => Pool::new(threads),
            threads => Err(invalid("options.threads", format!("0 to {MAX_THREADS}"), threads.to_string())),
        }
    }

    fn precision(&self) -> Result<Precision> {
        match self.precision {
            LEANRESNET_PRECISION_F32 => Ok(Precision::F32),
            LEANRESNET_PRECISION_BF16 => Ok(Precision::Bf16),
            LEANRESNET_PRECISION_AUTO => Ok(Precision::Auto),
            LEANRESNET_PRECISION_BF16X3 => Ok(Precision::Bf16x3),
            LEANRESNET_PRECISION_AUTO_NEAR_F32 => Ok(Precision::AutoNearF32),
            other => Err(invalid("options.precision", "one of LEANRESNET_PRECISION_*", other.to_string())),
        }
    }
}

/// The number of a precision.
///
/// # Panics
/// For one that this file does not know: a defect, which a test looks for.
pub(crate) fn precision_number(precision: Precision) -> PrecisionNumber {
    match precision {
        Precision::F32 => LEANRESNET_PRECISION_F32,
        Precision::Bf16 => LEANRESNET_PRECISION_BF16,
        Precision::Auto => LEANRESNET_PRECISION_AUTO,
        Precision::Bf16x3 => LEANRESNET_PRECISION_BF16X3,
        Precision::AutoNearF32 => LEANRESNET_PRECISION_AUTO_NEAR_F32,
        other => panic!("the precision {other} has no number"),
    }
}
