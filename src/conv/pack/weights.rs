//! The weights of one convolution, packed.
#![forbid(unsafe_code)]

use std::fmt;

use super::phases::phase_taps;
use super::{Aligned, GROUP_SIZES, MatrixForm, PANEL, SPLIT_STEP, channel_of_turn, check_groups, pack_rows, panels, zeros};
use crate::error::{Error, Result};
use crate::kernel::element::Element;
use crate::stencil::Stencil;

/// The weights of one convolution as the kernels of every instruction set read them: matrix, stencil (lean only), bias, and the
/// optional scale and shift of the epilogue.
///
/// ```
/// use leanresnet::Stencil;
/// use leanresnet::conv::PackedWeights;
///
/// let (spatial, pointwise) = ([0.1; 8 * 3 * 3], [0.2; 8 * 8]);
/// let weights = PackedWeights::lean(Stencil::Cross4, 8, &spatial, &pointwise, &[])?;
/// assert_eq!((weights.channels(), weights.stencil()), (8, Some(Stencil::Cross4)));
/// # Ok::<(), leanresnet::Error>(())
/// ```
#[derive(Clone)]
pub struct PackedWeights<T = f32> {
    /// The stencil of a lean or depth-wise convolution; `None` for a dense one.
    pub(crate) stencil_kind: Option<Stencil>,
    /// Input channels that a tap of the stencil reads; 1 for dense convolutions.
    pub(crate) group_size: usize,
    /// Kernel rows of a dense convolution; 1 for the matrix of a lean one.
    pub(crate) rows: usize,
    /// Values of one kernel row: input channels x kernel columns; none where there is only a stencil.
    pub(crate) row_length: usize,
    /// Output channels.
    pub(crate) channels: usize,
    /// [panel][kernel row x row length][32], or in another form.
    pub(crate) matrix: Aligned<T>,
    pub(crate) matrix_form: MatrixForm,
    /// [panel][tap][channel of the group][32].
    pub(crate) stencil: Aligned,
    /// [panel][32].
    pub(crate) bias: Aligned,
    /// The epilogue's scale and shift, [panel][32] each.
    pub(crate) scale: Option<(Aligned, Aligned)>,
}

impl<T> fmt::Debug for PackedWeights<T> {
    /// Without the values, which are too many to read.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "PackedWeights({}, scale: {})",
            describe(self.spatial(), self.rows, self.row_length, self.channels),
            self.scale.is_some()
        )
    }
}

/// What tells the weights of two convolutions apart, in words. `spatial`: stencil and group size.
pub(crate) fn describe(spatial: Option<(Stencil, usize)>, rows: usize, row_length: usize, channels: usize) -> String {
    let Some((stencil, group_size)) = spatial else {
        return format!("dense, {rows} kernel rows of {row_length} values, {channels} output channels");
    };
    let groups = if group_size > 1 { format!(" in groups of {group_size}") } else { String::new() };
    let kind = if row_length == 0 { "depth-wise" } else { "lean" };
    format!("{kind} {stencil}, {channels} channels{groups}")
}

impl PackedWeights {
    /// All zeros: `rows` kernel rows of `row_length` values, `channels` output channels.
    pub(crate) fn zeros(stencil_kind: Option<Stencil>, rows: usize, row_length: usize, channels: usize) -> Self {
        let padded = panels(channels) * PANEL;
        PackedWeights {
            stencil_kind,
            group_size: 1,
            rows,
            row_length,
            channels,
            matrix: zeros(padded * rows * row_length),
            matrix_form: MatrixForm::Rows,
            stencil: zeros(padded * stencil_kind.map_or(0, |stencil| stencil.taps().len())),
            bias: zeros(padded),
            scale: None,
        }
    }

