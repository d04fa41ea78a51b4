// Compiles the rendered units, one `cc::Build` per instruction set, so that no flag reaches another one's objects.

use super::generator::isa::{ISAS, Isa, Products};
use super::generator::registry::{ROWS, Row};
use super::generator::{name, template, validate};
use std::path::{Path, PathBuf};

/// What the build script read from Cargo.
pub struct Target<'a> {
    pub arch: &'a str,
    pub version: &'a str,
    pub out: &'a Path,
    pub manifest: &'a Path,
    pub all_kernels: bool,
    pub bf16: bool,
    /// Tiles in plain C instead of those of the processor.
    pub tile_model: bool,
}

/// Compiles every instruction set of the target. Returns the rows that are in the library now, and one message per failure.
pub fn compile(target: &Target) -> Result<(Vec<Row>, Vec<String>), String> {
    validate::validate(ROWS)?;
    refuse_fast_math()?;
    let mut compiled = Vec::new();
    let mut failures = Vec::new();
    for isa in ISAS.iter().filter(|isa| isa.arch == target.arch && (isa.dtype == "f32" || target.bf16)) {
        let rows: Vec<Row> = ROWS.iter().filter(|row| row.isa == isa.name && (row.ship || target.all_kernels)).copied().collect();
        match compile_isa(target, isa, &rows) {
            // Whoever compiled an instruction set emits its cfg and its rows, and nobody else does.
            Ok(()) => {
                println!("cargo::rustc-cfg=leanresnet_{}", isa.name);
                compiled.extend(rows);
            }
            Err(message) => failures.push(format!("no {} kernels: {message}", isa.name)),
        }
    }
    if !compiled.is_empty() {
        println!("cargo::rustc-env=LEANRESNET_C_COMPILER={}", compiler_version());
    }
    Ok((compiled, failures))
}

fn compile_isa(target: &Target, isa: &Isa, rows: &[Row]) -> Result<(), String> {
    let mut build = cc::Build::new();
    build.include(target.manifest.join("kernels/include")).opt_level(3).warnings(true).extra_warnings(true).debug(false);
    // -O3 whatever the profile; no contraction and no fast-math, or results would depend on the compiler.
    for flag in ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-Wno-unused-function"] {
        build.flag(flag);
    }
    for flag in isa.flags {
        build.flag(flag);
    }
    for flag in isa.tuning {
        build.flag_if_supported(flag);
    }
    if isa.products == Products::Tile && target.tile_model {
        build.define("LEAN_TILE_MODEL", None);
    }
    let folder = target.out.join(isa.name);
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for row in rows {
        build.file(write_unit(&folder, row, target.version)?);
    }
    build.try_compile(&format!("leanresnet_{}", isa.name)).map_err(|error| error.to_string())
}

/// The first line that the compiler says about itself, or its path if it says nothing.
fn compiler_version() -> String {
    let Ok(compiler) = cc::Build::new().try_get_compiler() else { return "unknown".to_string() };
    let output = compiler.to_command().arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match text.lines().next() {
        Some(line) if !line.trim().is_empty() => line.trim().to_string(),
        _ => compiler.path().display().to_string(),
    }
}

/// Writes a unit, and leaves an unchanged one alone.
fn write_unit(folder: &Path, row: &Row, version: &str) -> Result<PathBuf, String> {
    let path = folder.join(format!("{}.c", name::format(row)));
    let text = template::render(row, version)?;
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(path)
}

/// Fast-math in CFLAGS would change results, and at link time the floating-point mode of the whole process.
fn refuse_fast_math() -> Result<(), String> {
    for (name, value) in std::env::vars() {
        if name.contains("CFLAGS")
            && ["-ffast-math", "-Ofast", "-funsafe-math-optimizations"].iter().any(|flag| value.contains(flag))
        {
            return Err(format!("{name}={value} asks for fast-math, which would change results; remove it"));
        }
    }
    Ok(())
}
