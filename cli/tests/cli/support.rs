//! A scratch folder with a tiny network and a tiny data set, and the tool run in it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A network that trains in no time.
const CONFIG: &str = "
version = 1
[network]
stages = [{ width = 8, blocks = 1 }]
[network.stem]
stride = 4
[data]
name = \"cifar10\"
dir = \"data\"
[train]
batch = 20
epochs = 2
schedule = { name = \"cosine\", lr = 0.05, warmup_epochs = 0.5 }
";
/// Bytes of one image with its label.
const RECORD: usize = 1 + 3 * 32 * 32;

/// The tool, after the emulator that runs it where these tests run under one.
fn tool() -> Vec<String> {
    let emulator = std::env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default();
    let words = emulator.split_whitespace().filter(|_| cfg!(target_arch = "aarch64")).map(str::to_owned);
    words.chain([env!("CARGO_BIN_EXE_leanresnet").to_owned()]).collect()
}

/// A folder that goes away with the test.
pub struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// With `config.toml`, and in `data` 100 training and 20 test images in the format of CIFAR-10.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for batch in 1..=5 {
            std::fs::write(data.join(format!("data_batch_{batch}.bin")), records(20, batch)).unwrap();
        }
        std::fs::write(data.join("test_batch.bin"), records(20, 6)).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tool with `words`, ready to run in the folder.
    pub fn command(&self, words: &[&str]) -> Command {
        let tool = tool();
        let mut command = Command::new(&tool[0]);
        command.args(&tool[1..]).args(words).current_dir(self.folder.path());
        for name in ["LEANRESNET_ISA", "LEANRESNET_NUM_THREADS", "LEANRESNET_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the tool.
    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::from(self.command(words).output().unwrap())
    }

    /// Runs a command line of the shell, in which `$TOOL`, without quotes, is the tool.
    #[cfg(unix)]
    pub fn shell(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.folder.path()).env("TOOL", tool().join(" "));
        Ran::from(command.output().unwrap())
    }

    /// Trains the tiny network into `out`.
    pub fn train(&self, out: &str) -> Ran {
        self.run(&["train", "--config", "config.toml", "--out", out])
    }
}

/// `count` images whose brightness tells their class.
fn records(count: usize, seed: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|index| {
            let class = (index % 10) as u8;
            let pixel = move |position: usize| class * 24 + ((position * 7 + index * 13 + seed * 5) % 16) as u8;
            std::iter::once(class).chain((1..RECORD).map(pixel))
        })
        .collect()
}

/// A file of `images` images as an array of numpy, 32-bit floats, [images, 3, 32, 32].
pub fn npy_images(images: usize) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({images}, 3, 32, 32), }}\n");
    let values = (0..images * 3 * 32 * 32).flat_map(|index| ((index % 9) as f32 - 4.0).to_le_bytes());
    let start = [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    start.into_iter().chain(values).collect()
}

/// What a run of the tool left.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Checks for an error with this exit code whose message has these words, and which names a next step.
    #[track_caller]
    pub fn expect_error(self, code: i32, words: &[&str]) -> Self {
        let ran = self.expect(code);
        assert!(ran.stderr.lines().any(|line| line.starts_with("error: ")), "{}", ran.stderr);
        assert!(ran.stderr.lines().any(|line| line.starts_with("hint: ") && line.len() > 10), "{}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "`{word}` is not in: {}", ran.stderr);
        }
        ran
    }

    /// The last line of stdout as JSON of `verb`, with at least these keys.
    #[track_caller]
    pub fn json(&self, verb: &str, keys: &str) -> Value {
        let line = self.stdout.lines().last().unwrap_or_else(|| panic!("no answer; stderr: {}", self.stderr));
        assert!(line.starts_with(&format!("{{\"schema\":1,\"verb\":\"{verb}\",")), "{line}");
        let value: Value = serde_json::from_str(line).unwrap();
        for key in keys.split_whitespace() {
            assert!(value.get(key).is_some(), "no key {key} in {line}");
        }
        value
    }
}

/// The content of a file.
#[track_caller]
pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
