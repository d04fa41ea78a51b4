//! Training runs: files, signals, resume.
#![forbid(unsafe_code)]

use crate::support::{Scratch, bytes};

/// Files that two equal runs have in common to the byte.
const RESULTS: [&str; 3] = ["last.safetensors", "metrics.jsonl", "config.toml"];

#[test]
fn a_run_leaves_its_files_and_says_what_is_next() {
    let scratch = Scratch::new();
    let words = ["train", "--config", "config.toml", "--validation", "20"];
    let ran = scratch.run(&words).expect(0);
    let run = "runs/config-cifar10-1";
    for file in
        "config.toml metrics.jsonl timing.jsonl curves.svg curves.png last.safetensors best.safetensors last.ckpt".split(' ')
    {
        assert!(scratch.path(run).join(file).exists(), "{file}");
    }
    for word in [run, "top-1", "leanresnet eval", "leanresnet predict", "--resume"] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("epoch 2/2") && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
    // The next run gets the next number; --quiet leaves only the answer.
    let words = ["train", "--config", &format!("{run}/config.toml"), "--quiet", "--json"];
    let ran = scratch.run(&words).expect(0);
    let keys = "run model stopped epochs steps seconds images_per_second train_loss train_top1 val_loss val_top1 val_top5 test_loss \
                test_top1 best_epoch parameters";
    let answer = ran.json("train", keys);
    assert_eq!((ran.stderr.as_str(), &answer["stopped"], &answer["epochs"]), ("", &"finished".into(), &2.into()));
    assert_eq!(ran.stdout.lines().count(), 1);
    let second = scratch.path(answer["run"].as_str().unwrap());
    for file in RESULTS {
        assert!(bytes(&scratch.path(run).join(file)) == bytes(&second.join(file)), "{file} differs");
    }
}

#[test]
fn a_run_in_bf16_stays_in_bf16_when_it_goes_on() {
    let scratch = Scratch::new();
    let train = |words: &[&str]| scratch.run(&[&["train", "--json"], words].concat()).expect(0);
    let config = ["--config", "config.toml", "--dtype", "bf16"];
    train(&[&config[..], &["--out", "whole"]].concat());
    train(&[&config[..], &["--epochs", "1", "--out", "parts"]].concat());
    let ran = train(&["--resume", "parts", "--epochs", "2"]);
    let answer: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(answer["epochs"], 2);
    let config = std::fs::read_to_string(scratch.path("parts/config.toml")).unwrap();
    assert!(config.contains("dtype = \"bf16\""), "{config}");
    scratch.train("single").expect(0);
    let model = |run: &str| bytes(&scratch.path(run).join("last.safetensors"));
    assert_ne!(model("whole"), model("single"), "the type does not matter");
    scratch.run(&["eval", "parts", "--data", "cifar10", "--data-dir", "data"]).expect(0);
    scratch.run(&["train", "--dtype", "f16"]).expect_error(2, &["f16", "f32, bf16"]);
}

#[test]
fn a_model_can_be_the_start() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    scratch
        .run(&["train", "--init", "run", "--data", "cifar10", "--data-dir", "data", "--epochs", "1", "--out", "next"])
        .expect(0);
    let words = ["train", "--init", "run", "--preset", "small", "--data", "cifar10", "--data-dir", "data", "--out", "other"];
    scratch.run(&words).expect_error(2, &["--init"]);
}

#[test]
fn divergence_keeps_the_last_finite_state() {
    let scratch = Scratch::new();
    let words = ["train", "--config", "config.toml", "--lr", "1e30", "--epochs", "3", "--out", "run", "--json"];
    let ran = scratch.run(&words).expect_error(4, &["diverged at step", "--lr"]);
    let answer: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(answer["stopped"], "diverged");
    scratch.run(&["eval", "run/last.ckpt", "--data", "cifar10", "--data-dir", "data"]).expect(0);
}

/// Waits until the run in `folder` has finished an epoch.
#[cfg(unix)]
fn wait_for_an_epoch(metrics: &std::path::Path) {
    for _ in 0..3000 {
        if std::fs::metadata(metrics).is_ok_and(|metadata| metadata.len() > 0) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no epoch within 30 seconds");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_resumes_without_a_trace() {
    let words = ["train", "--config", "config.toml", "--epochs", "60", "--batch", "10", "--out"];
    interrupt_and_resume(&words, &[("INT", 130, "first"), ("TERM", 143, "second")]);
    let of_preset = ["train", "--preset", "cifar10-s", "--set", "network.stages=[{ width = 8, blocks = 1 }]"];
    let tiny = ["--set", "network.stem.stride=4", "--data", "cifar10", "--data-dir", "data", "--batch", "10", "--out"];
    interrupt_and_resume(&[&of_preset[..], &tiny].concat(), &[("INT", 130, "run")]);
}

/// Runs `words` to the end, and with each signal (its name, the exit code, a folder) once more in two parts.
#[cfg(unix)]
fn interrupt_and_resume(words: &[&str], signals: &[(&str, i32, &str)]) {
    let scratch = Scratch::new();
    scratch.run(&[words, &["whole"]].concat()).expect(0);
    for &(signal, code, out) in signals {
        let mut command = scratch.command(&[words, &[out, "--json"]].concat());
        let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_for_an_epoch(&scratch.path(out).join("metrics.jsonl"));
        assert!(
            std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success()
        );
        let ran = crate::support::Ran::from(child.wait_with_output().unwrap()).expect(code);
        assert_eq!(ran.json("train", "run model")["stopped"], "interrupted");
        assert!(ran.stderr.contains(&format!("interrupted by SIG{signal}")) && ran.stderr.contains("--resume"), "{}", ran.stderr);
        let resumed = scratch.run(&["train", "--resume", out]).expect(0);
        assert!(resumed.stderr.contains("going on with") && resumed.stderr.contains("nothing changed"), "{}", resumed.stderr);
        for file in RESULTS {
            assert!(
                bytes(&scratch.path("whole").join(file)) == bytes(&scratch.path(out).join(file)),
                "{file} differs after SIG{signal}"
            );
        }
    }
}

#[test]
fn a_resumed_run_says_what_changed() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    let ran = scratch.run(&["train", "--resume", "run", "--epochs", "3", "--isa", "portable", "--threads", "1"]).expect(0);
    assert!(ran.stderr.contains("epochs: 2 -> 3"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(scratch.path("run/metrics.jsonl")).unwrap().lines().count(), 3);
    scratch.run(&["train", "--resume", "run", "--epochs", "1"]).expect_error(2, &["epochs"]);
}
