//! The oracle: every operator as plain nested loops, forward and backward, over `f32` and `f64`.
//!
//! Nothing here is fast and nothing here runs in production. Two promises make it worth trusting:
//! - the `f64` instance is proved by exact integer identities and finite differences (`tests/reference`);
//! - the `f32` instance of every convolution, pool and head sums in the crate's specified order (one chain of fused
//!   multiply-adds per output), so production kernels must return its very bits.
//!
//! Activations are NHWC (channels last). Weights are in PyTorch's layout, stencils as `[taps][channels]`.
//! Wrong sizes panic: callers are tests.

mod block;
mod dense;
mod epilogue;
mod head;
mod lean;
mod loss;
mod network;
mod norm;
mod pool;
mod real;
mod shape;

pub use block::{Block, Operator};
pub use dense::{DenseWeights, dense_data_gradient, dense_forward, dense_weight_gradients};
pub use epilogue::{Epilogue, relu, relu_backward};
pub use head::{HeadWeights, head_data_gradient, head_forward, head_weight_gradients};
pub use lean::{LeanWeights, Tap, lean_data_gradient, lean_forward, lean_forward_strided, lean_weight_gradients};
pub use loss::{Loss, cross_entropy};
pub use network::{Layer, Network};
pub use norm::{
    BatchNormGradients, ChannelStatistics, Norm, batch_norm, batch_norm_backward, batch_statistics, update_running_statistics,
};
pub use pool::{average_pool, average_pool_backward, global_average_pool, global_average_pool_backward};
pub use real::Real;
pub use shape::Shape;
