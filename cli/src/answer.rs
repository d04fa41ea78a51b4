//! What goes to stdout and stderr: answers as text or JSON, messages, errors.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::arguments::GlobalOptions;
use crate::failure::Failure;

/// The version of the JSON grammar: new keys may appear, none vanish.
const SCHEMA: u32 = 1;

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a, T> {
    schema: u32,
    verb: &'static str,
    #[serde(flatten)]
    keys: &'a T,
}

/// The line of JSON for an error.
#[derive(Serialize)]
struct ErrorLine<'a> {
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<&'static str>,
    error: ErrorKeys<'a>,
}

#[derive(Serialize)]
struct ErrorKeys<'a> {
    kind: &'static str,
    message: &'a str,
    hint: &'a str,
}

/// How one verb answers.
pub struct Output {
    verb: &'static str,
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    /// The output of `verb` with the options of the command line.
    pub fn new(verb: &'static str, options: &GlobalOptions) -> Self {
        Self { verb, json: options.json, quiet: options.quiet, verbose: options.verbose }
    }

    /// Prints an answer to stdout: `keys` as one line of JSON, or the text that `human` gives.
    pub fn answer<T: Serialize>(&self, keys: &T, human: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.json { json_line(&Line { schema: SCHEMA, verb: self.verb, keys })? } else { human() };
        print(&text)
    }

    /// True if the answer is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// True if progress and messages are unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Tells the user something on stderr, unless the command line has `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Tells a user who asked for more with `--verbose`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Reports an error on stderr, and with `--json` on stdout; returns the exit code.
    pub fn failure(&self, failure: &Failure) -> u8 {
        if failure.is_broken_pipe() {
            return 0;
        }
        let _ = writeln!(std::io::stderr(), "error: {}\nhint: {}", failure.message(), failure.hint());
        if self.json {
            Self::print_json_error(Some(self.verb), failure);
        }
        failure.exit_code()
    }

    /// Prints an error as JSON to stdout.
    pub fn print_json_error(verb: Option<&'static str>, failure: &Failure) {
        let error = ErrorKeys { kind: failure.kind_name(), message: failure.message(), hint: failure.hint() };
        if let Ok(line) = json_line(&ErrorLine { schema: SCHEMA, verb, error }) {
            // The exit code and stderr say it too, if nobody reads stdout.
            let _ = print(&line);
        }
    }
}

fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::bug(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
}

/// Writes to stdout. A reader that left, as `head` does, is no error of ours: the caller ends with exit code 0.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe { Failure::broken_pipe() } else { Failure::io("write", "stdout", &error) }
    })
}
