// What a row must satisfy before anything is rendered from it.

use super::isa::Products;
use super::registry::Row;
use super::{isa, name, template};

/// Output channels of a packed panel (LEAN_PANEL of lean_abi.h).
pub const PANEL: usize = 32;

/// Checks all rows; the message names the row at fault.
pub fn validate(rows: &[Row]) -> Result<(), String> {
    for (index, row) in rows.iter().enumerate() {
        let id = name::format(row);
        check(row).map_err(|message| format!("kernels/registry.rs: {id}: {message}"))?;
        if rows[..index].iter().any(|other| name::format(other) == id) {
            return Err(format!("kernels/registry.rs: {id} stands there twice"));
        }
    }
    Ok(())
}

fn check(row: &Row) -> Result<(), String> {
    let isa = isa::isa(row.isa).ok_or("unknown instruction set")?;
    let template = name::template(row).ok_or("unknown operator")?;
    if !name::DTYPES.contains(&row.dtype) {
        return Err("unknown type".into());
    }
    let is_tiled = matches!(
        template,
        "conv.c.in" | "convbf16.c.in" | "convtiles.c.in" | "weightgradient.c.in" | "weightgradientbf16.c.in" | "loadpeak.c.in"
    );
    if row.dtype != "f32" && matches!(row.op, "grouped" | "accumulate" | "momentum" | "peak" | "loadpeak") {
        return Err("an operator of f32 alone".into());
    }
    if row.dtype != "f32" && is_tiled && isa.products == Products::Broadcast && row.tile.1 != PANEL {
        return Err("tiles of dot products of two have whole panels".into());
    }
    // Three products of bf16 pay where one is more than three times as fast as that of f32: on tile units.
    if row.dtype != isa.dtype && !(row.dtype == "bf16x3" && isa.products == Products::Tile) {
        return Err("tiers of lower precision have kernels of that precision, and no others do".into());
    }
    let specialised = matches!(row.op, "fused" | "stencilgradient");
    match row.spatial {
        Some(stencil) if !template::STENCILS.iter().any(|(known, _)| *known == stencil) => return Err("unknown stencil".into()),
        Some(_) if !specialised => return Err("this operator takes no stencil".into()),
        None if specialised => return Err("this operator needs a stencil".into()),
        _ => {}
    }
    let (rows, columns) = row.tile;
    if isa.products == Products::Tile {
        if !matches!(template, "convtiles.c.in" | "convsplit.c.in" | "weightgradienttiles.c.in") {
            return Err("the tile unit runs convolutions and gradients of matrices only".into());
        }
        if rows != PANEL {
            return Err(format!("the tile unit holds {PANEL} x {PANEL} sums"));
        }
    } else if is_tiled {
        if !(1..=16).contains(&rows) {
            return Err("a tile has 1 to 16 rows (four quads)".into());
        }
        let spans_two = template == "weightgradient.c.in" && columns == 2 * PANEL;
        if !columns.is_multiple_of(isa.lanes) || !(PANEL.is_multiple_of(columns) || spans_two) {
            return Err(format!("columns must be a multiple of {} lanes that divides a panel of {PANEL}", isa.lanes));
        }
        let vectors = columns / isa.lanes;
        if isa.products == Products::Block && !(rows.is_multiple_of(2) && vectors.is_multiple_of(2)) {
            return Err("blocks are of two rows, and tiles of as many vectors of even channels as of odd ones".into());
        }
        // Accumulators, and the operands: one row of weights and a broadcast, or a quad of x per pixel where lanes are multiplied; pairs of
        // rows and the weights of a vector where blocks are.
        let operands = match isa.products {
            Products::Block => rows / 2 + 2,
            Products::Lane if matches!(template, "conv.c.in" | "loadpeak.c.in") => rows + vectors,
            _ => 1 + vectors,
        };
        // The order of lanes in which a grouped tap is read.
        let order = usize::from(row.op == "grouped");
        let needed = rows * vectors + operands + order;
        if needed > isa.registers {
            return Err(format!("needs {needed} registers of {}", isa.registers));
        }
    } else if row.tile != (0, isa.lanes) {
        return Err(format!("kernels without a tile are named by their {} lanes", isa.lanes));
    }
    Ok(())
}
