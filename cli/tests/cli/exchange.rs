//! Models for other programs, and the comparison with what they compute.
#![forbid(unsafe_code)]

use leanresnet::{Model, Network};
use serde_json::Value;

use crate::support::{Scratch, bytes, npy_images};

const EXPORT: &str = "model outputs max_difference_folded";
const VERIFY: &str = "model against images max_difference max_relative tolerance top1_agreement passed";

#[test]
fn export() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    let words = ["export", "run", "--onnx", "m.onnx", "--safetensors", "m.safetensors", "--npz", "m.npz", "--json"];
    let answer = scratch.run(&words).expect(0).json("export", EXPORT);
    let outputs = answer["outputs"].as_array().unwrap();
    let files = [("onnx", "m.onnx"), ("safetensors", "m.safetensors"), ("npz", "m.npz")];
    assert_eq!(outputs.len(), files.len());
    for (output, (format, path)) in outputs.iter().zip(files) {
        assert_eq!((&output["format"], &output["path"]), (&format.into(), &path.into()));
        assert_eq!(output["bytes"], bytes(&scratch.path(path)).len());
    }
    // The norms of a trained network are no identity: folding rounds, and by little.
    let difference = answer["max_difference_folded"].as_f64().unwrap();
    assert!(difference > 0.0 && difference < 1e-4, "{difference}");
    let file = bytes(&scratch.path("m.onnx"));
    let has = |file: &[u8], text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&file, "stages.0.0.conv1.spatial") && has(&file, "airplane") && !has(&file, "BatchNormalization"));

    let words = ["export", "run", "--onnx", "kept.onnx", "--keep-norm", "--json"];
    let answer = scratch.run(&words).expect(0).json("export", EXPORT);
    assert_eq!(answer["max_difference_folded"], Value::Null);
    assert!(has(&bytes(&scratch.path("kept.onnx")), "BatchNormalization"));
    for file in ["m.onnx", "kept.onnx"] {
        let answer = scratch.run(&["verify", "run", "--against", file, "--json"]).expect(0).json("verify", VERIFY);
        assert_eq!((&answer["against"], &answer["top1_agreement"]), (&file.into(), &1.0.into()));
    }
    std::fs::write(scratch.path("broken.onnx"), b"no model").unwrap();
    scratch.run(&["verify", "run", "--against", "broken.onnx"]).expect_error(3, &["broken.onnx"]);
    let text = scratch.run(&["export", "cifar10-s", "--onnx", "shipped.onnx"]).expect(0).stdout;
    assert!(
        text.contains("wrote shipped.onnx (onnx, ") && text.contains("folding the norms changes logits by at most"),
        "{text}"
    );
}

#[test]
fn an_exported_state_dict_is_imported_again() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    scratch.run(&["export", "run", "--safetensors", "state.safetensors"]).expect(0);
    // A state dict is no model.
    scratch.run(&["eval", "state.safetensors"]).expect_error(3, &["import state.safetensors"]);
    let words = ["import", "state.safetensors", "--config", "config.toml", "-o", "again.safetensors"];
    scratch.run(&words).expect(0);
    let answer = scratch.run(&["verify", "run", "--against", "again.safetensors", "--json"]).expect(0).json("verify", VERIFY);
    assert_eq!((&answer["max_difference"], &answer["images"], &answer["passed"]), (&0.0.into(), &64.into(), &true.into()));
}

#[test]
fn export_writes_over_nothing_of_its_own() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    scratch.run(&["export", "run"]).expect_error(2, &["--onnx", "hint: leanresnet export --help"]);
    scratch.run(&["export", "run", "--npz", "m.npz", "--keep-norm"]).expect_error(2, &["--onnx"]);
    let same = ["export", "run", "--npz", "m.bin", "--onnx", "m.bin"];
    scratch.run(&same).expect_error(2, &["--npz; expected a file of its own, got `m.bin`, which is that of another format"]);
    assert!(!scratch.path("m.bin").exists());
    let before = bytes(&scratch.path("run/last.safetensors"));
    let model = ["export", "run/last.safetensors", "--safetensors", "run/../run/last.safetensors"];
    scratch.run(&model).expect_error(2, &["which is MODEL"]);
    assert!(bytes(&scratch.path("run/last.safetensors")) == before);
    scratch.run(&["export", "absent", "--onnx", "m.onnx"]).expect_error(1, &["absent"]);
    scratch.run(&["export", "run", "--onnx", "absent/m.onnx"]).expect_error(1, &["cannot write absent/m.onnx"]);
}

