//! Inference and training against the oracle, on a table of small networks with every supported choice; and the promise of equal
//! bits.

#[path = "../common/mod.rs"]
mod common;

mod bits;
mod divergence;
mod gradients;
mod graphs;
mod mixed;
mod near_f32;
mod networks;
mod onnx_export;
#[path = "../onnx/interpreter.rs"]
mod onnx_interpreter;
mod oracle;
mod precision;
mod pytorch;
mod recompute;
mod resume;
mod session;
mod updates;
