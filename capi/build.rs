//! Keeps the shared library in memory once it is loaded.
#![forbid(unsafe_code)]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_elf = ["linux", "android", "freebsd", "netbsd", "openbsd", "dragonfly"].map(str::to_owned);
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| is_elf.contains(&os)) {
        // Threads of a pool may still be in its code when a program calls dlclose().
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
