//! What names an environment: the digest of its lock, of its Python and of its platform. The environment
//! itself lies in a cache and can be built again from what stands here.

use super::interpreter::Interpreter;
use crate::files;
use engine::step::StepError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The lock in the folder of the artifact.
pub(super) const LOCK: &str = "requirements.lock";
/// What it is the lock of.
const ENVIRONMENT: &str = "environment.json";

/// Where packages come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sources {
    /// The index in place of PyPI.
    pub(super) index: Option<String>,
    /// Further indexes.
    pub(super) extra_index: Vec<String>,
    /// Folders with wheels.
    pub(super) find_links: Vec<String>,
}

impl Sources {
    /// The flags for that, which uv and pip spell alike.
    pub(super) fn flags(&self) -> Vec<String> {
        let index = self.index.iter().map(|index| ("--index-url", index));
        let extra = self.extra_index.iter().map(|i| ("--extra-index-url", i));
        let links = self.find_links.iter().map(|l| ("--find-links", l));
        index
            .chain(extra)
            .chain(links)
            .flat_map(|(flag, value)| [flag.to_owned(), value.clone()])
            .collect()
    }
}

/// An environment by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// What it consists of.
    pub(super) told: Told,
    /// The lock: every package with its version.
    pub(super) lock: String,
}

/// What is written of it beside its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// The digest that names it: of the lock, the Python and the platform.
    pub(super) id: String,
    /// The digest of the lock alone.
    pub(super) lock: String,
    /// Such as `3.11.7`.
    pub(super) python: String,
    /// Which wheels fit.
    pub(super) platform: String,
    /// Where packages come from, as far as no secret is part of it.
    pub(super) sources: Sources,
}

impl Named {
    pub(super) fn new(lock: String, python: &Interpreter, sources: Sources) -> Self {
        let digest = blake3::hash(lock.as_bytes()).to_hex().to_string();
        let parts = [digest.as_str(), &python.version, &python.platform];
        let id = blake3::hash(parts.join("\n").as_bytes()).to_hex();
        let told = Told {
            id: id.to_string(),
            lock: digest,
            python: python.version.clone(),
            platform: python.platform.clone(),
            sources,
        };
        Self { told, lock }
    }

    /// How many packages are locked.
    pub(super) fn n_packages(&self) -> usize {
        packages(&self.lock).count()
    }

    /// The version of a package that is locked.
    pub(super) fn version_of(&self, package: &str) -> Option<&str> {
        let rest =
            packages(&self.lock).find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
        rest?.split([' ', ';', '\\']).next()
    }

    /// The beginning of the digest of its lock, to be shown.
    pub(crate) fn short_lock(&self) -> &str {
        self.told.lock.get(..12).unwrap_or(&self.told.lock)
    }

    /// Writes the artifact's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StepError> {
        files::create_dir(folder)?;
        files::write(&folder.join(LOCK), &self.lock)?;
        files::write_json(&folder.join(ENVIRONMENT), &self.told)
    }

    /// Reads the artifact's folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, StepError> {
        let read = || {
            Ok(Self {
                told: files::read_json(&folder.join(ENVIRONMENT))?,
                lock: files::read_text(&folder.join(LOCK))?,
            })
        };
        read().map_err(|error: StepError| {
            let message = format!(
                "`{}` is no environment: {}",
                folder.display(),
                error.message
            );
            StepError::new(message)
                .help("refer to one: `${steps.NAME.environment}` of `env.python`")
        })
    }
}

/// The lines of a lock that name packages: no comments, no hashes of the line before.
pub(super) fn packages(lock: &str) -> impl Iterator<Item = &str> {
    let lines = lock.lines().map(str::trim_end);
    lines.filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK_TEXT: &str = "# by hand\nsix==1.17.0 \\\n    --hash=sha256:4721\nidna==3.10\n";

    fn python(version: &str) -> Interpreter {
        Interpreter {
            program: "/usr/bin/python3".to_owned(),
            version: version.to_owned(),
            platform: "cpython-linux-x86_64-glibc2.36".to_owned(),
        }
    }

    #[test]
    fn another_lock_or_another_python_is_another_environment() {
        let named = |lock: &str, version| {
            Named::new(lock.to_owned(), &python(version), Sources::default()).told
        };
        let one = named(LOCK_TEXT, "3.11.7");
        assert_eq!(one, named(LOCK_TEXT, "3.11.7"));
        assert_ne!(one.id, named(LOCK_TEXT, "3.12.1").id);
        assert_ne!(one.id, named("six==1.17.0\n", "3.11.7").id);
        assert_eq!(one.lock, named(LOCK_TEXT, "3.12.1").lock);
    }

    #[test]
    fn what_is_written_is_read_and_packages_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = Sources {
            index: Some("https://index".to_owned()),
            extra_index: vec!["https://more".to_owned()],
            find_links: vec!["/wheels".to_owned()],
        };
        let named = Named::new(LOCK_TEXT.to_owned(), &python("3.11.7"), sources);
        named.write(folder.path()).expect("written");
        assert_eq!(Named::read(folder.path()).expect("read"), named);
        assert_eq!(named.n_packages(), 2);
        let version = |package| named.version_of(package);
        assert_eq!(
            (version("six"), version("idna")),
            (Some("1.17.0"), Some("3.10"))
        );
        assert_eq!(version("si"), None);
        let flags = "--index-url https://index --extra-index-url https://more --find-links /wheels";
        assert_eq!(named.told.sources.flags().join(" "), flags);
        let none = Named::read(&folder.path().join("elsewhere")).expect_err("nothing is there");
        assert!(none.message.contains("is no environment"), "{none:?}");
    }
}
