//! Where compiled servers are kept: a folder beyond all runs, each build under its own digest.

use super::recipe::Recipe;
use crate::files;
use crate::python;
use engine::step::StepError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const PROGRAM: &str = "llama-server";
/// What is written last: a build is whole once it is there.
const MARKER: &str = "build.json";
/// Builds that are kept, some 15 MB each; one with kernels for GPUs has hundreds.
const MOST: usize = 16;

/// The folder of all builds.
pub(super) struct Builds {
    root: PathBuf,
}

impl Builds {
    /// Finds the folder that this user's builds are in.
    pub(super) fn of_user() -> Result<Self, StepError> {
        Ok(Self::at(&python::user_cache()?))
    }

    fn at(folder: &Path) -> Self {
        Self {
            root: folder.join("llama.cpp"),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, recipe: &Recipe) -> PathBuf {
        self.root.join(recipe.id())
    }

    /// Waits until no other process works at this build.
    pub(super) async fn lock(&self, recipe: &Recipe) -> Result<File, StepError> {
        python::lock(&self.root.join(format!("{}.lock", recipe.id()))).await
    }

    /// Says whether the build is whole, and notes that it is used.
    pub(super) fn has(&self, recipe: &Recipe) -> bool {
        let folder = self.folder(recipe);
        let marker = files::read_json::<Recipe>(&folder.join(MARKER));
        let is_whole = marker.is_ok_and(|told| told == *recipe) && folder.join(PROGRAM).is_file();
        if is_whole {
            let marker = File::options().append(true).open(folder.join(MARKER));
            // What is not noted is only forgotten sooner.
            let _ = marker.and_then(|marker| marker.set_modified(SystemTime::now()));
        }
        is_whole
    }

    /// Keeps a program as the build.
    pub(super) fn keep(&self, recipe: &Recipe, program: &Path) -> Result<(), StepError> {
        let folder = self.folder(recipe);
        files::create_dir(&folder)?;
        copy(program, &folder.join(PROGRAM))?;
        files::write_json(&folder.join(MARKER), recipe)?;
        self.prune(MOST);
        Ok(())
    }

    /// Copies the program to where a step leaves it.
    pub(super) fn copy(&self, recipe: &Recipe, to: &Path) -> Result<(), StepError> {
        copy(&self.folder(recipe).join(PROGRAM), to)
    }

    /// Removes what was not used for longest beyond so many builds. None is in use: whoever runs one has a
    /// copy.
    fn prune(&self, most: usize) {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut all: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let folder = entry.path();
                let used = folder.join(MARKER).metadata().and_then(|m| m.modified());
                Some((used.ok()?, folder))
            })
            .collect();
        all.sort();
        let n_old = all.len().saturating_sub(most);
        for (_, folder) in all.into_iter().take(n_old) {
            // The marker first: nobody takes the rest for whole.
            let _ = fs::remove_file(folder.join(MARKER));
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), StepError> {
    let failed = |e: std::io::Error| {
        StepError::because(
            format!("could not copy `{}` to `{}`", from.display(), to.display()),
            e,
        )
    };
    fs::copy(from, to).map_err(failed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fetch::Sha256;
    use std::collections::BTreeMap;

    fn recipe(version: &str) -> Recipe {
        Recipe::new(version, Sha256::of(b""), BTreeMap::new(), Vec::new())
    }

    #[test]
    fn only_what_was_kept_whole_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let builds = Builds::at(folder.path());
        let program = folder.path().join("made");
        fs::write(&program, "a program").expect("a file");
        assert!(!builds.has(&recipe("1.0")));
        builds.keep(&recipe("1.0"), &program).expect("kept");
        assert!(builds.has(&recipe("1.0")) && !builds.has(&recipe("2.0")));
        let to = folder.path().join("copy");
        builds.copy(&recipe("1.0"), &to).expect("copied");
        assert_eq!(fs::read_to_string(to).expect("a copy"), "a program");
        fs::remove_file(builds.folder(&recipe("1.0")).join(PROGRAM)).expect("removed");
        assert!(!builds.has(&recipe("1.0")), "its program is gone");
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let builds = Builds::at(folder.path());
        let program = folder.path().join("made");
        fs::write(&program, "a program").expect("a file");
        for (version, age) in [("1.0", 300), ("2.0", 100), ("3.0", 200)] {
            builds.keep(&recipe(version), &program).expect("kept");
            let marker = builds.folder(&recipe(version)).join(MARKER);
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            let marker = File::options().append(true).open(marker);
            marker.and_then(|m| m.set_modified(then)).expect("an age");
        }
        builds.prune(2);
        let there = ["1.0", "2.0", "3.0"].map(|v| builds.has(&recipe(v)));
        assert_eq!(there, [false, true, true]);
    }
}