#[test]
fn verify_against_models() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    let other = ["train", "--config", "config.toml", "--seed", "2", "--out", "other"];
    scratch.run(&other).expect(0);
    let answer = scratch.run(&["verify", "run", "--against", "run/last.ckpt", "--json"]).expect(0).json("verify", VERIFY);
    assert_eq!((&answer["max_relative"], &answer["top1_agreement"]), (&0.0.into(), &1.0.into()));
    let ran = scratch.run(&["verify", "run", "--against", "other", "--samples", "7", "--json"]);
    let ran = ran.expect_error(1, &["logits of run/last.safetensors and other; expected a relative difference of at most"]);
    let answer: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&answer["images"], &answer["passed"]), (&7.into(), &false.into()));
    assert!(answer["max_relative"].as_f64() > answer["tolerance"].as_f64(), "{answer}");
    let words = ["verify", "run", "--against", "other", "--tolerance", "1e9"];
    assert!(scratch.run(&words).expect(0).stdout.contains("top-1 agreement"));
    scratch.run(&["verify", "run", "--against", "other", "--tolerance", "-1"]).expect_error(2, &["--tolerance"]);
    scratch.run(&["verify", "run"]).expect_error(2, &["--against"]);
    scratch.run(&["verify", "run", "--against", "config.toml"]).expect_error(3, &["config.toml"]);
    scratch.run(&["verify", "run", "--against", "absent.safetensors"]).expect_error(1, &["absent.safetensors"]);
}

#[test]
fn verify_against_logits() {
    let scratch = Scratch::new();
    scratch.train("run").expect(0);
    // More than a batch.
    std::fs::write(scratch.path("x.npy"), npy_images(70)).unwrap();
    scratch.run(&["predict", "run", "--input", "x.npy", "--output", "y.npy"]).expect(0);
    let verify = |file: &str| scratch.run(&["verify", "run", "--input", "x.npy", "--against", file, "--json"]);
    let answer = verify("y.npy").expect(0).json("verify", VERIFY);
    assert_eq!((&answer["images"], &answer["max_difference"], &answer["against"]), (&70.into(), &0.0.into(), &"y.npy".into()));
    let whole = bytes(&scratch.path("y.npy"));
    // The last logit, of the second batch.
    for (value, kept) in [(1e6_f32, true), (f32::NAN, false)] {
        let changed = [&whole[..whole.len() - 4], &value.to_le_bytes()].concat();
        std::fs::write(scratch.path("z.npy"), changed).unwrap();
        let ran = verify("z.npy").expect_error(1, &["relative difference"]);
        let answer: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
        assert_eq!((answer["max_difference"].is_number(), &answer["passed"]), (kept, &false.into()), "{answer}");
    }
    scratch.run(&["verify", "run", "--against", "y.npy"]).expect_error(2, &["--input", "x.npy"]);
    scratch.run(&["verify", "run", "--against", "y.npy", "--input", "x.npy", "--samples", "3"]).expect_error(2, &["--samples"]);
    std::fs::write(scratch.path("few.npy"), npy_images(3)).unwrap();
    let words = ["verify", "run", "--input", "few.npy", "--against", "y.npy"];
    scratch.run(&words).expect_error(3, &["y.npy: shape; expected [3, 10], got [70, 10]"]);
    scratch
        .run(&["verify", "run", "--input", "x.npy", "--against", "x.npy"])
        .expect_error(3, &["x.npy: shape; expected [70, 10], got [70, 3, 32, 32]"]);
    std::fs::write(scratch.path("none.npy"), npy_images(0)).unwrap();
    scratch.run(&["verify", "run", "--input", "none.npy", "--against", "run"]).expect_error(2, &["at least one image"]);
}

#[test]
fn models_of_other_sizes_cannot_be_compared() {
    let scratch = Scratch::new();
    let network = || Network::builder().with_stage(4, 1);
    for (name, network) in [("a", network()), ("b", network().with_classes(3)), ("c", network().with_input([1, 9, 8]))] {
        Model::random(&network.build().unwrap(), 1).save(scratch.path(&format!("{name}.safetensors"))).unwrap();
    }
    let verify = |file: &str| scratch.run(&["verify", "a.safetensors", "--against", file]);
    verify("b.safetensors").expect_error(3, &["b.safetensors: classes; expected 10, got 3", "leanresnet summary"]);
    verify("c.safetensors").expect_error(3, &["c.safetensors: input; expected [3, 32, 32], got [1, 9, 8]"]);
}
