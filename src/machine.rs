//! The machine: its processor and its caches.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use crate::ffi;

/// Bytes of the second level of cache where the system does not tell: what Skylake servers, Zen 4 and Zen 5 have per core.
const USUAL_SECOND_LEVEL: usize = 1 << 20;

/// Bytes of the second level of cache, read once. Only speed depends on it.
pub(crate) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let bytes = caches().get("l2").and_then(|&bytes| usize::try_from(bytes).ok());
        bytes.filter(|&bytes| bytes > 0).unwrap_or(USUAL_SECOND_LEVEL)
    })
}

/// True where convolutions of 64 channels and more are faster in tiles of 6 pixels x 64 channels, which take fewer loads, than in tiles of 14 x
/// 32: on Intel. Both give the same bits.
pub fn prefers_wide_tiles() -> bool {
    ffi::processor::is_intel()
}

/// The processor's name; its architecture where the system does not tell.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    value("model name").or_else(|| value("Model")).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Bytes of the caches that the first core sees, by names such as `l1d` and `l2`; empty where the system does not tell.
pub fn caches() -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache");
    entries.into_iter().flatten().flatten().filter_map(|entry| cache(&entry.path())).collect()
}

fn cache(folder: &Path) -> Option<(String, u64)> {
    let read = |name: &str| Some(std::fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
    let level = read("level")?;
    let suffix = match read("type")?.as_str() {
        "Data" => "d",
        "Instruction" => "i",
        _ => "",
    };
    Some((format!("l{level}{suffix}"), size(&read("size")?)?))
}

/// Bytes of a size such as `48K`.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            [size("48K"), size("2M"), size("7"), size("3X"), size("")],
            [Some(48 << 10), Some(2 << 20), Some(7), None, None]
        );
    }

    #[test]
    fn the_machine_has_a_name() {
        assert!(!processor().is_empty());
        assert!(caches().values().all(|&bytes| bytes > 0));
    }
}
