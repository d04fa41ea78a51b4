//! Memory that somebody will use soon.
#![forbid(unsafe_code)]

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
