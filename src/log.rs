//! What the environment variable `LEANRESNET_LOG` asks for, and where it goes: to stderr.
#![forbid(unsafe_code)]

use std::io::Write;
use std::sync::OnceLock;

/// The variable's name.
const VARIABLE: &str = "LEANRESNET_LOG";

/// The words that the variable may hold, separated by commas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Sessions say which kernels they run.
    pub(crate) dispatch: bool,
    /// Sessions measure their layers, and say at their end where the time went.
    pub(crate) timing: bool,
}

/// The words of this process; the variable is read once. A library must not fail because of a log, so words that nobody knows are
/// a warning.
pub(crate) fn words() -> Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    *WORDS.get_or_init(|| {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        let value = value.to_string_lossy();
        let (words, unknown) = parse(&value);
        if !unknown.is_empty() {
            let list = unknown.iter().map(|word| format!("`{}`", word.escape_debug())).collect::<Vec<_>>().join(", ");
            write(&format!("{VARIABLE}: {list} not known; expected dispatch, timing"));
        }
        words
    })
}

/// The known words of a list, and the others.
fn parse(list: &str) -> (Words, Vec<&str>) {
    let (mut words, mut unknown) = (Words::default(), Vec::new());
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "dispatch" => words.dispatch = true,
            "timing" => words.timing = true,
            _ => unknown.push(word),
        }
    }
    (words, unknown)
}

/// Writes lines to stderr, each after the library's name, and all at once so that those of other threads stay outside. A closed
/// stderr is nobody's failure.
pub(crate) fn write(text: &str) {
    let lines = format!("leanresnet: {}\n", text.trim_end().replace('\n', "\nleanresnet: "));
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_words() {
        let words = |dispatch, timing| Words { dispatch, timing };
        assert_eq!(parse(""), (words(false, false), vec![]));
        assert_eq!(parse("dispatch"), (words(true, false), vec![]));
        assert_eq!(parse(" timing ,dispatch,,"), (words(true, true), vec![]));
        assert_eq!(parse("timing,Dispatch,all"), (words(false, true), vec!["Dispatch", "all"]));
    }
}
