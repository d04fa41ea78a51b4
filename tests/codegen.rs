//! The generator: its grammar of names, its checks of the registry, its output, and the structs that C and Rust share.

#[path = "../src/ffi/bindings.rs"]
mod bindings;
#[path = "../kernels/gen/mod.rs"]
#[allow(dead_code, reason = "build.rs uses the rest")]
mod generator;
#[path = "codegen/tiles.rs"]
mod tiles;
/// What bindgen made of the header in this build; its assertions of sizes and offsets hold if this compiles.
#[cfg(feature = "buildtime-bindgen")]
#[allow(warnings, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

use generator::name::{OPS, format, parse};
use generator::registry::{ROWS, Row};
use generator::template::{STENCILS, render, symbol};
use generator::validate::{PANEL, validate};
use generator::{emit, isa};
use std::path::PathBuf;

const HEADER: &str = include_str!("../kernels/include/lean_abi.h");
const BINDINGS: &str = include_str!("../src/ffi/bindings.rs");

#[test]
fn names_say_what_the_row_says() {
    for row in ROWS {
        let name = format(row);
        let fields = parse(&name).unwrap_or_else(|| panic!("{name} does not parse"));
        let of_row = (row.op, row.dtype, row.isa, row.spatial, row.tile);
        assert_eq!((fields.op, fields.dtype, fields.isa, fields.spatial, fields.tile), of_row, "{name}");
    }
    assert_eq!(format(&ROWS[1]), "lean_fused_f32_avx512_cross5_14x32");
}

#[test]
fn names_outside_the_grammar_are_refused() {
    for name in [
        "",
        "lean",
        "lean_dense_f32_avx2",
        "dense_f32_avx2_6x16",
        "lean_convolve_f32_avx2_6x16",
        "lean_dense_f64_avx2_6x16",
        "lean_dense_f32_sse9_6x16",
        "lean_dense_f32_avx2_6x",
        "lean_dense_f32_avx2_x16",
        "lean_dense_f32_avx2_0x16",
        "lean_dense_f32_avx2_06x16",
        "lean_dense_f32_avx2_+6x16",
        "lean_dense_f32_avx2_6x16_",
        "lean_dense_f32_avx2_6x16_more",
        "lean_fused_f32_avx2_cross5_s1_6x16",
        "lean_fused_f32_avx2_star7_6x16",
        "lean_stencilgradient_f32_avx2_cross5_v8",
        "lean_stencilgradient_f32_avx2_cross5_s2_v8",
        "lean_normalize_f32_avx2_v",
        "lean_normalize_f32_avx2_v08",
        "lean_normalize_f32_avx2_8",
        "Lean_normalize_f32_avx2_v8",
        "lean_normalize_f32_avx2_v8 ",
    ] {
        assert!(parse(name).is_none(), "{name:?} was accepted");
    }
}

#[test]
fn the_registry_is_valid_and_without_duplicates() {
    validate(ROWS).expect("the registry");
    let mut names: Vec<String> = ROWS.iter().map(format).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
}

#[test]
fn every_instruction_set_has_every_operator() {
    for isa in isa::ISAS {
        let dtype = isa.dtype;
        // In bf16 every tier has those that multiply matrices.
        for (op, _) in OPS.iter().filter(|(op, _)| dtype == "f32" || ["fused", "dense", "weightgradient"].contains(op)) {
            let rows: Vec<&Row> =
                ROWS.iter().filter(|row| (row.isa, row.dtype, row.op) == (isa.name, dtype, *op) && row.ship).collect();
            let spatial: Vec<_> = rows.iter().filter_map(|row| row.spatial).collect();
            let specialised = ["fused", "stencilgradient"].contains(op);
            let expected: Vec<_> = STENCILS.iter().map(|(name, _)| *name).filter(|_| specialised).collect();
            assert_eq!(spatial, expected, "{op} on {}", isa.name);
            assert!(!rows.is_empty(), "{op} on {}", isa.name);
        }
    }
}

