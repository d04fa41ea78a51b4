//! Convolution kernels behind one safe call: rows of a fused lean convolution, rows of a dense one.
//!
//! A call is checked once; the runs of pixels that kernels take are cut here and lie within the checked rows by construction.

use super::edges::{Edges, Pixels, low_bits};
use super::element::Element;
use super::images;
use super::rows::{Epilogue, Layout, Residual, Source};
use super::target::Target;
use super::upcoming::Ahead;
use crate::conv::pack::{PANEL, PackedWeights};
use crate::ffi::{
    LEAN_FETCHES, LEAN_FROM_OUTPUT, LEAN_PIXELS, LEAN_RELU, LEAN_RESIDUAL, LEAN_SCALE, LEAN_STRIDE, LEAN_WIDE, LeanConvArgs,
};
use crate::machine;
use crate::stencil::Stencil;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

pub(super) type Native = unsafe extern "C" fn(*const LeanConvArgs);

/// A kernel for fused lean convolutions with one stencil, or for dense ones.
#[derive(Debug)]
pub struct ConvKernel<T = f32> {
    /// The registry's name, or that of the portable code.
    pub name: &'static str,
    stencil: Option<Stencil>,
    /// Whether the stencil's taps read groups of several channels.
    is_grouped: bool,
    /// Whether the kernel takes rows of an image instead of runs of pixels.
    takes_images: bool,
    /// Pixels of a full tile.
    tile_rows: usize,
    /// Pixels of a full tile of two panels; 0 where the kernel has none.
    wide_rows: usize,
    /// Whether calls of as many channels use those.
    is_wide: bool,
    /// `None`: portable Rust.
    native: Option<Native>,
    element: PhantomData<fn(T)>,
}

impl<T> Clone for ConvKernel<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ConvKernel<T> {}

/// One call of a convolution kernel: which rows of the output to compute, from what.
pub struct ConvCall<'a, T = f32> {
    /// The packed weights.
    pub weights: &'a PackedWeights<T>,
    /// The input. Fused: rows of an image of `input` rows and columns; what lies outside is zeros. Dense: rows of a band with
    /// physical zeros around it, so that output (h, w) reads rows h * stride + 0..kernel rows and, there, pixels from w * stride.
    pub x: Source<'a, T>,
    /// The output. Parts of it that others write meanwhile must not be asked for by `panels`.
    pub y: Target<'a, T>,
    /// What the epilogue adds.
    pub residual: Residual<'a, T>,
    /// ReLU or not, and where the sum starts.
    pub epilogue: Epilogue,
    /// Rows of the output to compute.
    pub rows: Range<usize>,
    /// Output rows of the image.
    pub height: usize,
    /// Output pixels of a row.
    pub width: usize,
    /// Rows and columns of the input image; of no meaning to dense kernels.
    pub input: (usize, usize),
    /// Input pixels (and rows) from an output pixel to the next.
    pub stride: usize,
    /// Panels of 32 output channels to compute.
    pub panels: Range<usize>,
    /// Range of each kernel row to add; everything is `0..weights.row_length`.
    pub k: Range<usize>,
    /// What to fetch meanwhile.
    pub ahead: Ahead,
}

impl<'a, T: Element> ConvCall<'a, T> {
    /// The whole output image of `height` x `width` at stride 1, all channels that are `y`'s, with nothing added and no ReLU.
    pub fn new(weights: &'a PackedWeights<T>, x: Source<'a, T>, y: Target<'a, T>, (height, width): (usize, usize)) -> Self {
        let panels = y.panels(weights.channels);
        ConvCall {
            weights,
            x,
            y,
            residual: Residual::None,
            epilogue: Epilogue::default(),
            rows: 0..height,
            height,
            width,
            input: (height, width),
            stride: 1,
            panels,
            k: 0..weights.row_length,
            ahead: Ahead::default(),
        }
    }
}

