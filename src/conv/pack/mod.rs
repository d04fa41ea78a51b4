//! Weights in the layout that the kernels read ("panel32", contract P3 of `kernels/include/lean_abi.h`).
//!
//! Output channels are cut into panels of 32, the last one padded with zeros. Inside a panel, one row of 32 values per input:
//! a kernel walks down a panel and loads whole vectors. The layout says nothing about lanes, so every instruction set reads it.
#![forbid(unsafe_code)]

#[cfg(feature = "bf16")]
mod bf16;
mod groups;
pub mod phases;
#[cfg(feature = "bf16")]
mod split;
mod weights;

pub use crate::memory::{Aligned, filled};
#[cfg(feature = "bf16")]
pub(crate) use bf16::place;
pub use groups::GROUP_SIZES;
pub(crate) use groups::{channel_of_turn, check_groups};
pub use weights::PackedWeights;
pub(crate) use weights::describe;

/// Output channels of a panel.
pub const PANEL: usize = 32;

/// How the values of a matrix lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MatrixForm {
    /// A row of 32 output channels for each input, or for each group of inputs that are multiplied together.
    #[default]
    Rows,
    /// hi + lo of bf16, in steps of [`SPLIT_STEP`] inputs.
    Split,
}

/// Inputs of a step of the tile unit. All inputs of a split matrix, one kernel row after the other, fill whole steps; behind the last one are
/// zeros.
pub(crate) const SPLIT_STEP: usize = 32;

/// `length` zeros.
pub fn zeros(length: usize) -> Aligned {
    filled(length, 0.0)
}

/// Number of panels of `channels` output channels.
pub fn panels(channels: usize) -> usize {
    channels.div_ceil(PANEL)
}

/// Writes per-channel values (`rows` of `channels` each) as [panel][row][32]; also the layout of a matrix with `rows` inputs.
pub(crate) fn pack_rows(rows: usize, channels: usize, value: impl Fn(usize, usize) -> f32, to: &mut [f32]) {
    for panel in 0..panels(channels) {
        for row in 0..rows {
            let at = (panel * rows + row) * PANEL;
            for lane in 0..PANEL.min(channels - panel * PANEL) {
                to[at + lane] = value(row, panel * PANEL + lane);
            }
        }
    }
}
