//! The executor of training: hand-written forward and backward passes on the same kernels as inference.

mod backward;
mod finite;
mod forward;
mod graph;
mod head;
mod kernel_weights;
mod layout;
mod memory;
mod muon;
mod network_executor;
mod norm;
mod rule;
mod separable;
mod slots;
mod state;
mod step;
mod timing;
mod typed_executor;
mod upcoming;
mod visit;
mod weight_gradient;
mod weights;

pub use network_executor::NetworkExecutor;
