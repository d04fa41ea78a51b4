//! The types of activations and matrices.
#![forbid(unsafe_code)]

use super::conv::ConvCall;
use crate::portable;

/// A type of a convolution's inputs, matrix, residual and outputs. Its sums, stencil, bias, scale and shift are f32.
pub trait Element: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Inputs of a matrix that lie side by side in its packed rows, for dot products of as many: a kernel row is whole groups of them.
    const INPUTS_TOGETHER: usize;
    /// Channels that a pixel's are a multiple of.
    const CHANNELS_TOGETHER: usize;

    /// Runs a checked call on the portable code.
    fn convolve(call: &mut ConvCall<'_, Self>);
}

impl Element for f32 {
    const INPUTS_TOGETHER: usize = 1;
    const CHANNELS_TOGETHER: usize = 1;

    fn convolve(call: &mut ConvCall<'_>) {
        portable::conv::run(call);
    }
}

#[cfg(feature = "bf16")]
impl Element for half::bf16 {
    const INPUTS_TOGETHER: usize = 2;
    const CHANNELS_TOGETHER: usize = crate::conv::pack::PANEL;

    fn convolve(call: &mut ConvCall<'_, Self>) {
        portable::bf16::run(call);
    }
}
