// Regenerates the bindings of lean_abi.h (feature `buildtime-bindgen`; needs libclang). A test compares them with the committed ones.

use std::path::Path;

/// Writes `bindings.rs` into the output folder.
pub(crate) fn bind(out: &Path) {
    let bindings = bindgen::Builder::default()
        .header("kernels/include/lean_abi.h")
        .allowlist_item("(Lean|LEAN_).*")
        .use_core()
        .layout_tests(true)
        .generate()
        .expect("bindgen reads lean_abi.h");
    bindings.write_to_file(out.join("bindings.rs")).expect("OUT_DIR can be written");
}
