//! Convolution kernels behind one safe call: rows of a fused lean convolution, rows of a dense one.
//!
//! A call is checked once; the tiles inside it are cut here and lie within the checked rows by construction.

use super::rows::{Epilogue, Layout, Residual, Source, Target};
use crate::conv::pack::{PackedWeights, panels};
use crate::ffi::{LEAN_FROM_OUTPUT, LEAN_RELU, LEAN_RESIDUAL, LEAN_SCALE, LeanConvArgs};
use crate::portable;
use crate::stencil::Stencil;
use std::ops::Range;
use std::ptr;

type Native = unsafe extern "C" fn(*const LeanConvArgs);

/// A kernel for fused lean convolutions with one stencil, or for dense ones.
#[derive(Clone, Copy, Debug)]
pub struct ConvKernel {
    /// The registry's name, or that of the portable code.
    pub name: &'static str,
    stencil: Option<Stencil>,
    /// Pixels of a full tile.
    tile_rows: usize,
    /// `None`: portable Rust.
    native: Option<Native>,
}

/// One call of a convolution kernel: which rows of the output to compute, from what.
pub struct ConvCall<'a> {
    /// The packed weights.
    pub weights: &'a PackedWeights,
    /// The input. Fused: rows of an image `height` x `width`; those outside 0..height are zeros. Dense: rows of a band with
    /// physical zeros around it, so that output (h, w) reads rows h * stride + 0..kernel rows and, there, pixels from w * stride.
    pub x: Source<'a>,
    /// The output.
    pub y: Target<'a>,
    /// What the epilogue adds.
    pub residual: Residual<'a>,
    /// ReLU or not, and where the sum starts.
    pub epilogue: Epilogue,
    /// Rows of the output to compute.
    pub rows: Range<usize>,
    /// Output rows of the image.
    pub height: usize,
    /// Output pixels of a row.
    pub width: usize,
    /// Dense: input pixels (and rows) from an output pixel to the next.
    pub stride: usize,
    /// Panels of 32 output channels to compute.
    pub panels: Range<usize>,
    /// Range of each kernel row to add; everything is `0..weights.row_length`.
    pub k: Range<usize>,
}

impl<'a> ConvCall<'a> {
    /// The whole output image of `height` x `width` at stride 1, all channels, with nothing added and no ReLU.
    pub fn new(weights: &'a PackedWeights, x: Source<'a>, y: Target<'a>, (height, width): (usize, usize)) -> Self {
        ConvCall {
            weights,
            x,
            y,
            residual: Residual::None,
            epilogue: Epilogue::default(),
            rows: 0..height,
            height,
            width,
            stride: 1,
            panels: 0..panels(weights.channels),
            k: 0..weights.row_length,
        }
    }
}

impl ConvKernel {
    /// A compiled kernel whose instruction set was detected (contract P4 holds from here on).
    pub(crate) fn native(name: &'static str, stencil: Option<Stencil>, tile_rows: usize, native: Native) -> Self {
        ConvKernel { name, stencil, tile_rows, native: Some(native) }
    }

    /// Rows above and below a pixel that the kernel's stencil reads; 0 for dense kernels.
    pub(crate) fn radius(&self) -> usize {
        self.stencil.map_or(0, Stencil::radius)
    }

    /// The portable code.
    pub(crate) const fn portable(name: &'static str, stencil: Option<Stencil>) -> Self {
        ConvKernel { name, stencil, tile_rows: 1, native: None }
    }

    /// Runs the call.
    ///
    /// # Panics
    /// If the rows do not lie in their slices or the weights are of another kind: a defect of the caller in this crate.
    pub fn run(&self, call: &mut ConvCall<'_>) {
        if call.rows.is_empty() || call.width == 0 {
            return;
        }
        check(call, self.stencil);
        match (self.native, self.stencil) {
            (None, _) => portable::conv::run(call),
            (Some(native), Some(_)) => fused(native, self.tile_rows, call),
            (Some(native), None) => dense(native, self.tile_rows, call),
        }
    }
}

