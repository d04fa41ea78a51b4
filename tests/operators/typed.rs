//! Tensors of the types that kernels have, in guarded memory.
#![forbid(unsafe_code)]

use crate::common::guard::{CANARY, Edge, GuardedBuffer};
use half::bf16;
use leanresnet::internals::kernel::element::Element;

/// A type of tensors.
pub(crate) trait Typed: Element + bytemuck::Pod {
    /// Whether a value is what fresh memory holds at its place.
    fn is_fresh(self, at: usize) -> bool;
}

impl Typed for f32 {
    fn is_fresh(self, _: usize) -> bool {
        self.to_bits() == CANARY
    }
}

impl Typed for bf16 {
    fn is_fresh(self, at: usize) -> bool {
        self.to_bits() == [CANARY as u16, (CANARY >> 16) as u16][at % 2]
    }
}

/// Memory for so many values.
pub(crate) fn fresh<T: Typed>(count: usize, edge: Edge) -> GuardedBuffer {
    let bytes = count * size_of::<T>();
    assert!(bytes.is_multiple_of(size_of::<f32>()), "whole canaries");
    GuardedBuffer::new(bytes / size_of::<f32>(), edge)
}

/// The values, rounded to the type.
pub(crate) fn holding<T: Typed>(values: &[f32], edge: Edge) -> GuardedBuffer {
    let mut buffer = fresh::<T>(values.len(), edge);
    of_mut::<T>(&mut buffer).iter_mut().zip(values).for_each(|(to, value)| *to = T::nearest(*value));
    buffer
}

pub(crate) fn of<T: Typed>(buffer: &GuardedBuffer) -> &[T] {
    bytemuck::cast_slice(buffer)
}

pub(crate) fn of_mut<T: Typed>(buffer: &mut GuardedBuffer) -> &mut [T] {
    bytemuck::cast_slice_mut(buffer)
}

/// The values as f32; NaN where none was written.
pub(crate) fn widened<T: Typed>(buffer: &GuardedBuffer) -> Vec<f32> {
    let value = |(at, value): (usize, &T)| if value.is_fresh(at) { f32::NAN } else { value.widened() };
    of::<T>(buffer).iter().enumerate().map(value).collect()
}

/// The values that a type can hold.
pub(crate) fn rounded<T: Typed>(values: &mut [f32]) {
    for value in values {
        *value = T::nearest(*value).widened();
    }
}
