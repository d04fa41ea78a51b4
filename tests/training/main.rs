//! The training loop with a small executor: steps, epochs, files, stopping, divergence, and resume to the bit.

mod softmax_linear;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leanresnet::data::{Augmentation, DataConfig, InMemory, SoftLabel};
use leanresnet::train::{
    Batch, EpochMetrics, EpochReport, FitOptions, FitReport, Observer, ResumeReport, RunConfig, RunFolder, ScheduleConfig,
    Silent, StateKind, StepReport, StopReason, TrainConfig, Trainer, average_decay, clip_factor, config_of_checkpoint,
    learning_rate, model_of_checkpoint,
};
use leanresnet::{Error, Model, Network, Result};

use softmax_linear::SoftmaxLinear;

/// Images of the training set: 5 full batches of 8 and a rest of 3.
const IMAGES: usize = 43;
const STEPS: u64 = 6;
const EPOCHS: u64 = 4;

/// `count` noisy images of 3 classes that a linear model can tell apart: the first channel is bright, the second, or none.
fn images(count: usize, seed: u32) -> InMemory {
    labelled_images(count, seed, |image| (image % 3) as u32)
}

fn labelled_images(count: usize, seed: u32, label: impl Fn(usize) -> u32) -> InMemory {
    let noise = |i: usize| ((i as u32 ^ seed.wrapping_mul(0x9E37_79B9)).wrapping_mul(2_654_435_761) >> 25) as u8;
    let pixels = (0..count * 32).map(|i| noise(i) + if i % 2 == i / 32 % 3 { 128 } else { 0 }).collect();
    let names = ["a", "b", "c"].map(String::from).to_vec();
    InMemory::new([2, 4, 4], names, pixels, (0..count).map(label).collect()).unwrap()
}

fn config() -> RunConfig {
    let network = Network::builder().with_input([2, 4, 4]).with_classes(3).with_stage(32, 1).build().unwrap();
    let augment = Augmentation::default().with_crop(1).with_flip(true).with_mixup(0.2);
    let train = TrainConfig::default()
        .with_epochs(EPOCHS)
        .with_batch(8)
        .with_ema(0.9)
        .with_clip_norm(1.0)
        .with_label_smoothing(0.1)
        .with_schedule(ScheduleConfig::Cosine { lr: 0.05, warmup_epochs: 1.0 });
    RunConfig::new(network).with_data(DataConfig::default().with_augment(augment)).with_train(train)
}

fn trainer(config: &RunConfig) -> Trainer {
    Trainer::with_executor(config.clone(), Box::new(SoftmaxLinear::new(config))).unwrap()
}

/// Everything of the state that is a tensor, as bits.
fn state(trainer: &Trainer) -> Vec<(StateKind, String, Vec<u32>)> {
    let mut state = Vec::new();
    trainer.executor().visit_state(&mut |kind, name, _, values| {
        state.push((kind, name.to_owned(), values.iter().map(|value| value.to_bits()).collect()));
    });
    state
}

/// Stops after a number of steps, and remembers what it heard.
#[derive(Default)]
struct Recorder {
    stop_after: Option<u64>,
    steps: Vec<StepReport>,
    epochs: Vec<EpochMetrics>,
    best_epochs: Vec<u64>,
    checkpoints: u64,
    notices: Vec<String>,
}

impl Observer for Recorder {
    fn on_step(&mut self, report: &StepReport) {
        self.steps.push(report.clone());
    }

    fn on_epoch(&mut self, report: &EpochReport<'_>) {
        self.epochs.push(report.metrics.clone());
        self.best_epochs.extend(report.best.then_some(report.metrics.epoch));
    }

    fn on_checkpoint(&mut self, path: &Path) {
        assert!(path.is_file());
        self.checkpoints += 1;
    }

    fn on_notice(&mut self, message: &str) {
        self.notices.push(message.to_owned());
    }

    fn should_stop(&mut self) -> Option<StopReason> {
        (self.stop_after == Some(self.steps.len() as u64)).then_some(StopReason::Interrupted)
    }
}