#[test]
fn rows_that_cannot_work_are_refused_by_name() {
    let dense = Row { op: "dense", dtype: "f32", isa: "avx512", spatial: None, tile: (14, 32), ship: true };
    let fused = Row { op: "fused", dtype: "f32", isa: "avx2", spatial: Some("cross5"), tile: (6, 16), ship: true };
    let pool = Row { op: "pool", dtype: "f32", isa: "neon", spatial: None, tile: (0, 4), ship: true };
    let bf16 = Row { op: "fused", dtype: "bf16", isa: "avx512bf16", spatial: Some("box9"), tile: (12, 32), ship: true };
    validate(&[dense, fused, pool, bf16]).expect("four good rows");
    let refused = [
        (Row { isa: "sse9", ..dense }, "unknown instruction set"),
        (Row { op: "convolve", ..dense }, "unknown operator"),
        (Row { spatial: Some("star7"), ..fused }, "unknown stencil"),
        (Row { spatial: None, ..fused }, "needs a stencil"),
        (Row { spatial: Some("box9"), ..dense }, "takes no stencil"),
        (Row { tile: (0, 32), ..dense }, "1 to 16 rows"),
        (Row { tile: (17, 16), ..dense }, "1 to 16 rows"),
        (Row { tile: (14, 0), ..dense }, "columns"),
        (Row { tile: (14, 24), ..dense }, "columns"),
        (Row { tile: (4, 48), ..dense }, "columns"),
        (Row { tile: (4, 64), ..dense }, "columns"),
        (Row { tile: (6, 12), ..fused }, "columns"),
        (Row { tile: (15, 32), ..dense }, "needs 33 registers of 32"),
        (Row { tile: (7, 16), ..fused }, "needs 17 registers of 16"),
        (Row { isa: "neon", tile: (11, 8), ..dense }, "needs 35 registers of 32"),
        (Row { dtype: "f64", ..dense }, "unknown type"),
        (Row { tile: (12, 16), ..bf16 }, "whole panels"),
        (Row { isa: "neonbf16", tile: (5, 16), ..bf16 }, "two rows"),
        (Row { isa: "neonbf16", tile: (16, 4), ..bf16 }, "as many vectors of even channels"),
        (Row { isa: "neonbf16", tile: (4, 32), ..bf16 }, "needs 36 registers of 32"),
        (Row { op: "grouped", spatial: None, ..bf16 }, "of f32 alone"),
        (Row { op: "momentum", spatial: None, ..bf16 }, "of f32 alone"),
        (Row { isa: "avx512", ..bf16 }, "lower precision"),
        (Row { isa: "avx512bf16", ..dense }, "lower precision"),
        (Row { isa: "amx", ..bf16 }, "32 x 32 sums"),
        (Row { isa: "amx", op: "stencilgradient", tile: (0, 16), ..bf16 }, "convolutions and gradients of matrices only"),
        (Row { tile: (0, 8), ..pool }, "their 4 lanes"),
        (Row { tile: (2, 4), ..pool }, "their 4 lanes"),
    ];
    for (row, why) in refused {
        let message = validate(&[row]).expect_err(why);
        assert!(message.contains(why) && message.contains(&format(&row)), "{message}, not {why}");
    }
    let message = validate(&[dense, fused, dense]).expect_err("a duplicate");
    assert!(message.contains("twice") && message.contains(&format(&dense)), "{message}");
}

#[test]
fn stencils_are_those_of_the_library_and_the_panel_is_that_of_c() {
    for (name, taps) in STENCILS {
        let stencil: leanresnet::Stencil = name.parse().expect("a stencil of the library");
        let expected: Vec<(i64, i64)> = stencil.taps().iter().map(|&(dy, dx)| (dy.into(), dx.into())).collect();
        assert_eq!(*taps, expected, "{name}");
    }
    let names = STENCILS.iter().map(|(name, _)| *name);
    assert!(leanresnet::Stencil::ALL.iter().map(|stencil| stencil.name()).eq(names), "every stencil, in the same order");
    assert_eq!(PANEL, leanresnet::internals::pack::PANEL);
    assert_eq!(PANEL, bindings::LEAN_PANEL as usize);
}

