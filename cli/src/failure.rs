//! Why a verb ended without an answer: message, the next command to try, exit code.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io;
use std::path::Path;

use leanresnet::{Error, ErrorKind};

use crate::answer::Output;
use crate::interrupt::Interrupt;

/// What a verb returns: the exit code of the process, or why there is none.
pub type Outcome = Result<u8, Failure>;

/// An error as the user sees it.
#[derive(Debug)]
pub struct Failure {
    kind: ErrorKind,
    message: String,
    hint: String,
    broken_pipe: bool,
}

impl Failure {
    fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: hint.into(), broken_pipe: false }
    }

    /// A command line that cannot be used.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message, hint)
    }

    /// A file of data or a model that is wrong.
    pub fn data(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message, hint)
    }

    /// A comparison that did not come out as it should.
    pub fn disagreement(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failure, message, hint)
    }

    /// An operation of the system that failed.
    pub fn io(action: &str, path: impl AsRef<Path>, error: &io::Error) -> Self {
        let path = path.as_ref();
        Self::new(ErrorKind::Failure, format!("cannot {action} {}: {error}", path.display()), io_hint(path, error))
    }

    /// A defect of this program.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message, BUG_HINT)
    }

    /// The reader of stdout left.
    pub fn broken_pipe() -> Self {
        Self { broken_pipe: true, ..Self::new(ErrorKind::Failure, "stdout is closed", "") }
    }

    /// The same with a hint that fits better.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with the file that it is about before the message.
    #[must_use]
    pub fn about(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message);
        self
    }

    /// True if the reader of stdout left.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// What is wrong: what was expected, what came.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next command to try.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The word for the class of the error in JSON.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            ErrorKind::Usage => "usage",
            ErrorKind::Data => "data",
            ErrorKind::Diverged => "diverged",
            ErrorKind::Bug => "bug",
            _ => "failure",
        }
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Data => 3,
            ErrorKind::Diverged => 4,
            ErrorKind::Bug => 101,
            _ => 1,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = library_hint(&error);
        Self::new(error.kind(), error.to_string(), hint)
    }
}

const BUG_HINT: &str = "this is a defect of leanresnet: please report it with the output of `leanresnet doctor --json`";

/// The next command for an error of the library.
fn library_hint(error: &Error) -> String {
    match error {
        Error::Invalid { what, expected, .. } => invalid_hint(what, expected),
        Error::Shape { .. } => "leanresnet summary MODEL shows the input and the classes that a network has".into(),
        Error::Isa { .. } => "leanresnet doctor shows what this machine and this build have; leave out --isa for the best".into(),
        Error::Exists { path } => {
            format!("choose another path, or continue with: leanresnet train --resume {}", path.display())
        }
        Error::Data { path, .. } => {
            format!("ls -l {}; the folder of the data set is given by --data-dir, the set by --data", folder_of(path).display())
        }
        Error::Model { source_name, what, expected, .. } => model_hint(source_name, &format!("{what} {expected}")),
        Error::Io { path, source, .. } => io_hint(path, source),
        Error::Diverged { .. } => "leanresnet train with a lower --lr, a longer --warmup or --clip-norm 1".into(),
        _ => BUG_HINT.into(),
    }
}

fn invalid_hint(what: &str, expected: &str) -> String {
    let verb = match what {
        _ if expected.contains("(data.dir)") => "--data-dir DIR gives the folder with the files of the data set",
        _ if what.contains("data set") || what.contains("data.") => "leanresnet train --help lists the data sets",
        _ if what.contains("preset") || expected.contains("preset") => "leanresnet summary --preset small",
        _ if what.contains("train.") => "leanresnet train --help lists the options of training",
        _ if what.contains("network") || what.contains("configuration") || what.contains("line ") => {
            "leanresnet summary --config FILE checks a configuration and shows its network"
        }
        _ if what.contains("THREADS") || what.contains("threads") => "--threads 0 takes as many as there are cores",
        _ => "leanresnet help VERB explains the options of a verb",
    };
    verb.into()
}

fn model_hint(source_name: &str, message: &str) -> String {
    let extension = Path::new(source_name).extension();
    if extension.is_some_and(|extension| extension == "onnx") {
        format!("leanresnet import {source_name} -o model.safetensors")
    } else if message.contains("import") {
        format!("leanresnet import {source_name} --preset small -o model.safetensors")
    } else if extension.is_some_and(|extension| extension == "ckpt") {
        "a run folder has an older state in previous.ckpt: leanresnet train --resume FOLDER uses it".into()
    } else {
        format!("leanresnet summary {source_name} shows what a model file holds; this one has to be copied or made again")
    }
}

/// The next command after an operation of the system failed.
fn io_hint(path: &Path, error: &io::Error) -> String {
    let folder = folder_of(path);
    match error.kind() {
        io::ErrorKind::NotFound => format!("ls {} shows what there is", nearest_existing(path).display()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("df -h {}; free some space, or write elsewhere", folder.display())
        }
        io::ErrorKind::FileTooLarge => {
            format!("ulimit -f and df -h {} show the limits for files; files that were whole before still are", folder.display())
        }
        _ => format!("ls -ld {} shows who may do what there", nearest_existing(path).display()),
    }
}

fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")) }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."))
}

/// Says on stderr that a signal ended the verb, and what is left of its work; gives the exit code.
pub fn interrupted(output: &Output, interrupt: &Interrupt, left: &str) -> u8 {
    let Some(signal) = interrupt.received() else { return 0 };
    output.note(&format!("interrupted by {}: {left}", signal.name()));
    signal.exit_code()
}

/// A message in the form that all errors have.
pub fn expected(what: impl Display, expected: impl Display, got: impl Display) -> String {
    format!("{what}; expected {expected}, got {got}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_errors_have_their_exit_codes() {
        let isa = Failure::from("sse9".parse::<leanresnet::Isa>().unwrap_err());
        assert_eq!((isa.exit_code(), isa.kind_name()), (2, "usage"));
        assert!(isa.hint().contains("doctor"));
        let io = Failure::io("read", "absent/x", &io::ErrorKind::NotFound.into());
        assert_eq!((io.exit_code(), io.kind_name()), (1, "failure"));
        let model = Failure::from(leanresnet::Model::from_bytes(b"no model").unwrap_err());
        assert_eq!((model.exit_code(), model.kind_name()), (3, "data"));
        let diverged = Failure::from(Error::Diverged { step: 1, layer: "head".into() });
        assert_eq!((diverged.exit_code(), diverged.kind_name()), (4, "diverged"));
        assert_eq!(Failure::from(Error::Panicked { message: "x".into() }).exit_code(), 101);
    }
}