/// A run in a folder, from the start or from its checkpoint, stopped after `stop_after` steps of its own.
fn run(folder: &Path, stop_after: Option<u64>) -> (Trainer, Result<FitReport>, Recorder) {
    let mut recorder = Recorder { stop_after, ..Recorder::default() };
    let resumes = folder.join("last.ckpt").exists();
    let mut trainer = trainer(&config()).with_options(FitOptions::default().with_evaluate_every(2));
    if resumes {
        trainer.resume(folder, &mut recorder).unwrap();
    } else {
        fs::create_dir_all(folder).unwrap();
    }
    let mut trainer = trainer.in_folder(RunFolder::open(folder).unwrap());
    let report = trainer.fit(&images(IMAGES, 1), Some(&images(20, 2)), &mut recorder);
    (trainer, report, recorder)
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    (parent, path)
}

#[test]
fn a_whole_run_learns_and_leaves_its_files() {
    let (_parent, folder) = temporary();
    let (trainer, report, recorder) = run(&folder, None);
    let report = report.unwrap();
    assert_eq!((report.stopped, report.epochs, report.steps), (StopReason::Finished, EPOCHS, EPOCHS * STEPS));
    assert!(report.images_per_second > 0.0 && report.seconds > 0.0);
    assert_eq!(recorder.steps.len() as u64, EPOCHS * STEPS);
    assert_eq!(recorder.checkpoints, EPOCHS + 1);
    assert_eq!(trainer.history(), recorder.epochs);
    let positions: Vec<_> = recorder.steps[..7].iter().map(|step| (step.epoch, step.position, step.images)).collect();
    assert_eq!(positions, [(0, 1, 8), (0, 2, 8), (0, 3, 8), (0, 4, 8), (0, 5, 8), (0, 6, 3), (1, 1, 8)]);
    // Evaluation after every second epoch.
    assert_eq!(recorder.epochs.iter().map(|m| m.val_top1.is_some()).collect::<Vec<_>>(), [false, true, false, true]);
    let [first, .., last] = &recorder.epochs[..] else { panic!() };
    assert!(last.train_loss < 0.8 * first.train_loss, "{recorder:?}", recorder = recorder.epochs);
    assert!(last.val_top1.unwrap() >= 0.9, "{last:?}");
    assert_eq!(trainer.best().unwrap().epoch, *recorder.best_epochs.last().unwrap());

    assert_eq!(RunConfig::read(&folder.join("config.toml")).unwrap(), config());
    assert_eq!(config_of_checkpoint(&folder).unwrap(), config());
    let model = Model::load(folder.join("last.safetensors")).unwrap();
    assert_eq!(model, trainer.model().unwrap());
    assert_eq!(model, model_of_checkpoint(&folder.join("last.ckpt")).unwrap());
    assert_eq!(model.class_names(), ["a", "b", "c"]);
    assert_eq!(model.preprocess().mean, trainer.preprocess().unwrap().mean);
    let average = state(&trainer).into_iter().find(|(kind, name, _)| (*kind, name.as_str()) == (StateKind::Ema, "head.bias"));
    let bias = model.tensor("head.bias").unwrap().1.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bias, average.unwrap().2);
    let lines = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let parsed: Vec<EpochMetrics> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed, recorder.epochs);
    assert_eq!(fs::read_to_string(folder.join("timing.jsonl")).unwrap().lines().count() as u64, EPOCHS);
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let events = names.extract_if(.., |name| name.starts_with("events.out.tfevents.")).count();
    assert_eq!(events, 1, "files for TensorBoard");
    names.sort();
    let expected =
        ["best.safetensors", "config.toml", "last.ckpt", "last.safetensors", "metrics.jsonl", "previous.ckpt", "timing.jsonl"];
    assert_eq!(names, expected);
}