    /// Packs a lean convolution of C channels.
    ///
    /// `spatial`: PyTorch's depth-wise weight [C, 1, side, side], of which the stencil's taps are used; `pointwise`: [C, C] (output,
    /// input); `bias`: C values or none.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length, or there is no channel.
    pub fn lean(stencil: Stencil, channels: usize, spatial: &[f32], pointwise: &[f32], bias: &[f32]) -> Result<Self> {
        Self::lean_grouped(stencil, channels, 1, spatial, pointwise, bias)
    }

    /// Packs a lean convolution of C channels whose taps read all channels of the output's group (`LeanConvNets`, Ephrath, Eliasof,
    /// Ruthotto, Haber, Treister 2020). [`PackedWeights::lean`] has groups of one channel.
    ///
    /// `group_size`: 1, 2, 4, 8, 16 or 32, and a divisor of C. `spatial`: PyTorch's grouped weight [C, `group_size`, side, side], of which
    /// the stencil's taps are used; `pointwise` and `bias` as for [`PackedWeights::lean`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for another group size; [`Error::Shape`] if a slice has another length, or there is no channel.
    pub fn lean_grouped(
        stencil: Stencil,
        channels: usize,
        group_size: usize,
        spatial: &[f32],
        pointwise: &[f32],
        bias: &[f32],
    ) -> Result<Self> {
        check_spatial(stencil, channels, group_size, spatial)?;
        check("pointwise weight", &[channels, channels], pointwise.len())?;
        let mut packed = Self::stencil_over((channels, group_size), channels, stencil, spatial)?;
        pack_rows(channels, channels, |row, channel| pointwise[channel * channels + row], &mut packed.matrix);
        packed.set_bias(bias)?;
        Ok(packed)
    }

    /// Packs a depth-wise convolution of C channels: `spatial` and `bias` as for [`PackedWeights::lean`].
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length, or there is no channel.
    pub fn depthwise(stencil: Stencil, channels: usize, spatial: &[f32], bias: &[f32]) -> Result<Self> {
        Self::depthwise_grouped(stencil, channels, 1, spatial, bias)
    }

    /// Packs a convolution in groups of channels, without a 1x1 part: `group_size`, `spatial` and `bias` as for
    /// [`PackedWeights::lean_grouped`].
    ///
    /// # Errors
    /// Those of [`PackedWeights::lean_grouped`].
    pub fn depthwise_grouped(
        stencil: Stencil,
        channels: usize,
        group_size: usize,
        spatial: &[f32],
        bias: &[f32],
    ) -> Result<Self> {
        let mut packed = Self::stencil_over((channels, group_size), 0, stencil, spatial)?;
        packed.set_bias(bias)?;
        Ok(packed)
    }

    /// Packs the taps of PyTorch's weight [channels, group size, side, side]; zeros for a matrix with `row_length` inputs, and the bias.
    fn stencil_over(
        (channels, group_size): (usize, usize),
        row_length: usize,
        stencil: Stencil,
        spatial: &[f32],
    ) -> Result<Self> {
        let (side, radius, taps) = (stencil.side(), stencil.radius() as isize, stencil.taps());
        check_spatial(stencil, channels, group_size, spatial)?;
        let mut packed = Self::zeros(Some(stencil), 1, row_length, channels);
        packed.group_size = group_size;
        packed.stencil = zeros(panels(channels) * PANEL * taps.len() * group_size);
        let tap = |(dy, dx): (i8, i8)| (dy as isize + radius) as usize * side + (dx as isize + radius) as usize;
        let value = |row: usize, channel: usize| {
            let from = channel_of_turn(group_size, channel, row % group_size);
            spatial[(channel * group_size + from) * side * side + tap(taps[row / group_size])]
        };
        pack_rows(taps.len() * group_size, channels, value, &mut packed.stencil);
        Ok(packed)
    }

