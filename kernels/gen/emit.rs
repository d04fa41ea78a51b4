// The Rust side of the registry: prototypes, dispatch rows and the detection of instruction sets.

use super::isa::{ISAS, Isa};
use super::registry::Row;
use super::{name, template};
use std::fmt::Write;

/// The struct that an operator's kernels take, and the variant of `ffi::Function` that holds them.
fn signature(op: &str) -> (&'static str, &'static str) {
    match op {
        "fused" | "grouped" | "dense" => ("LeanConvArgs", "Conv"),
        "weightgradient" => ("LeanWeightGradientArgs", "WeightGradient"),
        "stencilgradient" => ("LeanStencilGradientArgs", "StencilGradient"),
        _ => ("LeanElementwiseArgs", "Elementwise"),
    }
}

/// Rust source with the prototypes and `KERNELS`, the table of the rows that were compiled.
pub fn kernels(compiled: &[Row], version: &str) -> String {
    let mut prototypes = String::new();
    let mut table = String::new();
    for row in compiled {
        let (args, function) = signature(row.op);
        let (symbol, isa) = (template::symbol(row, version), variant(row.isa));
        let _ = writeln!(prototypes, "    fn {symbol}(args: *const {args});");
        let _ = writeln!(
            table,
            "    Kernel {{ name: {:?}, op: {:?}, dtype: {:?}, isa: Isa::{isa}, spatial: {:?}, tile: {:?}, takes_images: {}, \
             function: Function::{function}({symbol}) }},",
            name::format(row),
            row.op,
            row.dtype,
            row.spatial,
            row.tile,
            template::takes_images(row),
        );
    }
    format!(
        "unsafe extern \"C\" {{\n{prototypes}}}\n\n/// Every kernel that was compiled, in the registry's order.\npub(crate) static KERNELS: &[Kernel] = &[\n{table}];\n"
    )
}

fn variant(isa: &str) -> &'static str {
    ISAS.iter().find(|row| row.name == isa).map_or("Portable", |row| row.variant)
}

/// Rust source of `detected`, which asks processor and operating system for exactly the features that the flags assume.
pub fn detection() -> String {
    let mut arms = String::new();
    for Isa { arch, variant, features, permission, .. } in ISAS {
        let macro_name = if *arch == "x86_64" { "is_x86_feature_detected" } else { "is_aarch64_feature_detected" };
        let detects = features.iter().map(|feature| format!("std::arch::{macro_name}!({feature:?})"));
        let tests: Vec<String> = detects.chain(permission.map(|function| format!("{function}()"))).collect();
        let _ = writeln!(arms, "        #[cfg(target_arch = {arch:?})]\n        Isa::{variant} => {},", tests.join(" && "));
    }
    format!(
        "/// True if this processor and operating system have the instruction set.\npub(crate) fn detected(isa: Isa) -> bool {{\n    match isa {{\n        Isa::Portable => true,\n{arms}        #[allow(unreachable_patterns, reason = \"which arms exist depends on the target\")]\n        _ => false,\n    }}\n}}\n"
    )
}
