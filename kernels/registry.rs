// The only list of kernels. One row is one kernel: its C unit, prototype, dispatch row, tests and bench id all come from it.
// Included by the generator, which build.rs and tests/codegen.rs include.

/// One kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it computes; also names its template.
    pub op: &'static str,
    /// The types of inputs, matrix and outputs: a word of `DTYPES`. Sums are f32.
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

/// A row whose inputs and outputs are f32, and whose products are three of bf16.
const fn bf16x3(row: Row) -> Row {
    Row { dtype: "bf16x3", ..row }
}

/// The rows of every tier, one tier after the other, then those of tiers of bf16, of tile units, and single rows.
///
/// A tier: instruction set, lanes of f32, tiles of convolutions, of grouped ones (which need a register for the order of lanes, and of 14 x
/// 32 put vectors on the stack), of the gradient of a matrix (rows, columns each). Tiers of bf16 have no grouped ones, and tile units only
/// convolutions, also of f32 in three products of bf16, and the gradient of a matrix.
macro_rules! registry {
    (tiers { $($isa:literal, $lanes:literal, ($rows:literal, $columns:literal), ($group_rows:literal, $group_columns:literal),
        ($gradient_rows:literal, $gradient_columns:literal);)* }
     bf16 { $($half_isa:literal, $half_lanes:literal, ($half_rows:literal, $half_columns:literal),
        ($half_gradient_rows:literal, $half_gradient_columns:literal);)* }
     tile_units { $($unit:literal, ($unit_rows:literal, $unit_columns:literal);)* }
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
                tiled("loadpeak", $isa, $rows, $columns),
            )*
            $(
                bf16(stencil("fused", $half_isa, "cross4", $half_rows, $half_columns)),
                bf16(stencil("fused", $half_isa, "cross5", $half_rows, $half_columns)),
                bf16(stencil("fused", $half_isa, "box9", $half_rows, $half_columns)),
                bf16(stencil("fused", $half_isa, "row3", $half_rows, $half_columns)),
                bf16(stencil("fused", $half_isa, "col3", $half_rows, $half_columns)),
                bf16(stencil("fused", $half_isa, "box25", $half_rows, $half_columns)),
                bf16(tiled("dense", $half_isa, $half_rows, $half_columns)),
                bf16(tiled("weightgradient", $half_isa, $half_gradient_rows, $half_gradient_columns)),
                bf16(stencil("stencilgradient", $half_isa, "cross4", 0, $half_lanes)),
                bf16(stencil("stencilgradient", $half_isa, "cross5", 0, $half_lanes)),
                bf16(stencil("stencilgradient", $half_isa, "box9", 0, $half_lanes)),
                bf16(stencil("stencilgradient", $half_isa, "row3", 0, $half_lanes)),
                bf16(stencil("stencilgradient", $half_isa, "col3", 0, $half_lanes)),
                bf16(stencil("stencilgradient", $half_isa, "box25", 0, $half_lanes)),
                bf16(elementwise("normalize", $half_isa, $half_lanes)),
                bf16(elementwise("statistics", $half_isa, $half_lanes)),
                bf16(elementwise("gradientstatistics", $half_isa, $half_lanes)),
                bf16(elementwise("normgradient", $half_isa, $half_lanes)),
                bf16(elementwise("relugradient", $half_isa, $half_lanes)),
                bf16(elementwise("scale", $half_isa, $half_lanes)),
                bf16(elementwise("pool", $half_isa, $half_lanes)),
                bf16(elementwise("unpool", $half_isa, $half_lanes)),
                bf16(elementwise("globalpool", $half_isa, $half_lanes)),
                bf16(elementwise("spread", $half_isa, $half_lanes)),
            )*
            $(
                bf16(stencil("fused", $unit, "cross4", $unit_rows, $unit_columns)),
                bf16(stencil("fused", $unit, "cross5", $unit_rows, $unit_columns)),
                bf16(stencil("fused", $unit, "box9", $unit_rows, $unit_columns)),
                bf16(stencil("fused", $unit, "row3", $unit_rows, $unit_columns)),
                bf16(stencil("fused", $unit, "col3", $unit_rows, $unit_columns)),
                bf16(stencil("fused", $unit, "box25", $unit_rows, $unit_columns)),
                bf16(tiled("dense", $unit, $unit_rows, $unit_columns)),
                bf16(tiled("weightgradient", $unit, $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "cross4", $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "cross5", $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "box9", $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "row3", $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "col3", $unit_rows, $unit_columns)),
                bf16x3(stencil("fused", $unit, "box25", $unit_rows, $unit_columns)),
                bf16x3(tiled("dense", $unit, $unit_rows, $unit_columns)),
            )*
            $($row,)*
        ]
    };
}

/// All kernels. Of several rows for one operator the first one is in force.
pub const ROWS: &[Row] = registry! {
    tiers {
        "avx512", 16, (14, 32), (12, 32), (6, 64);
        "avx2", 8, (6, 16), (6, 16), (6, 16);
        "neon", 4, (8, 8), (8, 8), (8, 8);
    }
    bf16 {
        "avx512bf16", 16, (12, 32), (14, 32);
        "neonbf16", 4, (6, 16), (6, 16);
    }
    tile_units {
        "amx", (32, 32);
    }
    // Candidates: other tiles, which the regret bench compares with the ones in force.
    single {
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
