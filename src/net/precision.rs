//! The type of activations and matrices in inference.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::isa::Isa;
use crate::named_enum::named_enum;

named_enum! {
    /// How precise inference is: the type of activations and matrices. Sums, stencils, biases and the linear layer at the end are f32.
    #[derive(Default)]
    Precision, "precision" {
        /// 24 bits: results as the model says.
        #[default]
        F32 = "f32",
        /// bf16, 8 bits, rounded to nearest even: half the memory, and faster where the processor multiplies it. Results have the same
        /// bits on any number of threads and in any batch, but not on other instruction sets. Needs the feature `bf16`.
        Bf16 = "bf16",
        /// Near f32: activations in f32, and in convolutions three products of bf16 for each of f32, on processors with the tile unit (AMX).
        /// The error of a layer is at most 2^-15 of the sum of its terms' magnitudes, beside that of f32. Elsewhere f32, which is faster there and
        /// as near, and so for stencils that read groups of channels; [`Session::precision`](crate::Session::precision) tells. Results
        /// have the same bits on any number of threads and in any batch. Needs the feature `bf16`, without which it is f32.
        Bf16x3 = "bf16x3",
        /// bf16 where a [`Calibration`](crate::Calibration) says that it is at least 1.1 times faster, else f32. The first session of a
        /// process measures, some 5 ms, for all later ones on its instruction set; the measured width, 64 channels, stands for all. f32 on
        /// instruction sets without kernels of bf16, for stencils that read groups of channels, and without the feature `bf16`.
        /// [`Session::precision`](crate::Session::precision) tells which.
        Auto = "auto",
        /// [`Precision::Auto`] for those who allow near f32, but not bf16: [`Precision::Bf16x3`] where it is measured to be at least 1.1 times
        /// faster than f32, else f32.
        AutoNearF32 = "auto-near-f32",
    }
}

impl Precision {
    /// The tier for this precision: the best of this machine, or the one that the environment variable `LEANRESNET_ISA` forces. All but
    /// [`Precision::F32`] have that of bf16, which has the f32 kernels of its [`Isa::base`].
    ///
    /// # Errors
    /// Those of [`Isa::active`].
    pub fn isa(self) -> Result<Isa> {
        let active = Isa::active()?;
        let is_forced = std::env::var_os("LEANRESNET_ISA").is_some();
        if self == Precision::F32 || is_forced { Ok(active) } else { Ok(Isa::available().max().unwrap_or(active)) }
    }
}
