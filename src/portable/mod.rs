//! The operators in Rust, on the vectors of the `wide` crate: the fallback where no C kernel can run.
//!
//! Same layouts and the same order of operations as the generated kernels. Where the target has fused multiply-add, also the
//! same bits; on plain x86-64, `wide` multiplies and adds in two roundings, and results obey the error bounds instead.

#[cfg(feature = "bf16")]
pub(crate) mod bf16;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gradient;
mod panel;