impl<T: Element> ConvKernel<T> {
    /// A compiled kernel whose instruction set was detected (contract P4 holds from here on).
    pub(crate) fn native(name: &'static str, stencil: Option<Stencil>, tile_rows: usize, native: Native) -> Self {
        ConvKernel {
            name,
            stencil,
            is_grouped: false,
            takes_images: false,
            tile_rows,
            wide_rows: 0,
            is_wide: false,
            native: Some(native),
            element: PhantomData,
        }
    }

    /// The same kernel for weights whose taps of `stencil` read groups of channels.
    pub(crate) fn for_groups(self, stencil: Stencil) -> Self {
        ConvKernel { stencil: Some(stencil), is_grouped: true, ..self }
    }

    /// The same kernel, which takes rows of an image instead of runs of pixels.
    pub(crate) fn for_images(self) -> Self {
        ConvKernel { takes_images: true, ..self }
    }

    /// The same kernel, which has tiles of `rows` pixels x two panels; none if `rows` is 0.
    pub(crate) fn with_wide_tiles(self, rows: usize) -> Self {
        ConvKernel { wide_rows: rows, ..self }
    }

    /// The same kernel; whether it uses the tiles of two panels, if it has them, in calls of as many channels.
    pub(crate) fn in_wide_tiles(self, is_wide: bool) -> Self {
        ConvKernel { is_wide: is_wide && self.wide_rows > 0, ..self }
    }

    /// Whether calls of enough channels use the tiles of two panels.
    pub(crate) fn is_in_wide_tiles(&self) -> bool {
        self.is_wide
    }

    /// The tiles that a call is made of.
    fn tiles(&self, call: &ConvCall<'_, T>) -> Tiles {
        let channels = (PANEL * call.panels.end).min(call.weights.channels).saturating_sub(PANEL * call.panels.start);
        let fits = channels >= 2 * PANEL && call.rows.len() * call.width >= 2 * self.wide_rows;
        if self.is_wide && fits {
            Tiles { rows: self.wide_rows, panels: 2, flag: u64::from(LEAN_WIDE) }
        } else {
            Tiles { rows: self.tile_rows, panels: 1, flag: 0 }
        }
    }

    /// Whether the more rows a call has the better, since they cost the kernel little beside what a call does.
    pub(crate) fn takes_images(&self) -> bool {
        self.takes_images
    }

    /// Rows above and below a pixel that the kernel's stencil reads; 0 for dense kernels.
    pub(crate) fn radius(&self) -> usize {
        self.stencil.map_or(0, Stencil::radius)
    }

    /// The portable code.
    pub(crate) const fn portable(name: &'static str, stencil: Option<Stencil>) -> Self {
        ConvKernel {
            name,
            stencil,
            is_grouped: false,
            takes_images: false,
            tile_rows: 1,
            wide_rows: 0,
            is_wide: false,
            native: None,
            element: PhantomData,
        }
    }

    /// Runs the call.
    ///
    /// # Panics
    /// If the rows do not lie in their slices or the weights are of another kind: a defect of the caller in this crate.
    pub fn run(&self, call: &mut ConvCall<'_, T>) {
        if call.rows.is_empty() || call.width == 0 {
            return;
        }
        check(call, self);
        match (self.native, self.stencil) {
            (None, _) => T::convolve(call),
            (Some(native), _) if self.takes_images => images::run(native, call),
            (Some(native), Some(stencil)) => fused(native, stencil, self.tiles(call), call),
            (Some(native), None) => dense(native, self.tiles(call), call),
        }
    }
}

/// The tiles of a call: their size, and the flag that asks for them.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    panels: usize,
    flag: u64,
}

