//! The proof of every kernel: for each row of the registry and each family of proofs one named trial, and the same for the
//! portable code. Rows that this machine or this build does not have are ignored trials, so that the gap shows;
//! `LEANRESNET_REQUIRE=cc,avx2,avx512,neon` (words of the caller's choice) makes them fail instead.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../kernels/gen/mod.rs"]
#[allow(dead_code, reason = "the names and the rows are all that is needed here")]
mod generator;
#[path = "../operators/mod.rs"]
mod operators;

mod bf16;
mod bf16x3;
mod blocks;
mod convolution;
mod crash;
mod elementwise;
mod gradients;
mod rings;
mod special;
mod subject;
mod transpose;

use generator::name::{self, OPS};
use generator::registry::ROWS;
use generator::template;
use leanresnet::Isa;
use leanresnet::internals::compiled;
use libtest_mimic::{Arguments, Failed, Trial};
use subject::Subject;

/// A proof of one kernel.
type Proof = fn(&Subject) -> Result<(), String>;

/// The families of proofs for an operator's word.
fn families(op: &str, dtype: &str) -> &'static [(&'static str, Proof)] {
    match op {
        "fused" | "dense" if dtype == "bf16" => {
            &[("exact", bf16::exact), ("bound", bf16::within_bound), ("guard", bf16::guard), ("special", bf16::special)]
        }
        "gradientstatistics" if dtype == "bf16" => {
            &[("exact", elementwise::exact), ("bound", elementwise::bound), ("special", special::elementwise)]
        }
        "weightgradient" if dtype == "bf16" => &[
            ("exact", gradients::matrix_exact),
            ("bound", gradients::matrix_bound),
            ("special", special::weight_gradient),
            ("parts", gradients::matrix_parts),
        ],
        "fused" if dtype == "bf16x3" => &[
            ("exact", bf16x3::exact),
            ("bound", bf16x3::within_bound),
            ("guard", convolution::lean_guard),
            ("special", bf16x3::special),
            ("parts", blocks::lean),
            ("slices", blocks::slices),
            ("rings", rings::rings),
            ("segment", rings::segment),
        ],
        "dense" if dtype == "bf16x3" => &[
            ("exact", bf16x3::exact),
            ("bound", bf16x3::within_bound),
            ("guard", convolution::dense_guard),
            ("special", bf16x3::special),
            ("parts", blocks::dense),
            ("slices", blocks::slices),
            ("strided_views", blocks::pixels_apart),
            ("rings", rings::dense),
        ],
        "fused" | "dense" | "grouped" if dtype != "f32" => &[],
        "fused" => &[
            ("exact", convolution::lean_exact),
            ("bound", convolution::lean_bound),
            ("guard", convolution::lean_guard),
            ("special", special::lean),
            ("parts", blocks::lean),
            ("slices", blocks::slices),
            ("rings", rings::rings),
            ("segment", rings::segment),
            ("transpose", transpose::lean),
        ],
        "grouped" => &[
            ("exact", convolution::grouped_exact),
            ("bound", convolution::grouped_bound),
            ("guard", convolution::grouped_guard),
            ("special", special::grouped),
            ("parts", blocks::grouped),
        ],
        "dense" => &[
            ("exact", convolution::dense_exact),
            ("large", convolution::dense_large),
            ("bound", convolution::dense_bound),
            ("guard", convolution::dense_guard),
            ("special", special::dense),
            ("parts", blocks::dense),
            ("slices", blocks::slices),
            ("strided_views", blocks::pixels_apart),
            ("rings", rings::dense),
            ("transpose", transpose::dense),
        ],
        "weightgradient" => &[
            ("exact", gradients::matrix_exact),
            ("bound", gradients::matrix_bound),
            ("special", special::weight_gradient),
            ("parts", gradients::matrix_parts),
            ("padding", gradients::matrix_padding),
        ],
        "stencilgradient" => &[
            ("exact", gradients::stencil_exact),
            ("bound", gradients::stencil_bound),
            ("special", special::stencil_gradient),
            ("parts", gradients::stencil_parts),
        ],
        "gradientstatistics" => &[
            ("exact", elementwise::exact),
            ("bound", elementwise::bound),
            ("special", special::elementwise),
            ("mask", special::mask),
        ],
        _ if operators::elementwise::WORDS.contains(&op) => {
            &[("exact", elementwise::exact), ("bound", elementwise::bound), ("special", special::elementwise)]
        }
        _ => &[],
    }
}

