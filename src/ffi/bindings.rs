//! Bindings of `kernels/include/lean_abi.h`, as bindgen writes them (feature `buildtime-bindgen` compares).
#![allow(missing_docs, dead_code, reason = "documented in lean_abi.h; Rust needs not all of it")]

pub const LEAN_PANEL: u32 = 32;
pub const LEAN_STRIDE: u32 = 4;
pub const LEAN_FROM_OUTPUT: u32 = 1;
pub const LEAN_SCALE: u32 = 2;
pub const LEAN_RESIDUAL: u32 = 4;
pub const LEAN_RELU: u32 = 8;
pub const LEAN_ACCUMULATE: u32 = 16;
pub const LEAN_WIDE: u32 = 32;
pub const LEAN_PIXELS: u32 = 64;
pub const LEAN_FETCHES: u32 = 8;
pub const LEAN_GRADIENT_FETCHES: u32 = 2;

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LeanConvArgs {
    pub x: [*const ::core::ffi::c_void; 7usize],
    pub x_step: i64,
    pub tap: [*const ::core::ffi::c_void; 25usize],
    pub inside: [u64; 25usize],
    pub matrix: *const ::core::ffi::c_void,
    pub stencil: *const f32,
    pub bias: *const f32,
    pub scale: *const f32,
    pub shift: *const f32,
    pub y: *mut ::core::ffi::c_void,
    pub y_step: i64,
    pub residual: *const ::core::ffi::c_void,
    pub residual_step: i64,
    pub pixels: u64,
    pub taps: u64,
    pub group: u64,
    pub rows: u64,
    pub row_length: u64,
    pub k0: u64,
    pub k1: u64,
    pub panel0: u64,
    pub panel1: u64,
    pub channels: u64,
    pub flags: u64,
    pub fetch: [u64; 8usize],
    pub fetch_lines: [u64; 8usize],
    pub height: u64,
    pub width: u64,
    pub stride: u64,
    pub x_width: u64,
    pub x_rows: *const *const ::core::ffi::c_void,
    pub y_rows: *const *mut ::core::ffi::c_void,
    pub residual_rows: *const *const ::core::ffi::c_void,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LeanWeightGradientArgs {
    pub x: *const ::core::ffi::c_void,
    pub x_step: i64,
    pub x_row: i64,
    pub g: *const ::core::ffi::c_void,
    pub g_step: i64,
    pub g_row: i64,
    pub dw: *mut f32,
    pub panel_step: u64,
    pub rows: u64,
    pub pixels: u64,
    pub k0: u64,
    pub k1: u64,
    pub panel0: u64,
    pub panel1: u64,
    pub channels: u64,
    pub flags: u64,
    pub fetch: [u64; 2usize],
    pub fetch_bytes: [u64; 2usize],
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LeanStencilGradientArgs {
    pub x: *const ::core::ffi::c_void,
    pub g: *const ::core::ffi::c_void,
    pub dstencil: *mut f32,
    pub dbias: *mut f32,
    pub first: u64,
    pub last: u64,
    pub height: u64,
    pub width: u64,
    pub channels: u64,
    pub flags: u64,
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LeanElementwiseArgs {
    pub a: *const ::core::ffi::c_void,
    pub b: *const ::core::ffi::c_void,
    pub c: *const ::core::ffi::c_void,
    pub y: *mut ::core::ffi::c_void,
    pub y2: *mut f32,
    pub p: *const f32,
    pub q: *const f32,
    pub r: *const f32,
    pub sum: *mut f64,
    pub sum2: *mut f64,
    pub pixels: u64,
    pub channels: u64,
    pub width: u64,
    pub row: i64,
    pub flags: u64,
    pub factor: [f64; 4usize],
}
