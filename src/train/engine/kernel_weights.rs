//! Weights as the optimiser changes them, in f32, and as the kernels of a type read them.
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};

use crate::conv::pack::PackedWeights;
use crate::exec::activation::Activation;

/// A type of activations and their gradients in training; weights, their gradients, and sums stay f32.
pub(crate) trait Trained: Activation {
    /// Weights as kernels of the type read them; nothing where those of the optimiser will do.
    type Rounded: Send + Sync;

    fn rounded(weights: &PackedWeights) -> Self::Rounded;

    /// Rounds again after the weights have changed.
    fn round(weights: &PackedWeights, rounded: &mut Self::Rounded);

    /// What kernels read.
    fn read<'a>(weights: &'a PackedWeights, rounded: &'a Self::Rounded) -> &'a PackedWeights<Self>;

    /// Bytes held beside the weights.
    fn bytes(rounded: &Self::Rounded) -> usize;

    /// The pixels of an image of `channels.0` channels with `channels.1`, as kernels of the type take them: as they are, or rounded into
    /// `room` with channels of zeros.
    fn image<'a>(pixels: &'a [f32], channels: (usize, usize), room: &'a mut [Self]) -> &'a [Self];
}

impl Trained for f32 {
    type Rounded = ();

    fn rounded(_: &PackedWeights) {}

    fn round(_: &PackedWeights, (): &mut ()) {}

    fn read<'a>(weights: &'a PackedWeights, (): &'a ()) -> &'a PackedWeights {
        weights
    }

    fn bytes((): &()) -> usize {
        0
    }

    fn image<'a>(pixels: &'a [f32], _: (usize, usize), _: &'a mut [f32]) -> &'a [f32] {
        pixels
    }
}

#[cfg(feature = "bf16")]
mod half_precision {
    use super::{PackedWeights, Trained};
    use crate::kernel::element::Element;
    use half::bf16;

    impl Trained for bf16 {
        type Rounded = PackedWeights<bf16>;

        fn rounded(weights: &PackedWeights) -> PackedWeights<bf16> {
            weights.to_bf16()
        }

        fn round(weights: &PackedWeights, rounded: &mut PackedWeights<bf16>) {
            weights.round_to(rounded);
        }

        fn read<'a>(_: &'a PackedWeights, rounded: &'a PackedWeights<bf16>) -> &'a PackedWeights<bf16> {
            rounded
        }

        fn bytes(rounded: &PackedWeights<bf16>) -> usize {
            rounded.bytes()
        }

        fn image<'a>(pixels: &'a [f32], (from, to): (usize, usize), room: &'a mut [bf16]) -> &'a [bf16] {
            let room = &mut room[..pixels.len() / from * to];
            for (to, from) in room.chunks_exact_mut(to).zip(pixels.chunks_exact(from)) {
                to.fill(bf16::ZERO);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = bf16::nearest(*from));
            }
            room
        }
    }
}

/// The weights of one convolution, or of its transpose.
pub(crate) struct KernelWeights<T: Trained> {
    values: PackedWeights,
    /// None where kernels of f32 read the values.
    rounded: Option<T::Rounded>,
}

impl<T: Trained> KernelWeights<T> {
    pub(crate) fn new(values: PackedWeights) -> Self {
        KernelWeights { rounded: Some(T::rounded(&values)), values }
    }

    /// Weights that only kernels of f32 read.
    pub(crate) fn single(values: PackedWeights) -> Self {
        KernelWeights { values, rounded: None }
    }

    /// What kernels of the type read.
    pub(crate) fn read(&self) -> &PackedWeights<T> {
        match &self.rounded {
            Some(rounded) => T::read(&self.values, rounded),
            None => unreachable!("the linear layer reads its weights as f32"),
        }
    }

    /// Lets kernels read the values as they are now.
    pub(crate) fn round(&mut self) {
        if let Some(rounded) = &mut self.rounded {
            T::round(&self.values, rounded);
        }
    }

    /// Bytes held.
    pub(crate) fn all_bytes(&self) -> usize {
        self.values.bytes() + self.rounded.as_ref().map_or(0, T::bytes)
    }
}

impl<T: Trained> Deref for KernelWeights<T> {
    type Target = PackedWeights;

    fn deref(&self) -> &PackedWeights {
        &self.values
    }
}

impl<T: Trained> DerefMut for KernelWeights<T> {
    fn deref_mut(&mut self) -> &mut PackedWeights {
        &mut self.values
    }
}
