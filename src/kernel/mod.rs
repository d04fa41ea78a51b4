//! Kernels behind safe calls: each wrapper checks extents once and is the only place that builds a kernel's arguments.

pub mod conv;
mod edges;
pub mod element;
pub mod elementwise;
pub mod gradient;
mod images;
pub mod rows;
pub mod target;
pub mod upcoming;
