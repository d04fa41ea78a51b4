// The only list of kernels. One row is one kernel: its C unit, prototype, dispatch row, tests and bench id all come from it.
// Included by the generator, which build.rs and tests/codegen.rs include.

/// One kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it computes; also names its template.
    pub op: &'static str,
    /// The type of inputs, matrix and outputs: a word of `DTYPES`. Sums are f32.
    pub dtype: &'static str,
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
    Row { op, dtype: "f32", isa, spatial: None, tile: (rows, columns), ship: true }
}

const fn stencil(op: &'static str, isa: &'static str, spatial: &'static str, rows: usize, columns: usize) -> Row {
    Row { op, dtype: "f32", isa, spatial: Some(spatial), tile: (rows, columns), ship: true }
}

const fn elementwise(op: &'static str, isa: &'static str, lanes: usize) -> Row {
    Row { op, dtype: "f32", isa, spatial: None, tile: (0, lanes), ship: true }
}

/// A row that only the feature `all-kernels` compiles.
const fn candidate(row: Row) -> Row {
    Row { ship: false, ..row }
}

/// A row whose inputs, matrix and outputs are bf16.
const fn bf16(row: Row) -> Row {
    Row { dtype: "bf16", ..row }
}

/// The rows of every tier, one tier after the other, and then single rows.
///
/// A tier: instruction set, lanes of f32, tiles of convolutions, of grouped ones (which need a register for the order of lanes, and of 14 x
/// 32 put vectors on the stack), of the gradient of a matrix (rows, columns each).
macro_rules! registry {
    (tiers { $($isa:literal, $lanes:literal, ($rows:literal, $columns:literal), ($group_rows:literal, $group_columns:literal),
        ($gradient_rows:literal, $gradient_columns:literal);)* }
     single { $($row:expr;)* }) => {
        &[
            $(
                stencil("fused", $isa, "cross4", $rows, $columns),
                stencil("fused", $isa, "cross5", $rows, $columns),
                stencil("fused", $isa, "box9", $rows, $columns),
                stencil("fused", $isa, "row3", $rows, $columns),
                stencil("fused", $isa, "col3", $rows, $columns),
                stencil("fused", $isa, "box25", $rows, $columns),
                tiled("grouped", $isa, $group_rows, $group_columns),
                tiled("dense", $isa, $rows, $columns),
                tiled("weightgradient", $isa, $gradient_rows, $gradient_columns),
                stencil("stencilgradient", $isa, "cross4", 0, $lanes),
                stencil("stencilgradient", $isa, "cross5", 0, $lanes),
                stencil("stencilgradient", $isa, "box9", 0, $lanes),
                stencil("stencilgradient", $isa, "row3", 0, $lanes),
                stencil("stencilgradient", $isa, "col3", 0, $lanes),
                stencil("stencilgradient", $isa, "box25", 0, $lanes),
                elementwise("normalize", $isa, $lanes),
                elementwise("statistics", $isa, $lanes),
                elementwise("gradientstatistics", $isa, $lanes),
                elementwise("normgradient", $isa, $lanes),
                elementwise("relugradient", $isa, $lanes),
                elementwise("accumulate", $isa, $lanes),
                elementwise("scale", $isa, $lanes),
                elementwise("pool", $isa, $lanes),
                elementwise("unpool", $isa, $lanes),
                elementwise("globalpool", $isa, $lanes),
                elementwise("spread", $isa, $lanes),
                elementwise("momentum", $isa, $lanes),
                elementwise("peak", $isa, $lanes),
            )*
            $($row,)*
        ]
    };
}

/// All kernels. Of several rows for one operator the first one is in force.
pub const ROWS: &[Row] = registry! {
    tiers {
        "avx512", 16, (14, 32), (12, 32), (12, 32);
        "avx2", 8, (6, 16), (6, 16), (6, 16);
        "neon", 4, (8, 8), (8, 8), (8, 8);
    }
    // What one tier has alone, and candidates: other tiles, which the regret bench compares with the ones in force.
    single {
        bf16(stencil("fused", "avx512bf16", "cross4", 12, 32));
        bf16(stencil("fused", "avx512bf16", "cross5", 12, 32));
        bf16(stencil("fused", "avx512bf16", "box9", 12, 32));
        bf16(stencil("fused", "avx512bf16", "row3", 12, 32));
        bf16(stencil("fused", "avx512bf16", "col3", 12, 32));
        bf16(stencil("fused", "avx512bf16", "box25", 12, 32));
        bf16(tiled("dense", "avx512bf16", 12, 32));
        bf16(tiled("weightgradient", "avx512bf16", 14, 32));
        bf16(stencil("stencilgradient", "avx512bf16", "cross4", 0, 16));
        bf16(stencil("stencilgradient", "avx512bf16", "cross5", 0, 16));
        bf16(stencil("stencilgradient", "avx512bf16", "box9", 0, 16));
        bf16(stencil("stencilgradient", "avx512bf16", "row3", 0, 16));
        bf16(stencil("stencilgradient", "avx512bf16", "col3", 0, 16));
        bf16(stencil("stencilgradient", "avx512bf16", "box25", 0, 16));
        bf16(elementwise("normalize", "avx512bf16", 16));
        bf16(elementwise("statistics", "avx512bf16", 16));
        bf16(elementwise("gradientstatistics", "avx512bf16", 16));
        bf16(elementwise("normgradient", "avx512bf16", 16));
        bf16(elementwise("relugradient", "avx512bf16", 16));
        bf16(elementwise("scale", "avx512bf16", 16));
        bf16(elementwise("pool", "avx512bf16", 16));
        bf16(elementwise("unpool", "avx512bf16", 16));
        bf16(elementwise("globalpool", "avx512bf16", 16));
        bf16(elementwise("spread", "avx512bf16", 16));
        candidate(stencil("fused", "avx512", "cross5", 12, 32));
        candidate(stencil("fused", "avx512", "cross5", 8, 32));
        candidate(stencil("fused", "avx512", "cross5", 16, 16));
        candidate(tiled("dense", "avx512", 12, 32));
        candidate(tiled("dense", "avx512", 8, 32));
        candidate(stencil("fused", "avx2", "cross5", 12, 8));
        candidate(stencil("fused", "avx2", "cross5", 5, 16));
        candidate(stencil("fused", "avx2", "cross5", 4, 16));
        candidate(tiled("dense", "avx2", 12, 8));
        candidate(tiled("dense", "avx2", 4, 16));
        candidate(stencil("fused", "neon", "cross5", 5, 16));
        candidate(tiled("dense", "neon", 5, 16));
    }
};
