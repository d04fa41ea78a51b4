//! The harness that tests of kernels and operators share: guarded buffers, inputs, tolerances, shapes.
//!
//! A test file uses it by `mod common;`.
#![allow(dead_code, reason = "every test file compiles the harness and uses its own part of it")]

pub(crate) mod data;
pub(crate) mod guard;
pub(crate) mod hash;
pub(crate) mod shapes;
pub(crate) mod tolerance;