#[test]
fn updates_and_results_are_those_of_the_steps() {
    let config = config();
    let executor = SoftmaxLinear::new(&config);
    let asked = executor.asked.clone();
    let mut trainer = Trainer::with_executor(config.clone(), Box::new(executor)).unwrap();
    let mut recorder = Recorder::default();
    trainer.fit(&images(IMAGES, 1), None, &mut recorder).unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), recorder.steps.len());
    for (step, (update, report)) in asked.iter().zip(&recorder.steps).enumerate() {
        assert_eq!(update.learning_rate, learning_rate(&config.train.schedule, step as u64, STEPS, EPOCHS));
        assert_eq!(update.learning_rate, report.learning_rate);
        assert_eq!(update.gradient_scale, clip_factor(config.train.clip_norm, report.gradient_norm));
        assert_eq!(update.average_decay, Some(average_decay(config.train.ema, step as u64)));
    }
    assert!(asked.iter().any(|update| update.gradient_scale < 1.0), "the clipping is not tested");
    for (metrics, steps) in recorder.epochs.iter().zip(recorder.steps.chunks(STEPS as usize)) {
        let loss: f64 = steps.iter().map(|step| step.loss * step.images as f64).sum();
        assert!((metrics.train_loss - loss / IMAGES as f64).abs() < 1e-12);
        assert_eq!(metrics.train_top1, steps.iter().map(|step| step.correct).sum::<u64>() as f64 / IMAGES as f64);
        assert_eq!((metrics.step, metrics.learning_rate), (steps[5].step + 1, steps[5].learning_rate));
    }
}

#[test]
fn equal_runs_write_equal_files() {
    let (_parent, folder) = temporary();
    let [first, second] = ["a", "b"].map(|name| {
        run(&folder.join(name), None).1.unwrap();
        ["config.toml", "metrics.jsonl", "last.ckpt", "best.safetensors", "last.safetensors"]
            .map(|file| fs::read(folder.join(name).join(file)).unwrap())
    });
    assert!(first == second);
}

/// The promise: train N, stop, resume, equals training without a stop, to the bit and to the byte.
#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    let (_parent, folder) = temporary();
    let (whole, report, _) = run(&folder.join("whole"), None);
    report.unwrap();
    let total = EPOCHS * STEPS;
    // One step; in the middle of an epoch; at its edge and around it; before and at the last step; again and again.
    for stops in [vec![1], vec![3], vec![5], vec![6], vec![7], vec![14], vec![total - 1], vec![total], vec![2; 9]] {
        let path = folder.join(format!("{stops:?}"));
        let mut done = 0;
        for &stop in &stops {
            let (trainer, report, recorder) = run(&path, Some(stop));
            done += stop;
            let report = report.unwrap();
            assert_eq!((report.stopped, report.steps, trainer.steps()), (StopReason::Interrupted, done, done));
            assert_eq!(recorder.steps.len() as u64, stop);
        }
        // Lines of epochs after the checkpoint, as a run that was killed leaves them, are written again, not twice.
        let metrics = path.join("metrics.jsonl");
        let mut killed = fs::read(&metrics).unwrap();
        killed.extend_from_slice(b"{\"epoch\":99,\"st");
        fs::write(&metrics, killed).unwrap();
        let (trainer, report, recorder) = run(&path, None);
        assert_eq!(report.unwrap().stopped, StopReason::Finished);
        assert_eq!(recorder.steps.len() as u64, total - done);
        assert!(state(&trainer) == state(&whole), "{stops:?}");
        for file in ["metrics.jsonl", "last.ckpt", "best.safetensors", "last.safetensors", "config.toml"] {
            assert!(fs::read(path.join(file)).unwrap() == fs::read(folder.join("whole").join(file)).unwrap(), "{stops:?} {file}");
        }
    }
}

/// Stops when the second epoch has ended.
struct StopAfterSecondEpoch {
    epochs: u64,
}

impl Observer for StopAfterSecondEpoch {
    fn on_epoch(&mut self, report: &EpochReport<'_>) {
        self.epochs = report.metrics.epoch;
    }

    fn should_stop(&mut self) -> Option<StopReason> {
        (self.epochs == 2).then_some(StopReason::Interrupted)
    }
}

