//! Generates and compiles the kernels: reads Cargo's environment, calls `kernels/gen`, prints.

#[cfg(feature = "buildtime-bindgen")]
#[path = "kernels/gen/bind.rs"]
mod bind;
#[cfg(feature = "c-kernels")]
#[path = "kernels/gen/compile.rs"]
mod compile;
#[cfg(feature = "c-kernels")]
#[path = "kernels/gen/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod generator;

use std::env;
use std::path::PathBuf;

fn main() {
    for path in ["build.rs", "kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["LEANRESNET_NO_C", "LEANRESNET_REQUIRE_C", "LEANRESNET_TILE_MODEL", "CC", "CFLAGS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    let required = is_set("LEANRESNET_REQUIRE_C");
    if is_set("LEANRESNET_TILE_MODEL") {
        println!("cargo::rustc-cfg=leanresnet_tile_model");
    }
    let (tables, failures) = kernels(&out);
    std::fs::write(out.join("kernels.rs"), tables).expect("OUT_DIR can be written");
    for failure in &failures {
        println!("cargo::warning={failure}");
    }
    if required && !failures.is_empty() {
        println!(
            "cargo::error=LEANRESNET_REQUIRE_C is set, but some C kernels are missing. Install a C compiler (Debian: apt install gcc; Fedora: dnf install gcc; macOS: xcode-select --install) or unset it."
        );
    }
    println!("cargo::rustc-env=LEANRESNET_KERNEL_NOTES={}", failures.join("; ").replace('\n', " "));
    #[cfg(feature = "buildtime-bindgen")]
    bind::bind(&out);
}

/// A variable that is there, and not 0.
fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| value != "0")
}

#[cfg(feature = "c-kernels")]
fn kernels(out: &std::path::Path) -> (String, Vec<String>) {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let version = variable("CARGO_PKG_VERSION");
    let skip = is_set("LEANRESNET_NO_C") || env::var_os("DOCS_RS").is_some();
    let (rows, failures) = if skip {
        (Vec::new(), vec!["no C kernels: LEANRESNET_NO_C is set".to_string()])
    } else {
        let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
        let arch = variable("CARGO_CFG_TARGET_ARCH");
        let all_kernels = env::var_os("CARGO_FEATURE_ALL_KERNELS").is_some();
        let bf16 = env::var_os("CARGO_FEATURE_BF16").is_some();
        let tile_model = is_set("LEANRESNET_TILE_MODEL");
        let target = compile::Target { arch: &arch, version: &version, out, manifest: &manifest, all_kernels, bf16, tile_model };
        compile::compile(&target).unwrap_or_else(|message| {
            println!("cargo::error={message}");
            (Vec::new(), Vec::new())
        })
    };
    (format!("{}\n{}", generator::emit::kernels(&rows, &version), generator::emit::detection()), failures)
}

#[cfg(not(feature = "c-kernels"))]
fn kernels(_: &std::path::Path) -> (String, Vec<String>) {
    let tables = "/// Built without the feature `c-kernels`.\npub(crate) static KERNELS: &[Kernel] = &[];\n\n/// Without kernels there is nothing to detect.\npub(crate) fn detected(isa: Isa) -> bool {\n    isa == Isa::Portable\n}\n";
    (tables.to_string(), Vec::new())
}
