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
            found.retain(|path| request.files.wants(&path.to_string_lossy()));
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

/// Lists the files below a folder, in the order of their names; links are left out.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), FetchError> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).map_err(FetchError::io("read", &folder))?;
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        match entry
            .file_type()
            .map_err(FetchError::io("read", &root.join(&path)))?
        {
            kind if kind.is_dir() => walk(root, &path, found)?,
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(())
}