#[test]
fn a_run_that_is_stopped_at_the_end_of_an_epoch_has_not_begun_the_next() {
    let (_parent, folder) = temporary();
    fs::create_dir_all(&folder).unwrap();
    let mut stopped = trainer(&config()).in_folder(RunFolder::open(&folder).unwrap());
    let report = stopped.fit(&images(IMAGES, 1), None, &mut StopAfterSecondEpoch { epochs: 0 }).unwrap();
    assert_eq!((report.stopped, report.epochs, report.steps), (StopReason::Interrupted, 2, 2 * STEPS));
    // The last epoch is the end of the run, whatever the observer says then.
    let mut whole = trainer(&config().with_train(config().train.with_epochs(2)));
    let report = whole.fit(&images(IMAGES, 1), None, &mut StopAfterSecondEpoch { epochs: 0 }).unwrap();
    assert_eq!((report.stopped, report.epochs), (StopReason::Finished, 2));
    // The run goes on as if it had not stopped.
    let mut resumed = trainer(&config());
    resumed.resume(&folder, &mut Silent).unwrap();
    resumed.fit(&images(IMAGES, 1), None, &mut Silent).unwrap();
    let mut unstopped = trainer(&config());
    unstopped.fit(&images(IMAGES, 1), None, &mut Silent).unwrap();
    assert!(state(&resumed) == state(&unstopped));
}

#[test]
fn a_damaged_checkpoint_is_said_and_the_one_before_continues_exactly() {
    let (_parent, folder) = temporary();
    let (whole, report, _) = run(&folder.join("whole"), None);
    report.unwrap();
    let path = folder.join("damaged");
    run(&path, Some(9)).1.unwrap();
    let bytes = fs::read(path.join("last.ckpt")).unwrap();
    let previous = fs::read(path.join("previous.ckpt")).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let truncated = (0..bytes.len()).step_by(bytes.len() / 40).map(|length| bytes[..length].to_vec());
    for damaged in truncated.chain([flipped]) {
        fs::write(path.join("last.ckpt"), &damaged).unwrap();
        let mut recorder = Recorder::default();
        let report = trainer(&config()).resume(&path, &mut recorder).unwrap();
        assert_eq!((report.step, report.epoch), (STEPS, 1));
        assert!(recorder.notices.len() == 1 && recorder.notices[0].contains("previous.ckpt"), "{:?}", recorder.notices);
    }
    fs::remove_file(path.join("last.ckpt")).unwrap();
    let mut recorder = Recorder::default();
    trainer(&config()).resume(&path, &mut recorder).unwrap();
    assert_eq!(recorder.notices.len(), 1);
    fs::write(path.join("last.ckpt"), b"damaged").unwrap();
    let (trainer, report, _) = run(&path, None);
    report.unwrap();
    assert!(state(&trainer) == state(&whole));
    assert_ne!(fs::read(path.join("previous.ckpt")).unwrap(), previous);
}

#[test]
fn without_a_readable_checkpoint_nothing_changes() {
    let (_parent, folder) = temporary();
    run(&folder, Some(9)).1.unwrap();
    for file in ["last.ckpt", "previous.ckpt"] {
        fs::write(folder.join(file), b"{}").unwrap();
    }
    let mut trainer = trainer(&config());
    let before = state(&trainer);
    assert!(matches!(trainer.resume(&folder, &mut Silent), Err(Error::Model { .. })));
    assert!(matches!(trainer.resume(&folder.join("absent"), &mut Silent), Err(Error::Io { .. })));
    assert!(state(&trainer) == before && trainer.steps() == 0);
}

fn resume_with(folder: &Path, change: impl Fn(RunConfig) -> RunConfig, isa: &'static str) -> Result<ResumeReport> {
    let config = change(config());
    let mut executor = SoftmaxLinear::new(&config);
    executor.isa = isa;
    Trainer::with_executor(config, Box::new(executor))?.resume(folder, &mut Silent)
}

