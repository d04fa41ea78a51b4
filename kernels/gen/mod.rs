// The generator: registry -> C units and Rust tables. Plain functions of their arguments; only build.rs and compile.rs know Cargo.

pub mod emit;
pub mod isa;
pub mod name;
#[path = "../registry.rs"]
pub mod registry;
pub mod template;
pub mod tiles;
pub mod validate;