/// The conditions P1 and P3 of one call that has rows and pixels.
fn check(call: &ConvCall<'_>, stencil: Option<Stencil>) {
    let weights = call.weights;
    assert_eq!(weights.stencil_kind, stencil, "weights are for another kernel");
    assert!(weights.is_complete(), "packed weights of another size");
    assert!(call.rows.end <= call.height, "rows outside the image");
    assert!(call.k.end <= weights.row_length && call.k.start <= call.k.end, "range of k");
    assert!(call.panels.end <= weights.channels.div_ceil(32), "range of panels");
    let y_fits = call.y.layout.fits(call.y.data.len(), &call.rows, call.width, weights.channels);
    assert!(y_fits, "output rows outside their slice");
    if let Residual::Rows(residual) = call.residual {
        let fits = residual.layout.fits(residual.data.len(), &call.rows, call.width, weights.channels);
        assert!(fits, "residual rows outside their slice");
    }
    let (rows, width, length) = if stencil.is_some() {
        assert_eq!(call.x.layout.pixel_step, weights.channels, "pixels of a lean convolution lie side by side");
        let radius = weights.radius();
        (call.rows.start.saturating_sub(radius)..(call.rows.end + radius).min(call.height), call.width, weights.channels)
    } else {
        let last = (call.rows.end - 1).saturating_mul(call.stride).saturating_add(weights.rows);
        let width = (call.width - 1).saturating_mul(call.stride).saturating_add(1);
        (call.rows.start.saturating_mul(call.stride)..last, width, weights.row_length)
    };
    assert!(rows.len() <= call.x.layout.ring, "the ring holds fewer input rows than the call reads");
    let x_fits = call.x.layout.fits(call.x.data.len(), &rows, width, length);
    assert!(x_fits, "input rows outside their slice");
}

/// What is the same for all tiles of a call.
fn arguments(call: &mut ConvCall<'_>) -> LeanConvArgs {
    let weights = call.weights;
    let (scale, shift) =
        weights.scale.as_ref().map_or((ptr::null(), ptr::null()), |(scale, shift)| (scale.as_ptr(), shift.as_ptr()));
    let mut flags = 0;
    if call.epilogue.from_output {
        flags |= LEAN_FROM_OUTPUT;
    }
    if weights.scale.is_some() {
        flags |= LEAN_SCALE;
    }
    if !matches!(call.residual, Residual::None) {
        flags |= LEAN_RESIDUAL;
    }
    if call.epilogue.relu {
        flags |= LEAN_RELU;
    }
    LeanConvArgs {
        x: [[ptr::null(); 4]; 7],
        x_step: (call.x.layout.pixel_step * call.stride) as i64,
        matrix: weights.matrix.as_ptr(),
        stencil: weights.stencil.as_ptr(),
        bias: weights.bias.as_ptr(),
        scale,
        shift,
        y: [ptr::null_mut(); 4],
        y_step: call.y.layout.pixel_step as i64,
        residual: [ptr::null(); 4],
        residual_step: match call.residual {
            Residual::Rows(rows) => rows.layout.pixel_step as i64,
            _ => call.y.layout.pixel_step as i64,
        },
        inside: [0; 25],
        pixels: 0,
        rows: weights.rows as u64,
        row_length: weights.row_length as u64,
        k0: call.k.start as u64,
        k1: call.k.end as u64,
        panel0: call.panels.start as u64,
        panel1: call.panels.end as u64,
        channels: weights.channels as u64,
        flags: u64::from(flags),
    }
}

/// Base addresses of output and residual.
struct Bases {
    y: *mut f32,
    y_layout: Layout,
    residual: *const f32,
    residual_layout: Layout,
}

