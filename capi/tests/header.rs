//! The committed header is what cbindgen makes of the source today.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

/// The version as numbers that a preprocessor can compare, and as text.
fn version_macros() -> String {
    let part = |name: &str, value: &str| format!("#define LEANRESNET_VERSION_{name} {value}\n");
    format!(
        "\n/** The version of this header. leanresnet_version() gives that of the library. */\n#define LEANRESNET_VERSION \"{}\"\n{}{}{}",
        env!("CARGO_PKG_VERSION"),
        part("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        part("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        part("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    )
}

fn generated() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    config.after_includes = Some(version_macros() + "\n" + &config.after_includes.unwrap_or_default());
    // Not `with_crate`, which asks cargo for the packages of all systems.
    let builder = cbindgen::Builder::new().with_src(folder.join("src/lib.rs"));
    let bindings = builder.with_config(config).generate().expect("the source parses");
    let mut text = Vec::new();
    bindings.write(&mut text);
    // Markdown's marks for code mean nothing in C.
    String::from_utf8(text).expect("the source is UTF-8").replace('`', "")
}

#[test]
fn the_header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/leanresnet.h");
    let generated = generated();
    if std::env::var_os("LEANRESNET_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &generated).expect("the header can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} differs from what cbindgen makes of the source; LEANRESNET_BLESS=1 writes it anew:\n{generated}",
        path.display()
    );
}
