//! The checkout: where it is, which files are its own, how cargo is called in it.
//! Knows nothing of what the files hold.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use serde_json::Value;

use crate::problem::Problem;
use crate::process;

/// Folders that are made by tools and runs, never written by hand.
const MADE: &[&str] = &[".git", "outputs", "target"];

/// The checkout that xtask was started in.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the checkout from the manifest that cargo says it is running.
    ///
    /// # Errors
    ///
    /// Not started by cargo, or started from another place than `tests/xtask`.
    pub(crate) fn locate() -> Result<Self, Problem> {
        let lost = || Problem::new("cannot find the checkout").help("run it as `cargo xtask`");
        // Asked at run time: a cached binary may outlive the checkout it was built in.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(lost)?;
        let root = Path::new(&manifest).ancestors().nth(2).ok_or_else(lost)?;
        if !root.join("tests/xtask").is_dir() {
            return Err(lost());
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// A checkout at `root`, for tests.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The checkout's top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path relative to the checkout, with `/` between its parts.
    pub(crate) fn relative(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        inside.to_string_lossy().replace('\\', "/")
    }

    /// `cargo SUBCOMMAND` at the top of the checkout, in the environment that the user has.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.arg(subcommand).current_dir(&self.root);
        // What cargo told xtask about xtask would reach build scripts as if it were theirs.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name.as_ref());
            }
        }
        command
    }

    /// `cargo SUBCOMMAND` that resolves dependencies: in CI, exactly those of `Cargo.lock`.
    pub(crate) fn resolving_cargo(&self, subcommand: &str) -> Command {
        let mut command = self.cargo(subcommand);
        if env::var_os("CI").is_some() {
            command.arg("--locked");
        }
        command
    }

    /// What `cargo metadata` says, given `arguments`.
    ///
    /// # Errors
    ///
    /// Cargo fails, or `deadline` passes; what it wrote to stderr has been shown.
    pub(crate) fn metadata(&self, arguments: &[&str], deadline: Instant) -> Result<Value, Problem> {
        let mut command = self.resolving_cargo("metadata");
        command.args(["--format-version", "1"]).args(arguments);
        let text = process::output(&mut command, deadline)?;
        serde_json::from_str(&text)
            .map_err(|error| Problem::new(format!("cannot read `cargo metadata`: {error}")))
    }

    /// Where cargo puts what it builds.
    ///
    /// # Errors
    ///
    /// As [`Workspace::metadata`].
    pub(crate) fn target(&self, deadline: Instant) -> Result<PathBuf, Problem> {
        let metadata = self.metadata(&["--no-deps"], deadline)?;
        let target = metadata["target_directory"].as_str();
        target
            .map(PathBuf::from)
            .ok_or_else(|| Problem::new("`cargo metadata` names no target directory"))
    }

    /// Every file of the checkout that is not made by a tool, sorted.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, Problem> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(|error| Problem::io(&folder, &error))?;
            for entry in entries {
                let entry = entry.map_err(|error| Problem::io(&folder, &error))?;
                let kind = entry
                    .file_type()
                    .map_err(|error| Problem::io(&folder, &error))?;
                let path = entry.path();
                if kind.is_file() {
                    files.push(path);
                } else if kind.is_dir() && !is_made(&path) {
                    folders.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The texts among [`Workspace::files`] whose names end in one of `extensions`, each with
    /// its path relative to the checkout.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not UTF-8.
    pub(crate) fn texts(&self, extensions: &[&str]) -> Result<Vec<(String, String)>, Problem> {
        let mut texts = Vec::new();
        for path in self.files()? {
            let extension = path.extension().and_then(OsStr::to_str).unwrap_or("");
            if extensions.contains(&extension) {
                let text = fs::read_to_string(&path).map_err(|error| Problem::io(&path, &error))?;
                texts.push((self.relative(&path), text));
            }
        }
        Ok(texts)
    }
}

/// Whether a folder is made by a tool: known by name, or tagged as a cache (as cargo tags
/// its target folders).
fn is_made(folder: &Path) -> bool {
    let name = folder.file_name().and_then(OsStr::to_str).unwrap_or("");
    MADE.contains(&name) || folder.join("CACHEDIR.TAG").exists()
}
