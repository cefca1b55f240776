//! How durations, counts, times and paths are written for people.

use std::path::Path;

/// Writes milliseconds with the precision that a person wants.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Writes a number of bytes in the largest unit that fits.
pub(crate) fn bytes(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| n >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (n >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{n} B"),
    }
}

/// Writes a count with its noun.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("{n} {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// Names a sample: which of how many, as long as that is so.
pub(crate) fn sample(index: u32, target: u32) -> String {
    if index < target {
        format!("sample {} of {target}", index + 1)
    } else {
        format!("sample {}", index + 1)
    }
}

/// Writes milliseconds since 1970 as `2026-11-22 05:45`, in UTC.
pub(crate) fn moment(ms: u64) -> String {
    let stamp = engine::run::folder::timestamp(ms / 1000);
    format!(
        "{}-{}-{} {}:{}",
        &stamp[..4],
        &stamp[4..6],
        &stamp[6..8],
        &stamp[9..11],
        &stamp[11..13]
    )
}

/// Writes a path relative to the working directory where it lies below it.
pub(crate) fn path(path: &Path) -> String {
    let below = std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    below
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| path.to_owned())
        .display()
        .to_string()
}

/// Cuts a text to its first line and at most `max` characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or("");
    match line.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// Breaks a text into lines of at most `width` characters, between words.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Quotes an argument for a shell if it needs it.
pub(crate) fn shell(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_digits_that_matter() {
        let written = [7, 999, 1000, 12_345, 59_999, 60_000, 125_000, 3_600_000].map(duration);
        let wanted = [
            "7 ms",
            "999 ms",
            "1.0 s",
            "12.3 s",
            "59.9 s",
            "1 min 00 s",
            "2 min 05 s",
            "1 h 00 min",
        ];
        assert_eq!(written, wanted);
    }

    #[test]
    fn a_sample_beyond_the_target_does_not_pretend_to_be_within() {
        assert_eq!(sample(0, 3), "sample 1 of 3");
        assert_eq!(sample(4, 3), "sample 5");
    }

    #[test]
    fn moments_are_dates_in_utc() {
        assert_eq!(moment(1_795_326_300_000), "2026-11-22 05:45");
    }

    #[test]
    fn texts_are_cut_and_wrapped_by_characters() {
        assert_eq!(cut("äöü\nx", 2), "äö…");
        assert_eq!(cut("äöü\nx", 3), "äöü");
        assert_eq!(wrap("a bb ccc  dddd", 6), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrap("longer than", 3), ["longer", "than"]);
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        assert_eq!(shell("20261122-054500-smoke"), "20261122-054500-smoke");
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("it's"), r"'it'\''s'");
    }
}
