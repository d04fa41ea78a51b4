//! Weights whose matrix is bf16, as kernels of products of several inputs read them (contract P3).
#![forbid(unsafe_code)]

use half::bf16;

use super::{PANEL, PackedWeights, filled};
use crate::kernel::element::Element;

/// Inputs of a channel that lie side by side.
const TOGETHER: usize = <bf16 as Element>::INPUTS_TOGETHER;

/// Where a channel of a panel lies among the panel's 32 values: all even channels first, so that two neighbours in a word of 32 bits go to
/// the same place of two vectors.
pub(crate) fn place(channel: usize) -> usize {
    channel % 2 * (PANEL / 2) + channel / 2
}

impl PackedWeights {
    /// The same weights with a matrix rounded to bf16, to nearest even; stencil, bias, scale and shift stay as precise as they were.
    /// The output has whole panels of channels; what is more than before is zeros.
    ///
    /// # Panics
    /// If the rows of the kernel are not whole groups of the inputs that lie side by side, or taps read groups of channels.
    #[doc(hidden)] // Of use only with kernels, which are not public.
    #[must_use]
    pub fn to_bf16(&self) -> PackedWeights<bf16> {
        assert!(self.row_length.is_multiple_of(TOGETHER), "whole groups of inputs");
        assert_eq!(self.group_size, 1, "no kernel of this type reads groups");
        let mut rounded = PackedWeights {
            stencil_kind: self.stencil_kind,
            group_size: 1,
            rows: self.rows,
            row_length: self.row_length,
            channels: self.channels.next_multiple_of(PANEL),
            matrix_form: self.matrix_form,
            matrix: filled(self.matrix.len(), bf16::ZERO),
            stencil: self.stencil.clone(),
            bias: self.bias.clone(),
            scale: self.scale.clone(),
        };
        self.round_to(&mut rounded);
        rounded
    }

    /// Writes the same weights, rounded, over those that [`PackedWeights::to_bf16`] made of weights of the same shape.
    pub(crate) fn round_to(&self, rounded: &mut PackedWeights<bf16>) {
        let (groups, _) = rounded.matrix.as_chunks_mut::<{ TOGETHER * PANEL }>();
        let (rows, _) = self.matrix.as_chunks::<{ TOGETHER * PANEL }>();
        for (group, values) in groups.iter_mut().zip(rows) {
            // Two neighbouring channels at a time, which go to the same place of two vectors.
            let (even, odd) = group.split_at_mut(TOGETHER * PANEL / 2);
            let places = even.chunks_exact_mut(TOGETHER).zip(odd.chunks_exact_mut(TOGETHER));
            for (at, (even, odd)) in places.enumerate() {
                for input in 0..TOGETHER {
                    even[input] = bf16::nearest(values[input * PANEL + 2 * at]);
                    odd[input] = bf16::nearest(values[input * PANEL + 2 * at + 1]);
                }
            }
        }
        order(&self.stencil, &mut rounded.stencil);
        order(&self.bias, &mut rounded.bias);
        if let (Some((scale, shift)), Some((to_scale, to_shift))) = (&self.scale, &mut rounded.scale) {
            order(scale, to_scale);
            order(shift, to_shift);
        }
    }
}

/// Rows of 32 values, one per channel of a panel, in the order of [`place`].
fn order(rows: &[f32], ordered: &mut [f32]) {
    for (to, from) in ordered.chunks_exact_mut(PANEL).zip(rows.chunks_exact(PANEL)) {
        for (channel, value) in from.iter().enumerate() {
            to[place(channel)] = *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stencil::Stencil;

    #[test]
    fn inputs_of_a_product_lie_side_by_side_even_channels_first() {
        let value = |output: usize, input: usize| (output + 64 * input) as f32;
        let pointwise: Vec<f32> = (0..32 * 32).map(|at| value(at / 32, at % 32)).collect();
        let spatial: Vec<f32> = (0..32 * 9).map(|at| (at / 9) as f32).collect();
        let bias: Vec<f32> = (0..32).map(|channel| channel as f32).collect();
        let packed = PackedWeights::lean(Stencil::Cross4, 32, &spatial, &pointwise, &bias).unwrap().to_bf16();
        assert!(packed.is_complete());
        let at = |output: usize, input: usize| {
            packed.matrix[(input / TOGETHER * 32 + place(output)) * TOGETHER + input % TOGETHER].to_f32()
        };
        let first: Vec<f32> = packed.matrix[..2 * TOGETHER].iter().map(|x| x.to_f32()).collect();
        let expected: &[f32] =
            if TOGETHER == 2 { &[0.0, 64.0, 2.0, 66.0] } else { &[0.0, 64.0, 128.0, 192.0, 2.0, 66.0, 130.0, 194.0] };
        assert_eq!(first, expected);
        assert_eq!((at(5, 1), at(31, 3)), (bf16::from_f32(value(5, 1)).to_f32(), bf16::from_f32(value(31, 3)).to_f32()));
        assert_eq!((packed.bias[1], packed.bias[16], packed.stencil[32 + 17]), (2.0, 1.0, 3.0));
    }
}
