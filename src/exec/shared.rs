//! Memory that tasks on several threads write at the same time, each its own tiles.
//!
//! A buffer is cut into tiles of equal length. A task borrows runs of tiles to read or to write; every tile carries the state of
//! a read-write lock, so that two tasks that claim the same tile in conflict are a panic and never a race. Where a tile is a row of pixels,
//! tasks can also write different panels of its channels. Nothing ever waits.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::conv::pack;
use crate::kernel::rows::Layout;
use crate::kernel::target::Target;
use crate::kernel::upcoming::Upcoming;
use crate::memory::{Aligned, LINE, filled};

/// State of a tile: in the lower half the number of its readers, in the upper half a bit for every panel that is being written.
type State = AtomicU64;

/// Panels of a pixel that have a bit each; writers of some panels of wider pixels would not be told apart.
pub(crate) const PANEL_BITS: usize = 32;

/// All panels are being written.
const WRITTEN: u64 = u64::MAX << PANEL_BITS;

/// Cache lines of a page.
const PAGE_LINES: usize = 64;

/// The cache line of its page at which the next buffer begins. Large buffers come at the same place of a page each, and a pass over several
/// uses equal offsets of them at a time: without this, addresses whose low bits are the same. That costs base a twentieth of a training step
/// on Zen 4; which part of the processor it disturbs was not found out.
fn first_line() -> usize {
    static BUFFERS: AtomicUsize = AtomicUsize::new(0);
    // Odd, so that 64 buffers differ; no two of a few in a row come near each other.
    BUFFERS.fetch_add(1, Ordering::Relaxed).wrapping_mul(13) % PAGE_LINES
}

/// A buffer of tiles, aligned to cache lines.
pub(crate) struct SharedBuffer<T> {
    /// Owns the memory; only its address is used after construction.
    memory: UnsafeCell<Aligned<T>>,
    address: *mut T,
    tile: usize,
    /// Elements of a pixel; a tile is a row of them.
    pixel: usize,
    states: Box<[State]>,
}

// SAFETY: the memory is reached only through `Read`, `Write` and `WritePart`, whose elements are exclusive to a writer or shared by
// readers, as `states` makes sure with acquire and release ordering; T itself may cross threads.
unsafe impl<T: Send + Sync> Sync for SharedBuffer<T> {}
// SAFETY: the buffer owns its memory; `address` points into it and moves with it.
unsafe impl<T: Send> Send for SharedBuffer<T> {}

impl<T: Copy + Default> SharedBuffer<T> {
    /// `tiles` tiles of `tile` default values each.
    pub(crate) fn new(tiles: usize, tile: usize) -> Self {
        SharedBuffer::of_pixels(tiles, tile, tile)
    }

    /// Tiles that are rows of pixels of `pixel` values each, for writers of some panels of all pixels of a row.
    pub(crate) fn of_pixels(tiles: usize, tile: usize, pixel: usize) -> Self {
        assert!(pixel == tile || tile.is_multiple_of(pixel), "rows of whole pixels");
        let start = first_line() * LINE / size_of::<T>();
        let mut memory = filled(start + tiles * tile, T::default());
        let address = memory[start..].as_mut_ptr();
        SharedBuffer {
            memory: UnsafeCell::new(memory),
            address,
            tile,
            pixel,
            states: (0..tiles).map(|_| State::new(0)).collect(),
        }
    }

    /// Elements of a tile.
    pub(crate) fn tile(&self) -> usize {
        self.tile
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.states.len()
    }

    /// Where tiles lie; whoever has them borrowed does not matter.
    pub(crate) fn upcoming(&self, tiles: Range<usize>) -> Upcoming {
        let address = self.address.wrapping_add(tiles.start * self.tile).addr();
        Upcoming::new(address, tiles.len() * self.tile * size_of::<T>())
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.tiles() * (self.tile * size_of::<T>() + size_of::<State>())
    }

