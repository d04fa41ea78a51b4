// What the gradient of a stencil keeps in registers, and the passes over an image that it takes.

use super::template::tap_name;
use minijinja::{Value, context};
use std::collections::BTreeMap;

/// Registers beside sums, gradients and neighbours: a loaded value, and what the compiler wants.
const SPARE: usize = 2;

/// What a pass over an image holds.
struct Plan {
    /// Taps whose sums a pass has: all, or parts of nearly equal size.
    taps_at_once: usize,
    /// Vectors of channels at a time.
    vectors: usize,
    /// Whether what a pixel and its two neighbours read stays in registers for the next pixel.
    keeps: bool,
}

impl Plan {
    fn new(taps: &[(i64, i64)], registers: usize) -> Self {
        let count = taps.len().max(1);
        let taps_at_once = count.div_ceil(count.div_ceil(registers * 3 / 4));
        // Rows of which a pixel reads neighbours, and which they are.
        let rows: BTreeMap<i64, usize> = taps.iter().fold(BTreeMap::new(), |mut rows, (dy, _)| {
            *rows.entry(*dy).or_default() += 1;
            rows
        });
        let wide = rows.values().filter(|&&taps| taps > 1).count();
        let fits = |vectors: usize, keeps: bool| {
            let neighbours = if keeps { 3 * wide } else { 0 };
            // The sums of the taps and of the bias, and the gradient.
            vectors * (taps_at_once + 2 + neighbours) + SPARE <= registers
        };
        let can_keep = wide > 0 && reach(taps) == 1;
        // Two vectors hide the latency of FMAs, where a stencil has few taps; of many, loads are what to save.
        let (vectors, keeps) = match count {
            _ if can_keep && fits(2, true) => (2, true),
            ..=5 if fits(2, false) => (2, false),
            _ => (1, can_keep && fits(1, true)),
        };
        Plan { taps_at_once, vectors, keeps }
    }
}

/// Columns between a pixel and the farthest that it reads.
fn reach(taps: &[(i64, i64)]) -> i64 {
    taps.iter().map(|(_, dx)| dx.abs()).max().unwrap_or(0)
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

fn address(dy: i64, dx: i64) -> String {
    format!("x{}{}", offset(dy, "row_step"), offset(dx, "step"))
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

/// The taps of a pass in one row of the image.
fn row(dy: i64, taps: &[(usize, (i64, i64))], keeps: bool) -> Value {
    let vertical = tap_name(dy, 0);
    let describe = |&(index, (dy, dx)): &(usize, (i64, i64))| {
        context! { name => tap_name(dy, dx), index, dx, address => address(dy, dx), inside => inside(dy, dx) }
    };
    context! {
        inside => inside(dy, 0),
        keeps => keeps && taps.len() > 1,
        neighbours => if dy == 0 { "x".to_string() } else { format!("x_{vertical}") },
        addresses => [-1, 0, 1].map(|dx| address(dy, dx)),
        taps => taps.iter().map(describe).collect::<Vec<_>>(),
    }
}

/// Everything that the template wants to know.
pub fn plan(taps: &[(i64, i64)], registers: usize) -> Value {
    let Plan { taps_at_once, vectors, keeps } = Plan::new(taps, registers);
    let indexed: Vec<_> = taps.iter().copied().enumerate().collect();
    let pass = |taps: &[(usize, (i64, i64))]| {
        taps.chunk_by(|(_, a), (_, b)| a.0 == b.0).map(|taps| row(taps[0].1.0, taps, keeps)).collect::<Vec<_>>()
    };
    context! {
        passes => indexed.chunks(taps_at_once).map(pass).collect::<Vec<_>>(),
        taps_at_once,
        vectors,
        keeps,
        reach => reach(taps),
    }
}
