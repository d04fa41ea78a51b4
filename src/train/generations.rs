//! Two generations of a checkpoint on disk, of which one is whole at every moment.
//!
//! A save writes the new state to `next.ckpt` (whole, synchronised), then renames `last.ckpt` to `previous.ckpt` and `next.ckpt` to
//! `last.ckpt`, each synchronised. Whatever happens in between, `last.ckpt` or `previous.ckpt` is whole; a new `last.ckpt` that turns
//! out to be damaged has a whole predecessor; and a damaged one never takes the place of `previous.ckpt`.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{atomic, read};

/// The name of the newest state.
pub(super) const LAST: &str = "last.ckpt";
/// The name of the state before it.
pub(super) const PREVIOUS: &str = "previous.ckpt";
/// The name of a state that is being saved.
const NEXT: &str = "next.ckpt";

/// The largest checkpoint that is read, bytes.
pub(super) const LARGEST_FILE: u64 = 1 << 36;

/// The operations on files that a save and a load are made of.
pub(super) trait Storage {
    /// The content of a file.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;
    /// Replaces a file as a whole, and makes it durable.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()>;
    /// Renames a file over another.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes earlier renames in a folder durable.
    fn synchronise(&self, folder: &Path) -> Result<()>;
}

/// The file system.
pub(super) struct Disk;

impl Storage for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        read::read_file(path, LARGEST_FILE)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        atomic::write(path, [bytes])
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| Error::io("rename", from, error))
    }

    fn synchronise(&self, folder: &Path) -> Result<()> {
        atomic::synchronise_folder(folder).map_err(|error| Error::io("write", folder, error))
    }
}

/// Makes `bytes` the newest state in `folder`, and the one before it the previous, if `is_whole` says so of its content.
pub(super) fn save(storage: &dyn Storage, folder: &Path, bytes: &[u8], is_whole: &dyn Fn(&[u8]) -> bool) -> Result<()> {
    let [last, previous, next] = [LAST, PREVIOUS, NEXT].map(|name| folder.join(name));
    storage.replace(&next, bytes)?;
    if storage.read(&last).is_ok_and(|bytes| is_whole(&bytes)) {
        storage.rename(&last, &previous)?;
        storage.synchronise(folder)?;
    }
    storage.rename(&next, &last)?;
    storage.synchronise(folder)
}

/// A state that was read, and why it is not that of `last.ckpt`, if it is not.
pub(super) struct Loaded<T> {
    pub(super) state: T,
    pub(super) notice: Option<String>,
}

