//! Convolution kernels that take rows of an image: one call instead of one for every run of pixels.

use super::conv::{Bases, ConvCall, Native, arguments};
use super::element::Element;
use crate::ffi::{LEAN_FIRST, LEAN_LAST};
use std::ffi::c_void;
use std::ptr;

/// Rows of a call of the kernel at most, whose addresses it gets.
const MOST_ROWS: usize = 64;

/// Rows of a call where output and residual come from beyond the second level of cache: each call fetches those of the next one.
const FETCHING_ROWS: usize = 8;

/// Input rows above the first output row and below the last one.
const HALO: usize = 1;

/// Whether a call is one for these kernels: neighbouring pixels, and all inputs at once, of which there are some.
pub(super) fn are_rows_of_image<T: Element>(call: &ConvCall<'_, T>) -> bool {
    let all_inputs = call.k == (0..call.weights.row_length) && !call.k.is_empty();
    call.stride == 1 && all_inputs && call.input.1 == call.width && call.weights.radius() <= HALO
}

/// Rows in calls of nearly equal height.
pub(super) fn run<T: Element>(native: Native, call: &mut ConvCall<'_, T>) {
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let (total, width, ahead) = (call.rows.len(), call.width, call.ahead);
    let calls = total.div_ceil(if ahead.output { FETCHING_ROWS } else { MOST_ROWS });
    args.flags |= u64::from(LEAN_FIRST | LEAN_LAST);
    args.width = width as u64;
    for index in 0..calls {
        let (done, end) = (total * index / calls, total * (index + 1) / calls);
        let first = call.rows.start + done;
        let rows = end - done;
        let mut y_rows = [ptr::null_mut::<c_void>(); MOST_ROWS];
        for (row, at) in y_rows[..rows].iter_mut().zip(bases.y_layout.offsets(first)) {
            *row = bases.y.wrapping_add(at).cast();
        }
        let mut residual_rows = [ptr::null::<c_void>(); MOST_ROWS];
        for (row, at) in residual_rows[..rows].iter_mut().zip(bases.residual_layout.offsets(first)) {
            *row = bases.residual.wrapping_add(at).cast();
        }
        let mut x_rows = [ptr::null::<c_void>(); MOST_ROWS + 2 * HALO];
        let inside = first.saturating_sub(HALO)..(first + rows + HALO).min(call.input.0);
        let places = x_rows[inside.start + HALO - first..inside.end + HALO - first].iter_mut();
        for (row, at) in places.zip(call.x.layout.offsets(inside.start)) {
            *row = call.x.data.as_ptr().wrapping_add(at).cast();
        }
        (args.y_rows, args.residual_rows, args.x_rows) = (y_rows.as_ptr(), residual_rows.as_ptr(), x_rows.as_ptr());
        (args.y, args.residual) = (y_rows[0], residual_rows[0]);
        args.height = rows as u64;
        ahead.set::<T>(&mut args, (done * width, rows * width, total * width));
        // SAFETY: P1 by `check`: the pixels lie in `rows` x `width`, whose outputs, residuals and inputs (with the rows above and
        // below that exist; the others are null) lie in their slices. P2: nobody else touches the panels that `y` lends, and a
        // residual is disjoint or y itself. P3 by `check`. P4 by `ConvKernel::native`. P5: Rust code runs in the default
        // environment. P6: `ffi::detected` asked, and each call configures and releases the tiles.
        unsafe { native(&raw const args) };
    }
}
