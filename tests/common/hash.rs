//! The 64-bit FNV-1a hash (Fowler, Noll, Vo) of bit patterns, for goldens.
#![forbid(unsafe_code)]

/// A hash that is being computed.
#[derive(Clone, Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    /// The hash of nothing.
    pub(crate) fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    /// The hash of some values, with one pattern for all NaN.
    pub(crate) fn of(values: &[f32]) -> u64 {
        let mut hash = Hash::new();
        hash.add_values(values);
        hash.value()
    }

    /// Adds values, with one pattern for all NaN.
    pub(crate) fn add_values(&mut self, values: &[f32]) {
        for value in values {
            self.add(if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }.into(), 4);
        }
    }

    /// Adds values in double precision, with one pattern for all NaN.
    pub(crate) fn add_doubles(&mut self, values: &[f64]) {
        for value in values {
            self.add(if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }, 8);
        }
    }

    /// Adds the lowest `bytes` bytes of a number.
    pub(crate) fn add(&mut self, bits: u64, bytes: usize) {
        for byte in &bits.to_le_bytes()[..bytes] {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash of all that was added.
    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}
