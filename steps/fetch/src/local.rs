//! Files and folders of this machine, which are copied: whoever reads the copy sees one content.

use crate::digest::Sha256;
use crate::download::Downloader;
use crate::error::FetchError;
use crate::lfs::Pointer;
use crate::receipt::Fetched;
use crate::request::{Request, several};
use crate::space;
use crate::transfer::broke_down;
use std::fs;
use std::path::{Path, PathBuf};

/// How many names an error tells.
const TOLD: usize = 8;

impl Downloader {
    /// Copies a file or a folder of this machine.
    pub(crate) async fn copy(
        &self,
        from: &Path,
        request: &Request,
        into: &Path,
    ) -> Result<Vec<Fetched>, FetchError> {
        let mut found = Vec::new();
        if from.is_file() {
            found.push(PathBuf::from(from.file_name().unwrap_or_default()));
        } else {
            walk(from, Path::new(""), &mut found)?;
            choose(from, request, &mut found)?;
        }
        if let (Some(_), n @ (0 | 2..)) = (request.sha256, found.len()) {
            return Err(several(n));
        }
        let mut files = Vec::new();
        for path in found {
            let source = if from.is_file() {
                from.to_owned()
            } else {
                from.join(&path)
            };
            let to = into.join(&path);
            files.push(self.copy_one(&source, &to, path, request.sha256).await?);
        }
        Ok(files)
    }

    async fn copy_one(
        &self,
        from: &Path,
        to: &Path,
        path: PathBuf,
        expected: Option<Sha256>,
    ) -> Result<Fetched, FetchError> {
        if let Some(pointer) = Pointer::at(from)? {
            return Err(FetchError::Pointer {
                name: from.display().to_string(),
                size: pointer.size,
                oid: pointer.oid,
            });
        }
        let size = fs::metadata(from)
            .map_err(FetchError::io("read", from))?
            .len();
        let folder = to.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(FetchError::io("create the folder", folder))?;
        space::ensure(folder, size)?;
        let (source, target) = (from.to_owned(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            fs::copy(&source, &target).map_err(FetchError::io("copy", &source))
        });
        let bytes = copied
            .await
            .unwrap_or_else(|broken| Err(broke_down(&broken)))?;
        let sha256 = self.digest(&path.display().to_string(), to).await?;
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            return Err(FetchError::Digest {
                name: from.display().to_string(),
                found: sha256,
                expected,
            });
        }
        Ok(Fetched {
            path,
            url: format!("file:{}", from.display()),
            bytes,
            sha256,
            resumed_bytes: 0,
        })
    }
}

/// Leaves the files that are wanted.
fn choose(from: &Path, request: &Request, found: &mut Vec<PathBuf>) -> Result<(), FetchError> {
    let names: Vec<String> = found
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let none = |wanted: &str| FetchError::NoFile {
        place: from.display().to_string(),
        wanted: wanted.to_owned(),
        has: names.iter().take(TOLD).cloned().collect(),
    };
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(idle) = request.files.idle(&all) {
        return Err(none(idle));
    }
    found.retain(|path| request.files.wants(&path.to_string_lossy()));
    match found.is_empty() {
        true => Err(none("*")),
        false => Ok(()),
    }
}

/// Lists the files below a folder, in the order of their names. A link to a file is that file: folders of
/// the hub's own cache hold nothing else. Links to folders may go round in circles and are refused.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), FetchError> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).map_err(FetchError::io("read", &folder))?;
    let entries: Result<Vec<_>, _> = entries.collect();
    let mut entries = entries.map_err(FetchError::io("read", &folder))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let whole = root.join(&path);
        let kind = entry.file_type().map_err(FetchError::io("read", &whole))?;
        if kind.is_dir() {
            walk(root, &path, found)?;
            continue;
        }
        let meant = fs::metadata(&whole).map_err(FetchError::io("read", &whole))?;
        if !meant.is_file() {
            let name = whole.display();
            return Err(FetchError::Request(format!(
                "`{name}` is neither a file nor a folder nor a link to a file"
            )));
        }
        found.push(path);
    }
    Ok(())
}
