//! Rules about the source files themselves: where unsafe code may be, and how long a file may get.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The only places that may hold unsafe code: paths, or beginnings of paths, from the repository's root.
///
/// The bindings of the C kernels, the kernels' safe wrappers, the one file that hands disjoint output tiles to threads, the
/// entry points that libFuzzer's macro writes, and the C API, whose functions get pointers.
const UNSAFE_ALLOWED: [&str; 5] = ["src/ffi", "src/kernel", "src/exec/shared.rs", "fuzz/fuzz_targets", "capi/src"];

/// Folders whose Rust files are modules. (The generator's files in `kernels` are partly included as text, where no attribute for a
/// file is possible; they run in the build only.)
const MODULE_FOLDERS: [&str; 5] = ["src", "cli", "capi", "python", "fuzz"];

/// Folders whose files have at most [`MAX_LINES`].
const SHORT_FILE_FOLDERS: [&str; 6] = ["src", "cli", "capi", "python", "kernels", "fuzz"];

/// A longer file is hard to read in one sitting and usually holds two subjects.
const MAX_LINES: usize = 500;

/// Every file below `folder` (build output and hidden files aside) with its text, as paths from the repository's root.
fn text_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !["target", "corpus", "artifacts"].contains(&name.as_ref()) {
                pending.extend(entries(&path));
            }
        } else if !name.starts_with('.') && name != "Cargo.lock" {
            let relative = path.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/");
            if let Ok(text) = fs::read_to_string(&path) {
                files.push((relative, text));
            }
        }
    }
    files.sort();
    files
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

/// A line without its `//` comment. Strings that hold `//` are cut too, which no rule here minds.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// True if other files are modules of this one, so that an attribute here would bind them as well.
fn declares_modules(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = without_comment(line).split_whitespace().rev();
        words.next().is_some_and(|last| last.ends_with(';')) && words.next() == Some("mod")
    })
}

/// What breaks the rules for unsafe code in one Rust file, if anything does.
fn unsafe_code_fault(path: &str, text: &str) -> Option<String> {
    let forbids = text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
    if forbids || UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed)) {
        return None;
    }
    if !declares_modules(text) {
        return Some(format!("{path}: lacks #![forbid(unsafe_code)]"));
    }
    let is_unsafe =
        |line: &&str| without_comment(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    text.lines().find(is_unsafe).map(|line| format!("{path}: holds unsafe code: {}", line.trim()))
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    let faults: Vec<String> = MODULE_FOLDERS
        .into_iter()
        .flat_map(text_files)
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|(path, text)| unsafe_code_fault(&path, &text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let faults: Vec<String> = SHORT_FILE_FOLDERS
        .into_iter()
        .flat_map(text_files)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {MAX_LINES}"))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rules_find_what_they_look_for() {
    let leaf = "//! Text.\nfn f() {}\n";
    assert!(unsafe_code_fault("src/net/mod.rs", leaf).is_some());
    assert!(unsafe_code_fault("src/ffi/bindings.rs", leaf).is_none());
    assert!(unsafe_code_fault("src/exec/mod.rs", "pub(crate) mod shared; // disjoint tiles\n").is_none());
    assert!(unsafe_code_fault("src/exec/mod.rs", "mod shared;\nunsafe impl Send for S {}\n").is_some());
    assert!(unsafe_code_fault("src/exec/mod.rs", "mod shared;\n// unsafe_code and unsafe fn are not here\n").is_none());
    assert!(unsafe_code_fault("src/net/mod.rs", "//! Text.\n#![forbid(unsafe_code)]\n").is_none());
    assert!(!text_files("src").is_empty());
}