/// The newest state in `folder` that `decode` can read.
///
/// # Errors
/// What is wrong with `last.ckpt`, if `previous.ckpt` cannot be used either.
pub(super) fn load<T>(storage: &dyn Storage, folder: &Path, decode: &dyn Fn(&Path, &[u8]) -> Result<T>) -> Result<Loaded<T>> {
    let attempt = |name: &str| {
        let path = folder.join(name);
        storage.read(&path).and_then(|bytes| decode(&path, &bytes))
    };
    let error = match attempt(LAST) {
        Ok(state) => return Ok(Loaded { state, notice: None }),
        Err(error) => error,
    };
    match attempt(PREVIOUS) {
        Ok(state) => Ok(Loaded { state, notice: Some(format!("{error}; continuing from {PREVIOUS}, one checkpoint earlier")) }),
        Err(_) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    type Files = BTreeMap<PathBuf, Vec<u8>>;

    /// A disk in memory that knows what a crash may leave of it, and that fails at one chosen operation.
    #[derive(Default)]
    struct Simulated {
        /// What a running system sees.
        seen: RefCell<Files>,
        /// Every state that may be on disk if the power fails now or failed earlier.
        crashes: RefCell<Vec<Files>>,
        /// States of the folder since it was last synchronised, with any subset of the renames since.
        unsynchronised: RefCell<Vec<Files>>,
        fail_at: Option<usize>,
        operations: RefCell<usize>,
    }

    impl Simulated {
        fn with(files: Files, fail_at: Option<usize>) -> Self {
            let crashes = RefCell::new(vec![files.clone()]);
            let unsynchronised = RefCell::new(vec![files.clone()]);
            Self { seen: RefCell::new(files), crashes, unsynchronised, fail_at, operations: RefCell::default() }
        }

        fn operation(&self) -> Result<()> {
            let number = self.operations.replace_with(|number| *number + 1);
            if self.fail_at == Some(number) {
                return Err(Error::io("write", Path::new("simulated"), std::io::ErrorKind::StorageFull.into()));
            }
            Ok(())
        }

        /// The disk may or may not know of a rename until the folder is synchronised.
        fn maybe(&self, change: impl Fn(&mut Files)) {
            change(&mut self.seen.borrow_mut());
            let mut states = self.unsynchronised.borrow_mut();
            let changed: Vec<Files> = states
                .iter()
                .map(|state| {
                    let mut state = state.clone();
                    change(&mut state);
                    state
                })
                .collect();
            states.extend(changed);
            self.crashes.borrow_mut().extend(states.iter().cloned());
        }

        fn settle(&self) {
            *self.unsynchronised.borrow_mut() = vec![self.seen.borrow().clone()];
        }
    }

    impl Storage for Simulated {
        fn read(&self, path: &Path) -> Result<Vec<u8>> {
            let missing = || Error::io("read", path, std::io::ErrorKind::NotFound.into());
            self.seen.borrow().get(path).cloned().ok_or_else(missing)
        }

        fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
            self.operation()?;
            self.maybe(|files| {
                files.insert(path.to_path_buf(), bytes.to_vec());
            });
            self.settle();
            Ok(())
        }

        fn rename(&self, from: &Path, to: &Path) -> Result<()> {
            self.operation()?;
            self.maybe(|files| {
                if let Some(bytes) = files.remove(from) {
                    files.insert(to.to_path_buf(), bytes);
                }
            });
            Ok(())
        }

        fn synchronise(&self, _: &Path) -> Result<()> {
            self.operation()?;
            self.settle();
            Ok(())
        }
    }

    const FOLDER: &str = "run";

    /// A state is whole if it ends with a full stop.
    fn is_whole(bytes: &[u8]) -> bool {
        bytes.ends_with(b".")
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<String> {
        if !is_whole(bytes) {
            return Err(Error::model(path.display(), "checksum", "a full stop", "none"));
        }
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn files(contents: &[(&str, &str)]) -> Files {
        contents.iter().map(|(name, text)| (Path::new(FOLDER).join(name), text.as_bytes().to_vec())).collect()
    }

    fn saved(storage: &Simulated, text: &str) -> Result<()> {
        save(storage, Path::new(FOLDER), text.as_bytes(), &is_whole)
    }

    fn loaded(files: Files) -> Result<Loaded<String>> {
        load(&Simulated::with(files, None), Path::new(FOLDER), &decode)
    }

    #[test]
    fn two_generations_are_kept() {
        let storage = Simulated::default();
        for text in ["one.", "two.", "three."] {
            saved(&storage, text).unwrap();
        }
        assert_eq!(*storage.seen.borrow(), files(&[(LAST, "three."), (PREVIOUS, "two.")]));
    }

    #[test]
    fn every_crash_leaves_the_newest_or_the_one_before() {
        let starts = [
            files(&[(LAST, "old.")]),
            files(&[(LAST, "old."), (PREVIOUS, "older.")]),
            files(&[(LAST, "damaged"), (PREVIOUS, "old.")]),
            files(&[(PREVIOUS, "old.")]),
            files(&[(PREVIOUS, "old."), (NEXT, "left over")]),
        ];
        let mut states = 0;
        for start in starts {
            for fail_at in (0..6).map(Some).chain([None]) {
                let storage = Simulated::with(start.clone(), fail_at);
                let result = saved(&storage, "new.");
                let crashes = storage.crashes.borrow().clone();
                for crash in crashes.into_iter().chain([storage.seen.borrow().clone()]) {
                    let state = loaded(crash.clone()).unwrap_or_else(|error| panic!("{crash:?}: {error}")).state;
                    assert!(state == "new." || state == "old.", "{crash:?}");
                    // The newest state may also turn out to be damaged: then the one before it is there, once there was one.
                    let mut torn = crash.clone();
                    if let Some(last) = torn.get_mut(&Path::new(FOLDER).join(LAST)).filter(|last| *last == b"new.") {
                        last.pop();
                        assert_eq!(loaded(torn).unwrap().state, "old.", "{crash:?}");
                    }
                    // And a later save goes well from whatever is left.
                    let again = Simulated::with(crash, None);
                    saved(&again, "later.").unwrap();
                    assert_eq!(loaded(again.seen.into_inner()).unwrap().state, "later.");
                    states += 1;
                }
                let state = loaded(storage.seen.borrow().clone()).unwrap().state;
                assert!(result.is_err() || state == "new.", "{fail_at:?}");
                if fail_at == Some(0) {
                    assert!(result.is_err() && *storage.seen.borrow() == start);
                }
            }
        }
        assert!(states > 100, "{states}");
    }

    #[test]
    fn the_first_save_has_no_predecessor() {
        for fail_at in 0..3 {
            let storage = Simulated::with(Files::new(), Some(fail_at));
            let result = saved(&storage, "new.");
            assert_eq!((result.is_ok(), loaded(storage.seen.into_inner()).is_ok()), (false, fail_at == 2));
        }
    }

    #[test]
    fn a_fallback_is_said_and_damage_to_both_is_an_error() {
        let damaged = loaded(files(&[(LAST, "x"), (PREVIOUS, "old.")])).unwrap();
        assert!(damaged.notice.unwrap().contains("last.ckpt: checksum"));
        assert!(loaded(files(&[(LAST, "new."), (PREVIOUS, "old.")])).unwrap().notice.is_none());
        let both = loaded(files(&[(LAST, "x"), (PREVIOUS, "y")])).err().unwrap();
        assert!(both.to_string().contains("last.ckpt"), "{both}");
        assert!(matches!(loaded(Files::new()), Err(Error::Io { .. })));
    }

    #[test]
    fn the_real_disk_does_the_same() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["one.", "two.", "three."] {
            save(&Disk, folder.path(), text.as_bytes(), &is_whole).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [LAST, PREVIOUS]);
        std::fs::write(folder.path().join(LAST), "thr").unwrap();
        assert_eq!(load(&Disk, folder.path(), &decode).unwrap().state, "two.");
        save(&Disk, folder.path(), b"four.", &is_whole).unwrap();
        assert_eq!(std::fs::read(folder.path().join(PREVIOUS)).unwrap(), b"two.");
        assert!(save(&Disk, &folder.path().join("absent"), b"x.", &is_whole).is_err());
    }
}
