//! Fused lean and dense convolutions.
#![forbid(unsafe_code)]

use super::panel::{Panel, load, store};
use crate::conv::pack::PANEL;
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
    let y_at = call.y.layout.row(h) + w * call.y.layout.pixel_step + panel * PANEL;
    let mut acc = if call.epilogue.from_output {
        load(&call.y.data[y_at..y_at + lanes])
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
        Residual::Output => add(&load(&call.y.data[y_at..y_at + lanes]), &mut acc),
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
    store(&acc, &mut call.y.data[y_at..y_at + lanes]);
}

/// Adds the taps in their order; one outside the image reads +0.
fn add_stencil(call: &ConvCall<'_>, stencil: Stencil, (h, w, panel, lanes): (usize, usize, usize, usize), acc: &mut Panel) {
    let taps = stencil.taps();
    let packed = &call.weights.stencil[panel * taps.len() * PANEL..][..taps.len() * PANEL];
    for (&(dy, dx), weights) in taps.iter().zip(packed.chunks_exact(PANEL)) {
        let (row, column) = (h.checked_add_signed(dy as isize), w.checked_add_signed(dx as isize));
        let x = match (row, column) {
            (Some(row), Some(column)) if row < call.height && column < call.width => {
                let at = call.x.layout.row(row) + column * call.x.layout.pixel_step + panel * PANEL;
                load(&call.x.data[at..at + lanes])
            }
            _ => [f32x8::ZERO; PANEL / 8],
        };
        multiply_add(&load(weights), &x, acc);
    }
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
