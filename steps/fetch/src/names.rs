//! Names of files that others chose: which of them are wanted, and which are safe.

use std::path::{Component, Path, PathBuf};

/// The longest name that is taken, bytes; Linux allows 4096 for a whole path.
const LONGEST: usize = 1024;

/// Which files of a repository or an archive are wanted: patterns with `*` for anything, slashes
/// included, and `?` for one character. A pattern without a slash also means files in folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those wanted; empty means all.
    pub take: Vec<String>,
    /// Of these the ones that are not.
    pub leave: Vec<String>,
}

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// What one pattern matches.
    pub fn one(pattern: impl Into<String>) -> Self {
        Self {
            take: vec![pattern.into()],
            leave: Vec::new(),
        }
    }

    /// Whether a file is wanted.
    pub fn wants(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| means(p, name));
        (self.take.is_empty() || any(&self.take)) && !any(&self.leave)
    }

    /// The patterns that none of `names` matches.
    pub(crate) fn idle<'a>(&'a self, names: &[&str]) -> Option<&'a str> {
        let is_idle = |p: &&String| !names.iter().any(|name| means(p, name));
        self.take.iter().find(is_idle).map(String::as_str)
    }
}

fn means(pattern: &str, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    matches(pattern.as_bytes(), name.as_bytes())
        || (!pattern.contains('/') && matches(pattern.as_bytes(), last.as_bytes()))
}

/// Whether a pattern matches all of a name; takes time in proportion to their product at most.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last `*` does not match: it takes one byte more.
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, from)) = back else {
                    return false;
                };
                back = Some((star, from + 1));
                (p, n) = (star, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Makes a relative path of a name that comes from outside.
///
/// # Errors
/// What about it would lead out of a folder, or cannot be a name.
pub(crate) fn safe_path(name: &str) -> Result<PathBuf, String> {
    let refuse = |why: &str| Err(format!("the name `{}` {why}", name.escape_debug()));
    if name.is_empty() || name.len() > LONGEST {
        return refuse("is empty or very long");
    }
    if name.contains(['\0', '\\']) || name.chars().any(char::is_control) {
        return refuse("holds a backslash or a control character");
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return refuse("leads out of its folder by `..`"),
            Component::RootDir | Component::Prefix(_) => return refuse("is absolute"),
        }
    }
    if path.as_os_str().is_empty() {
        return refuse("names nothing");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_shells_mean_and_slashes_too() {
        for (pattern, name, expected) in [
            ("*.json", "a/b.json", true),
            ("*.json", "b.jsonl", false),
            ("data/*.csv", "data/a/b.csv", true),
            ("data/*.csv", "other/data/b.csv", false),
            ("config.json", "onnx/config.json", true),
            ("onnx/config.json", "config.json", false),
            ("a?c*", "abcdef", true),
            ("*a*b*c", "xxaxxbxxcxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("", "a", false),
        ] {
            assert_eq!(means(pattern, name), expected, "{pattern} {name}");
        }
        let selection = Selection {
            take: vec!["*.json".into(), "*.bin".into()],
            leave: vec!["onnx/*".into()],
        };
        assert!(selection.wants("config.json") && !selection.wants("onnx/config.json"));
        assert_eq!(selection.idle(&["a.json"]), Some("*.bin"));
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        for wrong in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a\\..\\b",
            "a\0b",
            "./",
            "a/\u{7}b",
        ] {
            assert!(safe_path(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(safe_path("./a//b.json"), Ok(PathBuf::from("a/b.json")));
        assert!(safe_path(&"a".repeat(LONGEST + 1)).is_err());
    }
}