/// The conditions P1 and P3 of one call that has rows and pixels.
fn check<T: Element>(call: &ConvCall<'_, T>, kernel: &ConvKernel<T>) {
    let weights = call.weights;
    let is_grouped = weights.group_size > 1;
    assert_eq!((weights.stencil_kind, is_grouped), (kernel.stencil, kernel.is_grouped), "weights are for another kernel");
    assert!(weights.is_complete(), "packed weights of another size");
    assert!(!call.epilogue.from_output || T::INPUTS_TOGETHER == 1, "sums that were rounded do not go on");
    let whole_groups = call.k.start.is_multiple_of(T::INPUTS_TOGETHER) && call.k.end.is_multiple_of(T::INPUTS_TOGETHER);
    assert!(whole_groups, "inputs that lie side by side go together");
    assert!(call.rows.end <= call.height, "rows outside the image");
    assert!(!kernel.takes_images || call.k == (0..weights.row_length), "these kernels add all inputs");
    assert!(!kernel.takes_images || call.stride <= LEAN_STRIDE as usize, "these kernels know no larger stride");
    assert!(call.k.end <= weights.row_length && call.k.start <= call.k.end, "range of k");
    let panels = call.y.panels(weights.channels);
    assert!(call.panels.start >= panels.start && call.panels.end <= panels.end, "panels of another task");
    assert!(panels.end <= weights.channels.div_ceil(32), "range of panels");
    let y_fits = call.y.layout.fits(call.y.length(), &call.rows, call.width, weights.channels);
    assert!(y_fits, "output rows outside their slice");
    if let Residual::Rows(residual) = call.residual {
        let fits = residual.layout.fits(residual.data.len(), &call.rows, call.width, weights.channels);
        assert!(fits, "residual rows outside their slice");
    }
    let (last_row, last_column) = ((call.rows.end - 1).saturating_mul(call.stride), (call.width - 1).saturating_mul(call.stride));
    let first_row = call.rows.start.saturating_mul(call.stride);
    let (rows, width, length) = if kernel.stencil.is_some() {
        assert_eq!(call.x.layout.pixel_step, weights.channels, "pixels of a lean convolution lie side by side");
        let (height, width) = call.input;
        assert!(last_row < height && last_column < width, "output pixels outside the input image");
        let radius = weights.radius();
        (first_row.saturating_sub(radius)..last_row.saturating_add(radius + 1).min(height), width, weights.channels)
    } else {
        (first_row..last_row.saturating_add(weights.rows), last_column.saturating_add(1), weights.row_length)
    };
    assert!(rows.len() <= call.x.layout.ring, "the ring holds fewer input rows than the call reads");
    let x_fits = call.x.layout.fits(call.x.data.len(), &rows, width, length);
    assert!(x_fits, "input rows outside their slice");
}

/// What is the same for all tiles of a call.
pub(super) fn arguments<T: Element>(call: &ConvCall<'_, T>) -> LeanConvArgs {
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
        x: [ptr::null(); 7],
        x_step: (call.x.layout.pixel_step * call.stride) as i64,
        tap: [ptr::null(); 25],
        inside: [0; 25],
        matrix: weights.matrix.as_ptr().cast(),
        stencil: weights.stencil.as_ptr(),
        bias: weights.bias.as_ptr(),
        scale,
        shift,
        y: ptr::null_mut(),
        y_step: call.y.layout.pixel_step as i64,
        residual: ptr::null(),
        residual_step: match call.residual {
            Residual::Rows(rows) => rows.layout.pixel_step as i64,
            _ => call.y.layout.pixel_step as i64,
        },
        pixels: 0,
        taps: weights.stencil_kind.map_or(0, |stencil| stencil.taps().len() as u64),
        group: weights.group_size as u64,
        rows: weights.rows as u64,
        row_length: weights.row_length as u64,
        k0: call.k.start as u64,
        k1: call.k.end as u64,
        panel0: call.panels.start as u64,
        panel1: call.panels.end as u64,
        channels: weights.channels as u64,
        flags: u64::from(flags),
        fetch: [0; LEAN_FETCHES as usize],
        fetch_lines: [0; LEAN_FETCHES as usize],
        height: 0,
        width: call.width as u64,
        stride: call.stride as u64,
        x_width: call.input.1 as u64,
        x_rows: ptr::null(),
        y_rows: ptr::null(),
        residual_rows: ptr::null(),
    }
}