#[test]
fn only_epochs_and_machine_may_change() {
    let (_parent, folder) = temporary();
    run(&folder, Some(9)).1.unwrap();
    let with_train = |change: fn(TrainConfig) -> TrainConfig| {
        move |config: RunConfig| {
            let train = change(config.train.clone());
            config.with_train(train)
        }
    };
    let same = resume_with(&folder, |config| config, "portable").unwrap();
    assert_eq!((same.step, same.epoch, same.changes.len()), (9, 1, 0));
    let changed = resume_with(&folder, with_train(|train| train.with_epochs(9)), "avx2").unwrap();
    assert_eq!(changed.changes, ["epochs: 4 -> 9", "isa: portable -> avx2"]);
    for (result, key) in [
        (resume_with(&folder, with_train(|train| train.with_seed(2)), "portable"), "train.seed"),
        (resume_with(&folder, with_train(|train| train.with_batch(4)), "portable"), "train.batch"),
        (resume_with(&folder, with_train(|train| train.with_ema(0.0)), "portable"), "train.ema"),
        (resume_with(&folder, with_train(|train| train.with_epochs(1)), "portable"), "train.epochs"),
        (resume_with(&folder, |config| config.with_data(DataConfig::default()), "portable"), "data.augment"),
    ] {
        match result {
            Err(Error::Invalid { what, .. }) => assert!(what.contains(key), "{what}"),
            other => panic!("{key}: {other:?}"),
        }
    }
    // Another training set than before.
    let mut trainer = trainer(&config());
    trainer.resume(&folder, &mut Silent).unwrap();
    assert!(matches!(trainer.fit(&images(IMAGES + 1, 1), None, &mut Silent), Err(Error::Invalid { .. })));
}

#[test]
fn more_epochs_continue_a_finished_run() {
    let (_parent, folder) = temporary();
    run(&folder, None).1.unwrap();
    let longer = config();
    let train = longer.train.clone().with_epochs(EPOCHS + 2);
    let longer = longer.with_train(train);
    let mut trainer = trainer(&longer).in_folder(RunFolder::open(&folder).unwrap());
    trainer.resume(&folder, &mut Silent).unwrap();
    let report = trainer.fit(&images(IMAGES, 1), Some(&images(20, 2)), &mut Silent).unwrap();
    assert_eq!((report.stopped, report.epochs), (StopReason::Finished, EPOCHS + 2));
    assert_eq!(fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines().count() as u64, EPOCHS + 2);
    assert_eq!(RunConfig::read(&folder.join("config.toml")).unwrap(), longer);
}

#[test]
fn divergence_is_an_error_and_the_checkpoint_before_stays() {
    for (poisoned_after, saved_step) in [(8, 6), (5, 0)] {
        let (_parent, folder) = temporary();
        fs::create_dir(&folder).unwrap();
        let config = config();
        let mut executor = SoftmaxLinear::new(&config);
        executor.poisoned_after = Some(poisoned_after);
        let mut trainer = Trainer::with_executor(config.clone(), Box::new(executor)).unwrap();
        trainer = trainer.in_folder(RunFolder::open(&folder).unwrap());
        // In the middle of an epoch the next step finds out; after its last step the checkpoint does.
        match trainer.fit(&images(IMAGES, 1), None, &mut Silent) {
            Err(Error::Diverged { step, layer }) => assert_eq!((step, layer.as_str()), (poisoned_after + 1, "head.bias")),
            other => panic!("{other:?}"),
        }
        let report = self::trainer(&config).resume(&folder, &mut Silent).unwrap();
        assert_eq!(report.step, saved_step);
    }
}

#[test]
fn the_run_stops_early_without_improvement() {
    let config = config();
    let train = config.train.clone().with_epochs(30).with_schedule(ScheduleConfig::Constant { lr: 0.05 });
    let config = config.with_train(train);
    let mut trainer = trainer(&config).with_options(FitOptions::default().with_early_stop(Some(3)));
    // The wrong labels: what is learned makes it worse.
    let validation = labelled_images(20, 2, |image| (image as u32 + 1) % 3);
    let report = trainer.fit(&images(IMAGES, 1), Some(&validation), &mut Silent).unwrap();
    assert_eq!((report.stopped, report.epochs), (StopReason::Early, report.best.unwrap().epoch + 3));
    let mut trainer = self::trainer(&config).with_options(FitOptions::default().with_early_stop(Some(3)));
    assert!(matches!(trainer.fit(&images(IMAGES, 1), None, &mut Silent), Err(Error::Invalid { .. })));
}

