//! Walking a file or folder that is to become, or to be compared with, an artifact.
//!
//! Looks at names and kinds only; reads no content.

use super::{StoreError, Unfit};
use rustix::io::Errno;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// How deep folders may lie within each other.
pub(super) const MAX_DEPTH: usize = 64;
/// How many entries an artifact may have.
pub(super) const MAX_ENTRIES: usize = 1_000_000;

/// What to do with symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Keep them, if they stay inside: for what moves into the store.
    Keep,
    /// Take what they point to, wherever that is: for what stays where it is.
    Follow,
}

/// One thing found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// The same relative to the root of the walk, with `/` between names.
    pub(super) relative: String,
    pub(super) kind: FoundKind,
}

#[derive(Debug)]
pub(super) enum FoundKind {
    File(Metadata),
    Link { target: String },
    EmptyFolder,
}

/// Looks at `path` itself.
pub(super) fn look(path: &Path, links: Links) -> Result<Metadata, StoreError> {
    let data = match links {
        Links::Keep => fs::symlink_metadata(path),
        Links::Follow => fs::metadata(path),
    };
    match data {
        Ok(data) if data.is_symlink() => Err(StoreError::unfit(path, Unfit::Link)),
        Ok(data) if data.is_file() || data.is_dir() => Ok(data),
        Ok(_) => Err(StoreError::unfit(path, Unfit::Special)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing {
            path: path.to_owned(),
        }),
        Err(error) => Err(StoreError::on("look at", path)(error)),
    }
}

/// Returns the last name of `path`.
pub(super) fn file_name(path: &Path) -> Result<String, StoreError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| StoreError::unfit(path, Unfit::Name))
}

/// Lists everything below the folder `root`, in no order.
///
/// Refuses what an artifact cannot hold before anything is moved.
pub(super) fn walk(root: &Path, links: Links) -> Result<Vec<Found>, StoreError> {
    let real_root = fs::canonicalize(root).map_err(StoreError::on("resolve", root))?;
    let mut walk = Walk {
        real_root,
        links,
        n_seen: 0,
        above: Vec::new(),
        found: Vec::new(),
    };
    walk.folder(root, "")?;
    Ok(walk.found)
}

struct Walk {
    real_root: PathBuf,
    links: Links,
    n_seen: usize,
    /// The folders from the root down to the present one, by device and inode.
    above: Vec<(u64, u64)>,
    found: Vec<Found>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, relative: &str) -> Result<(), StoreError> {
        let data = fs::metadata(folder).map_err(StoreError::on("look at", folder))?;
        let identity = (data.dev(), data.ino());
        if self.above.len() > MAX_DEPTH || self.above.contains(&identity) {
            return Err(StoreError::unfit(folder, Unfit::TooDeep));
        }
        self.above.push(identity);
        let mut is_empty = true;
        for entry in fs::read_dir(folder).map_err(StoreError::on("list", folder))? {
            let path = entry.map_err(StoreError::on("list", folder))?.path();
            let name = file_name(&path)?;
            let inner = if relative.is_empty() {
                name
            } else {
                format!("{relative}/{name}")
            };
            self.entry(path, inner)?;
            is_empty = false;
        }
        self.above.pop();
        if is_empty && !relative.is_empty() {
            let (path, relative) = (folder.to_owned(), relative.to_owned());
            self.found.push(Found {
                path,
                relative,
                kind: FoundKind::EmptyFolder,
            });
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, relative: String) -> Result<(), StoreError> {
        self.n_seen += 1;
        if self.n_seen > MAX_ENTRIES {
            return Err(StoreError::unfit(&self.real_root, Unfit::TooMany));
        }
        let own = fs::symlink_metadata(&path).map_err(StoreError::on("look at", &path))?;
        if own.is_symlink() && self.links == Links::Keep {
            let target = self.inner_target(&path, &relative)?;
            self.found.push(Found {
                path,
                relative,
                kind: FoundKind::Link { target },
            });
            return Ok(());
        }
        let data = if own.is_symlink() {
            behind(&path)?
        } else {
            own
        };
        if data.is_dir() {
            self.folder(&path, &relative)
        } else if data.is_file() {
            self.found.push(Found {
                path,
                relative,
                kind: FoundKind::File(data),
            });
            Ok(())
        } else {
            Err(StoreError::unfit(&path, Unfit::Special))
        }
    }

    /// Returns where the link at `path` points, if that will mean the same in the store.
    fn inner_target(&self, path: &Path, relative: &str) -> Result<String, StoreError> {
        let target = fs::read_link(path).map_err(StoreError::on("read the link", path))?;
        let escapes = |target| StoreError::unfit(path, Unfit::EscapingLink { target });
        // By its text, since one that leaves and comes back would break when moved.
        if !stays_inside(relative, &target) {
            return Err(escapes(target));
        }
        // And in fact, since other links on its way may lead elsewhere than their names say.
        match fs::canonicalize(path) {
            Ok(real) if real.starts_with(&self.real_root) => {}
            Ok(_) => return Err(escapes(target)),
            Err(_) => return Err(StoreError::unfit(path, Unfit::DanglingLink { target })),
        }
        target
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| StoreError::unfit(path, Unfit::Name))
    }
}