fn main() {
    crash::report_the_trial();
    let arguments = Arguments::from_args();
    let required = required_words(std::env::var("LEANRESNET_REQUIRE").ok().as_deref());
    let mut trials = vec![
        Trial::test("registry::every_operator_has_proofs", every_operator_has_proofs),
        Trial::test("registry::every_compiled_kernel_is_a_row", every_compiled_kernel_is_a_row),
        Trial::test("environment::the_forced_tier_is_active", the_forced_tier_is_active),
        Trial::test("environment::required_words_are_known", {
            let required = required.clone();
            move || required_words_are_known(&required)
        }),
    ];
    for row in ROWS {
        let subject = Subject::of_row(row);
        // Candidates are compiled only where they are asked for.
        let is_compiled = row.ship || cfg!(feature = "all-kernels");
        let is_required = is_compiled && required.iter().any(|word| word == row.isa);
        trials.extend(trials_of((row.op, row.dtype), &name::format(row), &subject, is_required));
        let (pixels, channels) = template::wide_tile(row);
        if pixels > 0 {
            let name = format!("{}::{pixels}x{channels}", name::format(row));
            trials.extend(trials_of((row.op, row.dtype), &name, &Subject::of_wide_tiles(row), is_required));
        }
    }
    for (op, dtype, spatial) in portable_operators() {
        let subject = Subject::portable(op, dtype, spatial);
        let name = subject.as_ref().map_or_else(|_| format!("portable {op}"), |subject| subject.name.clone());
        trials.extend(trials_of((op, dtype), &name, &subject, true));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The trials of one kernel. One that cannot run is ignored, or fails where it is required.
fn trials_of((op, dtype): (&str, &str), name: &str, subject: &Result<Subject, String>, is_required: bool) -> Vec<Trial> {
    let trial = |(family, proof): &'static (&'static str, Proof)| {
        let (title, subject) = (format!("{name}::{family}"), subject.clone());
        let is_ignored = subject.is_err() && !is_required;
        let run = move || -> Result<(), Failed> {
            let subject = subject?;
            crash::enter(&format!("{}::{family}", subject.name));
            proof(&subject).map_err(Failed::from)
        };
        Trial::test(title, run).with_ignored_flag(is_ignored)
    };
    families(op, dtype).iter().map(trial).collect()
}

/// Every operator with its types, and every stencil it is specialised for. Portable code does not multiply in three products.
fn portable_operators() -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    let portable = ROWS.iter().filter(|row| row.dtype != "bf16x3");
    let mut operators: Vec<_> = portable.map(|row| (row.op, row.dtype, row.spatial)).collect();
    operators.sort_unstable();
    operators.dedup();
    operators
}

fn required_words(value: Option<&str>) -> Vec<String> {
    value.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_string).collect()
}

fn required_words_are_known(required: &[String]) -> Result<(), Failed> {
    for word in required {
        match word.as_str() {
            "cc" if compiled().next().is_none() => return Err("LEANRESNET_REQUIRE=cc, but no C kernel was compiled".into()),
            "cc" => {}
            tier => {
                let isa = tier.parse::<Isa>().map_err(|error| format!("LEANRESNET_REQUIRE: {error}; or `cc`"))?;
                isa.require().map_err(|error| format!("LEANRESNET_REQUIRE={tier}: {error}"))?;
            }
        }
    }
    Ok(())
}

fn every_operator_has_proofs() -> Result<(), Failed> {
    if let Some(row) = ROWS.iter().find(|row| families(row.op, row.dtype).is_empty()) {
        return Err(format!("`{}` of {} has no family of proofs in tests/kernels", row.op, row.dtype).into());
    }
    for (op, _) in OPS {
        if !ROWS.iter().any(|row| row.op == *op) {
            return Err(format!("`{op}` has no row in the registry").into());
        }
    }
    Ok(())
}

fn every_compiled_kernel_is_a_row() -> Result<(), Failed> {
    let unknown = compiled().find(|(_, name)| !ROWS.iter().any(|row| name::format(row) == *name));
    unknown.map_or(Ok(()), |(_, name)| Err(format!("{name} is no row of the registry").into()))
}

/// A forced tier that quietly did not run would prove nothing.
fn the_forced_tier_is_active() -> Result<(), Failed> {
    let active = Isa::active().map_err(|error| error.to_string())?;
    let expected = match std::env::var("LEANRESNET_ISA") {
        Ok(name) => name,
        Err(_) => Isa::available().filter(|isa| isa.base() == *isa).max().map_or("none", Isa::name).to_string(),
    };
    let table = leanresnet::internals::dispatch::Kernels::active().map_err(|error| error.to_string())?;
    if active.name() == expected && table.isa == active {
        return Ok(());
    }
    Err(format!("{expected} was asked for, {active} is active, and the kernels are those of {}", table.isa).into())
}
