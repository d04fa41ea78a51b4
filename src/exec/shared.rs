//! Memory that tasks on several threads write at the same time, each its own tiles.
//!
//! A buffer is cut into tiles of equal length. A task borrows runs of tiles to read or to write; every tile carries the state of
//! a read-write lock, so that two tasks that claim the same tile in conflict are a panic and never a race. Nothing ever waits.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicU32, Ordering};

use aligned_vec::{AVec, ConstAlign};

/// State of a tile that is being written; any other value counts its readers.
const WRITTEN: u32 = u32::MAX;

/// A buffer of tiles, aligned to cache lines.
pub(crate) struct SharedBuffer<T> {
    /// Owns the memory; only its address is used after construction.
    memory: UnsafeCell<AVec<T, ConstAlign<64>>>,
    address: *mut T,
    tile: usize,
    states: Box<[AtomicU32]>,
}

// SAFETY: the memory is reached only through `Read` and `Write`, whose tiles are exclusive to a writer or shared by readers,
// as `states` makes sure with acquire and release ordering; T itself may cross threads.
unsafe impl<T: Send + Sync> Sync for SharedBuffer<T> {}
// SAFETY: the buffer owns its memory; `address` points into it and moves with it.
unsafe impl<T: Send> Send for SharedBuffer<T> {}

impl<T: Copy + Default> SharedBuffer<T> {
    /// `tiles` tiles of `tile` default values each.
    pub(crate) fn new(tiles: usize, tile: usize) -> Self {
        let mut memory = AVec::from_iter(64, std::iter::repeat_n(T::default(), tiles * tile));
        let address = memory.as_mut_ptr();
        SharedBuffer { memory: UnsafeCell::new(memory), address, tile, states: (0..tiles).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Elements of a tile.
    pub(crate) fn tile(&self) -> usize {
        self.tile
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.states.len()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.tiles() * (self.tile * size_of::<T>() + size_of::<AtomicU32>())
    }

    /// Borrows tiles to read.
    ///
    /// # Panics
    /// If one of them is being written, or does not exist: a defect of the plan.
    pub(crate) fn read(&self, tiles: Range<usize>) -> Read<'_, T> {
        for (index, state) in self.states[tiles.clone()].iter().enumerate() {
            let claimed = state
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, |readers| readers.checked_add(1).filter(|&n| n < WRITTEN));
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
        for (index, state) in self.states[tiles.clone()].iter().enumerate() {
            if state.compare_exchange(0, WRITTEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
                release_writer(&self.states[tiles.start..tiles.start + index]);
                panic!("tile {} is written while it is borrowed", tiles.start + index);
            }
        }
        Write { buffer: self, tiles }
    }
}

fn release_readers(states: &[AtomicU32]) {
    for state in states {
        state.fetch_sub(1, Ordering::Release);
    }
}

fn release_writer(states: &[AtomicU32]) {
    for state in states {
        state.store(0, Ordering::Release);
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
        // the borrow; while their states say `WRITTEN`, nobody else has them, and `self` is borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.address.add(self.tiles.start * tile), self.tiles.len() * tile) }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        release_writer(&self.buffer.states[self.tiles.clone()]);
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
}