#[test]
fn every_row_renders_and_names_itself() {
    for row in ROWS {
        let text = render(row, "1.2.3").unwrap_or_else(|message| panic!("{message}"));
        assert_eq!(text, render(row, "1.2.3").expect("rendered before"), "rendering is not deterministic");
        assert!(text.starts_with(&format!("/* {}\n * generated from kernels/templates/", format(row))), "{}", &text[..80]);
        assert!(text.contains(&format!("void {}(const Lean", symbol(row, "1.2.3"))));
        for mark in ["{{", "{%", "{#", "\r"] {
            assert!(!text.contains(mark), "{}: {mark} is left", format(row));
        }
    }
    assert_eq!(symbol(&ROWS[0], "1.2.3-rc.1"), "lean_fused_f32_avx512_cross4_14x32_1_2_3_rc_1");
}

/// Two small units, to see in a review what a change of a template does.
#[test]
fn rendered_units_are_as_reviewed() {
    for name in ["lean_accumulate_f32_neon_v4", "lean_stencilgradient_f32_avx2_cross4_s1_v8"] {
        let row = ROWS.iter().find(|row| format(row) == name).expect("a row");
        let text = render(row, "0.0.0").expect("rendered");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.c"));
        if std::env::var_os("LEANRESNET_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &text).expect("write the golden");
        }
        let golden = std::fs::read_to_string(&path).expect("the golden").replace("\r\n", "\n");
        assert_eq!(text, golden, "{name} changed; if that is right: LEANRESNET_BLESS=1 cargo test --test codegen");
    }
}

#[test]
fn tables_hold_exactly_the_compiled_rows() {
    let row = |op: &str| *ROWS.iter().find(|row| row.op == op).expect("a row");
    let rows = [ROWS[0], row("weightgradient"), ROWS[ROWS.len() - 1]];
    let text = emit::kernels(&rows, "1.2.3");
    assert_eq!(text.matches("Kernel {").count(), rows.len());
    assert_eq!(text.matches("fn lean_").count(), rows.len());
    assert!(text.contains("fn lean_fused_f32_avx512_cross4_14x32_1_2_3(args: *const LeanConvArgs);"), "{text}");
    assert!(text.contains("Function::WeightGradient(lean_weightgradient_f32_avx512_12x32_1_2_3)"), "{text}");
    for row in isa::ISAS {
        let detection = emit::detection();
        assert!(detection.contains(&format!("Isa::{} =>", row.variant)));
        assert!(row.features.iter().all(|feature| detection.contains(&format!("{feature:?}"))));
    }
}

/// The members of a C struct as Rust would write them.
fn members_in_c(name: &str) -> Vec<(String, String)> {
    let from = HEADER.find(&format!("typedef struct {name} {{")).expect("the struct");
    let body = &HEADER[from..from + HEADER[from..].find('}').expect("its end")];
    let body = &body[body.find('{').expect("its beginning") + 1..];
    let without_comments: String = body.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code)).collect();
    let mut members = Vec::new();
    for declaration in without_comments.split(';').map(str::trim).filter(|declaration| !declaration.is_empty()) {
        let (kind, rest) = ["const float", "const void", "float", "void", "double", "int64_t", "uint64_t"]
            .into_iter()
            .find_map(|kind| declaration.strip_prefix(kind).map(|rest| (kind, rest)))
            .unwrap_or_else(|| panic!("{declaration}: a type of other than 64 bits?"));
        for variable in rest.split(',').map(str::trim) {
            let (is_pointer, variable) = variable.strip_prefix('*').map_or((false, variable), |variable| (true, variable));
            let (is_array_of_pointers, variable) =
                variable.strip_prefix("const *").map_or((false, variable), |variable| (true, variable));
            let scalar = match (kind, is_pointer) {
                ("const float", true) => "*const f32",
                ("float", true) => "*mut f32",
                ("const void", true) => "*const ::core::ffi::c_void",
                ("void", true) => "*mut ::core::ffi::c_void",
                ("double", true) => "*mut f64",
                ("double", false) => "f64",
                ("int64_t", false) => "i64",
                ("uint64_t", false) => "u64",
                _ => panic!("{declaration}: not 64 bits"),
            };
            let scalar = if is_array_of_pointers { format!("*const {scalar}") } else { scalar.to_string() };
            let mut parts = variable.split('[');
            let name = parts.next().expect("a name").to_string();
            let extents: Vec<&str> = parts.map(|extent| extent.trim_end_matches(']')).collect();
            let wrap = |inner: String, extent: &&str| format!("[{inner}; {extent}usize]");
            members.push((name, extents.iter().rev().fold(scalar, wrap)));
        }
    }
    members
}

