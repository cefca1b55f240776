//! Where the files of a plan are found, and their texts: those kept with a run before the disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The largest file that is read as part of a plan, bytes.
const LARGEST: u64 = 64 << 20;

/// The files that a plan consists of.
pub(crate) struct Files {
    kept: BTreeMap<PathBuf, String>,
    /// The folder of the plan itself.
    folder: PathBuf,
}

impl Files {
    /// Reads the files of the plan at `path`: from `kept` texts, and otherwise from the disk.
    pub(crate) fn new(path: &Path, kept: &[(PathBuf, String)]) -> Self {
        Self {
            folder: path.parent().map(Path::to_path_buf).unwrap_or_default(),
            kept: kept
                .iter()
                .map(|(path, text)| (normal(path), text.clone()))
                .collect(),
        }
    }

    /// Returns the folder of the plan itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Goes through the paths of the kept texts.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Path> {
        self.kept.keys().map(PathBuf::as_path)
    }

    /// Returns the text of a file.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        if let Some(text) = self.kept.get(&normal(path)) {
            return Ok(text.clone());
        }
        let length = fs::metadata(path)?.len();
        if length > LARGEST {
            let message = format!("{length} bytes are more than a part of a plan may have");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        fs::read_to_string(path)
    }

    /// Finds `wanted` in the folder of the file that names it and upwards, then in the folder of
    /// the plan and upwards.
    pub(crate) fn find(&self, from: Option<&Path>, wanted: &str) -> Result<PathBuf, Vec<PathBuf>> {
        let is_there = |path: &Path| self.kept.contains_key(&normal(path)) || path.is_file();
        search(from, &self.folder, Path::new(wanted), is_there)
    }
}

/// Searches `wanted` from the folder of the file that names it upwards, then from the plan's.
pub(crate) fn search(
    from: Option<&Path>,
    plan: &Path,
    wanted: &Path,
    is_there: impl Fn(&Path) -> bool,
) -> Result<PathBuf, Vec<PathBuf>> {
    let mut searched: Vec<PathBuf> = Vec::new();
    for folder in upwards(from.unwrap_or(plan))
        .into_iter()
        .chain(upwards(plan))
    {
        let candidate = folder.join(wanted);
        if is_there(&candidate) {
            return Ok(candidate);
        }
        if !searched.contains(&candidate) {
            searched.push(candidate);
        }
    }
    searched.truncate(2);
    Err(searched)
}

/// Says where a file was looked for.
pub(crate) fn searched_help(searched: &[PathBuf]) -> String {
    let shown = searched.iter().map(|p| format!("`{}`", p.display()));
    let shown: Vec<String> = shown.collect();
    format!(
        "looked for {}; a path is searched from the folder of the file that names it upwards",
        shown.join(", ")
    )
}

/// Lists a folder and those above it; what lies below the working folder stays relative.
pub(crate) fn upwards(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folder.ancestors().map(Path::to_path_buf).collect();
    if !folder.is_absolute() {
        let here = std::env::current_dir().unwrap_or_default();
        found.extend(here.ancestors().skip(1).map(Path::to_path_buf));
    }
    found
}

/// Writes a path so that equal paths are equal: absolute, without `.` and `..`.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut found = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                found.pop();
            }
            Component::CurDir => {}
            other => found.push(other),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_texts_come_before_the_disk_however_their_path_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = folder.path().join("plans/p.toml");
        fs::create_dir(folder.path().join("plans")).expect("a folder");
        fs::write(folder.path().join("b.toml"), "on disk").expect("a file");
        let kept = [(folder.path().join("plans/../a.toml"), "kept".to_owned())];
        let files = Files::new(&main, &kept);
        let read = |name: &str| {
            files
                .read(&files.find(None, name).expect(name))
                .expect(name)
        };
        assert_eq!(read("a.toml"), "kept");
        assert_eq!(read("b.toml"), "on disk");
        assert_eq!(files.find(None, "c.toml").expect_err("none").len(), 2);
    }

    #[test]
    fn relative_folders_are_left_upwards_through_the_working_folder() {
        let found = upwards(Path::new("plans/x"));
        assert_eq!(found[..3], ["plans/x", "plans", ""].map(PathBuf::from));
        assert!(found[3..].iter().all(|p| p.is_absolute()));
    }
}
