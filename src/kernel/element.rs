//! The types of activations and matrices.
#![forbid(unsafe_code)]

use super::conv::ConvCall;
use crate::dispatch::{Kernels, KernelsOf};
use crate::portable;

/// A type of activations and their gradients, and of a convolution's matrix. Sums, stencil, bias, and what there is per channel are f32.
pub trait Element: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Inputs of a matrix that lie side by side in its packed rows, for dot products of as many: a kernel row is whole groups of them.
    const INPUTS_TOGETHER: usize;
    /// Channels that a pixel's are a multiple of.
    const CHANNELS_TOGETHER: usize;

    /// The same number.
    fn widened(self) -> f32;

    /// The nearest value, to even.
    fn nearest(value: f32) -> Self;

    /// Those of its type.
    fn kernels(kernels: &Kernels) -> &KernelsOf<Self>;

    /// Runs a checked call on the portable code.
    fn convolve(call: &mut ConvCall<'_, Self>);
}

impl Element for f32 {
    const INPUTS_TOGETHER: usize = 1;
    const CHANNELS_TOGETHER: usize = 1;

    #[inline]
    fn widened(self) -> f32 {
        self
    }

    #[inline]
    fn nearest(value: f32) -> f32 {
        value
    }

    fn kernels(kernels: &Kernels) -> &KernelsOf<f32> {
        &kernels.f32
    }

    fn convolve(call: &mut ConvCall<'_>) {
        portable::conv::run(call);
    }
}

#[cfg(feature = "bf16")]
impl Element for half::bf16 {
    // Pairs for dot products of two; fours for products of blocks of 2 x 4 by 4 x 2, which aarch64 has.
    const INPUTS_TOGETHER: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
    const CHANNELS_TOGETHER: usize = crate::conv::pack::PANEL;

    // As the type's own conversions, but without a branch: compilers make vectors of it.
    #[inline]
    fn widened(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline]
    fn nearest(value: f32) -> half::bf16 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        half::bf16::from_bits(if value.is_nan() { 0x7fc0 } else { rounded as u16 })
    }

    fn kernels(kernels: &Kernels) -> &KernelsOf<half::bf16> {
        &kernels.bf16
    }

    fn convolve(call: &mut ConvCall<'_, Self>) {
        portable::bf16::run(call);
    }
}

#[cfg(all(test, feature = "bf16"))]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn conversions_are_those_of_the_type() {
        for high in 0..=u16::MAX {
            let x = bf16::from_bits(high);
            assert!(x.widened().to_bits() == x.to_f32().to_bits() || x.is_nan());
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                assert!(bf16::nearest(x) == bf16::from_f32(x) || x.is_nan() && bf16::nearest(x).is_nan(), "{x:e}");
            }
        }
    }
}
