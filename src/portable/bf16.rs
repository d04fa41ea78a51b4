//! Fused lean and dense convolutions on bf16: the sums of the kernels, in plain f32.
#![forbid(unsafe_code)]

use half::bf16;

use crate::conv::pack::{PANEL, place};
use crate::kernel::conv::ConvCall;
use crate::kernel::element::Element;
use crate::kernel::rows::{Residual, Source};

/// Inputs of a channel that lie side by side in the packed matrix.
const TOGETHER: usize = <bf16 as Element>::INPUTS_TOGETHER;

/// Runs a checked call, pixel by pixel.
pub(crate) fn run(call: &mut ConvCall<'_, bf16>) {
    for h in call.rows.clone() {
        for w in 0..call.width {
            for panel in call.panels.clone() {
                pixel(call, h, w, panel);
            }
        }
    }
}

/// One panel of one pixel; its sums are in the order of the packed weights until they are stored.
fn pixel(call: &mut ConvCall<'_, bf16>, h: usize, w: usize, panel: usize) {
    let weights = call.weights;
    let of_panel = |values: &[f32]| -> [f32; PANEL] { std::array::from_fn(|lane| values[panel * PANEL + lane]) };
    let mut sums = of_panel(&weights.bias);
    add_stencil(call, (h, w, panel), &mut sums);
    for row in 0..weights.rows {
        let from = call.x.layout.row(h * call.stride + row) + w * call.stride * call.x.layout.pixel_step;
        let x = &call.x.data[from + call.k.start..from + call.k.end];
        let first = ((panel * weights.rows + row) * weights.row_length + call.k.start) * PANEL;
        let matrix = &weights.matrix[first..first + x.len() * PANEL];
        for (x, weights) in x.chunks_exact(TOGETHER).zip(matrix.chunks_exact(TOGETHER * PANEL)) {
            for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(TOGETHER)) {
                for (x, weights) in x.chunks_exact(2).zip(weights.chunks_exact(2)) {
                    // The products are exact; VDPBF16PS adds the second one first.
                    *sum += x[1].to_f32() * weights[1].to_f32();
                    *sum += x[0].to_f32() * weights[0].to_f32();
                }
            }
        }
    }
    if let Some((scale, shift)) = &weights.scale {
        for ((sum, scale), shift) in sums.iter_mut().zip(of_panel(scale)).zip(of_panel(shift)) {
            *sum = *sum * scale + shift;
        }
    }
    let residual: Option<[bf16; PANEL]> = match call.residual {
        Residual::None => None,
        Residual::Output => Some(std::array::from_fn(|lane| call.y.panel_mut((h, w), panel, PANEL)[lane])),
        Residual::Rows(Source { data, layout }) => {
            let at = layout.row(h) + w * layout.pixel_step + panel * PANEL;
            Some(std::array::from_fn(|lane| data[at + lane]))
        }
    };
    for (channel, y) in call.y.panel_mut((h, w), panel, PANEL).iter_mut().enumerate() {
        let sum = sums[place(channel)] + residual.map_or(0.0, |residual| residual[channel].to_f32());
        *y = bf16::from_f32(if call.epilogue.relu && sum < 0.0 { 0.0 } else { sum });
    }
}

/// Adds the taps in their order; what lies outside the image reads +0.
fn add_stencil(call: &ConvCall<'_, bf16>, (h, w, panel): (usize, usize, usize), sums: &mut [f32; PANEL]) {
    let Some(stencil) = call.weights.stencil_kind else { return };
    let taps = stencil.taps();
    let packed = &call.weights.stencil[panel * taps.len() * PANEL..][..taps.len() * PANEL];
    for (&(dy, dx), weights) in taps.iter().zip(packed.chunks_exact(PANEL)) {
        let row = (h * call.stride).checked_add_signed(dy as isize).filter(|row| *row < call.input.0);
        let column = (w * call.stride).checked_add_signed(dx as isize).filter(|column| *column < call.input.1);
        let at = row.zip(column).map(|(row, column)| call.x.layout.row(row) + column * call.x.layout.pixel_step + panel * PANEL);
        for channel in 0..PANEL {
            let x = at.map_or(0.0, |at| call.x.data[at + channel].to_f32());
            sums[place(channel)] += x * weights[place(channel)];
        }
    }
}
