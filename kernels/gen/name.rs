// Kernel names: a grammar, written once.
//
//   lean_<op>_<dtype>_<isa>[_<spatial>[_s<stride>]]_<tile>
//
// op       a word of OPS; also the name of the template's branch
// dtype    f32 | bf16: of inputs, matrix and outputs; sums are f32
// spatial  cross4 | cross5 | box9 | row3 | col3 | box25, for kernels specialised for a stencil
// stride   for kernels that know one stride alone: s1; to the others a stride is a step in their arguments
// tile     <rows>x<columns> of the output block held in registers, or v<lanes> for kernels without a block
//
// File = symbol = row = test = bench id; the linker's symbol also carries the crate's version.

use super::isa;
use super::registry::Row;

/// Every operator with its template's file.
pub const OPS: &[(&str, &str)] = &[
    ("fused", "conv.c.in"),
    ("grouped", "conv.c.in"),
    ("dense", "conv.c.in"),
    ("weightgradient", "weightgradient.c.in"),
    ("stencilgradient", "stencilgradient.c.in"),
    ("normalize", "elementwise.c.in"),
    ("statistics", "elementwise.c.in"),
    ("gradientstatistics", "elementwise.c.in"),
    ("normgradient", "elementwise.c.in"),
    ("relugradient", "elementwise.c.in"),
    ("accumulate", "elementwise.c.in"),
    ("scale", "elementwise.c.in"),
    ("pool", "elementwise.c.in"),
    ("unpool", "elementwise.c.in"),
    ("globalpool", "elementwise.c.in"),
    ("spread", "elementwise.c.in"),
    ("momentum", "elementwise.c.in"),
    ("peak", "elementwise.c.in"),
    ("loadpeak", "loadpeak.c.in"),
];

/// Types of inputs, matrix, sums and outputs.
///
/// | word | inputs, residual, outputs | matrix | sums |
/// |---|---|---|---|
/// | f32 | f32 | f32 | f32 |
/// | bf16 | bf16 | bf16 | f32 |
/// | bf16x3 | f32, multiplied as hi + lo of bf16 | hi and lo of bf16 | f32 |
pub const DTYPES: &[&str] = &["f32", "bf16", "bf16x3"];

/// The file of a row's template.
pub fn template(row: &Row) -> Option<&'static str> {
    let (_, file) = OPS.iter().find(|(op, _)| *op == row.op)?;
    let has_tiles = isa::isa(row.isa).is_some_and(|isa| isa.products == isa::Products::Tile);
    Some(match (row.dtype, *file) {
        ("bf16x3", "conv.c.in") if has_tiles => "convsplit.c.in",
        ("bf16", "conv.c.in") if has_tiles => "convtiles.c.in",
        ("bf16", "conv.c.in") => "convbf16.c.in",
        ("bf16", "weightgradient.c.in") if has_tiles => "weightgradienttiles.c.in",
        ("bf16", "weightgradient.c.in") => "weightgradientbf16.c.in",
        (_, file) => file,
    })
}

/// The name of a row's kernel.
pub fn format(row: &Row) -> String {
    let spatial = row.spatial.map_or(String::new(), |spatial| format!("_{spatial}{}", stride(row.op)));
    let (rows, columns) = row.tile;
    let tile = if rows == 0 { format!("v{columns}") } else { format!("{rows}x{columns}") };
    format!("lean_{}_{}_{}{spatial}_{tile}", row.op, row.dtype, row.isa)
}

/// The stride that an operator's kernels are specialised for.
fn stride(op: &str) -> &'static str {
    if op == "stencilgradient" { "_s1" } else { "" }
}

/// What a name says.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    pub op: &'a str,
    pub dtype: &'a str,
    pub isa: &'a str,
    pub spatial: Option<&'a str>,
    pub tile: (usize, usize),
}

/// The fields of a name; `None` if the grammar does not accept it.
pub fn parse(name: &str) -> Option<Fields<'_>> {
    let mut words = name.split('_');
    let mut next = || words.next();
    if next()? != "lean" {
        return None;
    }
    let op = next()?;
    if !OPS.iter().any(|(word, _)| *word == op) {
        return None;
    }
    let dtype = next()?;
    if !DTYPES.contains(&dtype) {
        return None;
    }
    let isa = next()?;
    isa::isa(isa)?;
    let mut word = next()?;
    let mut spatial = None;
    if super::template::STENCILS.iter().any(|(stencil, _)| *stencil == word) {
        spatial = Some(word);
        word = next()?;
        if !stride(op).is_empty() {
            if word != "s1" {
                return None;
            }
            word = next()?;
        }
    }
    let tile = if let Some(lanes) = word.strip_prefix('v') {
        (0, number(lanes)?)
    } else {
        let (rows, columns) = word.split_once('x')?;
        (number(rows)?, number(columns)?)
    };
    if next().is_some() { None } else { Some(Fields { op, dtype, isa, spatial, tile }) }
}

/// A positive decimal number without sign or leading zeros: every kernel has one name.
fn number(digits: &str) -> Option<usize> {
    let is_canonical = digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0');
    is_canonical.then(|| digits.parse().ok())?
}
