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
    }
}

impl Precision {
    /// The tier for this precision: the best of this machine, or the one that the environment variable `LEANRESNET_ISA` forces.
    ///
    /// # Errors
    /// Those of [`Isa::active`].
    pub fn isa(self) -> Result<Isa> {
        let active = Isa::active()?;
        let is_forced = std::env::var_os("LEANRESNET_ISA").is_some();
        match self {
            Precision::Bf16 if !is_forced => Ok(Isa::available().max().unwrap_or(active)),
            _ => Ok(active),
        }
    }
}
