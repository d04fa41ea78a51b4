//! Kernels for the gradients of weights behind safe calls.

use crate::conv::pack::{PANEL, panels};
use crate::ffi::{LEAN_ACCUMULATE, LEAN_GRADIENT_FETCHES, LeanStencilGradientArgs, LeanWeightGradientArgs};
use crate::kernel::element::Element;
use crate::kernel::upcoming::Upcoming;
use crate::portable;
use crate::stencil::Stencil;
use std::marker::PhantomData;
use std::ops::Range;

type NativeWeight = unsafe extern "C" fn(*const LeanWeightGradientArgs);
type NativeStencil = unsafe extern "C" fn(*const LeanStencilGradientArgs);

/// A kernel for the gradient of a matrix.
#[derive(Clone, Copy)]
pub struct WeightGradientKernel<T = f32> {
    /// The registry's name, or that of the portable code.
    pub name: &'static str,
    /// `None`: portable Rust.
    native: Option<NativeWeight>,
    element: PhantomData<fn(T)>,
}

/// `dw[k][o] (+)=` sum over rows and pixels of `x[pixel][k] * g[pixel][o]`.
pub struct WeightGradientCall<'a, T = f32> {
    /// Inputs, from the first pixel on.
    pub x: &'a [T],
    /// Elements of x from a pixel to the next.
    pub x_step: usize,
    /// Elements of x from a row to the next.
    pub x_row: usize,
    /// Gradients of the outputs, from the first pixel on.
    pub g: &'a [T],
    /// Elements of g from a pixel to the next.
    pub g_step: usize,
    /// Elements of g from a row to the next.
    pub g_row: usize,
    /// Gradient of the packed matrix.
    pub dw: &'a mut [f32],
    /// Elements of dw from a panel to the next.
    pub panel_step: usize,
    /// First element inside a panel: kernel row r of a dense convolution starts at r * row_length * 32.
    pub offset: usize,
    /// Rows of pixels.
    pub rows: usize,
    /// Pixels of a row.
    pub pixels: usize,
    /// Values of x per pixel that take part.
    pub k: usize,
    /// Output channels.
    pub channels: usize,
    /// Add to dw instead of replacing it.
    pub accumulate: bool,
    /// What to fetch meanwhile.
    pub upcoming: [Upcoming; GRADIENT_FETCHES],
}

/// Runs of memory that the gradient of a matrix can fetch.
pub const GRADIENT_FETCHES: usize = LEAN_GRADIENT_FETCHES as usize;

/// Bytes of x and g together that stay in the second level of cache while all blocks of the matrix pass over them.
const BYTES_AT_ONCE: usize = 576 * 1024;

impl<T> WeightGradientCall<'_, T> {
    /// Rows of pixels that go through all blocks of the matrix before the next ones.
    fn rows_at_once(&self) -> usize {
        let row = self.x_row.saturating_add(self.g_row).saturating_mul(size_of::<T>());
        (BYTES_AT_ONCE / row.max(1)).clamp(1, self.rows.max(1))
    }

    /// What to fetch during the rows before row `next`: those that follow, and during the last ones what is wanted after the call.
    fn fetch(&self, next: usize, rows_at_once: usize) -> [Upcoming; GRADIENT_FETCHES] {
        if next >= self.rows {
            return self.upcoming;
        }
        let rows = rows_at_once.min(self.rows - next);
        let of = |values: &[T], row: usize| {
            let start = values.as_ptr().addr() + size_of::<T>() * next * row;
            Upcoming::new(start, size_of::<T>() * rows * row)
        };
        [of(self.x, self.x_row), of(self.g, self.g_row)]
    }
}

/// Elements that `rows` x `pixels` of `values` each reach; more than any slice holds if that overflows.
fn extent(rows: usize, row_step: usize, pixels: usize, pixel_step: usize, values: usize) -> usize {
    if rows == 0 || pixels == 0 {
        return 0;
    }
    let last = (rows - 1).saturating_mul(row_step).saturating_add((pixels - 1).saturating_mul(pixel_step));
    last.saturating_add(values)
}

impl<T: Element> WeightGradientKernel<T> {
    /// Portable Rust.
    pub(crate) const fn portable(name: &'static str) -> Self {
        WeightGradientKernel { name, native: None, element: PhantomData }
    }

    /// A compiled kernel for this type.
    pub(crate) const fn native(name: &'static str, native: NativeWeight) -> Self {
        WeightGradientKernel { name, native: Some(native), element: PhantomData }
    }

