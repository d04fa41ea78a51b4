//! Proofs of the oracle: numbers worked out by hand, exact adjoint identities, finite differences, a Taylor test.

#[path = "../common/mod.rs"]
mod common;

mod adjoint;
mod differences;
mod hand;
mod precision;
mod samples;
mod taylor;