    /// Borrows tiles to read.
    ///
    /// # Panics
    /// If one of them is being written, or does not exist: a defect of the plan.
    pub(crate) fn read(&self, tiles: Range<usize>) -> Read<'_, T> {
        for (index, state) in self.states[tiles.clone()].iter().enumerate() {
            // Fewer than 2^32 readers: each is a task of a thread.
            let claimed =
                state.fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| (state & WRITTEN == 0).then_some(state + 1));
            if claimed.is_err() {
                release_readers(&self.states[tiles.start..tiles.start + index]);
                panic!("tile {} is read while it is written", tiles.start + index);
            }
        }
        Read { buffer: self, tiles }
    }

    /// Borrows tiles to write.
    ///
    /// # Panics
    /// If one of them is borrowed, or does not exist: a defect of the plan.
    pub(crate) fn write(&self, tiles: Range<usize>) -> Write<'_, T> {
        self.claim(&tiles, WRITTEN);
        Write { buffer: self, tiles }
    }

    /// Takes the right to write the panels of `bits` of some tiles.
    fn claim(&self, tiles: &Range<usize>, bits: u64) {
        for (index, state) in self.states[tiles.clone()].iter().enumerate() {
            let is_free = |state: u64| state & bits == 0 && state & !WRITTEN == 0;
            let claimed =
                state.fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| is_free(state).then_some(state | bits));
            if claimed.is_err() {
                release_writer(&self.states[tiles.start..tiles.start + index], bits);
                panic!("tile {} is written while it is borrowed", tiles.start + index);
            }
        }
    }

    /// Borrows some panels of all pixels of some tiles to write, or all of them; others may have the other panels meanwhile.
    ///
    /// # Panics
    /// As [`SharedBuffer::write`]; if panels are asked for and the pixels have more than [`PANEL_BITS`] of them.
    pub(crate) fn write_part(&self, tiles: Range<usize>, panels: Option<Range<usize>>) -> WritePart<'_, T> {
        let bits = panels.clone().map_or(WRITTEN, |panels| {
            assert!(pack::panels(self.pixel) <= PANEL_BITS && panels.end <= PANEL_BITS, "pixels of too many panels");
            panels.fold(0, |bits, panel| bits | 1 << (PANEL_BITS + panel))
        });
        self.claim(&tiles, bits);
        WritePart { buffer: self, tiles, panels, bits }
    }
}

fn release_readers(states: &[State]) {
    for state in states {
        state.fetch_sub(1, Ordering::Release);
    }
}

fn release_writer(states: &[State], bits: u64) {
    for state in states {
        state.fetch_and(!bits, Ordering::Release);
    }
}

/// Tiles borrowed to read: one slice.
pub(crate) struct Read<'a, T> {
    buffer: &'a SharedBuffer<T>,
    tiles: Range<usize>,
}

impl<T> Deref for Read<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let tile = self.buffer.tile;
        // SAFETY: the tiles exist (their states were indexed), so the range lies in the buffer's memory, which lives as long as
        // the borrow; while their states count this reader, no writer has them.
        unsafe { std::slice::from_raw_parts(self.buffer.address.add(self.tiles.start * tile), self.tiles.len() * tile) }
    }
}

impl<T> Drop for Read<'_, T> {
    fn drop(&mut self) {
        release_readers(&self.buffer.states[self.tiles.clone()]);
    }
}

/// Tiles borrowed to write: one slice.
pub(crate) struct Write<'a, T> {
    buffer: &'a SharedBuffer<T>,
    tiles: Range<usize>,
}

impl<T> Deref for Write<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let tile = self.buffer.tile;
        // SAFETY: as in `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.buffer.address.add(self.tiles.start * tile), self.tiles.len() * tile) }
    }
}

