//! Every operator as a problem that tests can fill with data, run on any instruction set, and hand to the oracle.
//!
//! A test file uses it by `mod operators;` beside `mod common;`.
#![allow(dead_code, reason = "every test file compiles the operators and uses its own part of them")]

pub(crate) mod convolution;
pub(crate) mod elementwise;
pub(crate) mod fill;
pub(crate) mod gradients;
pub(crate) mod memory;
pub(crate) mod naive;
pub(crate) mod setup;
pub(crate) mod transpose;
pub(crate) mod typed;

use leanresnet::Isa;
use leanresnet::internals::kernel::upcoming::Upcoming;

/// Memory to fetch that no program has: kernels must not touch it.
pub(crate) fn unmapped() -> Upcoming {
    Upcoming::new(1 << 12, 1 << 14)
}

/// True if the kernels of a tier round a multiplication and the addition after it once, so that they owe the oracle's bits.
pub(crate) fn has_fused_multiply_add(isa: Isa) -> bool {
    isa != Isa::Portable || cfg!(any(target_arch = "aarch64", target_feature = "fma"))
}
