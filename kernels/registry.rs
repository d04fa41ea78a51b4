// The only list of kernels. One row is one kernel: its C unit, prototype, dispatch row, tests and bench id all come from it.
// Included by the generator, which build.rs and tests/codegen.rs include.

/// One kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it computes; also names its template.
    pub op: &'static str,
    /// The instruction set: a name of the ISA table.
    pub isa: &'static str,
    /// The stencil, for kernels that are specialised for one.
    pub spatial: Option<&'static str>,
    /// Rows and columns of the output block held in registers; elementwise kernels: 0 rows and the lanes.
    pub tile: (usize, usize),
    /// False for candidates, which only the feature `all-kernels` compiles.
    pub ship: bool,
}

const fn tiled(op: &'static str, isa: &'static str, rows: usize, columns: usize) -> Row {
    Row { op, isa, spatial: None, tile: (rows, columns), ship: true }
}

const fn stencil(op: &'static str, isa: &'static str, spatial: &'static str, rows: usize, columns: usize) -> Row {
    Row { op, isa, spatial: Some(spatial), tile: (rows, columns), ship: true }
}

const fn elementwise(op: &'static str, isa: &'static str, lanes: usize) -> Row {
    Row { op, isa, spatial: None, tile: (0, lanes), ship: true }
}

/// All kernels, by instruction set and then by operator.
pub const ROWS: &[Row] = &[
    stencil("fused", "avx512", "cross4", 14, 32),
    stencil("fused", "avx512", "cross5", 14, 32),
    stencil("fused", "avx512", "box9", 14, 32),
    tiled("dense", "avx512", 14, 32),
    tiled("weightgradient", "avx512", 12, 32),
    stencil("stencilgradient", "avx512", "cross4", 0, 16),
    stencil("stencilgradient", "avx512", "cross5", 0, 16),
    stencil("stencilgradient", "avx512", "box9", 0, 16),
    elementwise("normalize", "avx512", 16),
    elementwise("statistics", "avx512", 16),
    elementwise("gradientstatistics", "avx512", 16),
    elementwise("normgradient", "avx512", 16),
    elementwise("relugradient", "avx512", 16),
    elementwise("accumulate", "avx512", 16),
    elementwise("pool", "avx512", 16),
    elementwise("unpool", "avx512", 16),
    elementwise("globalpool", "avx512", 16),
    elementwise("spread", "avx512", 16),
    elementwise("momentum", "avx512", 16),
    elementwise("peak", "avx512", 16),
    stencil("fused", "avx2", "cross4", 6, 16),
    stencil("fused", "avx2", "cross5", 6, 16),
    stencil("fused", "avx2", "box9", 6, 16),
    tiled("dense", "avx2", 6, 16),
    tiled("weightgradient", "avx2", 6, 16),
    stencil("stencilgradient", "avx2", "cross4", 0, 8),
    stencil("stencilgradient", "avx2", "cross5", 0, 8),
    stencil("stencilgradient", "avx2", "box9", 0, 8),
    elementwise("normalize", "avx2", 8),
    elementwise("statistics", "avx2", 8),
    elementwise("gradientstatistics", "avx2", 8),
    elementwise("normgradient", "avx2", 8),
    elementwise("relugradient", "avx2", 8),
    elementwise("accumulate", "avx2", 8),
    elementwise("pool", "avx2", 8),
    elementwise("unpool", "avx2", 8),
    elementwise("globalpool", "avx2", 8),
    elementwise("spread", "avx2", 8),
    elementwise("momentum", "avx2", 8),
    elementwise("peak", "avx2", 8),
    stencil("fused", "neon", "cross4", 8, 8),
    stencil("fused", "neon", "cross5", 8, 8),
    stencil("fused", "neon", "box9", 8, 8),
    tiled("dense", "neon", 8, 8),
    tiled("weightgradient", "neon", 8, 8),
    stencil("stencilgradient", "neon", "cross4", 0, 4),
    stencil("stencilgradient", "neon", "cross5", 0, 4),
    stencil("stencilgradient", "neon", "box9", 0, 4),
    elementwise("normalize", "neon", 4),
    elementwise("statistics", "neon", 4),
    elementwise("gradientstatistics", "neon", 4),
    elementwise("normgradient", "neon", 4),
    elementwise("relugradient", "neon", 4),
    elementwise("accumulate", "neon", 4),
    elementwise("pool", "neon", 4),
    elementwise("unpool", "neon", 4),
    elementwise("globalpool", "neon", 4),
    elementwise("spread", "neon", 4),
    elementwise("momentum", "neon", 4),
    elementwise("peak", "neon", 4),
];