impl Bases {
    fn of(call: &mut ConvCall<'_>) -> Self {
        let (y, y_layout) = (call.y.data.as_mut_ptr(), call.y.layout);
        match call.residual {
            Residual::Rows(rows) => Bases { y, y_layout, residual: rows.data.as_ptr(), residual_layout: rows.layout },
            _ => Bases { y, y_layout, residual: y.cast_const(), residual_layout: y_layout },
        }
    }

    /// Sets the quads of a tile whose pixels, from (h, w) on, lie side by side in memory.
    fn set(&self, args: &mut LeanConvArgs, h: usize, w: usize, pixels: usize) {
        let y = self.y.wrapping_add(self.y_layout.row(h) + w * self.y_layout.pixel_step);
        let residual = self.residual.wrapping_add(self.residual_layout.row(h) + w * self.residual_layout.pixel_step);
        for quad in 0..pixels.div_ceil(4) {
            args.y[quad] = y.wrapping_add(4 * quad * self.y_layout.pixel_step);
            args.residual[quad] = residual.wrapping_add(4 * quad * self.residual_layout.pixel_step);
        }
        args.pixels = pixels as u64;
    }
}

/// Rows up to which the pixels from row `h` on lie side by side in the input (with the rows above and below), the output and the
/// residual: a tile may cross from one of these rows into the next.
fn run_end(call: &ConvCall<'_>, h: usize) -> usize {
    let flat = |layout: &Layout| layout.row_step == call.width * layout.pixel_step;
    let residual = match call.residual {
        Residual::Rows(rows) => rows.layout,
        _ => call.y.layout,
    };
    if !(flat(&call.x.layout) && flat(&call.y.layout) && flat(&residual)) {
        return h + 1;
    }
    // A whole image never wraps; in a ring, the input rows around an output row follow it.
    let wraps = |layout: &Layout, h: usize| layout.ring < call.height && layout.wraps_after(h);
    let radius = call.weights.radius();
    let mut end = h + 1;
    while end < call.rows.end {
        let last = end - 1;
        let x_wraps = (last.saturating_sub(radius)..=last + radius).any(|row| wraps(&call.x.layout, row));
        if x_wraps || wraps(&call.y.layout, last) || wraps(&residual, last) {
            break;
        }
        end += 1;
    }
    end
}

/// The largest radius of a stencil.
const RADIUS: usize = 2;

/// Which pixels of a tile lie less than 1, 2, ... pixels from an edge of the image, as bit sets.
#[derive(Default)]
struct Edges {
    left: [u64; RADIUS],
    right: [u64; RADIUS],
    top: [u64; RADIUS],
    bottom: [u64; RADIUS],
}

impl Edges {
    fn of((mut h, mut w): (usize, usize), pixels: usize, (height, width): (usize, usize), radius: usize) -> Self {
        let mut edges = Edges::default();
        let mut at = 0;
        while at < pixels {
            let count = (width - w).min(pixels - at);
            // The pixels of this row from column `from` up to column `to`.
            let span = |from: usize, to: usize| {
                let (from, to) = (from.max(w), to.min(w + count));
                if from < to { ((1_u64 << (to - from)) - 1) << (at + from - w) } else { 0 }
            };
            for distance in 1..=radius {
                edges.left[distance - 1] |= span(0, distance);
                edges.right[distance - 1] |= span(width.saturating_sub(distance), width);
                if h < distance {
                    edges.top[distance - 1] |= span(0, width);
                }
                if h + distance >= height {
                    edges.bottom[distance - 1] |= span(0, width);
                }
            }
            at += count;
            (h, w) = (h + 1, 0);
        }
        edges
    }

    /// The pixels whose tap (dy, dx) lies outside the image.
    fn outside(&self, dy: i8, dx: i8) -> u64 {
        let beyond = |before: &[u64; RADIUS], after: &[u64; RADIUS], distance: i8| match distance {
            ..0 => before[usize::from(distance.unsigned_abs()) - 1],
            0 => 0,
            1.. => after[distance as usize - 1],
        };
        beyond(&self.left, &self.right, dx) | beyond(&self.top, &self.bottom, dy)
    }
}

