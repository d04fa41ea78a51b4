//! Weights whose matrix is a sum of two of bf16, as kernels of bf16x3 read them (contract P3).
#![forbid(unsafe_code)]

use half::bf16;

use super::{MatrixForm, PANEL, PackedWeights, SPLIT_STEP as STEP, zeros};
use crate::kernel::element::Element;

impl PackedWeights {
    /// The same weights with the matrix split into hi + lo; stencil, bias, scale and shift stay as they are. A value of the matrix takes as many
    /// bytes as before, so that they stand in the place of f32.
    #[must_use]
    pub(crate) fn to_split(&self) -> PackedWeights {
        let (inputs, panels) = (self.rows * self.row_length, self.bias.len() / PANEL);
        let steps = inputs.div_ceil(STEP);
        let mut matrix = zeros(panels * steps * STEP * PANEL);
        let parts: &mut [bf16] = bytemuck::cast_slice_mut(&mut matrix);
        for (row, values) in self.matrix.chunks_exact(PANEL).enumerate() {
            let (panel, input) = (row / inputs, row % inputs);
            let step = panel * steps + input / STEP;
            for (channel, &value) in values.iter().enumerate() {
                let at = (input % STEP / 2 * PANEL + channel) * 2 + input % 2;
                let (hi, lo) = split(value);
                parts[2 * step * STEP * PANEL + at] = hi;
                parts[(2 * step + 1) * STEP * PANEL + at] = lo;
            }
        }
        PackedWeights { matrix, matrix_form: MatrixForm::Split, ..self.clone() }
    }
}

/// hi + lo: hi is the nearest number, to even, but finite unless the value is no number; lo the nearest to what is left. As kernels split
/// inputs.
fn split(value: f32) -> (bf16, bf16) {
    let nearest = bf16::nearest(value);
    let hi = if nearest.is_infinite() { bf16::MAX.copysign(nearest) } else { nearest };
    (hi, bf16::nearest(value - hi.widened()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_two_planes_of_pairs() {
        // 40 inputs, 33 outputs: two panels of two steps.
        let value = |output: usize, input: usize| (1000 * output + input) as f32 + 1.0;
        let weight: Vec<f32> = (0..33 * 40).map(|at| value(at / 40, at % 40)).collect();
        let packed = PackedWeights::dense(40, 33, 1, &weight, &[]).unwrap().to_split();
        assert!(packed.is_complete());
        assert_eq!(packed.matrix.len(), 2 * 2 * 32 * 32);
        let parts: &[bf16] = bytemuck::cast_slice(&packed.matrix);
        let at = |plane: usize, output: usize, input: usize| {
            let step = output / 32 * 2 + input / 32;
            parts[(2 * step + plane) * 1024 + (input % 32 / 2 * 32 + output % 32) * 2 + input % 2].to_f32()
        };
        for (output, input) in [(0, 0), (0, 1), (1, 0), (31, 31), (32, 39), (7, 33)] {
            assert_eq!(at(0, output, input), bf16::from_f32(value(output, input)).to_f32());
            assert_eq!(at(0, output, input) + at(1, output, input), value(output, input));
        }
        assert_eq!([at(0, 32, 41), at(1, 33, 0)], [0.0; 2], "behind the last input and the last output");
    }

    #[test]
    fn a_value_is_hi_plus_lo_up_to_a_part_in_two_to_the_seventeenth() {
        let values = (0..200_000_u32).map(|index| f32::from_bits(0x2000_0000 + index.wrapping_mul(20_011) % 0x5f7f_ffff));
        for value in values.chain([f32::MAX, f32::MIN, 1.0, -1.5, 0.0]) {
            let (hi, lo) = split(value);
            let sum = f64::from(hi.to_f32()) + f64::from(lo.to_f32());
            assert!((f64::from(value) - sum).abs() <= f64::from(value.abs()) / f64::from(1 << 17), "{value:e}: {hi} + {lo}");
            // A part in 2^24 more at the largest values, whose hi would be infinite.
            assert!(lo.to_f32().abs() <= value.abs() / 255.999);
        }
    }

    #[test]
    fn infinity_is_in_lo_alone() {
        assert_eq!(split(f32::INFINITY), (bf16::MAX, bf16::INFINITY));
        assert_eq!(split(f32::NEG_INFINITY), (bf16::MIN, bf16::NEG_INFINITY));
        let (_, lo) = split(f32::NAN);
        assert!(lo.is_nan());
    }
}
