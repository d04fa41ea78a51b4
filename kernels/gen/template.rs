// Renders the C unit of one row. Undefined names in a template are errors.

use super::registry::Row;
use super::tiles::{self, Operation};
use super::validate::PANEL;
use super::{isa, name};
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// Stencils and their taps (dy, dx), in the order of summation: row by row, west to east.
pub const STENCILS: &[(&str, &[(i64, i64)])] = &[
    ("cross4", &[(-1, 0), (0, -1), (0, 1), (1, 0)]),
    ("cross5", &[(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]),
    ("box9", &[(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]),
    ("row3", &[(0, -1), (0, 0), (0, 1)]),
    ("col3", &[(-1, 0), (0, 0), (1, 0)]),
    ("box25", &BOX25),
];

const BOX25: [(i64, i64); 25] = {
    let mut taps = [(0, 0); 25];
    let mut index = 0;
    while index < 25 {
        taps[index] = (index as i64 / 5 - 2, index as i64 % 5 - 2);
        index += 1;
    }
    taps
};

/// The templates' texts, by file name.
const TEMPLATES: &[(&str, &str)] = &[
    ("pixels.c.in", include_str!("../templates/pixels.c.in")),
    ("conv.c.in", include_str!("../templates/conv.c.in")),
    ("convbf16.c.in", include_str!("../templates/convbf16.c.in")),
    ("convtiles.c.in", include_str!("../templates/convtiles.c.in")),
    ("tileproducts.c.in", include_str!("../templates/tileproducts.c.in")),
    ("tilerows.c.in", include_str!("../templates/tilerows.c.in")),
    ("tilecolumns.c.in", include_str!("../templates/tilecolumns.c.in")),
    ("weightgradient.c.in", include_str!("../templates/weightgradient.c.in")),
    ("weightgradientbf16.c.in", include_str!("../templates/weightgradientbf16.c.in")),
    ("weightgradienttiles.c.in", include_str!("../templates/weightgradienttiles.c.in")),
    ("stencilgradient.c.in", include_str!("../templates/stencilgradient.c.in")),
    ("elementwise.c.in", include_str!("../templates/elementwise.c.in")),
    ("loadpeak.c.in", include_str!("../templates/loadpeak.c.in")),
];

/// The name that the linker sees: it carries the crate's version, so that two versions of the crate can live in one program.
pub fn symbol(row: &Row, version: &str) -> String {
    format!("{}_{}", name::format(row), version.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// Compass name of a tap, used for variables and comments.
fn tap_name(dy: i64, dx: i64) -> String {
    let vertical = ["north2", "north", "", "south", "south2"][(dy + 2) as usize];
    let horizontal = ["west2", "west", "", "east", "east2"][(dx + 2) as usize];
    match (vertical, horizontal) {
        ("", "") => "centre".into(),
        ("", name) | (name, "") => name.into(),
        _ => format!("{vertical}_{horizontal}"),
    }
}

/// ` + 2 * step`, ` - step` or nothing: what is added to an address for a distance.
fn offset(distance: i64, step: &str) -> String {
    let sign = if distance < 0 { '-' } else { '+' };
    match distance.abs() {
        0 => String::new(),
        1 => format!(" {sign} {step}"),
        count => format!(" {sign} {count} * {step}"),
    }
}

/// The conditions in C under which a tap of pixel (h, w) lies inside the image.
fn inside(dy: i64, dx: i64) -> String {
    let edge = |distance: i64, position: &str, size: &str| match distance {
        0 => None,
        ..0 => Some(format!("{position} >= {}", -distance)),
        1.. => Some(format!("{position} + {distance} < {size}")),
    };
    let conditions = [edge(dy, "h", "a->height"), edge(dx, "w", "a->width")];
    conditions.into_iter().flatten().collect::<Vec<_>>().join(" && ")
}

fn taps(row: &Row) -> Vec<Value> {
    let describe = |(index, &(dy, dx)): (usize, &(i64, i64))| {
        context! {
            name => tap_name(dy, dx),
            index => index,
            dy => dy,
            dx => dx,
            address => format!("x{}{}", offset(dy, "row_step"), offset(dx, "step")),
            inside => inside(dy, dx),
        }
    };
    taps_of(row).iter().enumerate().map(describe).collect()
}

/// The input rows around two output rows, from the one above on: what both take from a column of each, from west to east.
fn rows_of_pair(row: &Row) -> Vec<Value> {
    let taps = taps_of(row);
    let has_sides = |index: i64| taps.iter().any(|(dy, dx)| *dx != 0 && [*dy, *dy + 1].contains(&(index - 1)));
    let describe = |index: i64| {
        let of_column = |dx: i64| {
            let tap = move |second: i64| taps.iter().position(|tap| *tap == (index - 1 - second, dx)).map(|tap| (second, tap));
            (0..2).filter_map(tap).map(move |(second, tap)| {
                context! { row => second, tap => tap, column => ["west", "centre", "east"][(dx + 1) as usize] }
            })
        };
        let uses: Vec<Value> = (-1..=1).flat_map(of_column).collect();
        context! {
            index => index,
            name => ["The row above", "The first row", "The second row", "The row below"][index as usize],
            is_read => !uses.is_empty(),
            has_sides => has_sides(index),
            place => (0..index).filter(|index| has_sides(*index)).count(),
            uses => uses,
        }
    };
    (0..4).map(describe).collect()
}

/// Whether a convolution on tiles walks along two rows at a time: with no taps, or those around a pixel.
fn has_window(row: &Row) -> bool {
    taps_of(row).len() <= UNROLLED_TAPS
}

/// Columns and steps of 32 inputs of a turn on the tile unit whose columns are unrolled: what the presets have up to 128 channels. With
/// more, the matrix comes from the second level of cache, and the vectors wait anyway.
const UNROLLED_TURNS: [(usize, usize); 5] = [(16, 1), (16, 2), (16, 4), (14, 2), (14, 4)];

/// Stencils whose turns are unrolled: those of networks.
const UNROLLED_STENCILS: [&str; 3] = ["cross4", "cross5", "box9"];

/// The unrolled turns of a row.
fn unrolled_turns(row: &Row) -> &'static [(usize, usize)] {
    if row.spatial.is_some_and(|stencil| UNROLLED_STENCILS.contains(&stencil)) { &UNROLLED_TURNS } else { &[] }
}

/// Operations of the tile unit, as calls of the template's macros.
fn calls(operations: &[Operation]) -> Vec<Value> {
    let call = |operation: &Operation| {
        let (word, arguments) = operation.call();
        context! { word => word, arguments => arguments }
    };
    operations.iter().map(call).collect()
}

/// An unrolled turn: the operations that follow each column.
fn unrolled_turn(&(columns, steps): &(usize, usize)) -> Value {
    let operations = tiles::turn(steps);
    let parts: Vec<_> = tiles::spread(&operations, columns).into_iter().map(calls).collect();
    context! { columns => columns, steps => steps, parts => parts }
}

/// The quarters of a first step, and of a later one, whose inputs are the next ones.
fn quarters() -> Vec<Vec<Value>> {
    [true, false].into_iter().flat_map(|first| (0..tiles::SUMS).map(move |sums| calls(&tiles::quarter(sums, 0, first)))).collect()
}

/// Whether a kernel takes rows of an image instead of a run of pixels.
pub fn takes_images(row: &Row) -> bool {
    let has_tiles = isa::isa(row.isa).is_some_and(|isa| isa.products == isa::Products::Tile);
    has_tiles && matches!(row.op, "fused" | "dense")
}

/// Pixels of the tiles that a convolution's kernel has: the larger half, since a call is cut into tiles of nearly equal size, and powers
/// of two that smaller calls are put together from.
fn tile_sizes(rows: usize) -> Vec<usize> {
    (1..=rows).filter(|&pixels| pixels >= rows / 2 || pixels.is_power_of_two()).collect()
}

/// The second tile of a convolution's kernel, of two panels, for calls that ask for it (`LEAN_WIDE`). (0, 0): none, where registers do not suffice.
pub fn wide_tile(row: &Row) -> (usize, usize) {
    let is_convolution = matches!(row.op, "fused" | "dense");
    if is_convolution && row.isa == "avx512" && row.tile.1 == PANEL { (6, 2 * PANEL) } else { (0, 0) }
}

/// Pixels of the wide tiles: calls of two whole ones and more are cut into tiles of two thirds of that at least.
fn wide_sizes(rows: usize) -> Vec<usize> {
    (1..=rows).filter(|&pixels| 3 * pixels >= 2 * rows).collect()
}

/// Pixels of the tiles of one vector, for channels after the last whole tile. Eight accumulators keep two multiply-adds a cycle busy.
const EDGE_SIZES: [usize; 4] = [1, 2, 4, 8];

/// Stencils with more taps run in a loop over them. Unrolled, box25 takes 14 seconds to compile; looped, cross5 loses 3 points of peak at
/// 32 channels.
const UNROLLED_TAPS: usize = 9;

/// Taps whose weights stay in registers along two rows on the tile unit; the others are read again for each column. Nine taps leave none.
fn held_taps(row: &Row) -> usize {
    match taps_of(row).len() {
        taps @ 0..=4 => taps,
        5 => 4,
        _ => 0,
    }
}

/// Pairs of pixels, and of inputs of each, that the gradient of a bf16 matrix puts side by side at a time: 16 KiB, so that they and 8 KiB of
/// a panel of gradients stay in the first level of cache.
const PIXEL_PAIRS: usize = 64;
const PAIRED_INPUTS: usize = 64;

/// Steps of 32 pixels, and panels of gradients, that a tile unit's gradient of a matrix prepares at a time: 16 KiB of 32 inputs, which stay in
/// the first level of cache beside as much of a panel, and 128 KiB of gradients, which stay in the second.
const CHUNK_STEPS: usize = 8;
const GROUP_PANELS: usize = 8;

/// Pixels of bf16 whose statistics are added up in f32 before f64, which takes twice as long per value.
const SUMMED_PIXELS: usize = 16;

/// The taps of a row's stencil.
fn taps_of(row: &Row) -> &'static [(i64, i64)] {
    STENCILS.iter().find(|(name, _)| Some(*name) == row.spatial).map_or(&[], |(_, taps)| taps)
}

/// How many sums the gradient of a stencil keeps in registers: all of them, or parts of nearly equal size that fill three quarters. The
/// rest is for the bias, a gradient, an input, and what the compiler wants.
fn taps_at_once(row: &Row, registers: usize) -> usize {
    let taps = taps_of(row).len().max(1);
    taps.div_ceil(taps.div_ceil(registers * 3 / 4))
}

/// The C unit of a row.
pub fn render(row: &Row, version: &str) -> Result<String, String> {
    let isa = isa::isa(row.isa).ok_or("unknown instruction set")?;
    let file = name::template(row).ok_or("unknown operator")?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(|error| format!("{name}: {error:#}"))?;
    }
    let (rows, columns) = row.tile;
    let (wide_rows, wide_columns) = wide_tile(row);
    let pair = rows_of_pair(row);
    let sided_rows = pair.iter().filter(|row| row.get_attr("has_sides").is_ok_and(|has| has.is_true())).count();
    environment
        .get_template(file)
        .and_then(|template| {
            template.render(context! {
                name => name::format(row),
                symbol => symbol(row, version),
                op => row.op,
                dtype => row.dtype,
                isa => context! { name => isa.name, products => isa.products.word(), registers => isa.registers },
                spatial => row.spatial.unwrap_or(""),
                taps => taps(row),
                radius => taps_of(row).iter().map(|(dy, dx)| dy.abs().max(dx.abs())).max().unwrap_or(0),
                has_window => has_window(row),
                rows_of_pair => pair,
                has_sides => sided_rows > 0,
                sided_rows => sided_rows,
                held_taps => held_taps(row),
                quarters => quarters(),
                unrolled => unrolled_turns(row).iter().map(unrolled_turn).collect::<Vec<_>>(),
                zero_channels => unrolled_turns(row).iter().map(|(_, steps)| steps * 32).max().unwrap_or(32),
                tile_sizes => tile_sizes(rows),
                wide_mr => wide_rows,
                wide_nr => wide_columns,
                wide_nv => wide_columns / isa.lanes,
                wide_sizes => wide_sizes(wide_rows),
                panel_vectors => PANEL / isa.lanes,
                edge_sizes => EDGE_SIZES,
                taps_at_once => taps_at_once(row, isa.registers),
                unrolled_taps => UNROLLED_TAPS,
                mr => rows,
                nr => columns,
                nv => columns / isa.lanes,
                chains => isa.registers * 3 / 4,
                pairs => PIXEL_PAIRS,
                depth => PAIRED_INPUTS,
                chunk_steps => CHUNK_STEPS,
                group_panels => GROUP_PANELS,
                summed => SUMMED_PIXELS,
            })
        })
        .map(|text| text + "\n")
        .map_err(|error| format!("{file} for {}: {error:#}", name::format(row)))
}
