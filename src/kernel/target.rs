//! Memory that a convolution kernel writes: rows of pixels, or some panels of their channels while other tasks write the others.

use std::marker::PhantomData;
use std::ops::Range;

use super::rows::Layout;
use crate::conv::pack::{PANEL, panels};

/// Rows to write, as `layout` places them in the memory.
pub struct Target<'a, T = f32> {
    data: *mut T,
    length: usize,
    /// Where the rows lie.
    pub layout: Layout,
    /// The panels of each pixel's channels that are the target's to write; `None`: the memory is the target's alone.
    panels: Option<Range<usize>>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> Target<'a, T> {
    /// All channels of the rows in `data`.
    pub fn new(data: &'a mut [T], layout: Layout) -> Self {
        Target { data: data.as_mut_ptr(), length: data.len(), layout, panels: None, borrow: PhantomData }
    }

    /// Some panels of 32 channels of every pixel; `None`: everything.
    ///
    /// # Safety
    /// For `'a`, `data` is valid for `length` values, of which nobody else reads or writes those that belong to `panels` of a pixel: a
    /// pixel is `layout.pixel_step` values from a multiple of that many after `layout.origin` on.
    pub(crate) unsafe fn of_panels(data: *mut T, length: usize, layout: Layout, panels: Option<Range<usize>>) -> Self {
        assert!(layout.pixel_step > 0 && layout.row_step.is_multiple_of(layout.pixel_step), "rows of whole pixels");
        Target { data, length, layout, panels, borrow: PhantomData }
    }

    /// The same memory for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Target<'_, T> {
        Target { data: self.data, length: self.length, layout: self.layout, panels: self.panels.clone(), borrow: PhantomData }
    }

    /// Some rows, each with all that lies up to the next one.
    ///
    /// # Panics
    /// If the target is not all channels of rows that follow each other.
    pub(crate) fn rows_mut(&mut self, rows: Range<usize>) -> &mut [T] {
        let (first, length) = (self.layout.row(rows.start), rows.len() * self.layout.row_step);
        let (follow, fits) = (rows.start % self.layout.ring + rows.len() <= self.layout.ring, first + length <= self.length);
        assert!(self.panels.is_none() && follow && fits, "rows that are not the target's");
        // SAFETY: the values lie in the memory, which is uniquely borrowed for `'a`; the slice borrows the target uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(first), length) }
    }

    /// Values of the memory.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The panels that may be written of pixels of `channels` channels.
    pub(super) fn panels(&self, channels: usize) -> Range<usize> {
        self.panels.clone().unwrap_or(0..panels(channels))
    }

    /// The address of the memory.
    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        self.data
    }

    /// The first `lanes` values of a panel of pixel (h, w).
    pub(crate) fn panel_mut(&mut self, (h, w): (usize, usize), panel: usize, lanes: usize) -> &mut [T] {
        let (pixel, first) = (self.layout.row(h) + w * self.layout.pixel_step, panel * PANEL);
        assert!(lanes <= PANEL && pixel + first + lanes <= self.length, "a panel outside its memory");
        if let Some(panels) = &self.panels {
            assert!(panels.contains(&panel) && first + lanes <= self.layout.pixel_step, "a panel of another task");
        }
        // SAFETY: the values lie in the memory, as was checked. Without `panels` it is uniquely borrowed for `'a`; with them, `pixel`
        // is the start of a pixel and the values belong to one of its panels that only this target may touch. The slice borrows
        // the target uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(pixel + first), lanes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_target_of_panels_lends_no_others() {
        let mut memory = vec![0.0; 2 * 3 * 70];
        let layout = Layout::image(2, 3, 70);
        // SAFETY: the memory outlives the target, and nothing else touches it.
        let mut target = unsafe { Target::of_panels(memory.as_mut_ptr(), memory.len(), layout, Some(1..3)) };
        target.panel_mut((1, 2), 2, 6).fill(1.0);
        target.panel_mut((0, 0), 1, 32).fill(2.0);
        for (panel, lanes) in [(0, 32), (3, 1), (2, 7), (1, 33)] {
            assert!(catch_unwind(AssertUnwindSafe(|| target.panel_mut((0, 0), panel, lanes).len())).is_err(), "{panel}, {lanes}");
        }
        assert_eq!(memory.iter().sum::<f32>(), 6.0 + 64.0);
        assert_eq!((memory[419], memory[32], memory[63], memory[64]), (1.0, 2.0, 2.0, 0.0));
    }
}
