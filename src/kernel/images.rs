//! Convolution kernels that take rows of an image: one call instead of one for every run of pixels.

use super::conv::{Bases, ConvCall, Native, arguments};
use super::element::Element;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

/// Rows of a call of the kernel at most, and input rows, whose addresses it gets.
const MOST_ROWS: usize = 64;
const MOST_INPUT_ROWS: usize = 2 * MOST_ROWS;

/// Rows of a call where output and residual come from beyond the second level of cache: each call fetches those of the next one.
const FETCHING_ROWS: usize = 8;

/// Input rows that an output row reads.
fn input_rows<T: Element>(call: &ConvCall<'_, T>) -> usize {
    call.weights.rows + 2 * call.weights.radius()
}

/// Output rows of a call at most.
fn most_rows<T: Element>(call: &ConvCall<'_, T>) -> usize {
    let rows = (MOST_INPUT_ROWS - input_rows(call)) / call.stride + 1;
    rows.min(if call.ahead.output { FETCHING_ROWS } else { MOST_ROWS })
}

/// Writes down where the input rows of some output rows lie; rows of a lean convolution that are outside the image stay null.
fn find_input<T: Element>(call: &ConvCall<'_, T>, rows: &Range<usize>, addresses: &mut [*const c_void; MOST_INPUT_ROWS]) {
    let radius = call.weights.radius();
    let is_lean = call.weights.stencil_kind.is_some();
    let (first, end) = (rows.start * call.stride, (rows.end - 1) * call.stride + input_rows(call));
    // Counted from `radius` rows above the image.
    let inside = if is_lean { first.max(radius)..end.min(call.input.0 + radius) } else { first..end };
    let places = addresses[inside.start - first..inside.end - first].iter_mut();
    for (address, at) in places.zip(call.x.layout.offsets(inside.start - radius)) {
        *address = call.x.data.as_ptr().wrapping_add(at).cast();
    }
}

/// Rows in calls of nearly equal height.
pub(super) fn run<T: Element>(native: Native, call: &mut ConvCall<'_, T>) {
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let (total, width, ahead) = (call.rows.len(), call.width, call.ahead);
    let calls = total.div_ceil(most_rows(call));
    for index in 0..calls {
        let (done, end) = (total * index / calls, total * (index + 1) / calls);
        let rows = call.rows.start + done..call.rows.start + end;
        let mut x_rows = [ptr::null::<c_void>(); MOST_INPUT_ROWS];
        find_input(call, &rows, &mut x_rows);
        let mut y_rows = [ptr::null_mut::<c_void>(); MOST_ROWS];
        for (row, at) in y_rows[..rows.len()].iter_mut().zip(bases.y_layout.offsets(rows.start)) {
            *row = bases.y.wrapping_add(at).cast();
        }
        let mut residual_rows = [ptr::null::<c_void>(); MOST_ROWS];
        for (row, at) in residual_rows[..rows.len()].iter_mut().zip(bases.residual_layout.offsets(rows.start)) {
            *row = bases.residual.wrapping_add(at).cast();
        }
        (args.x_rows, args.y_rows, args.residual_rows) = (x_rows.as_ptr(), y_rows.as_ptr(), residual_rows.as_ptr());
        (args.y, args.residual) = (y_rows[0], residual_rows[0]);
        args.height = rows.len() as u64;
        ahead.set::<T>(&mut args, (done * width, rows.len() * width, total * width));
        // SAFETY: P1 by `check`: the pixels lie in `rows` x `width`. Their outputs, residuals and inputs lie in their slices: of a lean
        // convolution with the neighbours that exist (a row outside the image is null), of a dense one `row_length` values from pixel
        // w * stride of rows h * stride + 0..rows. P2: nobody else touches the panels that `y` lends, and a residual is disjoint or y
        // itself. P3 by `check`. P4 by `ConvKernel::native`. P5: Rust code runs in the default environment. P6: `ffi::detected` asked, and
        // each call configures and releases the tiles.
        unsafe { native(&raw const args) };
    }
}