/// Looks at what the link at `path` points to.
fn behind(path: &Path) -> Result<Metadata, StoreError> {
    fs::metadata(path).map_err(|error| {
        let is_circle = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if is_circle || error.kind() == io::ErrorKind::NotFound {
            let target = fs::read_link(path).unwrap_or_default();
            return StoreError::unfit(path, Unfit::DanglingLink { target });
        }
        StoreError::on("look at", path)(error)
    })
}

/// Whether `target`, seen from the folder of the link at `relative`, never climbs above the root.
fn stays_inside(relative: &str, target: &Path) -> bool {
    let mut depth = relative.matches('/').count();
    target.components().all(|component| match component {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => match depth.checked_sub(1) {
            Some(up) => {
                depth = up;
                true
            }
            None => false,
        },
        Component::RootDir | Component::Prefix(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refusal(make: impl Fn(&Path)) -> Unfit {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        make(&root);
        match walk(&root, Links::Keep).unwrap_err() {
            StoreError::Unfit { reason, .. } => reason,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn links_are_judged_by_text_and_in_fact() {
        assert!(stays_inside("a/b/link", Path::new("../c/../../d")));
        assert!(!stays_inside("a/link", Path::new("../../root/a")));
        let escaping = |reason: Unfit| matches!(reason, Unfit::EscapingLink { .. });
        assert!(escaping(refusal(|root| symlink(
            "/etc/passwd",
            root.join("l")
        )
        .unwrap())));
        assert!(escaping(refusal(|root| symlink(
            root.join("file"),
            root.join("l")
        )
        .unwrap())));
        assert!(escaping(refusal(|root| symlink(
            "../root/file",
            root.join("l")
        )
        .unwrap())));
        assert!(escaping(refusal(|root| {
            symlink("..", root.join("d/up")).unwrap();
            symlink("up/..", root.join("d/out")).unwrap();
        })));
        let dangling = refusal(|root| symlink("nowhere", root.join("l")).unwrap());
        assert!(matches!(dangling, Unfit::DanglingLink { .. }), "{dangling}");
        let circle = refusal(|root| symlink("l", root.join("l")).unwrap());
        assert!(matches!(circle, Unfit::DanglingLink { .. }), "{circle}");
    }

    #[test]
    fn sockets_are_refused_and_circles_of_folders_end() {
        let socket = refusal(|root| {
            std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        });
        assert_eq!(socket, Unfit::Special);
        let folder = tempfile::tempdir().unwrap();
        symlink(".", folder.path().join("again")).unwrap();
        let error = walk(folder.path(), Links::Follow).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Unfit {
                    reason: Unfit::TooDeep,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn names_that_are_not_utf8_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let reason =
            refusal(|root| fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap());
        assert_eq!(reason, Unfit::Name);
    }
}
