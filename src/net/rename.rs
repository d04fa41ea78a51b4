//! Maps from the names in other programs' files to ours.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Reads a map of names: lines of `their.name = our.name`. Both sides may end in `*`, which stands for any rest of a name.
/// Nothing after `=` leaves the tensor out. Empty lines and lines that start with `#` are skipped.
///
/// ```
/// let map = leanresnet::net::parse_name_map("# a comment\nmodule.* = *\nfc.weight = head.weight\nema.* =\n")?;
/// assert_eq!(map[1], ("fc.weight".to_owned(), "head.weight".to_owned()));
/// # Ok::<(), leanresnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] with the number of a line that is something else.
pub fn parse_name_map(text: &str) -> Result<Vec<(String, String)>> {
    let mut map: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |expected: &str| Err(Error::invalid(format!("line {} of the map", index + 1), expected, format!("`{line}`")));
        let Some((theirs, ours)) = line.split_once('=').map(|(theirs, ours)| (theirs.trim(), ours.trim())) else {
            return wrong("their.name = our.name");
        };
        if theirs.is_empty() || ours.contains('=') {
            return wrong("their.name = our.name");
        }
        let star_inside = |name: &str| name.strip_suffix('*').unwrap_or(name).contains('*');
        if star_inside(theirs) || star_inside(ours) || (!ours.is_empty() && theirs.ends_with('*') != ours.ends_with('*')) {
            return wrong("`*` only at the end, and on both sides or none");
        }
        if map.iter().any(|(earlier, _)| earlier == theirs) {
            return wrong("each name once");
        }
        map.push((theirs.to_owned(), ours.to_owned()));
    }
    Ok(map)
}

/// Our name for `name`, or nothing if the map leaves it out. The whole name goes before prefixes, a longer prefix before a shorter;
/// a name that the map does not have stays as it is.
pub(crate) fn renamed(name: &str, map: &[(String, String)]) -> Option<String> {
    if let Some((_, ours)) = map.iter().find(|(theirs, _)| theirs == name) {
        return (!ours.is_empty()).then(|| ours.clone());
    }
    let prefixes = map.iter().filter_map(|(theirs, ours)| Some((theirs.strip_suffix('*')?, ours)));
    match prefixes.filter(|(prefix, _)| name.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len()) {
        None => Some(name.to_owned()),
        Some((_, ours)) if ours.is_empty() => None,
        Some((prefix, ours)) => Some(format!("{}{}", ours.strip_suffix('*').unwrap_or(ours), &name[prefix.len()..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_entry_names_a_tensor() {
        let map =
            parse_name_map(" module.* = * \n# comment\n\nmodule.fc.* = head.*\nmodule.fc.bias = head.b\nema.* =\n").unwrap();
        assert_eq!(renamed("module.stem.conv.weight", &map).unwrap(), "stem.conv.weight");
        assert_eq!(renamed("module.fc.weight", &map).unwrap(), "head.weight");
        assert_eq!(renamed("module.fc.bias", &map).unwrap(), "head.b");
        assert_eq!(renamed("ema.fc.bias", &map), None);
        assert_eq!(renamed("other", &map).unwrap(), "other");
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, expected) in [
            ("a = b\nno sign", "line 2 of the map; expected their.name = our.name, got `no sign`"),
            ("= b", "line 1 of the map; expected their.name = our.name, got `= b`"),
            ("a = b = c", "line 1 of the map; expected their.name = our.name, got `a = b = c`"),
            ("a.* = b", "line 1 of the map; expected `*` only at the end, and on both sides or none, got `a.* = b`"),
            ("a.*.c = b", "line 1 of the map; expected `*` only at the end, and on both sides or none, got `a.*.c = b`"),
            ("a = b\n\na = c", "line 3 of the map; expected each name once, got `a = c`"),
        ] {
            assert_eq!(parse_name_map(text).unwrap_err().to_string(), expected);
        }
    }
}