impl<T> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let tile = self.buffer.tile;
        // SAFETY: the tiles exist (their states were indexed), so the range lies in the buffer's memory, which lives as long as
        // the borrow; while their states are `WRITTEN`, nobody else has them, and `self` is borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.address.add(self.tiles.start * tile), self.tiles.len() * tile) }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        release_writer(&self.buffer.states[self.tiles.clone()], WRITTEN);
    }
}

/// All channels or some panels of all pixels of some tiles, borrowed to write.
pub(crate) struct WritePart<'a, T> {
    buffer: &'a SharedBuffer<T>,
    tiles: Range<usize>,
    panels: Option<Range<usize>>,
    bits: u64,
}

impl<T> WritePart<'_, T> {
    /// What a convolution writes: the tiles are rows `first`.. of its output.
    pub(crate) fn target(&mut self, first: usize) -> Target<'_, T> {
        let SharedBuffer { address, tile, pixel, .. } = *self.buffer;
        let layout = Layout { origin: 0, row_step: tile, pixel_step: pixel, ring: self.tiles.len().max(1), first };
        // SAFETY: the tiles exist (their states were indexed), so the range lies in the buffer's memory, which lives as long as the
        // borrow. A tile begins with a pixel, and every pixel has `pixel` elements: while the tiles' states have the bits of `panels`,
        // or all, there are no readers, no writers of whole tiles and no other writers of these panels. `self` is borrowed uniquely.
        unsafe { Target::of_panels(address.add(self.tiles.start * tile), self.tiles.len() * tile, layout, self.panels.clone()) }
    }
}

impl<T> Drop for WritePart<'_, T> {
    fn drop(&mut self) {
        release_writer(&self.buffer.states[self.tiles.clone()], self.bits);
    }
}

impl<T> Drop for SharedBuffer<T> {
    fn drop(&mut self) {
        // The memory is owned through the cell, and no borrow outlives the buffer.
        self.memory.get_mut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn disjoint_tiles_are_written_at_once() {
        let buffer = SharedBuffer::<f32>::new(4, 3);
        let (mut first, mut second) = (buffer.write(0..2), buffer.write(2..4));
        first.fill(1.0);
        second.fill(2.0);
        drop((first, second));
        assert_eq!(&buffer.read(0..4)[..], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn conflicts_panic_and_leave_no_tile_claimed() {
        let buffer = SharedBuffer::<f32>::new(4, 1);
        let written = buffer.write(2..3);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(buffer.read(0..4)))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(buffer.write(1..3)))).is_err());
        drop(written);
        let read = buffer.read(0..4);
        drop(buffer.read(1..2));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(buffer.write(3..4)))).is_err());
        drop(read);
        drop(buffer.write(0..4));
    }

    #[test]
    fn writers_of_other_panels_share_a_tile_and_nobody_else_does() {
        let buffer = SharedBuffer::<f32>::of_pixels(3, 2 * 70, 70);
        let (mut first, mut others) = (buffer.write_part(1..3, Some(0..1)), buffer.write_part(0..3, Some(1..3)));
        first.target(4).panel_mut((5, 1), 0, 32).fill(1.0);
        others.target(4).panel_mut((5, 1), 2, 6).fill(2.0);
        let conflicts: [&dyn Fn(); 4] = [
            &|| drop(buffer.write_part(0..1, Some(2..3))),
            &|| drop(buffer.write_part(2..3, None)),
            &|| drop(buffer.read(2..3)),
            &|| drop(buffer.write(0..1)),
        ];
        for conflict in conflicts {
            assert!(catch_unwind(AssertUnwindSafe(conflict)).is_err());
        }
        drop(buffer.write_part(0..1, Some(0..1)));
        drop((first, others));
        let all = buffer.write(0..3);
        let (row, pixel) = (2 * 70, 70);
        assert_eq!(all[row + pixel + 64..2 * row], [2.0; 6]);
        assert_eq!(all[2 * row + pixel..2 * row + pixel + 32], [1.0; 32]);
        assert_eq!(all.iter().sum::<f32>(), 6.0 * 2.0 + 32.0);
    }
}
