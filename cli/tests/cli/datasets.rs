//! Data sets that are arrays, folders of pictures, and images of 96 x 96 pixels; and arrays in and out of `predict`.
#![forbid(unsafe_code)]

use std::path::Path;

use image::{Rgb, RgbImage};
use leanresnet::npy::{self, Values, write_npz};

use crate::support::{Scratch, bytes};

/// Flags of a run that takes no time.
const TINY: [&str; 6] = ["--set", "network.stages=[{ width = 8, blocks = 1 }]", "--epochs", "1", "--batch", "10"];

/// Trains a tiny network on a data set, evaluates it, and gives the text of the run's configuration and the answer of `eval`.
fn train_and_eval(scratch: &Scratch, data: &str, dir: &str, words: &[&str]) -> (String, serde_json::Value) {
    let source = ["--data", data, "--data-dir", dir];
    let run = format!("run-{data}");
    let ran = scratch.run(&[&["train", "--out", &run, "--json"], &source[..], &TINY, words].concat()).expect(0);
    let trained = ran.json("train", "test_loss test_top1");
    let judged = scratch.run(&["eval", &run, "--json"]).expect(0).json("eval", "images loss top1 classes");
    assert_eq!((&trained["test_loss"], &trained["test_top1"]), (&judged["loss"], &judged["top1"]));
    (std::fs::read_to_string(scratch.path(&run).join("config.toml")).unwrap(), judged)
}

/// 20 images of 3 x 8 x 8 bytes of five classes, [n, c, h, w].
fn pixels() -> Vec<u8> {
    (0..20 * 3 * 64).map(|at| ((at / 192 % 5) * 40 + at * 7 % 16) as u8).collect()
}

fn labels() -> Vec<i64> {
    (0..20).map(|image| image % 5).collect()
}

fn write_arrays(path: &Path, x: Values<'_>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_npz(path, &[("x", &[20, 3, 8, 8], x), ("y", &[20], Values::I64(&labels()))]).unwrap();
}

fn logits(path: &Path) -> Vec<f32> {
    let mut array = npy::open(path, "logits").unwrap();
    assert_eq!(array.shape(), [20, 5]);
    let mut values = vec![0.0; 100];
    array.read_f32(&mut values).unwrap();
    values
}

#[test]
fn arrays() {
    let scratch = Scratch::new();
    let pixels = pixels();
    for part in ["train", "test"] {
        write_arrays(&scratch.path("arrays").join(format!("{part}.npz")), Values::U8(&pixels));
    }
    let (config, judged) = train_and_eval(&scratch, "npz", "arrays", &["--augment", "crop=1,flip"]);
    assert!(config.contains("input = [\n    3,\n    8,\n    8,\n]") || config.contains("input = [3, 8, 8]"), "{config}");
    assert_eq!((&judged["images"], judged["classes"].as_array().unwrap().len()), (&20.into(), 5));
    // The same images by way of predict: bytes, which the model normalises, from an archive and into one.
    let predict = |words: &[&str]| scratch.run(&[&["predict", "run-npz"], words].concat()).expect(0);
    predict(&["--input", "arrays/test.npz", "--output", "y.npz", "--batch", "7"]);
    predict(&["--input", "arrays/test.npz", "--output", "y.npy"]);
    let of_bytes = logits(&scratch.path("y.npz"));
    assert_eq!(of_bytes, logits(&scratch.path("y.npy")));
    let guess = |row: &[f32]| (0..5).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    let correct = of_bytes.chunks_exact(5).zip(labels()).filter(|(row, label)| guess(row) == *label).count();
    assert_eq!(correct as f64 / 20.0, judged["top1"].as_f64().unwrap());
    // Numbers are taken as they are: normalised ones give the same.
    let model = leanresnet::Model::load(scratch.path("run-npz/last.safetensors")).unwrap();
    let (mean, std) = (&model.preprocess().mean, &model.preprocess().std);
    let normalised = |(at, &byte): (usize, &u8)| (f32::from(byte) / 255.0 - mean[at / 64 % 3]) / std[at / 64 % 3];
    let numbers: Vec<f32> = pixels.iter().enumerate().map(normalised).collect();
    write_npz(scratch.path("x.npz"), &[("images", &[20, 3, 8, 8], Values::F32(&numbers))]).unwrap();
    predict(&["--input", "x.npz", "--output", "z.npz"]);
    assert_eq!(logits(&scratch.path("z.npz")), of_bytes);
}