/// Tiles of nearly equal size that cross row ends where memory allows.
fn fused(native: Native, tile_rows: usize, call: &mut ConvCall<'_>) {
    let (taps, radius) = (call.weights.stencil_kind.map_or(&[][..], Stencil::taps), call.weights.radius());
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let x = call.x.data.as_ptr();
    let (layout, width, height) = (call.x.layout, call.width, call.height);
    let mut h0 = call.rows.start;
    while h0 < call.rows.end {
        let end = run_end(call, h0);
        let total = (end - h0) * width;
        let tiles = total.div_ceil(tile_rows);
        let mut first = 0;
        for tile in 0..tiles {
            let next = total * (tile + 1) / tiles;
            let (h, w, pixels) = (h0 + first / width, first % width, next - first);
            let edges = Edges::of((h, w), pixels, (height, width), radius);
            for (index, &(dy, dx)) in taps.iter().enumerate() {
                args.inside[index] = ((1u64 << pixels) - 1) & !edges.outside(dy, dx);
            }
            for kernel_row in 0..=2 * radius {
                // Rows above row 0 are never read; their addresses still have to be as many rows before that of this row, since
                // later pixels of the same quad may lie in later rows.
                let row = match (h + kernel_row).checked_sub(radius) {
                    Some(row) => x.wrapping_add(layout.row(row)),
                    None => x.wrapping_add(layout.row(h)).wrapping_sub((radius - kernel_row) * layout.row_step),
                };
                let base = row.wrapping_add(w * layout.pixel_step);
                for quad in 0..pixels.div_ceil(4) {
                    args.x[kernel_row][quad] = base.wrapping_add(4 * quad * layout.pixel_step);
                }
            }
            bases.set(&mut args, h, w, pixels);
            // SAFETY: P1 by `check`: the tile's pixels lie in `rows` x `width`, whose outputs, residuals and inputs (with the
            // rows above and below that exist; `inside` masks the others) lie in their slices, and `run_end` made sure that
            // pixels of the tile lie side by side. P2: `y` is a unique borrow, and a residual is disjoint or y itself.
            // P3 by `check`. P4 by `ConvKernel::native`. P5: Rust code runs in the default environment.
            unsafe { native(&raw const args) };
            first = next;
        }
        h0 = end;
    }
}

/// Tiles within rows; rows that follow each other without a gap (1x1 kernels on whole images) count as one.
fn dense(native: Native, tile_rows: usize, call: &mut ConvCall<'_>) {
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let x = call.x.data.as_ptr();
    let layout = call.x.layout;
    let merge = call.weights.rows == 1 && call.stride == 1;
    let mut h = call.rows.start;
    while h < call.rows.end {
        let end = if merge { run_end(call, h) } else { h + 1 };
        let total = (end - h) * call.width;
        let tiles = total.div_ceil(tile_rows);
        let mut first = 0;
        for tile in 0..tiles {
            let next = total * (tile + 1) / tiles;
            let pixels = next - first;
            for row in 0..call.weights.rows {
                let base = x.wrapping_add(layout.row(h * call.stride + row) + first * call.stride * layout.pixel_step);
                for quad in 0..pixels.div_ceil(4) {
                    args.x[row][quad] = base.wrapping_add(4 * quad * call.stride * layout.pixel_step);
                }
            }
            bases.set(&mut args, h, first, pixels);
            // SAFETY: P1 by `check`: output pixel (h, w) reads `row_length` values from pixel w * stride of rows h * stride +
            // 0..rows, all of which lie in the slice. P2: `y` is a unique borrow, and a residual is disjoint or y itself.
            // P3 by `check`. P4 by `ConvKernel::native`. P5: Rust code runs in the default environment.
            unsafe { native(&raw const args) };
            first = next;
        }
        h = end;
    }
}
