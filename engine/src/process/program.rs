//! Finding the program that a command names, as `execvp` would, but with errors that help.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No folder of the search path holds it.
    #[error("program `{program}` was not found in PATH ({searched}); install it or give its path")]
    NotFound {
        /// What was looked for.
        program: String,
        /// The folders that were looked into, separated by colons.
        searched: String,
    },
    /// Nothing is at the path given.
    #[error("program `{}` does not exist", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// What is there is no program.
    #[error("`{}` is not an executable file; make it one with `chmod +x`", path.display())]
    NotExecutable {
        /// Where it is.
        path: PathBuf,
    },
}

/// Resolves `program` to an absolute path.
///
/// A name with a `/` is a path, relative to `cwd`. Any other is searched in the folders of
/// `search`, a value of `PATH`.
///
/// # Errors
/// [`ProgramError`] says what is missing and where it was sought.
pub fn find_program(program: &str, cwd: &Path, search: &OsStr) -> Result<PathBuf, ProgramError> {
    if program.contains('/') {
        let path = cwd.join(program);
        return match fs::metadata(&path) {
            Err(_) => Err(ProgramError::Missing { path }),
            Ok(_) if is_executable(&path) => Ok(path),
            Ok(_) => Err(ProgramError::NotExecutable { path }),
        };
    }
    let mut unusable = None;
    for folder in std::env::split_paths(search) {
        let path = cwd.join(folder).join(program);
        if is_executable(&path) {
            return Ok(path);
        }
        if unusable.is_none() && path.is_file() {
            unusable = Some(path);
        }
    }
    Err(match unusable {
        Some(path) if !program.is_empty() => ProgramError::NotExecutable { path },
        _ => ProgramError::NotFound {
            program: program.to_owned(),
            searched: search.to_string_lossy().into_owned(),
        },
    })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_by_search() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        fs::write(&tool, "#!/bin/sh\n").unwrap();
        let search = folder.path().as_os_str();
        let find = |name: &str| find_program(name, folder.path(), search);
        assert_eq!(
            find("tool"),
            Err(ProgramError::NotExecutable { path: tool.clone() })
        );
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("tool"), Ok(tool));
        assert_eq!(find("./tool"), Ok(folder.path().join("./tool")));
        let missing = find("./none").unwrap_err();
        assert_eq!(
            missing,
            ProgramError::Missing {
                path: folder.path().join("./none")
            }
        );
    }

    #[test]
    fn what_is_not_found_names_the_search_path() {
        let error = find_program("vllm", Path::new("/"), OsStr::new("/a:/b")).unwrap_err();
        let text = "program `vllm` was not found in PATH (/a:/b); install it or give its path";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_folder_is_no_program() {
        let error = find_program("/tmp", Path::new("/"), OsStr::new("")).unwrap_err();
        assert!(
            matches!(error, ProgramError::NotExecutable { .. }),
            "{error}"
        );
    }
}
