// Renders the C unit of one row. Undefined names in a template are errors.

use super::registry::Row;
use super::{isa, name};
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// Stencils and their taps (dy, dx), in the order of summation.
pub const STENCILS: &[(&str, &[(i64, i64)])] = &[
    ("cross4", &[(-1, 0), (0, -1), (0, 1), (1, 0)]),
    ("cross5", &[(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]),
    ("box9", &[(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]),
];

/// The templates' texts, by file name.
const TEMPLATES: &[(&str, &str)] = &[
    ("conv.c.in", include_str!("../templates/conv.c.in")),
    ("weightgradient.c.in", include_str!("../templates/weightgradient.c.in")),
    ("stencilgradient.c.in", include_str!("../templates/stencilgradient.c.in")),
    ("elementwise.c.in", include_str!("../templates/elementwise.c.in")),
];

/// The name that the linker sees: it carries the crate's version, so that two versions of the crate can live in one program.
pub fn symbol(row: &Row, version: &str) -> String {
    format!("{}_{}", name::format(row), version.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// Compass name of a tap, used for variables and comments.
fn tap_name(dy: i64, dx: i64) -> &'static str {
    const NAMES: [[&str; 3]; 3] =
        [["north_west", "north", "north_east"], ["west", "centre", "east"], ["south_west", "south", "south_east"]];
    NAMES[(dy + 1) as usize][(dx + 1) as usize]
}

fn taps(stencil: &str) -> Vec<Value> {
    let taps = STENCILS.iter().find(|(name, _)| *name == stencil).map_or(&[][..], |(_, taps)| taps);
    let describe = |(index, &(dy, dx)): (usize, &(i64, i64))| {
        context! { name => tap_name(dy, dx), index => index, row => dy + 1, dy => dy, column => dx }
    };
    taps.iter().enumerate().map(describe).collect()
}

/// The C unit of a row.
pub fn render(row: &Row, version: &str) -> Result<String, String> {
    let isa = isa::isa(row.isa).ok_or("unknown instruction set")?;
    let (_, file) = name::OPS.iter().find(|(op, _)| *op == row.op).ok_or("unknown operator")?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(|error| format!("{name}: {error:#}"))?;
    }
    let (rows, columns) = row.tile;
    environment
        .get_template(file)
        .and_then(|template| {
            template.render(context! {
                name => name::format(row),
                symbol => symbol(row, version),
                op => row.op,
                isa => context! { name => isa.name, lane_fma => isa.lane_fma },
                spatial => row.spatial.unwrap_or(""),
                taps => taps(row.spatial.unwrap_or("")),
                center_row => 1,
                mr => rows,
                nr => columns,
                nv => columns / isa.lanes,
                chains => isa.registers * 3 / 4,
            })
        })
        .map(|text| text + "\n")
        .map_err(|error| format!("{file} for {}: {error:#}", name::format(row)))
}