    /// Packs the transpose of a lean convolution: the transposed matrix and the stencil turned by 180 degrees. With it, the
    /// forward kernel computes the data gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length, or there is no channel.
    pub fn lean_transposed(stencil: Stencil, channels: usize, spatial: &[f32], pointwise: &[f32]) -> Result<Self> {
        let area = stencil.side() * stencil.side();
        check("spatial weight", &[channels, area], spatial.len())?;
        check("pointwise weight", &[channels, channels], pointwise.len())?;
        let turned: Vec<f32> = (0..channels * area).map(|at| spatial[at / area * area + area - 1 - at % area]).collect();
        let transposed: Vec<f32> =
            (0..channels * channels).map(|at| pointwise[at % channels * channels + at / channels]).collect();
        Self::lean(stencil, channels, &turned, &transposed, &[])
    }

    /// Packs a dense convolution from PyTorch's weight `[outputs, inputs, side, side]` and `bias`: `outputs` values or none.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length, or a size is 0.
    pub fn dense(inputs: usize, outputs: usize, side: usize, weight: &[f32], bias: &[f32]) -> Result<Self> {
        Self::rectangular(inputs, outputs, [side; 2], weight, bias)
    }

    /// [`PackedWeights::dense`] with a kernel of `[rows, columns]`.
    pub(crate) fn rectangular(
        inputs: usize,
        outputs: usize,
        [rows, columns]: [usize; 2],
        weight: &[f32],
        bias: &[f32],
    ) -> Result<Self> {
        check("dense weight", &[outputs, inputs, rows, columns], weight.len())?;
        let mut packed = Self::zeros(None, rows, columns * inputs, outputs);
        let value = |row: usize, channel: usize| {
            let (kernel_row, column, input) = (row / (columns * inputs), row / inputs % columns, row % inputs);
            weight[((channel * inputs + input) * rows + kernel_row) * columns + column]
        };
        pack_rows(rows * columns * inputs, outputs, value, &mut packed.matrix);
        packed.set_bias(bias)?;
        Ok(packed)
    }

    /// Packs the part of a dense convolution's transpose that computes the data gradient at input rows = `phase_row` and columns =
    /// `phase_column` modulo `stride`: the taps that reach them, turned, with inputs and outputs exchanged.
    /// See [`phase_taps`] for the gradient's rows and columns that it reads.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weight has another length.
    #[doc(hidden)] // Of use only together with `phase_taps`, which is not public.
    pub fn dense_phase(
        (inputs, outputs, side, stride): (usize, usize, usize, usize),
        (phase_row, phase_column): (usize, usize),
        weight: &[f32],
    ) -> Result<Self> {
        check("dense weight", &[outputs, inputs, side, side], weight.len())?;
        let (rows, columns) = (phase_taps(side, stride, phase_row), phase_taps(side, stride, phase_column));
        let mut packed = Self::zeros(None, rows.len(), columns.len() * outputs, inputs);
        let value = |row: usize, input: usize| {
            let (r, c, output) = (row / (columns.len() * outputs), row / outputs % columns.len(), row % outputs);
            weight[((output * inputs + input) * side + rows[r]) * side + columns[c]]
        };
        let length = rows.len() * columns.len() * outputs;
        pack_rows(length, inputs, value, &mut packed.matrix);
        Ok(packed)
    }

    /// The same weights for pixels of `to` input channels instead of `from`; those that come behind are multiplied by 0.
    #[must_use]
    pub(crate) fn with_inputs(mut self, from: usize, to: usize) -> Self {
        if from == to || self.row_length == 0 {
            return self;
        }
        let mut matrix = zeros(self.matrix.len() / from * to);
        for (to, from) in matrix.chunks_exact_mut(to * PANEL).zip(self.matrix.chunks_exact(from * PANEL)) {
            to[..from.len()].copy_from_slice(from);
        }
        self.matrix = matrix;
        self.row_length = self.row_length / from * to;
        self
    }

    /// Sets the bias; an empty slice means zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bias has another length.
    pub fn set_bias(&mut self, bias: &[f32]) -> Result<()> {
        if bias.is_empty() {
            self.bias.fill(0.0);
            return Ok(());
        }
        check("bias", &[self.channels], bias.len())?;
        self.bias[..self.channels].copy_from_slice(bias);
        Ok(())
    }

