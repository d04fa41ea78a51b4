//! Everything that can be wrong: exit code, message, hint.
#![forbid(unsafe_code)]

use crate::support::Scratch;

#[test]
fn the_command_line_itself() {
    let scratch = Scratch::new();
    scratch.run(&["train", "--epoch", "3"]).expect_error(2, &["--epoch", "hint: leanresnet train --help"]);
    scratch.run(&["evaluate"]).expect_error(2, &["evaluate", "eval"]);
    scratch.run(&["train", "--lr", "fast"]).expect_error(2, &["fast", "--lr"]);
    scratch.run(&["train", "--resume", "x", "--batch", "3"]).expect_error(2, &["--resume", "--batch"]);
    scratch.run(&["doctor", "--threads", "1,2"]).expect_error(2, &["--threads", "expected one value"]);
    assert_eq!(scratch.run(&[]).expect(2).stdout, "");
    assert!(scratch.run(&["--help"]).expect(0).stdout.contains("train"));
    assert!(scratch.run(&["--version"]).expect(0).stdout.starts_with("leanresnet "));
}

#[test]
fn instruction_sets_and_threads() {
    let scratch = Scratch::new();
    scratch.run(&["summary", "--isa", "sse9"]).expect_error(2, &["`sse9`", "portable", "doctor"]);
    let other = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    scratch.run(&["doctor", "--isa", other]).expect_error(2, &[other, "not available"]);
    let ran = scratch.command(&["doctor"]).env("LEANRESNET_ISA", "fast").output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    let ran = scratch.command(&["doctor"]).env("LEANRESNET_NUM_THREADS", "many").output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    let ran = scratch.command(&["doctor", "--isa", "portable"]).env("LEANRESNET_ISA", "fast").output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "a flag goes before the environment");
}

#[test]
fn paths_that_are_not_there() {
    let scratch = Scratch::new();
    scratch.run(&["eval", "absent.safetensors"]).expect_error(1, &["absent.safetensors", "ls"]);
    scratch.run(&["summary", "--config", "absent.toml"]).expect_error(1, &["absent.toml"]);
    scratch.run(&["train", "--resume", "absent"]).expect_error(1, &["absent"]);
    scratch.run(&["train", "--data", "cifar10", "--data-dir", "absent"]).expect_error(3, &["absent", "--data-dir"]);
    std::fs::create_dir(scratch.path("empty")).unwrap();
    scratch.run(&["eval", "empty"]).expect_error(3, &["best.safetensors"]);
    scratch.run(&["train", "--data", "cifar10", "--data-dir", "empty"]).expect_error(3, &["empty"]);
    assert!(!scratch.path("runs").exists(), "a run that could not begin leaves no folder");
}

#[test]
fn files_that_are_damaged() {
    let scratch = Scratch::new();
    let batch = scratch.path("data/data_batch_3.bin");
    let whole = std::fs::read(&batch).unwrap();
    std::fs::write(&batch, &whole[..whole.len() - 100]).unwrap();
    scratch.train("run").expect_error(3, &["data_batch_3.bin"]);
    std::fs::write(scratch.path("broken.safetensors"), b"no model").unwrap();
    scratch.run(&["eval", "broken.safetensors"]).expect_error(3, &["broken.safetensors"]);
    std::fs::write(scratch.path("bad.toml"), "[network]\npreset = \"small\"\nwidth = 3\n").unwrap();
    scratch.run(&["summary", "--config", "bad.toml"]).expect_error(2, &["bad.toml", "line 3", "width"]);
    std::fs::write(scratch.path("bad.toml"), "[network\n").unwrap();
    scratch.run(&["train", "--config", "bad.toml"]).expect_error(2, &["bad.toml", "line 1"]);
}

#[test]
fn a_folder_that_exists_is_never_overwritten() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("run")).unwrap();
    scratch.train("run").expect_error(2, &["run exists already"]);
    assert_eq!(std::fs::read_dir(scratch.path("run")).unwrap().count(), 0);
}

#[test]
fn errors_are_json_too() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["eval", "absent.safetensors", "--json"]).expect_error(1, &[]);
    let error = ran.json("eval", "error")["error"].clone();
    assert_eq!(error["kind"], "failure");
    assert!(error["message"].as_str().unwrap().contains("absent.safetensors") && error["hint"].is_string());
    let ran = scratch.run(&["train", "--json", "--unknown"]).expect_error(2, &[]);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&line["schema"], &line["error"]["kind"]), (&1.into(), &"usage".into()));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let scratch = Scratch::new();
    for words in [&["summary"][..], &["summary", "--json"], &["completions", "zsh"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scratch.command(words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{words:?}");
    }
}

#[test]
fn no_colours_outside_of_a_terminal() {
    let scratch = Scratch::new();
    let help = scratch.run(&["help", "train"]).expect(0).stdout;
    let error = scratch.run(&["train", "--nonsense"]).expect(2).stderr;
    assert!(!help.contains('\u{1b}') && !error.contains('\u{1b}'));
}

/// A disk without space: files cannot grow beyond 32 KiB, enough for those that an emulator needs, and less than a checkpoint of the wide
/// network.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_state_before() {
    let scratch = Scratch::new();
    let limited = |words: &str| scratch.shell(&format!("ulimit -f 64; $TOOL {words}"));
    let wide = ["train", "--config", "config.toml", "--set", "network.stages=[{width=64,blocks=1}]", "--out"];
    limited(&format!("{} none", wide.map(|word| format!("'{word}'")).join(" "))).expect_error(1, &["cannot write none/"]);
    scratch.run(&[&wide[..], &["run"]].concat()).expect(0);
    let before = std::fs::read(scratch.path("run/last.ckpt")).unwrap();
    assert!(before.len() > 32 << 10);
    limited("train --resume run --epochs 4").expect_error(1, &["cannot write", "train --resume run"]);
    assert_eq!(std::fs::read(scratch.path("run/last.ckpt")).unwrap(), before);
    scratch.run(&["train", "--resume", "run", "--epochs", "4"]).expect(0);
}
