//! What sessions write under `LEANRESNET_LOG`, as text.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::isa::Isa;
use crate::net::precision::Precision;
use crate::net::timing::LayerTiming;

/// The instruction set with its reason, the threads, and the kernel of every convolution.
pub(crate) fn dispatch_report(isa: Isa, precision: Precision, threads: usize, kernels: &[(String, &'static str)]) -> String {
    let reason = if precision.isa().ok() != Some(isa) {
        "chosen by the program"
    } else if std::env::var_os("LEANRESNET_ISA").is_some() {
        "LEANRESNET_ISA"
    } else {
        "the best of this machine"
    };
    let mut text = format!("dispatch isa {isa} ({reason}), threads {threads}\n");
    for (name, kernel) in kernels {
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