#[test]
fn checkpoints_inside_an_epoch_follow_their_age() {
    let (_parent, folder) = temporary();
    fs::create_dir(&folder).unwrap();
    let mut recorder = Recorder { stop_after: Some(4), ..Recorder::default() };
    let options = FitOptions::default().with_checkpoint_every(Duration::ZERO);
    let mut trainer = trainer(&config()).with_options(options).in_folder(RunFolder::open(&folder).unwrap());
    trainer.fit(&images(IMAGES, 1), None, &mut recorder).unwrap();
    assert_eq!(recorder.checkpoints, 1 + 4);
}

#[test]
fn a_folder_of_another_run_is_refused_and_leftovers_go() {
    let (_parent, folder) = temporary();
    run(&folder, Some(2)).1.unwrap();
    let before = fs::read(folder.join("last.ckpt")).unwrap();
    let mut fresh = trainer(&config()).in_folder(RunFolder::open(&folder).unwrap());
    assert!(matches!(fresh.fit(&images(IMAGES, 1), None, &mut Silent), Err(Error::Exists { .. })));
    assert!(fs::read(folder.join("last.ckpt")).unwrap() == before);
    fs::write(folder.join(".abc123.partial"), b"killed").unwrap();
    run(&folder, Some(2)).1.unwrap();
    assert!(!folder.join(".abc123.partial").exists());
}

#[test]
fn steps_of_the_callers_own() {
    let config = config();
    let mut trainer = trainer(&config);
    let pixels = vec![0.25; 32 * 4];
    let labels = [0, 1, 2, 0].map(SoftLabel::hard);
    let batch = Batch { images: &pixels, labels: &labels };
    assert!(matches!(trainer.step(&batch), Err(Error::Invalid { .. })));
    let mut trainer = trainer.with_training_images(16);
    let reports: Vec<StepReport> = (0..5).map(|_| trainer.step(&batch).unwrap()).collect();
    let places: Vec<_> = reports.iter().map(|report| (report.step, report.epoch, report.position)).collect();
    assert_eq!(places, [(0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 2), (4, 2, 1)]);
    assert_eq!(reports[0].learning_rate, 0.025);
    assert!(matches!(trainer.evaluate(&images(5, 1)), Err(Error::Invalid { .. })));
    let bad = [SoftLabel::hard(3)];
    assert!(trainer.step(&Batch { images: &pixels[..32], labels: &bad }).is_err());
    assert!(matches!(trainer.step(&Batch { images: &[], labels: &[] }), Err(Error::Shape { .. })));
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let mut trainer = trainer(&config());
    let names = || ["a", "b", "c"].map(String::from).to_vec();
    let other_size = InMemory::new([1, 4, 4], names(), vec![0; 64], vec![0; 4]).unwrap();
    let other_classes = InMemory::new([2, 4, 4], names()[..2].to_vec(), vec![0; 128], vec![0; 4]).unwrap();
    let single = InMemory::new([2, 4, 4], names(), vec![0; 32], vec![0]).unwrap();
    let empty = InMemory::new([2, 4, 4], names(), vec![], vec![]).unwrap();
    for (data, is_shape) in [(other_size, true), (other_classes, false), (single, false), (empty, false)] {
        let error = trainer.fit(&data, None, &mut Silent).unwrap_err();
        assert_eq!(matches!(error, Error::Shape { .. }), is_shape, "{error}");
        assert!(matches!(error, Error::Shape { .. } | Error::Invalid { .. }), "{error}");
    }
    let options = FitOptions::default().with_evaluate_every(0);
    let mut trainer = trainer.with_options(options);
    assert!(trainer.fit(&images(IMAGES, 1), None, &mut Silent).is_err());
}
