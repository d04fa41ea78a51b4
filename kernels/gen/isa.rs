// The table of instruction sets: one row says how to compile for it, how to detect it and what its registers are.

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
    /// What the processor must report, in the words of `is_x86_feature_detected!` (which also asks the operating system).
    pub features: &'static [&'static str],
    /// What else `src/ffi` must allow: a function there without arguments.
    pub permission: Option<&'static str>,
    /// For a tier that only adds kernels of lower precision to those of another one: that one.
    pub base: Option<&'static str>,
    /// True if convolutions run on a unit that multiplies tiles of 16 x 64 bytes, outside of the vector registers.
    pub tile_unit: bool,
    /// True if a multiplication can take one lane of a register as its factor (no broadcasts needed).
    pub lane_fma: bool,
}

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
        features: &["neon"],
        permission: None,
        base: None,
        tile_unit: false,
        lane_fma: true,
    },
    Isa {
        name: "avx2",
        arch: "x86_64",
        variant: "Avx2",
        lanes: 8,
        registers: 16,
        flags: &["-mavx2", "-mfma"],
        features: &["avx2", "fma"],
        permission: None,
        base: None,
        tile_unit: false,
        lane_fma: false,
    },
    Isa {
        name: "avx512",
        arch: "x86_64",
        variant: "Avx512",
        lanes: 16,
        registers: 32,
        flags: &["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma", "-mprefer-vector-width=512"],
        features: &["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma"],
        permission: None,
        base: None,
        tile_unit: false,
        lane_fma: false,
    },
    Isa {
        name: "avx512bf16",
        arch: "x86_64",
        variant: "Avx512Bf16",
        lanes: 16,
        registers: 32,
        flags: AVX512_BF16_FLAGS,
        features: AVX512_BF16_FEATURES,
        permission: None,
        base: Some("avx512"),
        tile_unit: false,
        lane_fma: false,
    },
    Isa {
        name: "amx",
        arch: "x86_64",
        variant: "Amx",
        lanes: 16,
        registers: 32,
        flags: AVX512_BF16_FLAGS,
        features: AVX512_BF16_FEATURES,
        permission: Some("tiles::are_permitted"),
        base: Some("avx512bf16"),
        tile_unit: true,
        lane_fma: false,
    },
];

/// The row of one instruction set.
pub fn isa(name: &str) -> Option<&'static Isa> {
    ISAS.iter().find(|isa| isa.name == name)
}
