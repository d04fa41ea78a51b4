//! Fused lean and dense convolutions.
#![forbid(unsafe_code)]

use super::panel::{Panel, load, store};
use crate::conv::pack::{PANEL, channel_of_turn};
use crate::kernel::conv::ConvCall;
use crate::kernel::rows::{Residual, Source};
use crate::stencil::Stencil;
use wide::f32x8;

/// Runs a checked call, pixel by pixel.
pub(crate) fn run(call: &mut ConvCall<'_>) {
    for h in call.rows.clone() {
        for w in 0..call.width {
            for panel in call.panels.clone() {
                pixel(call, h, w, panel);
            }
        }
    }
}

fn pixel(call: &mut ConvCall<'_>, h: usize, w: usize, panel: usize) {
    let weights = call.weights;
    let lanes = PANEL.min(weights.channels - panel * PANEL);
    let mut acc = if call.epilogue.from_output {
        load(call.y.panel_mut((h, w), panel, lanes))
    } else {
        let mut acc = load(&weights.bias[panel * PANEL..][..PANEL]);
        if let Some(stencil) = weights.stencil_kind {
            add_stencil(call, stencil, (h, w, panel, lanes), &mut acc);
        }
        acc
    };
    for row in 0..weights.rows {
        let from = call.x.layout.row(h * call.stride + row) + w * call.stride * call.x.layout.pixel_step;
        let x = &call.x.data[from + call.k.start..from + call.k.end];
        let first = ((panel * weights.rows + row) * weights.row_length + call.k.start) * PANEL;
        let matrix = &weights.matrix[first..first + x.len() * PANEL];
        for (value, weights) in x.iter().zip(matrix.chunks_exact(PANEL)) {
            multiply_add(&load(weights), &[f32x8::splat(*value); PANEL / 8], &mut acc);
        }
    }
    if let Some((scale, shift)) = &weights.scale {
        let (scale, shift) = (load(&scale[panel * PANEL..][..PANEL]), load(&shift[panel * PANEL..][..PANEL]));
        for ((acc, scale), shift) in acc.iter_mut().zip(scale).zip(shift) {
            *acc = acc.mul_add(scale, shift);
        }
    }
    match call.residual {
        Residual::None => {}
        Residual::Output => add(&load(call.y.panel_mut((h, w), panel, lanes)), &mut acc),
        Residual::Rows(Source { data, layout }) => {
            let at = layout.row(h) + w * layout.pixel_step + panel * PANEL;
            add(&load(&data[at..at + lanes]), &mut acc);
        }
    }
    if call.epilogue.relu {
        for acc in &mut acc {
            *acc = relu(*acc);
        }
    }
    store(&acc, call.y.panel_mut((h, w), panel, lanes));
}

/// Adds the taps in their order, and the channels of a group in theirs; what lies outside the image reads +0.
fn add_stencil(call: &ConvCall<'_>, stencil: Stencil, (h, w, panel, lanes): (usize, usize, usize, usize), acc: &mut Panel) {
    let (taps, group_size) = (stencil.taps(), call.weights.group_size);
    let length = taps.len() * group_size * PANEL;
    let packed = &call.weights.stencil[panel * length..][..length];
    for (&(dy, dx), weights) in taps.iter().zip(packed.chunks_exact(group_size * PANEL)) {
        let row = (h * call.stride).checked_add_signed(dy as isize).filter(|row| *row < call.input.0);
        let column = (w * call.stride).checked_add_signed(dx as isize).filter(|column| *column < call.input.1);
        let neighbour = row.zip(column).map(|(row, column)| {
            let at = call.x.layout.row(row) + column * call.x.layout.pixel_step + panel * PANEL;
            &call.x.data[at..at + lanes]
        });
        for (turn, weights) in weights.chunks_exact(PANEL).enumerate() {
            let x = neighbour.map_or([f32x8::ZERO; PANEL / 8], |x| load_turn(x, group_size, turn));
            multiply_add(&load(weights), &x, acc);
        }
    }
}

/// What each lane reads in one turn of its group.
fn load_turn(x: &[f32], group_size: usize, turn: usize) -> Panel {
    if group_size == 1 {
        return load(x);
    }
    let mut lanes = [0.0; PANEL];
    for (lane, value) in lanes[..x.len()].iter_mut().enumerate() {
        *value = x[lane / group_size * group_size + channel_of_turn(group_size, lane, turn)];
    }
    load(&lanes)
}

fn multiply_add(a: &Panel, b: &Panel, acc: &mut Panel) {
    for ((acc, a), b) in acc.iter_mut().zip(a).zip(b) {
        *acc = a.mul_add(*b, *acc);
    }
}

fn add(a: &Panel, acc: &mut Panel) {
    for (acc, a) in acc.iter_mut().zip(a) {
        *acc += *a;
    }
}

/// `x < 0 ? +0 : x`: keeps NaN and -0.
pub(super) fn relu(x: f32x8) -> f32x8 {
    x.simd_lt(f32x8::ZERO).select(f32x8::ZERO, x)
}