    /// Runs the call.
    ///
    /// # Panics
    /// If an extent leaves its slice: a defect of the caller in this crate. Also if inputs or channels are not what the type's kernels take.
    pub fn run(&self, call: &mut WeightGradientCall<'_, T>) {
        assert!(call.k.is_multiple_of(T::INPUTS_TOGETHER), "{} inputs", call.k);
        assert!(call.channels.is_multiple_of(T::CHANNELS_TOGETHER), "{} channels", call.channels);
        assert!(extent(call.rows, call.x_row, call.pixels, call.x_step, call.k) <= call.x.len(), "x is too short");
        assert!(extent(call.rows, call.g_row, call.pixels, call.g_step, call.channels) <= call.g.len(), "g is too short");
        let dw_extent =
            extent(1, 0, panels(call.channels), call.panel_step, call.k.saturating_mul(PANEL).saturating_add(call.offset));
        assert!(dw_extent <= call.dw.len(), "dw is too short");
        let Some(native) = self.native else {
            return portable::gradient::weight(call);
        };
        let rows_at_once = call.rows_at_once();
        // No rows at all are a call too: it sets the gradient to zeros.
        for first in (0..call.rows.max(1)).step_by(rows_at_once) {
            let rows = rows_at_once.min(call.rows - first);
            let fetch = call.fetch(first + rows, rows_at_once);
            let args = LeanWeightGradientArgs {
                x: call.x.as_ptr().wrapping_add(first * call.x_row).cast(),
                x_step: call.x_step as i64,
                x_row: call.x_row as i64,
                g: call.g.as_ptr().wrapping_add(first * call.g_row).cast(),
                g_step: call.g_step as i64,
                g_row: call.g_row as i64,
                dw: call.dw.as_mut_ptr().wrapping_add(call.offset),
                panel_step: call.panel_step as u64,
                rows: rows as u64,
                pixels: call.pixels as u64,
                k0: 0,
                k1: call.k as u64,
                panel0: 0,
                panel1: panels(call.channels) as u64,
                channels: call.channels as u64,
                flags: if call.accumulate || first > 0 { u64::from(LEAN_ACCUMULATE) } else { 0 },
                fetch: fetch.map(|upcoming| upcoming.at(0)),
                fetch_bytes: fetch.map(|upcoming| upcoming.bytes() as u64),
            };
            // SAFETY: P1 by the three asserted extents, of which the rows are a part (dw is written in whole vectors inside its
            // 32-wide rows). P2: dw is a unique borrow. P3 does not apply to x and g. P4: the dispatch table holds only kernels of
            // detected instruction sets. P5: Rust code runs in the default environment. P6: a tier of tiles was permitted, and the
            // run of a convolution leaves none configured.
            unsafe { native(&raw const args) }
        }
    }
}

/// A kernel for the gradient of a stencil.
#[derive(Clone, Copy)]
pub struct StencilGradientKernel<T = f32> {
    /// The registry's name, or that of the portable code.
    pub name: &'static str,
    /// `None`: portable Rust.
    native: Option<NativeStencil>,
    /// The stencil it is for.
    pub stencil: Stencil,
    element: PhantomData<fn(T)>,
}

/// Gradients of a stencil and of the bias over some rows of one image.
pub struct StencilGradientCall<'a, T = f32> {
    /// The stencil; must be the kernel's.
    pub stencil: Stencil,
    /// The input image, `[height][width][channels]`.
    pub x: &'a [T],
    /// The gradient of the output, same shape.
    pub g: &'a [T],
    /// Gradient of the packed stencil.
    pub dstencil: &'a mut [f32],
    /// Gradient of the packed bias: the sum of g.
    pub dbias: &'a mut [f32],
    /// Rows of g that take part.
    pub rows: Range<usize>,
    /// Rows of the image.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Add to the sums instead of replacing them.
    pub accumulate: bool,
}

impl<T: Element> StencilGradientKernel<T> {
    /// Portable Rust.
    pub(crate) const fn portable(name: &'static str, stencil: Stencil) -> Self {
        StencilGradientKernel { name, native: None, stencil, element: PhantomData }
    }

    /// A compiled kernel for this type and stencil.
    pub(crate) const fn native(name: &'static str, stencil: Stencil, native: NativeStencil) -> Self {
        StencilGradientKernel { name, native: Some(native), stencil, element: PhantomData }
    }

    /// Runs the call.
    ///
    /// # Panics
    /// If an extent leaves its slice: a defect of the caller in this crate.
    pub fn run(&self, call: &mut StencilGradientCall<'_, T>) {
        let image = call.height.saturating_mul(call.width).saturating_mul(call.channels);
        let padded = panels(call.channels) * PANEL;
        assert_eq!(call.stencil, self.stencil, "a kernel for another stencil");
        assert!(call.channels.is_multiple_of(T::CHANNELS_TOGETHER), "{} channels", call.channels);
        assert!(call.x.len() >= image && call.g.len() >= image && call.rows.end <= call.height, "images are too short");
        let sums_fit = call.dstencil.len() >= padded * self.stencil.taps().len() && call.dbias.len() >= padded;
        assert!(sums_fit, "gradients are too short");
        let Some(native) = self.native else {
            return portable::gradient::stencil(call);
        };
        let args = LeanStencilGradientArgs {
            x: call.x.as_ptr().cast(),
            g: call.g.as_ptr().cast(),
            dstencil: call.dstencil.as_mut_ptr(),
            dbias: call.dbias.as_mut_ptr(),
            first: call.rows.start as u64,
            last: call.rows.end as u64,
            height: call.height as u64,
            width: call.width as u64,
            channels: call.channels as u64,
            flags: if call.accumulate { u64::from(LEAN_ACCUMULATE) } else { 0 },
        };
        // SAFETY: P1 by the asserted extents; taps outside the image are not read. P2: the gradients are unique borrows.
        // P3: they have the packed length. P4: the dispatch table holds only kernels of detected instruction sets.
        // P5: Rust code runs in the default environment.
        unsafe { native(&raw const args) }
    }
}