#[test]
fn arrays_of_numbers() {
    let scratch = Scratch::new();
    let numbers: Vec<f32> = pixels().iter().map(|&byte| f32::from(byte) / 64.0 - 1.0).collect();
    for part in ["train", "valid"] {
        write_arrays(&scratch.path("numbers").join(format!("{part}.npz")), Values::F32(&numbers));
    }
    let words = ["train", "--data", "npz", "--data-dir", "numbers", "--out", "noted", "--augment", "none"];
    let ran = scratch.run(&[&words[..], &TINY].concat()).expect(0);
    assert!(ran.stderr.contains("are numbers and are taken as they are"), "{}", ran.stderr);
    train_and_eval(&scratch, "npz", "numbers", &["--augment", "none"]);
    // Nobody knows what bytes would be for such a model.
    let picture = scratch.path("grey.png");
    RgbImage::from_pixel(8, 8, Rgb([90, 90, 90])).save(picture).unwrap();
    scratch.run(&["predict", "run-npz", "grey.png"]).expect_error(2, &["numbers (f32)", "got bytes"]);
    write_arrays(&scratch.path("bytes.npz"), Values::U8(&pixels()));
    let words = ["predict", "run-npz", "--input", "bytes.npz", "--output", "y.npz"];
    scratch.run(&words).expect_error(2, &["numbers (f32)", "got bytes"]);
    assert!(!scratch.path("y.npz").exists());
}

#[test]
fn pictures_in_folders() {
    let scratch = Scratch::new();
    for (part, count) in [("train", 10), ("val", 4)] {
        for (class, colour) in [("red", [200, 20, 20]), ("blue", [20, 20, 200])] {
            let folder = scratch.path("pictures").join(part).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let path = folder.join(format!("{index}.{}", ["png", "jpg", "ppm"][index % 3]));
                RgbImage::from_pixel(20 + index as u32, 16, Rgb(colour)).save(path).unwrap();
            }
        }
    }
    let (config, judged) = train_and_eval(&scratch, "folder", "pictures", &["--set", "network.input=[3, 12, 12]"]);
    assert!(config.contains("name = \"folder\""), "{config}");
    let classes: Vec<&str> = judged["classes"].as_array().unwrap().iter().map(|class| class["name"].as_str().unwrap()).collect();
    assert_eq!((&judged["images"], classes), (&8.into(), vec!["blue", "red"]));
    let ran = scratch.run(&["predict", "run-folder", "pictures/val/red/0.png", "--top", "2", "--json"]).expect(0);
    assert!(ran.json("predict", "top")["top"].to_string().contains("\"red\""));
    scratch.run(&["train", "--resume", "run-folder", "--epochs", "2"]).expect(0);
    // A preset brings its own input: pictures of other sizes are scaled to it.
    let words = ["train", "--data", "folder", "--data-dir", "pictures", "--out", "preset"];
    scratch.run(&[&words[..], &TINY].concat()).expect(0);
    let broken = scratch.path("pictures/val/red/0.png");
    let whole = bytes(&broken);
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    scratch.run(&["eval", "run-folder"]).expect_error(3, &["red/0.png: picture", "a whole PNG"]);
}

#[test]
fn images_of_stl10() {
    let scratch = Scratch::new();
    let folder = scratch.path("stl10_binary");
    std::fs::create_dir(&folder).unwrap();
    let images: Vec<u8> = (0..20 * 3 * 96 * 96).map(|at| ((at / 27_648 % 10) * 20 + at * 7 % 16) as u8).collect();
    let labels: Vec<u8> = (0..20).map(|image| image % 10 + 1).collect();
    for part in ["train", "test"] {
        std::fs::write(folder.join(format!("{part}_X.bin")), &images).unwrap();
        std::fs::write(folder.join(format!("{part}_y.bin")), &labels).unwrap();
    }
    let (_, judged) = train_and_eval(&scratch, "stl10", ".", &["--set", "network.stem.stride=4"]);
    assert_eq!((&judged["images"], &judged["classes"][7]["name"]), (&20.into(), &"monkey".into()));
    let model = leanresnet::Model::load(scratch.path("run-stl10/last.safetensors")).unwrap();
    assert_eq!((model.input(), model.classes()), ([3, 96, 96], 10));
}

#[test]
fn what_is_wrong_with_them() {
    let scratch = Scratch::new();
    scratch.run(&["train", "--data", "npz"]).expect_error(2, &["data set npz", "--data-dir"]);
    scratch.run(&["train", "--data", "npz", "--data-dir", "data"]).expect_error(3, &["train.npz with the arrays x and y"]);
    scratch.run(&["train", "--data", "folder", "--data-dir", "data"]).expect_error(3, &["train with a folder of pictures"]);
    scratch.run(&["train", "--data", "stl10", "--data-dir", "data"]).expect_error(3, &["train_X.bin", "STL-10"]);
    std::fs::write(scratch.path("x.npz"), b"PK").unwrap();
    let predict = |input: &str| scratch.run(&["predict", "--input", input, "--output", "y.npz"]);
    predict("x.npz").expect_error(3, &["x.npz: not a whole zip archive", "numpy.savez"]);
    write_npz(scratch.path("x.npz"), &[("x", &[1, 3, 8, 8], Values::U8(&[0; 192]))]).unwrap();
    predict("x.npz").expect_error(3, &["x.npz: shape", "[n, 3, 32, 32]", "[1, 3, 8, 8]"]);
    write_npz(scratch.path("x.npz"), &[("x", &[1, 3, 32, 32], Values::I64(&vec![0; 3072]))]).unwrap();
    predict("x.npz").expect_error(3, &["array `x`: type of the values", "float32 or float64, got int64", "astype"]);
    assert!(!scratch.path("y.npz").exists());
}
