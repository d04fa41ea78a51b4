//! Gradients of matrices, stencils and biases.
#![forbid(unsafe_code)]

use super::panel::{load, store};
use crate::conv::pack::PANEL;
use crate::kernel::element::Element;
use crate::kernel::gradient::{StencilGradientCall, WeightGradientCall};
use wide::f32x8;

/// Up to a panel of values, and zeros.
fn widened<T: Element>(values: &[T]) -> [f32x8; PANEL / 8] {
    let mut panel = [0.0; PANEL];
    panel.iter_mut().zip(values).for_each(|(to, value)| *to = value.widened());
    load(&panel)
}

/// dw[k][o] (+)= sum over rows and pixels of x[pixel][k] * g[pixel][o], one chain per weight in pixel order.
pub(crate) fn weight<T: Element>(call: &mut WeightGradientCall<'_, T>) {
    for panel in 0..call.channels.div_ceil(PANEL) {
        let lanes = PANEL.min(call.channels - panel * PANEL);
        for k in 0..call.k {
            let at = panel * call.panel_step + call.offset + k * PANEL;
            let mut acc = if call.accumulate { load(&call.dw[at..at + PANEL]) } else { [f32x8::ZERO; PANEL / 8] };
            for row in 0..call.rows {
                for pixel in 0..call.pixels {
                    let x = f32x8::splat(call.x[row * call.x_row + pixel * call.x_step + k].widened());
                    let g = widened(&call.g[row * call.g_row + pixel * call.g_step + panel * PANEL..][..lanes]);
                    for (acc, g) in acc.iter_mut().zip(g) {
                        *acc = x.mul_add(g, *acc);
                    }
                }
            }
            // Padding lanes stay as they are: infinity times their 0 is NaN.
            store(&acc, &mut call.dw[at..at + lanes]);
        }
    }
}

/// Gradients of a stencil and of the bias over rows of an image; a tap outside the image adds nothing.
pub(crate) fn stencil<T: Element>(call: &mut StencilGradientCall<'_, T>) {
    let taps = call.stencil.taps();
    let (width, height, channels) = (call.width, call.height, call.channels);
    for panel in 0..channels.div_ceil(PANEL) {
        let lanes = PANEL.min(channels - panel * PANEL);
        let at = |h: usize, w: usize| (h * width + w) * channels + panel * PANEL;
        for tap in 0..=taps.len() {
            // One past the last tap: the bias, whose factor is 1.
            let sums = if tap < taps.len() {
                &mut call.dstencil[(panel * taps.len() + tap) * PANEL..][..PANEL]
            } else {
                &mut call.dbias[panel * PANEL..][..PANEL]
            };
            let mut acc = if call.accumulate { load(sums) } else { [f32x8::ZERO; PANEL / 8] };
            for h in call.rows.clone() {
                for w in 0..width {
                    let g = widened(&call.g[at(h, w)..][..lanes]);
                    let Some(&(dy, dx)) = taps.get(tap) else {
                        for (acc, g) in acc.iter_mut().zip(g) {
                            *acc += g;
                        }
                        continue;
                    };
                    let (row, column) = (h.checked_add_signed(dy as isize), w.checked_add_signed(dx as isize));
                    if let (Some(row), Some(column)) = (row.filter(|row| *row < height), column.filter(|column| *column < width))
                    {
                        let x = widened(&call.x[at(row, column)..][..lanes]);
                        for ((acc, g), x) in acc.iter_mut().zip(g).zip(x) {
                            *acc = g.mul_add(x, *acc);
                        }
                    }
                }
            }
            store(&acc, sums);
        }
    }
}
