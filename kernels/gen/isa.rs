// The table of instruction sets: one row says how to compile for it, how to detect it and what its registers are.

/// What one instruction of a convolution's sum over inputs multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// An input, or a pair of inputs, in all lanes by a vector of channels.
    Broadcast,
    /// One lane of a vector of inputs by a vector of channels: no broadcasts needed.
    Lane,
    /// Four inputs of two pixels by four inputs of two channels.
    Block,
    /// Tiles of 16 rows of 64 bytes, outside of the vector registers.
    Tile,
}

impl Products {
    /// The word that templates compare with.
    pub fn word(self) -> &'static str {
        match self {
            Products::Broadcast => "broadcast",
            Products::Lane => "lane",
            Products::Block => "block",
            Products::Tile => "tile",
        }
    }
}

/// One instruction set with generated kernels.
pub struct Isa {
    /// The word used in kernel names, file names and `LEANRESNET_ISA`.
    pub name: &'static str,
    /// `CARGO_CFG_TARGET_ARCH` of the targets that can have it.
    pub arch: &'static str,
    /// The variant of `leanresnet::Isa`.
    pub variant: &'static str,
    /// Lanes of f32 in a register.
    pub lanes: usize,
    /// Vector registers.
    pub registers: usize,
    /// Flags for gcc and clang. Explicit, so that no flag of the build machine leaks in.
    pub flags: &'static [&'static str],
    /// Flags for the compilers that know them.
    pub tuning: &'static [&'static str],
    /// What the processor must report, in the words of `is_x86_feature_detected!` (which also asks the operating system) and
    /// `is_aarch64_feature_detected!`.
    pub features: &'static [&'static str],
    /// What else `src/ffi` must allow: a function there without arguments.
    pub permission: Option<&'static str>,
    /// The type of its kernels: f32, or bf16 of tiers that only add to another one (`Isa::layers` of the library says to which).
    pub dtype: &'static str,
    /// How convolutions multiply.
    pub products: Products,
}

/// Before registers are given out, gcc 12 would move the loads of a step before its first product, put accumulators on the stack for them,
/// and bring products of the same sum together, each of which waits for the one before.
const NEON_TUNING: &[&str] = &["-fno-schedule-insns"];

/// For want of general registers, gcc's generic tuning keeps addresses in vector and mask registers, which it moves through the ports of
/// multiply-adds. The tuning for server Intel keeps them on the stack. Every compiler with AVX-512 knows it, and gcc 12 makes the same code of
/// it as of the one for Sapphire Rapids.
const AVX512_TUNING: &[&str] = &["-mtune=skylake-avx512"];

/// The same for kernels of the tile unit, and no vectors of addresses, which would take the same ports; at -O3 gcc puts vectors on the
/// stack in the loops over columns.
const TILE_TUNING: &[&str] = &["-mtune=sapphirerapids", "-O2", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"];

/// AVX-512 with dot products of bf16: of its own tier, and of the vectors beside tiles.
const AVX512_BF16_FLAGS: &[&str] =
    &["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx512bf16", "-mavx2", "-mfma", "-mprefer-vector-width=512"];
const AVX512_BF16_FEATURES: &[&str] = &["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512bf16", "avx2", "fma"];

/// Every instruction set, in ascending order of preference within an architecture.
pub const ISAS: &[Isa] = &[
    Isa {
        name: "neon",
        arch: "aarch64",
        variant: "Neon",
        lanes: 4,
        registers: 32,
        flags: &[],
        tuning: NEON_TUNING,
        features: &["neon"],
        permission: None,
        dtype: "f32",
        products: Products::Lane,
    },
    Isa {
        name: "neonbf16",
        arch: "aarch64",
        variant: "NeonBf16",
        lanes: 4,
        registers: 32,
        flags: &["-march=armv8.2-a+bf16"],
        tuning: NEON_TUNING,
        features: &["neon", "bf16"],
        permission: None,
        dtype: "bf16",
        products: Products::Block,
    },
    Isa {
        name: "avx2",
        arch: "x86_64",
        variant: "Avx2",
        lanes: 8,
        registers: 16,
        flags: &["-mavx2", "-mfma"],
        tuning: &[],
        features: &["avx2", "fma"],
        permission: None,
        dtype: "f32",
        products: Products::Broadcast,
    },
    Isa {
        name: "avx512",
        arch: "x86_64",
        variant: "Avx512",
        lanes: 16,
        registers: 32,
        flags: &["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma", "-mprefer-vector-width=512"],
        tuning: AVX512_TUNING,
        features: &["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma"],
        permission: None,
        dtype: "f32",
        products: Products::Broadcast,
    },
    Isa {
        name: "avx512bf16",
        arch: "x86_64",
        variant: "Avx512Bf16",
        lanes: 16,
        registers: 32,
        flags: AVX512_BF16_FLAGS,
        tuning: AVX512_TUNING,
        features: AVX512_BF16_FEATURES,
        permission: None,
        dtype: "bf16",
        products: Products::Broadcast,
    },
    Isa {
        name: "amx",
        arch: "x86_64",
        variant: "Amx",
        lanes: 16,
        registers: 32,
        flags: AVX512_BF16_FLAGS,
        tuning: TILE_TUNING,
        features: AVX512_BF16_FEATURES,
        permission: Some("tiles::are_permitted"),
        dtype: "bf16",
        products: Products::Tile,
    },
];

/// The row of one instruction set.
pub fn isa(name: &str) -> Option<&'static Isa> {
    ISAS.iter().find(|isa| isa.name == name)
}
