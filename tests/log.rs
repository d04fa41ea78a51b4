//! What `LEANRESNET_LOG` makes a session write to stderr, in child processes since it is read once.
#![forbid(unsafe_code)]

#[path = "common/program.rs"]
mod program;

use leanresnet::machine::prefers_wide_tiles;
use leanresnet::{Images, Isa, Model, Network, Pool, Precision, Session};
use program::this_program;

/// What the child processes below are asked by.
const CHILD: &str = "child_runs_a_session";
const AUTO_CHILD: &str = "child_runs_a_session_in_auto";

/// Run by the other tests as a child process: two runs of one session.
#[test]
#[ignore = "a child process of the other tests"]
fn child_runs_a_session() {
    run_a_session(Precision::F32);
}

/// The same in the precision that the session chooses.
#[test]
#[ignore = "a child process of the other tests"]
fn child_runs_a_session_in_auto() {
    run_a_session(Precision::Auto);
}

fn run_a_session(precision: Precision) {
    let network = Network::builder().with_input([3, 8, 8]).with_stage(8, 1).build().unwrap();
    let model = Model::random(&network, 1);
    let mut session = Session::builder(&model).pool(Pool::inline()).precision(precision).build().unwrap();
    let pixels = [0.5; 3 * 8 * 8];
    for _ in 0..2 {
        session.run(Images::nhwc_f32(&pixels, [1, 3, 8, 8]).unwrap()).unwrap();
    }
}

/// The library's lines on the child's stderr under `LEANRESNET_LOG=value`, or without the variable.
fn lines(value: Option<&str>) -> Vec<String> {
    lines_of(CHILD, None, value)
}

/// Those of one of the children, the same under `LEANRESNET_ISA=isa`.
fn lines_of(child: &str, isa: Option<Isa>, value: Option<&str>) -> Vec<String> {
    let mut command = this_program();
    command.args([child, "--exact", "--ignored", "--nocapture"]).env_remove("LEANRESNET_LOG").env_remove("LEANRESNET_ISA");
    if let Some(value) = value {
        command.env("LEANRESNET_LOG", value);
    }
    if let Some(isa) = isa {
        command.env("LEANRESNET_ISA", isa.name());
    }
    let output = command.output().expect("the child runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text.lines().filter_map(|line| line.strip_prefix("leanresnet: ")).map(str::to_owned).collect()
}

/// The second words of lines that begin with `first`.
fn second_words<'a>(lines: &'a [String], first: &str) -> Vec<&'a str> {
    let of = |line: &'a String| line.strip_prefix(first)?.split_whitespace().next();
    lines.iter().filter_map(of).collect()
}

/// What the first line says of tiles in f32.
fn tiles(isa: Isa) -> &'static str {
    let is_wide = isa.base() == Isa::Avx512 && prefers_wide_tiles();
    if is_wide { ", wide tiles from 64 channels on" } else { "" }
}

#[test]
fn nothing_is_written_unless_asked_for() {
    assert!(lines(None).is_empty());
    assert!(lines(Some("")).is_empty());
}

#[test]
fn dispatch_names_the_instruction_set_and_the_kernel_of_every_convolution() {
    let lines = lines(Some("dispatch"));
    let isa = Isa::available().filter(|isa| isa.base() == *isa).max().unwrap();
    assert_eq!(lines[0], format!("dispatch isa {isa} (the best of this machine), precision f32, threads 1{}", tiles(isa)));
    assert_eq!(second_words(&lines[1..], "dispatch "), ["stem.conv", "stages.0.0.conv1", "stages.0.0.conv2", "head"]);
    let fused = &lines[2];
    assert!(fused.starts_with(&format!("dispatch stages.0.0.conv1 lean_fused_f32_{isa}_cross4_")), "{fused}");
    assert_eq!(lines.len(), 5);
}

#[test]
fn dispatch_says_who_chose_the_instruction_set() {
    for isa in Isa::available() {
        let lines = lines_of(CHILD, Some(isa), Some("dispatch"));
        assert_eq!(lines[0], format!("dispatch isa {isa} (LEANRESNET_ISA), precision f32, threads 1{}", tiles(isa)));
    }
}

#[test]
fn dispatch_says_what_auto_chose_and_by_which_speeds() {
    for isa in Isa::available() {
        let lines = lines_of(AUTO_CHILD, Some(isa), Some("dispatch"));
        let start = format!("dispatch isa {isa} (LEANRESNET_ISA), precision ");
        let choice = lines[0].strip_prefix(&start).and_then(|rest| rest.strip_suffix("), threads 1"));
        let (precision, reason) = choice.and_then(|choice| choice.split_once(" (auto: ")).unwrap_or_else(|| panic!("{lines:?}"));
        if isa.base() == isa {
            assert_eq!((precision, reason), ("f32", "no kernels of bf16"), "{isa}");
        } else {
            let speeds = reason.strip_suffix(" in f32").and_then(|speeds| speeds.split_once(" GFLOP/s in bf16, "));
            let (half, others) = speeds.unwrap_or_else(|| panic!("{reason}"));
            // Of tile units, the speed in three products of bf16 stands before that in f32.
            let single = others.rsplit(' ').next().unwrap();
            let ratio = half.parse::<f64>().unwrap() / single.parse::<f64>().unwrap();
            // The text has rounded speeds.
            let expected = if ratio > 1.1 { "bf16" } else { "f32" };
            assert!(precision == expected || (ratio - 1.1).abs() < 0.01, "{isa}: {}", lines[0]);
        }
        assert!(lines[2].starts_with(&format!("dispatch stages.0.0.conv1 lean_fused_{precision}_")), "{lines:?}");
    }
}

#[test]
fn timing_is_a_table_at_the_end() {
    let lines = lines(Some("timing"));
    assert!(lines[0].starts_with("timing runs 2, images 2, threads 1, "), "{lines:?}");
    let layers = ["input", "stem.conv", "stages.0.0.conv1", "stages.0.0.conv2", "head"];
    assert_eq!(second_words(&lines[1..], "timing "), layers);
    assert!(lines[2].contains(" ms ") && lines[2].contains(" GFLOP/s ") && lines[2].contains("lean_dense_f32_"), "{lines:?}");
}

#[test]
fn unknown_words_are_one_warning_and_the_others_count() {
    let lines = lines(Some("kernels, dispatch,all"));
    assert_eq!(lines[0], "LEANRESNET_LOG: `kernels`, `all` not known; expected dispatch, timing");
    assert!(lines[1].starts_with("dispatch isa "));
    assert_eq!(lines.len(), 6);
}