    /// Sets the epilogue's scale and shift (one fused multiply-add per output), one value per output channel each.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length.
    pub fn with_scale(mut self, scale: &[f32], shift: &[f32]) -> Result<Self> {
        check("scale", &[self.channels], scale.len())?;
        check("shift", &[self.channels], shift.len())?;
        let padded = |values: &[f32]| {
            let mut all = zeros(panels(self.channels) * PANEL);
            all[..values.len()].copy_from_slice(values);
            all
        };
        self.scale = Some((padded(scale), padded(shift)));
        Ok(self)
    }
}

impl<T> PackedWeights<T> {
    /// Rows above and below a pixel that the stencil reads; 0 for dense convolutions.
    pub(crate) fn radius(&self) -> usize {
        self.stencil_kind.map_or(0, Stencil::radius)
    }

    /// Multiply-adds of one output.
    pub(crate) fn products(&self) -> usize {
        self.rows * self.row_length + self.stencil_kind.map_or(0, |stencil| stencil.taps().len() * self.group_size)
    }

    /// Rows of the kernel; 1 for lean convolutions, whose matrix is a 1x1 kernel.
    pub fn kernel_rows(&self) -> usize {
        self.rows
    }

    /// Values that one kernel row reads at a pixel: input channels x kernel columns.
    pub fn row_length(&self) -> usize {
        self.row_length
    }

    /// The stencil of a lean convolution; `None` for a dense one.
    pub fn stencil(&self) -> Option<Stencil> {
        self.stencil_kind
    }

