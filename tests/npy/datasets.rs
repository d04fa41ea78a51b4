//! Data sets of arrays: what the readers make of them, and training on them as on the same images from elsewhere.

use std::fs;
use std::path::Path;

use leanresnet::data::{DataConfig, PixelType, Split, open, open_for};
use leanresnet::net::Preprocess;
use leanresnet::npy::{Values, write_npz};
use leanresnet::train::{EpochMetrics, NetworkExecutor, Silent, TrainConfig, Trainer};
use leanresnet::{Error, Images, Isa, Model, Network, Pool, RunConfig, Session};

use super::fixture;

const IMAGE: usize = 3 * 32 * 32;

fn npz(dir: &Path) -> DataConfig {
    DataConfig::default().with_name("npz").with_dir(dir)
}

#[test]
fn numpys_archives_are_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture("uint8-deflated.npz"), folder.path().join("train.npz")).unwrap();
    fs::copy(fixture("float64-stored.npz"), folder.path().join("val.npz")).unwrap();
    let train = open(&npz(folder.path()), Split::Train).unwrap();
    assert_eq!((train.len(), train.shape(), train.pixel_type()), (4, [3, 2, 2], PixelType::U8));
    assert_eq!((train.class_names(), train.label(3)), (&["cat", "dog", "café"].map(String::from)[..], 2));
    let mut pixels = [0; 12];
    train.image(1, &mut pixels).unwrap();
    assert_eq!(pixels, [12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23], "channels come last");
    let test = open(&npz(folder.path()), Split::Test).unwrap();
    assert_eq!((test.pixel_type(), test.class_names()), (PixelType::F32, train.class_names()));
    let mut numbers = [0.0; 12];
    test.image_f32(1, &mut numbers).unwrap();
    assert_eq!(numbers, pixels.map(|pixel| (f64::from(pixel) / 255.0) as f32));
}

/// Bytes in planes, channels first, and classes of `count` images.
fn images(count: usize, seed: usize) -> (Vec<u8>, Vec<i64>) {
    let pixel = |at: usize| ((at / IMAGE % 10) * 24 + (at * 7 + at / 97 + seed * 5) % 16) as u8;
    ((0..count * IMAGE).map(pixel).collect(), (0..count).map(|index| (index % 10) as i64).collect())
}

fn write_cifar10(folder: &Path, train: &(Vec<u8>, Vec<i64>), test: &(Vec<u8>, Vec<i64>)) {
    let records = |(pixels, labels): &(Vec<u8>, Vec<i64>), from: usize, to: usize| -> Vec<u8> {
        let record = |index: usize| [&[labels[index] as u8], &pixels[index * IMAGE..][..IMAGE]].concat();
        (from..to).flat_map(record).collect()
    };
    let part = train.1.len() / 5;
    for batch in 0..5 {
        let name = folder.join(format!("data_batch_{}.bin", batch + 1));
        fs::write(name, records(train, batch * part, (batch + 1) * part)).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), records(test, 0, test.1.len())).unwrap();
}

fn write_arrays(path: &Path, x: Values<'_>, labels: &[i64]) {
    write_npz(path, &[("x", &[labels.len(), 3, 32, 32], x), ("y", &[labels.len()], Values::I64(labels))]).unwrap();
}

/// What `(byte / 255 - mean) / std` makes of planes.
fn normalised(pixels: &[u8], preprocess: &Preprocess) -> Vec<f32> {
    let normalise = |(at, &byte): (usize, &u8)| {
        let channel = at / 1024 % 3;
        (f32::from(byte) / 255.0 - preprocess.mean[channel]) / preprocess.std[channel]
    };
    pixels.iter().enumerate().map(normalise).collect()
}

fn train(data: &DataConfig, preprocess: Option<&Preprocess>) -> (Vec<EpochMetrics>, Model) {
    let network = Network::builder().with_input([3, 32, 32]).with_classes(10).with_stage(8, 1).build().unwrap();
    let config = RunConfig::new(network).with_data(data.clone()).with_train(TrainConfig::default().with_epochs(2).with_batch(20));
    let executor = NetworkExecutor::new(&config.network, &config.train, Pool::shared(), Isa::active().unwrap()).unwrap();
    let mut trainer = Trainer::with_executor(config, Box::new(executor)).unwrap();
    if let Some(preprocess) = preprocess {
        trainer = trainer.with_preprocess(preprocess.clone());
    }
    let [train, test] = [Split::Train, Split::Test].map(|split| open_for(data, split, [3, 32, 32], None).unwrap());
    trainer.fit(&*train, Some(&*test), &mut Silent).unwrap();
    (trainer.history().to_vec(), trainer.model().unwrap())
}

/// The same images train the same model to the bit, wherever they come from, also with crops and mirrored.
#[test]
fn training_does_not_depend_on_the_reader() {
    let (train_images, test_images) = (images(100, 1), images(20, 2));
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [cifar10, bytes, numbers] = folders.each_ref().map(tempfile::TempDir::path);
    write_cifar10(cifar10, &train_images, &test_images);
    let preprocess = Preprocess::new(&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]);
    for (name, (pixels, labels)) in [("train.npz", &train_images), ("test.npz", &test_images)] {
        write_arrays(&bytes.join(name), Values::U8(pixels), labels);
        write_arrays(&numbers.join(name), Values::F32(&normalised(pixels, &preprocess)), labels);
    }
    let (wanted, model) = train(&DataConfig::default().with_name("cifar10").with_dir(cifar10), None);
    let (metrics, model_of_bytes) = train(&npz(bytes), Some(&preprocess));
    assert_eq!((metrics, model_of_bytes.tensor("head.weight")), (wanted.clone(), model.tensor("head.weight")));
    // Without any word about it, numbers are not normalised again.
    let (metrics, model_of_numbers) = train(&npz(numbers), None);
    assert_eq!((metrics, model_of_numbers.tensor("head.weight")), (wanted, model.tensor("head.weight")));
    assert_eq!(model_of_numbers.preprocess(), &Preprocess::numbers_only());
}

/// A model says whether it knows what bytes mean: after numbers outside of 0 to 1 it does not.
#[test]
fn a_model_of_numbers_refuses_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (pixels, labels) = images(20, 1);
    for (shift, takes_bytes) in [(0.0, true), (0.5, false)] {
        let numbers: Vec<f32> = pixels.iter().map(|&byte| f32::from(byte) / 255.0 - shift).collect();
        for name in ["train.npz", "test.npz"] {
            write_arrays(&folder.path().join(name), Values::F32(&numbers), &labels);
        }
        let model = Model::from_bytes(&train(&npz(folder.path()), None).1.to_bytes().unwrap()).unwrap();
        let mut session = Session::builder(&model).build().unwrap();
        let of_numbers = session.run(Images::nchw_f32(&numbers, [20, 3, 32, 32]).unwrap()).unwrap().as_slice().to_vec();
        let of_bytes = session.run(Images::nchw_u8(&pixels, [20, 3, 32, 32]).unwrap());
        if takes_bytes {
            assert_eq!(of_bytes.unwrap().as_slice(), of_numbers);
        } else {
            let error = of_bytes.unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("numbers (f32)"), "{error}");
            let error = session.fork().run(Images::nhwc_u8(&pixels, [20, 3, 32, 32]).unwrap()).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }));
        }
    }
}