/// The members of a Rust struct of the committed bindings.
fn members_in_rust(name: &str) -> Vec<(String, String)> {
    let from = BINDINGS.find(&format!("pub struct {name} {{")).expect("the struct");
    let body = &BINDINGS[from..from + BINDINGS[from..].find("\n}").expect("its end")];
    let member = |line: &str| {
        let (name, kind) = line.trim().strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")?;
        Some((name.to_string(), kind.to_string()))
    };
    body.lines().skip(1).filter_map(member).collect()
}

/// Every member, in order, with its type; and no padding between them, since all are 64 bits wide.
#[test]
fn c_and_rust_agree_on_the_structs() {
    for (name, size) in [
        ("LeanConvArgs", size_of::<bindings::LeanConvArgs>()),
        ("LeanWeightGradientArgs", size_of::<bindings::LeanWeightGradientArgs>()),
        ("LeanStencilGradientArgs", size_of::<bindings::LeanStencilGradientArgs>()),
        ("LeanElementwiseArgs", size_of::<bindings::LeanElementwiseArgs>()),
    ] {
        let members = members_in_c(name);
        assert_eq!(members, members_in_rust(name), "{name}");
        let extents =
            |kind: &str| kind.split("; ").skip(1).map(|part| part.split("usize").next()?.parse::<usize>().ok()).product();
        let values: Option<usize> = members.iter().map(|(_, kind)| -> Option<usize> { extents(kind) }).sum();
        if cfg!(target_pointer_width = "64") {
            assert_eq!(Some(size), values.map(|values| 8 * values), "{name}");
        }
    }
    assert_eq!(HEADER.matches("typedef struct").count(), BINDINGS.matches("pub struct").count());
}

#[test]
fn c_and_rust_agree_on_the_constants() {
    let defines: Vec<(&str, u32)> = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define LEAN_"))
        .filter_map(|rest| {
            let mut words = rest.split_whitespace();
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    assert_eq!(defines.len(), 11);
    for (name, value) in &defines {
        assert!(BINDINGS.contains(&format!("pub const LEAN_{name}: u32 = {value};")), "{name}");
    }
    let flags: Vec<u32> = defines
        .iter()
        .filter(|(name, _)| !["PANEL", "STRIDE", "PIXELS", "FETCHES", "GRADIENT_FETCHES"].contains(name))
        .map(|(_, value)| *value)
        .collect();
    assert!(flags.iter().all(|flag| flag.is_power_of_two()) && flags.iter().sum::<u32>() == 63, "{flags:?}");
}

/// The committed bindings are bindgen's, without its assertions (which hold on 64-bit targets only).
#[cfg(feature = "buildtime-bindgen")]
#[test]
fn the_committed_bindings_are_those_of_bindgen() {
    let generated = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    let mut declarations = String::new();
    let mut in_assertions = false;
    for line in generated.lines().filter(|line| !line.starts_with("/*") && !line.starts_with("#[allow(")) {
        in_assertions |= line.starts_with("const _: () = {");
        if !in_assertions {
            declarations.push_str(line);
        }
        in_assertions &= line != "};";
    }
    let committed: String = BINDINGS.lines().filter(|line| !line.starts_with("//!") && !line.starts_with("#![")).collect();
    let compact = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(compact(&committed), compact(&declarations));
}
