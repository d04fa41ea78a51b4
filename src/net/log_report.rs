//! What sessions write under `LEANRESNET_LOG`, as text.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::dispatch::Kernels;
use crate::net::calibration::Calibration;
use crate::net::precision::Precision;
use crate::net::session::Session;
use crate::net::timing::LayerTiming;

/// The instruction set and the precision with their reasons, the threads, and the kernel of every convolution. `requested`: the precision
/// that was asked for.
pub(crate) fn dispatch_report(
    session: &Session,
    requested: Precision,
    calibration: Option<Calibration>,
    threads: usize,
) -> String {
    let (isa, precision) = (session.isa(), session.precision());
    let isa_reason = if requested.isa().ok() != Some(isa) {
        "chosen by the program"
    } else if std::env::var_os("LEANRESNET_ISA").is_some() {
        "LEANRESNET_ISA"
    } else {
        "the best of this machine"
    };
    let precision_reason = match (requested, calibration) {
        (Precision::Auto | Precision::AutoNearF32, Some(calibration)) => format!(" ({requested}: {calibration})"),
        (Precision::Auto | Precision::AutoNearF32, None) => format!(" ({requested}: no kernels of bf16)"),
        (Precision::Bf16x3, _) if precision == Precision::F32 => " (no kernels of bf16x3)".to_owned(),
        _ => String::new(),
    };
    let tiles = match Kernels::of(isa) {
        Ok(kernels) if precision == Precision::F32 && kernels.f32.dense.is_in_wide_tiles() => ", wide tiles from 64 channels on",
        _ => "",
    };
    let mut text =
        format!("dispatch isa {isa} ({isa_reason}), precision {precision}{precision_reason}, threads {threads}{tiles}\n");
    for (name, kernel) in session.kernels() {
        let _ = writeln!(text, "dispatch {name} {kernel}");
    }
    text
}

/// A table of the layers with their milliseconds per image, shares of the whole, speeds and kernels.
pub(crate) fn timing_report(timings: &[LayerTiming]) -> String {
    let total: f64 = timings.iter().map(LayerTiming::milliseconds).sum();
    let (runs, images, threads) = timings.first().map_or((0, 0, 0), |layer| (layer.runs, layer.images, layer.threads));
    let mut text = format!("timing runs {runs}, images {images}, threads {threads}, {total:.4} ms/image\n");
    let width = timings.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
    for layer in timings {
        let each = layer.milliseconds();
        let share = if total > 0.0 { 100.0 * each / total } else { 0.0 };
        let gflops = if each > 0.0 { 2.0 * layer.macs as f64 / each / 1e6 } else { 0.0 };
        let line = format!(
            "timing {:<width$}  {each:>9.4} ms  {share:>5.1} %  {gflops:>7.1} GFLOP/s  {}",
            layer.name,
            layer.kernel.unwrap_or_default()
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
