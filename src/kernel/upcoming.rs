//! Memory that somebody will use soon, which kernels fetch while they compute.
#![forbid(unsafe_code)]

use crate::ffi::{LEAN_FETCHES, LEAN_RESIDUAL, LeanConvArgs};

/// A run of memory that kernels bring into the second level of cache while they compute. Only its address is used: nothing is
/// borrowed, read or written, and any address will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upcoming {
    address: usize,
    bytes: usize,
}

impl Upcoming {
    /// `bytes` bytes from an address on.
    pub fn new(address: usize, bytes: usize) -> Self {
        Upcoming { address, bytes }
    }

    /// Length in bytes; 0 for nothing.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the other one begins at the same address.
    pub fn is_at(&self, other: Upcoming) -> bool {
        self.address == other.address
    }

    /// The same, at most `bytes` long.
    #[must_use]
    pub fn first(self, bytes: usize) -> Self {
        Upcoming { bytes: self.bytes.min(bytes), ..self }
    }

    /// The address of a byte.
    pub(crate) fn at(&self, byte: usize) -> u64 {
        self.address.wrapping_add(byte) as u64
    }
}

/// What to fetch into the second level of cache while a convolution computes, spread evenly over the call: first output and residual,
/// then one run of memory after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Output and residual of the pixels after those that are being computed, where they lie side by side: worth it where these tensors
    /// come from beyond that cache.
    pub output: bool,
    /// What is wanted after the call.
    pub upcoming: [Upcoming; UPCOMING],
}

/// Runs of memory that a call can fetch besides output and residual.
pub const UPCOMING: usize = LEAN_FETCHES as usize - OWN_FETCHES;

/// Output and residual.
const OWN_FETCHES: usize = 2;

/// Bytes of a cache line, as the kernels count them.
const LINE: usize = 64;

impl Ahead {
    /// Sets what a run fetches that computes `count` of the call's `total` pixels from number `done` on.
    pub(super) fn set<T>(&self, args: &mut LeanConvArgs, (done, count, total): (usize, usize, usize)) {
        if *self == Ahead::default() {
            return;
        }
        if self.output {
            let following = (total - done - count).min(count);
            let has_residual = args.flags & u64::from(LEAN_RESIDUAL) != 0 && args.residual != args.y.cast_const();
            let own = [(args.y.cast_const(), args.y_step, true), (args.residual, args.residual_step, has_residual)];
            for (index, (first, step, is_used)) in own.into_iter().enumerate() {
                let step = step as usize * size_of::<T>();
                args.fetch[index] = (first.addr() + count * step) as u64;
                args.fetch_lines[index] = if is_used { (following * step / LINE) as u64 } else { 0 };
            }
        }
        for (index, upcoming) in self.upcoming.iter().enumerate() {
            let (first, end) = (upcoming.bytes() * done / total, upcoming.bytes() * (done + count) / total);
            args.fetch[OWN_FETCHES + index] = upcoming.at(first);
            args.fetch_lines[OWN_FETCHES + index] = ((end - first) / LINE) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_in_bytes() {
        assert_eq!(Upcoming::new(1024, 700).first(512), Upcoming::new(1024, 512));
        assert_eq!(Upcoming::new(1024, 700).at(64), 1088);
        assert_eq!(Upcoming::new(1024, 0).first(512).bytes(), 0);
    }
}
