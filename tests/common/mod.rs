//! The harness that tests of kernels and operators share: guarded buffers, inputs, tolerances, shapes.
//!
//! A test file uses it by `mod common;`.
#![allow(dead_code, reason = "every test file compiles the harness and uses its own part of it")]

pub mod data;
pub mod guard;
pub mod shapes;
pub mod tolerance;
