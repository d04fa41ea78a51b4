//! Where the weights of a convolution lie: the flat run [matrix | stencil | bias] in the packed layout, the tensors of a state dict under
//! PyTorch's names, and the transposes.
#![forbid(unsafe_code)]

use super::kernel_weights::Trained;
use super::weights::{Kind, Phase, TrainedConvolution};
use crate::conv::pack::{PANEL, PackedWeights};

impl<T: Trained> TrainedConvolution<T> {
    /// The values as one flat run.
    pub(crate) fn flat_values(&self) -> Vec<f32> {
        [&self.values.matrix, &self.values.stencil, &self.values.bias].into_iter().flat_map(|part| part.iter().copied()).collect()
    }

    /// Sets the values from a flat run.
    pub(crate) fn set_flat_values(&mut self, flat: &[f32]) {
        let mut rest = flat;
        let values = &mut *self.values;
        for part in [&mut values.matrix, &mut values.stencil, &mut values.bias] {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        self.refresh();
    }

    /// The tensors of a flat run under PyTorch's names and shapes.
    pub(crate) fn unpack(&self, flat: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let (name, outputs) = (&self.name, self.outputs());
        let mut tensors: Vec<_> =
            self.tensors().into_iter().map(|(part, shape)| (format!("{name}.{part}"), shape, Vec::new())).collect();
        for (index, (_, shape, values)) in tensors.iter_mut().enumerate() {
            let each: usize = shape[1..].iter().product();
            *values = (0..outputs * each)
                .map(|at| self.position(index, at / each, at % each).map_or(0.0, |position| flat[position]))
                .collect();
        }
        tensors
    }

    /// Writes one of the tensors of [`TrainedConvolution::unpack`] into a flat run; false if there is none of this name and shape.
    pub(crate) fn pack(&self, flat: &mut [f32], name: &str, shape: &[usize], values: &[f32]) -> bool {
        let found = self.tensors().into_iter().position(|(part, own)| format!("{}.{part}", self.name) == name && own == shape);
        let Some(index) = found else { return false };
        let each: usize = shape[1..].iter().product();
        for (at, value) in values.iter().enumerate() {
            if let Some(position) = self.position(index, at / each, at % each) {
                flat[position] = *value;
            }
        }
        true
    }

    /// Names and shapes of the tensors, relative to the layer.
    pub(crate) fn tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let (mut tensors, bias) = match self.kind {
            Kind::Lean(stencil) | Kind::Separable { stencil, .. } => {
                let side = stencil.side();
                (
                    vec![("spatial.weight", vec![outputs, 1, side, side]), ("pointwise.weight", vec![outputs, inputs, 1, 1])],
                    "pointwise.bias",
                )
            }
            Kind::Linear => (vec![("weight", vec![outputs, inputs])], "bias"),
            Kind::Dense { side, .. } => (vec![("weight", vec![outputs, inputs, side, side])], "bias"),
        };
        if self.has_bias {
            tensors.push((bias, vec![outputs]));
        }
        tensors
    }

    /// Where element `at` of output channel `output` of a tensor lies in a flat run; `None` for a tap outside of the stencil.
    fn position(&self, tensor: usize, output: usize, at: usize) -> Option<usize> {
        let (panel, lane) = (output / PANEL, output % PANEL);
        let (matrix, stencil_length) = (self.values.matrix.len(), self.values.stencil.len());
        let matrix_row = |row: usize| (panel * self.values.rows * self.values.row_length + row) * PANEL + lane;
        match (self.kind, tensor) {
            (Kind::Lean(stencil) | Kind::Separable { stencil, .. }, 0) => {
                let (side, radius) = (stencil.side(), (stencil.side() / 2) as i8);
                let tap = ((at / side) as i8 - radius, (at % side) as i8 - radius);
                let taps = stencil.taps();
                let index = taps.iter().position(|other| *other == tap)?;
                Some(matrix + (panel * taps.len() + index) * PANEL + lane)
            }
            (Kind::Lean(_) | Kind::Separable { .. }, 1) | (Kind::Linear, 0) => Some(matrix_row(at)),
            (Kind::Dense { side, .. }, 0) => {
                let (input, row, column) = (at / (side * side), at / side % side, at % side);
                Some(matrix_row((row * side + column) * self.pixel + input))
            }
            _ => Some(matrix + stencil_length + output),
        }
    }
}

/// Exchanges inputs and outputs of the matrix and turns the stencil: tap t takes the weight of its opposite, the last but t.
pub(super) fn transpose_lean(values: &PackedWeights, transposed: &mut PackedWeights, taps: usize) {
    let (channels, rows) = (values.channels, values.row_length);
    transpose_panels(&values.matrix, &mut transposed.matrix, (channels, channels), |inputs, outputs| {
        (outputs / PANEL * rows + inputs, inputs / PANEL * rows + outputs)
    });
    for (panel, to) in transposed.stencil.chunks_exact_mut(taps * PANEL).enumerate() {
        for (tap, to) in to.chunks_exact_mut(PANEL).enumerate() {
            to.copy_from_slice(&values.stencil[(panel * taps + taps - 1 - tap) * PANEL..][..PANEL]);
        }
    }
}

