//! Instruction sets: which there are, which this machine and this build have, and which one is in force.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::ffi;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A tier of kernels. Within an architecture, a later one is preferred; those whose [`Isa::base`] is another one, only for bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Rust with the `wide` crate; everywhere.
    Portable,
    /// 128-bit vectors of aarch64.
    Neon,
    /// [`Isa::Neon`] with products of blocks of bf16 (`FEAT_BF16`): in f32 the same kernels. Of use to the feature `bf16` alone.
    NeonBf16,
    /// 256-bit vectors with fused multiply-add of x86-64.
    Avx2,
    /// 512-bit vectors of x86-64 (F, VL, BW, DQ).
    Avx512,
    /// [`Isa::Avx512`] with dot products of pairs of bf16 (`AVX512_BF16`): in f32 the same kernels. Of use to the feature `bf16` alone.
    Avx512Bf16,
    /// [`Isa::Avx512Bf16`] with the tile unit (`AMX_TILE`, `AMX_BF16`) for convolutions of bf16 and gradients of their matrices, where Linux
    /// lets the process use it.
    Amx,
}

impl Isa {
    /// Every tier, portable first.
    pub const ALL: [Isa; 7] = [Isa::Portable, Isa::Neon, Isa::NeonBf16, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The word used in kernel names, in `LEANRESNET_ISA` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::NeonBf16 => "neonbf16",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// The tier whose f32 kernels this one runs: itself, but for tiers that only add kernels of lower precision to another one's.
    #[must_use]
    pub fn base(self) -> Isa {
        self.layers()[0]
    }

    /// The tiers whose kernels make up this one's, each in the place of those before it: a [`base`](Self::base), and what adds to it.
    pub(crate) fn layers(self) -> &'static [Isa] {
        match self {
            Isa::Portable => &[Isa::Portable],
            Isa::Neon => &[Isa::Neon],
            Isa::NeonBf16 => &[Isa::Neon, Isa::NeonBf16],
            Isa::Avx2 => &[Isa::Avx2],
            Isa::Avx512 => &[Isa::Avx512],
            Isa::Avx512Bf16 => &[Isa::Avx512, Isa::Avx512Bf16],
            Isa::Amx => &[Isa::Avx512, Isa::Avx512Bf16, Isa::Amx],
        }
    }

    /// True if this build has kernels for the tier and this machine can run them.
    pub fn is_available(self) -> bool {
        // Miri cannot run C.
        if cfg!(miri) {
            return self == Isa::Portable;
        }
        let has_kernels =
            |isa: Isa| isa == Isa::Portable || (ffi::KERNELS.iter().any(|kernel| kernel.isa == isa) && ffi::detected(isa));
        self.layers().iter().copied().all(has_kernels)
    }

    /// The tiers that can run here, portable first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The best available tier for f32, or the one that the environment variable `LEANRESNET_ISA` forces. Read once.
    ///
    /// # Errors
    /// [`Error::Isa`] if the variable names an unknown or unavailable tier: it is never ignored.
    pub fn active() -> Result<Isa> {
        static ACTIVE: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        let active = ACTIVE.get_or_init(|| match std::env::var_os("LEANRESNET_ISA") {
            Some(name) => {
                let name = name.to_string_lossy().into_owned();
                name.parse::<Isa>().ok().filter(|isa| isa.is_available()).ok_or(name)
            }
            // In this order: only who wants bf16 asks the operating system for the tile unit.
            None => {
                Ok(Isa::ALL.into_iter().filter(|isa| isa.base() == *isa && isa.is_available()).max().unwrap_or(Isa::Portable))
            }
        });
        active.clone().map_err(|requested| unavailable(&requested))
    }

    /// This tier if it can run here.
    ///
    /// # Errors
    /// [`Error::Isa`] with the names that would work.
    pub fn require(self) -> Result<Isa> {
        if self.is_available() { Ok(self) } else { Err(unavailable(self.name())) }
    }
}

fn unavailable(requested: &str) -> Error {
    let names: Vec<&str> = Isa::available().map(Isa::name).collect();
    Error::Isa { requested: requested.to_string(), available: names.join(", ") }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| unavailable(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        let error = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("`sse9`") && error.contains("portable"), "{error}");
    }

    #[test]
    fn portable_is_always_available() {
        assert!(Isa::Portable.is_available());
    }
}
