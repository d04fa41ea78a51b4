//! The model that comes with the tool: used where the command line names none, and by its name.
#![forbid(unsafe_code)]

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::support::{Scratch, bytes, npy_images};

/// The file that the tool was built with.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/cifar10-s.safetensors");

/// The first answer without what differs between two runs of the same model.
fn answer(scratch: &Scratch, words: &[&str]) -> Value {
    let mut answer: Value = serde_json::from_str(scratch.run(words).expect(0).stdout.lines().next().unwrap()).unwrap();
    for key in ["model", "ms_per_image", "output"] {
        answer.as_object_mut().unwrap().remove(key);
    }
    answer
}

#[test]
fn eval_without_a_model() {
    let scratch = Scratch::new();
    let ran = scratch.run(&["eval", "--data-dir", "data", "--json"]).expect(0);
    let keys = "model dtype images loss top1 top5 ms_per_image classes confusion";
    let shipped = ran.json("eval", keys);
    assert_eq!((&shipped["model"], &shipped["images"]), (&"cifar10-s".into(), &20.into()));
    assert!(ran.stderr.contains("no MODEL given: taking the shipped cifar10-s, trained for"), "{}", ran.stderr);
    let words = ["eval", "cifar10-s", "--data", "cifar10", "--data-dir", "data", "--json"];
    let named = scratch.run(&words).expect(0);
    assert_eq!((named.stderr.as_str(), &named.json("eval", keys)["model"]), ("", &"cifar10-s".into()));
    let file = ["eval", FILE, "--data", "cifar10", "--data-dir", "data", "--json"];
    assert_eq!(answer(&scratch, &words), answer(&scratch, &file), "it is the file of the repository");
    scratch.run(&["eval"]).expect_error(2, &["data set cifar10", "hint: --data-dir DIR"]);
}

#[test]
fn predict_without_a_model() {
    let scratch = Scratch::new();
    let colour = Rgb([90, 140, 200]);
    RgbImage::from_pixel(32, 32, colour).save(scratch.path("small.png")).unwrap();
    RgbImage::from_pixel(1600, 1067, colour).save(scratch.path("large.png")).unwrap();
    RgbImage::from_pixel(1067, 1600, colour).save(scratch.path("photo.jpg")).unwrap();
    std::fs::copy(scratch.path("small.png"), scratch.path("nameless")).unwrap();
    let ran = scratch.run(&["predict", "photo.jpg", "large.png", "nameless", "--json", "--top", "10"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 3);
    let keys = ran.json("predict", "model file top");
    assert_eq!((&keys["model"], &keys["file"]), (&"cifar10-s".into(), &"nameless".into()));
    let classes: Vec<&str> = keys["top"].as_array().unwrap().iter().map(|guess| guess["class"].as_str().unwrap()).collect();
    assert!(classes.contains(&"airplane") && classes.contains(&"truck"), "{classes:?}");
    let top = |image: &str| answer(&scratch, &["predict", "cifar10-s", image, "--json"])["top"].clone();
    assert_eq!(top("large.png"), top("small.png"), "a photo is scaled to the input");
    assert_eq!(top("nameless"), top("small.png"));
    assert!(scratch.run(&["predict", "nameless"]).expect(0).stdout.contains('%'), "the content tells that it is a picture");
}

#[test]
fn predict_arrays_without_a_model() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("x.npy"), npy_images(3)).unwrap();
    let run = |words: &[&str], output: &str| {
        let words = [&["predict"], words, &["--input", "x.npy", "--output", output, "--json"]].concat();
        scratch.run(&words).expect(0).json("predict", "model images shape output")
    };
    assert_eq!(run(&[], "y.npy")["model"], "cifar10-s");
    assert_eq!(run(&[FILE], "z.npy")["model"], FILE);
    assert!(bytes(&scratch.path("y.npy")) == bytes(&scratch.path("z.npy")));
}

#[test]
fn predict_needs_something_to_look_at() {
    let scratch = Scratch::new();
    scratch.run(&["predict"]).expect_error(2, &["predict; expected an IMAGE", "got neither", "hint: leanresnet predict"]);
    scratch.run(&["predict", "cifar10-s"]).expect_error(2, &["only `cifar10-s`, which is taken for a MODEL"]);
    scratch.run(&["predict", "absent.png"]).expect_error(1, &["cannot read absent.png"]);
    scratch.run(&["predict", "absent", "absent.png"]).expect_error(1, &["cannot read absent:"]);
    std::fs::write(scratch.path("broken.png"), "no picture").unwrap();
    scratch.run(&["predict", "broken.png"]).expect_error(3, &["broken.png: picture; expected a whole PNG"]);
    scratch.run(&["predict", "broken.png", "data"]).expect_error(2, &["the folder `data`", "a MODEL comes first"]);
    scratch.run(&["predict", "broken.png", "--input", "x.npy", "--output", "y.npy"]).expect_error(2, &["both --input"]);
    scratch.run(&["predict", "run", "a.png", "--input", "x.npy", "--output", "y.npy"]).expect_error(2, &["both --input"]);
}

#[test]
fn the_name_stands_for_the_model_wherever_one_is_taken() {
    let scratch = Scratch::new();
    let summary = scratch.run(&["summary", "cifar10-s", "--json"]).expect(0).json("summary", "parameters");
    assert_eq!(summary["parameters"], 267_130);
    let words = ["bench", "net", "cifar10-s", "--batch", "1", "--threads", "1", "--seconds", "0.02", "--rounds", "1", "--json"];
    assert_eq!(scratch.run(&words).expect(0).json("bench", "preset")["preset"], "cifar10-s");
    // Learning at the rate 0 moves no weight.
    let still = ["--data", "cifar10", "--data-dir", "data", "--epochs", "1", "--batch", "50", "--lr", "0"];
    scratch.run(&[&["train", "--init", "cifar10-s", "--out", "run"], &still[..]].concat()).expect(0);
    let head = |model: &std::path::Path| leanresnet::Model::load(model).unwrap().tensor("head.weight").unwrap().1.to_vec();
    assert!(head(&scratch.path("run/last.safetensors")) == head(FILE.as_ref()), "the weights are those of the shipped model");
}

#[test]
fn files_and_folders_of_that_name_come_first() {
    let scratch = Scratch::new();
    scratch.train("cifar10-s").expect(0);
    let evaluated = |words: &[&str]| scratch.run(&[&["eval"], words, &["--json"]].concat()).expect(0).json("eval", "model");
    assert_eq!(evaluated(&["cifar10-s"])["model"], "cifar10-s/last.safetensors");
    assert_eq!(evaluated(&["--data-dir", "data"])["model"], "cifar10-s", "without a MODEL it is the shipped one all the same");
    assert!(scratch.run(&["summary", "cifar10-s"]).expect(0).stdout.contains("stages 8x1"));
    std::fs::write(scratch.path("cifar10-s/cifar10-s"), "no model").unwrap();
    let ran = scratch.command(&["summary", "cifar10-s"]).current_dir(scratch.path("cifar10-s")).output().unwrap();
    assert_eq!(ran.status.code(), Some(3), "the file is read");
}