/// The weights of one phase of a dense convolution's transpose; see [`PackedWeights::dense_phase`].
///
/// `pixel` and `output_pixel`: channels of a pixel of the input and of the output, of which those of the convolution are the first.
pub(super) fn transpose_phase<T: Trained>(
    values: &PackedWeights,
    phase: &mut Phase<T>,
    (inputs, pixel, output_pixel, side): (usize, usize, usize, usize),
) {
    let (rows, columns) = &phase.taps;
    let phase_rows = rows.len() * columns.len() * output_pixel;
    for (r, row) in rows.iter().enumerate() {
        for (c, column) in columns.iter().enumerate() {
            let tap = (row * side + column) * pixel;
            let phase_tap = (r * columns.len() + c) * output_pixel;
            transpose_panels(&values.matrix, &mut phase.weights.matrix, (inputs, values.channels), |inputs, outputs| {
                let from = outputs / PANEL * side * side * pixel + tap + inputs;
                (from, inputs / PANEL * phase_rows + phase_tap + outputs)
            });
        }
    }
}

/// Exchanges inputs and outputs of a packed matrix, in blocks of a panel's width each way, which stay in the first level of cache.
///
/// `first_rows`: the first rows of the block that begins at an input and an output, where it is read and where it is written.
fn transpose_panels(
    from: &[f32],
    to: &mut [f32],
    (inputs, outputs): (usize, usize),
    first_rows: impl Fn(usize, usize) -> (usize, usize),
) {
    let (from, _) = from.as_chunks::<PANEL>();
    let (to, _) = to.as_chunks_mut::<PANEL>();
    for output in (0..outputs).step_by(PANEL) {
        for input in (0..inputs).step_by(PANEL) {
            let (read, write) = first_rows(input, output);
            let from = &from[read..][..PANEL.min(inputs - input)];
            let to = &mut to[write..][..PANEL.min(outputs - output)];
            for (lane, to) in to.iter_mut().enumerate() {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from[lane];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::stencil::Stencil;

    fn numbered(kind: Kind, inputs: usize, outputs: usize) -> TrainedConvolution<f32> {
        let mut conv =
            TrainedConvolution::new("layer", kind, (inputs, outputs), true, true, Kernels::of(Isa::Portable).unwrap()).unwrap();
        let mut flat = conv.flat_values();
        let mut next = 0.0;
        for (part, shape) in conv.tensors() {
            let count: usize = shape.iter().product();
            let mask = if let (Kind::Lean(stencil), "spatial.weight") = (kind, part) { stencil.mask() } else { vec![true] };
            let values: Vec<f32> = (0..count).map(|at| if mask[at % mask.len()] { next + at as f32 } else { 0.0 }).collect();
            assert!(conv.pack(&mut flat, &format!("layer.{part}"), &shape, &values));
            next += 1e4;
        }
        conv.set_flat_values(&flat);
        conv
    }

    #[test]
    fn tensors_survive_packing() {
        for (kind, inputs, outputs) in [(Kind::Lean(Stencil::Cross5), 40, 40), (Kind::Dense { side: 3, stride: 2 }, 5, 37)] {
            let conv = numbered(kind, inputs, outputs);
            for (name, shape, values) in conv.unpack(&conv.flat_values()) {
                let mut flat = conv.flat_values();
                assert!(conv.pack(&mut flat, &name, &shape, &values));
                assert_eq!(flat, conv.flat_values(), "{name}");
                assert!(values.iter().any(|value| *value != 0.0));
            }
        }
    }

    #[test]
    fn transposes_are_those_of_the_packer() {
        let conv = numbered(Kind::Lean(Stencil::Box9), 33, 33);
        let tensors = conv.unpack(&conv.flat_values());
        let expected = PackedWeights::lean_transposed(Stencil::Box9, 33, &tensors[0].2, &tensors[1].2).unwrap();
        assert_eq!(conv.transposed.matrix[..], expected.matrix[..]);
        assert_eq!(conv.transposed.stencil[..], expected.stencil[..]);
        let conv = numbered(Kind::Dense { side: 3, stride: 2 }, 5, 37);
        let weight = &conv.unpack(&conv.flat_values())[0].2;
        for phase in &conv.phases {
            let expected = PackedWeights::dense_phase((5, 37, 3, 2), (phase.row, phase.column), weight).unwrap();
            assert_eq!(phase.weights.matrix[..], expected.matrix[..]);
        }
    }
}