    /// Input channels that a tap of the stencil reads; 1 for depth-wise stencils and dense convolutions.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// The stencil with the size of its groups.
    pub(crate) fn spatial(&self) -> Option<(Stencil, usize)> {
        self.stencil_kind.map(|stencil| (stencil, self.group_size))
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// True if every part has the length that the sizes ask for, as the kernels take for granted (contract P3).
    pub fn is_complete(&self) -> bool
    where
        T: Element,
    {
        let padded = panels(self.channels) * PANEL;
        let taps = self.stencil_kind.map_or(0, |stencil| stencil.taps().len());
        let is_grouping = GROUP_SIZES.contains(&self.group_size) && self.channels.is_multiple_of(self.group_size);
        let is_square = self.stencil_kind.is_none() || (self.rows == 1 && [0, self.channels].contains(&self.row_length));
        let inputs = self.rows.checked_mul(self.row_length);
        let held = match self.matrix_form {
            MatrixForm::Rows => inputs,
            MatrixForm::Split => inputs.and_then(|inputs| inputs.checked_next_multiple_of(SPLIT_STEP)),
        };
        let matrix = held.and_then(|inputs| inputs.checked_mul(padded));
        let scale_fits = |(scale, shift): &(Aligned, Aligned)| scale.len() == padded && shift.len() == padded;
        let is_whole = self.row_length.is_multiple_of(T::INPUTS_TOGETHER) && self.channels.is_multiple_of(T::CHANNELS_TOGETHER);
        is_square
            && is_whole
            && is_grouping
            && matrix == Some(self.matrix.len())
            && self.stencil.len() == padded * taps * self.group_size
            && self.bias.len() == padded
            && self.scale.as_ref().is_none_or(scale_fits)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let scale = self.scale.as_ref().map_or(0, |(scale, shift)| scale.len() + shift.len());
        size_of::<T>() * self.matrix.len() + 4 * (self.stencil.len() + self.bias.len() + scale)
    }
}

/// Checks the size of a stencil's groups, and the length of its weight [channels, group size, side, side].
fn check_spatial(stencil: Stencil, channels: usize, group_size: usize, spatial: &[f32]) -> Result<()> {
    check_groups(group_size, channels)?;
    check("spatial weight", &[channels, group_size, stencil.side(), stencil.side()], spatial.len())
}

/// Checks the length of a slice of `extents`, none of which may be 0.
fn check(what: &str, extents: &[usize], got: usize) -> Result<()> {
    let expected = extents.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
    if expected == Some(got) && got > 0 {
        return Ok(());
    }
    let expected = match expected {
        Some(0) => "at least one value".to_string(),
        Some(expected) => format!("{expected} values"),
        None => "a size that fits memory".to_string(),
    };
    Err(Error::shape(what, expected, format!("{got} values")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_holds_thirty_two_outputs_of_one_input_in_a_row() {
        let weight: Vec<f32> = (0..40 * 3).map(|at| at as f32).collect();
        let packed = PackedWeights::dense(3, 40, 1, &weight, &[]).unwrap();
        assert_eq!(packed.matrix.len(), 64 * 3);
        assert_eq!(packed.matrix[1], 3.0); // output 1, input 0
        assert_eq!(packed.matrix[32], 1.0); // output 0, input 1
        assert_eq!(packed.matrix[3 * 32], 96.0); // output 32, input 0
        assert_eq!(packed.matrix[3 * 32 + 8], 0.0); // padding
    }

    #[test]
    fn groups_exchange_channels_or_take_them_in_turn() {
        // Value 10 * output channel + channel of the group, at the centre; 16 channels.
        let spatial = |group_size: usize| -> Vec<f32> {
            let value = |at: usize| if at % 9 == 4 { 10 * (at / 9 / group_size) + at / 9 % group_size } else { 0 };
            (0..16 * group_size * 9).map(|at| value(at) as f32).collect()
        };
        let packed = |group_size| PackedWeights::depthwise_grouped(Stencil::Cross5, 16, group_size, &spatial(group_size), &[]);
        // Tap 2 is the centre; row 3 of its group; channels 5 (of a group, 1 = 5 mod 4) and 6.
        let four = packed(4).unwrap();
        assert_eq!(four.stencil[(2 * 4 + 3) * 32 + 5..][..2], [52.0, 61.0]); // 1 xor 3, 2 xor 3
        let sixteen = packed(16).unwrap();
        assert_eq!(sixteen.stencil[(2 * 16 + 3) * 32 + 5..][..2], [53.0, 63.0]);
        assert_eq!(packed(3).unwrap_err().to_string(), "group size; expected one of 1, 2, 4, 8, 16, 32, got 3");
        assert_eq!(packed(32).unwrap_err().to_string(), "group size; expected a divisor of 16 channels, got 32");
    }

    #[test]
    fn incomplete_weights_are_noticed() {
        let whole = PackedWeights::lean(Stencil::Box9, 40, &[1.0; 360], &[1.0; 1600], &[]).unwrap();
        let whole = whole.with_scale(&[1.0; 40], &[0.0; 40]).unwrap();
        assert!(whole.is_complete());
        let without = |part: fn(&mut PackedWeights)| {
            let mut weights = whole.clone();
            part(&mut weights);
            weights.is_complete()
        };
        assert!(!without(|weights| weights.matrix.truncate(1)));
        assert!(!without(|weights| weights.stencil.truncate(1)));
        assert!(!without(|weights| weights.bias.truncate(1)));
        assert!(!without(|weights| weights.scale.as_mut().unwrap().1.truncate(1)));
        assert!(!without(|weights| weights.rows = usize::MAX));
        assert!(!without(|weights| weights.group_size = 8));
        assert!(!PackedWeights::zeros(Some(Stencil::Box9), 1, 8, 40).is_complete(), "a lean convolution keeps its channels");
        assert!(PackedWeights::zeros(None, 3, 8, 40).is_complete());
    }

    #[test]
    fn wrong_lengths_are_named() {
        let error = PackedWeights::lean(Stencil::Cross5, 4, &[0.0; 36], &[0.0; 15], &[]).unwrap_err();
        assert_eq!(error.to_string(), "shape of pointwise weight; expected 16 values, got 15 values");
    }
}