/// Base addresses of output and residual.
pub(super) struct Bases<T> {
    pub(super) y: *mut T,
    pub(super) y_layout: Layout,
    pub(super) residual: *const T,
    pub(super) residual_layout: Layout,
}

impl<T: Element> Bases<T> {
    pub(super) fn of(call: &mut ConvCall<'_, T>) -> Self {
        let (y, y_layout) = (call.y.as_mut_ptr(), call.y.layout);
        match call.residual {
            Residual::Rows(rows) => Bases { y, y_layout, residual: rows.data.as_ptr(), residual_layout: rows.layout },
            _ => Bases { y, y_layout, residual: y.cast_const(), residual_layout: y_layout },
        }
    }

    /// Points to `pixels` pixels from (h, w) on, which lie side by side in memory.
    fn set(&self, args: &mut LeanConvArgs, h: usize, w: usize, pixels: usize) {
        args.y = self.y.wrapping_add(self.y_layout.row(h) + w * self.y_layout.pixel_step).cast();
        let residual = self.residual.wrapping_add(self.residual_layout.row(h) + w * self.residual_layout.pixel_step);
        args.residual = residual.cast();
        args.pixels = pixels as u64;
    }
}

/// Rows up to which the pixels from row `h` on lie side by side in the input (with the rows above and below), the output and the
/// residual: a run of pixels may cross from one of these rows into the next.
fn run_end<T: Element>(call: &ConvCall<'_, T>, h: usize) -> usize {
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

/// Pixels that a kernel takes at a time, at most.
pub(crate) const RUN_PIXELS: usize = LEAN_PIXELS as usize;

/// How many of `rest` pixels the next run takes: as many whole tiles as it can, and no small rest for the last one, which would read
/// all weights for a few pixels.
fn run_length(rest: usize, tile_rows: usize) -> usize {
    let whole = RUN_PIXELS / tile_rows * tile_rows;
    if rest <= RUN_PIXELS {
        rest
    } else if rest < 2 * whole {
        rest.div_ceil(tile_rows).div_ceil(2) * tile_rows
    } else {
        whole
    }
}

/// Runs of pixels that cross row ends where memory allows.
fn fused<T: Element>(native: Native, stencil: Stencil, tiles: Tiles, call: &mut ConvCall<'_, T>) {
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let (width, stride) = (call.width, call.stride);
    args.flags |= tiles.flag;
    let (ahead, all_pixels) = (call.ahead, call.rows.len() * width);
    let mut h0 = call.rows.start;
    while h0 < call.rows.end {
        let end = if stride == 1 { run_end(call, h0) } else { h0 + 1 };
        let total = (end - h0) * width;
        let mut done = 0;
        while done < total {
            let count = run_length(total - done, tiles.rows);
            let first = (h0 + done / width, done % width);
            let edges = Edges::of(&Pixels { first, count, width, input: call.input, stride }, stencil);
            for (index, &(dy, dx)) in stencil.taps().iter().enumerate() {
                args.inside[index] = low_bits(count) & !edges.outside(dy, dx);
                args.tap[index] = neighbour(call.x, (first.0 * stride, first.1 * stride), (dy, dx)).cast();
            }
            args.x[0] = neighbour(call.x, (first.0 * stride, first.1 * stride), (0, 0)).cast();
            bases.set(&mut args, first.0, first.1, count);
            ahead.set::<T>(&mut args, ((h0 - call.rows.start) * width + done, count, all_pixels));
            // SAFETY: P1 by `check`: the pixels lie in `rows` x `width`, whose outputs, residuals and inputs (with the neighbours
            // that exist; `inside` masks the others) lie in their slices, and `run_end` made sure that they lie side by side.
            // P2: nobody else touches the panels that `y` lends, and a residual is disjoint or y itself. P3 by `check`.
            // P4 by `ConvKernel::native`. P5: Rust code runs in the default environment.
            unsafe { native(&raw const args) };
            done += count;
        }
        h0 = end;
    }
}

/// Address of the neighbour (dy, dx) of an input pixel. Rows above row 0 are never read; their addresses still have to be as many rows
/// before that of the pixel, since later pixels of the same run may lie in later rows.
fn neighbour<T: Copy>(x: Source<'_, T>, (h, w): (usize, usize), (dy, dx): (i8, i8)) -> *const T {
    let Source { data, layout } = x;
    let row = match h.checked_add_signed(isize::from(dy)) {
        Some(row) => data.as_ptr().wrapping_add(layout.row(row)),
        None => data.as_ptr().wrapping_add(layout.row(h)).wrapping_sub(usize::from(dy.unsigned_abs()) * layout.row_step),
    };
    row.wrapping_add(w * layout.pixel_step).wrapping_offset(isize::from(dx) * layout.pixel_step as isize)
}

/// Panels that a dense convolution takes through all rows of the call: all at once, or one tile's if the matrix takes so much of the second level
/// of cache that it would come from beyond it for every row.
fn panels_at_once<T: Element>(call: &ConvCall<'_, T>, tiles: Tiles) -> usize {
    let is_large = size_of_val(&call.weights.matrix[..]) > machine::second_level_cache() / 4;
    if is_large && call.rows.len() > 1 { tiles.panels } else { call.panels.len().max(1) }
}

/// Runs of pixels within rows; rows that follow each other without a gap (1x1 kernels on whole images) count as one.
fn dense<T: Element>(native: Native, tiles: Tiles, call: &mut ConvCall<'_, T>) {
    let mut args = arguments(call);
    let bases = Bases::of(call);
    let Source { data, layout } = call.x;
    let merge = call.weights.rows == 1 && call.stride == 1;
    let at_once = if merge { call.panels.len().max(1) } else { panels_at_once(call, tiles) };
    args.flags |= tiles.flag;
    let (ahead, pixels) = (call.ahead, call.rows.len() * call.width);
    let all_pixels = pixels * call.panels.len().div_ceil(at_once);
    for (turn, panel) in call.panels.clone().step_by(at_once).enumerate() {
        args.panel0 = panel as u64;
        args.panel1 = (panel + at_once).min(call.panels.end) as u64;
        let mut h = call.rows.start;
        while h < call.rows.end {
            let end = if merge { run_end(call, h) } else { h + 1 };
            let total = (end - h) * call.width;
            let mut done = 0;
            while done < total {
                let count = run_length(total - done, tiles.rows);
                for row in 0..call.weights.rows {
                    let at = layout.row(h * call.stride + row) + done * call.stride * layout.pixel_step;
                    args.x[row] = data.as_ptr().wrapping_add(at).cast();
                }
                bases.set(&mut args, h, done, count);
                let part = (turn * pixels + (h - call.rows.start) * call.width + done, count, all_pixels);
                ahead.set::<T>(&mut args, part);
                // SAFETY: P1 by `check`: output pixel (h, w) reads `row_length` values from pixel w * stride of rows h * stride +
                // 0..rows, all of which lie in the slice. P2: nobody else touches the panels that `y` lends, and a residual is disjoint
                // or y itself. P3 by `check`. P4 by `ConvKernel::native`. P5: Rust code runs in the default environment.
                unsafe { native(&raw const args) };
                done += count;
            }
            h = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::run_length;

    #[test]
    fn runs_are_whole_tiles_and_leave_no_small_rest() {
        for tile_rows in [1, 4, 6, 8, 14, 16] {
            for total in 1..400 {
                let mut rest = total;
                while rest > 0 {
                    let count = run_length(rest, tile_rows);
                    assert!((1..=64).contains(&count) && count <= rest, "{count} of {rest}");
                    assert!(count == rest || count.is_multiple_of(tile_rows) && rest - count >= 16, "{count} of {rest}");
                    rest -= count;
                }
            }
        }
    }
}
