//! CRC-64/XZ, the checksum of model files and checkpoints.
//!
//! Polynomial of ECMA-182, reflected, initial value and final xor all ones: the check that .xz files carry. A cyclic code finds every
//! change within 64 neighbouring bits for certain and any other damage but for one in 2^64; it is no protection against intent.
#![forbid(unsafe_code)]

const REFLECTED_POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

/// `TABLES[0]` advances by one byte; `TABLES[i]` by one byte followed by `i` zero bytes, so that eight bytes take eight
/// independent look-ups.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            remainder = if remainder & 1 == 1 { (remainder >> 1) ^ REFLECTED_POLYNOMIAL } else { remainder >> 1 };
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[zeros - 1][byte];
            tables[zeros][byte] = (shorter >> 8) ^ tables[0][(shorter & 0xFF) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// A checksum over bytes that come in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Crc64 {
    remainder: u64,
}

impl Crc64 {
    pub(crate) fn new() -> Self {
        Self { remainder: !0 }
    }

    /// Takes the next bytes; how the whole is cut into pieces does not matter.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let mixed = (self.remainder ^ u64::from_le_bytes(*word)).to_le_bytes();
            self.remainder = mixed.iter().zip(TABLES.iter().rev()).fold(0, |sum, (&byte, table)| sum ^ table[byte as usize]);
        }
        for &byte in rest {
            self.remainder = (self.remainder >> 8) ^ TABLES[0][((self.remainder as u8) ^ byte) as usize];
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        !self.remainder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc64(bytes: &[u8]) -> u64 {
        let mut crc = Crc64::new();
        crc.update(bytes);
        crc.finish()
    }

    /// The check value of CRC-64/XZ in the catalogue of parametrised CRC algorithms.
    #[test]
    fn published_vectors() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn eight_bytes_at_once_equal_one_bit_at_a_time() {
        let bytes: Vec<u8> = (0..200_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for length in 0..bytes.len() {
            let mut remainder = !0_u64;
            for byte in &bytes[..length] {
                remainder ^= u64::from(*byte);
                for _ in 0..8 {
                    remainder = (remainder >> 1) ^ if remainder & 1 == 1 { REFLECTED_POLYNOMIAL } else { 0 };
                }
            }
            assert_eq!(crc64(&bytes[..length]), !remainder, "{length} bytes");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes = b"a model is one file whose checksum covers header and data";
        for cut in 0..bytes.len() {
            let mut crc = Crc64::new();
            crc.update(&bytes[..cut]);
            crc.update(&bytes[cut..]);
            assert_eq!(crc.finish(), crc64(bytes));
        }
    }
}
