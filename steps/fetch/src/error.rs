//! What can go wrong, with the place and the mend.

use crate::digest::Sha256;
use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The disk would not.
    #[error("could not {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried, such as `write`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A server will not give it, however often it is asked.
    #[error("`{url}` answered {status}")]
    Refused {
        /// The address, without what follows its `?`.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// It was tried often enough.
    #[error("`{url}` did not give it in {tries} tries: {why}")]
    GivenUp {
        /// The address, without what follows its `?`.
        url: String,
        /// How often it was tried in a row without a byte of progress.
        tries: u32,
        /// What the last try came to.
        why: String,
    },
    /// An answer makes no sense.
    #[error("the answer of `{url}` is not what was asked for: {why}")]
    Answer {
        /// The address, without what follows its `?`.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The source was another one after each try.
    #[error("`{url}` changed {times} times while it was read")]
    Changing {
        /// The address, without what follows its `?`.
        url: String,
        /// How often.
        times: u32,
    },
    /// It is not what was expected.
    #[error("`{name}` has the SHA-256 {found}, expected {expected}")]
    Digest {
        /// The file, or its address.
        name: String,
        /// What it has.
        found: Sha256,
        /// What it should have.
        expected: Sha256,
    },
    /// It is not as large as expected.
    #[error("`{name}` has {found} bytes, expected {expected}")]
    Size {
        /// The file, or its address.
        name: String,
        /// What it has.
        found: u64,
        /// What it should have.
        expected: u64,
    },
    /// It would not fit.
    #[error("`{}` has {free} bytes free, but {needed} are needed", path.display())]
    Space {
        /// The folder.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// None of several mirrors gave it.
    #[error("none of {} mirrors gave it: {}", .0.len(), each(.0))]
    Mirrors(Vec<FetchError>),
    /// There is no such file in a repository or an archive.
    #[error("`{place}` has no file that matches `{wanted}`")]
    NoFile {
        /// The repository or archive.
        place: String,
        /// The name or pattern.
        wanted: String,
        /// Some of what it has instead.
        has: Vec<String>,
    },
    /// An archive would do harm, or is damaged.
    #[error("the archive `{}` is refused: {why}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What it would do.
        why: String,
    },
    /// A pointer to a file in Git LFS that nobody can resolve.
    #[error("`{name}` is only a pointer of Git LFS, to {size} bytes with the SHA-256 {oid}")]
    Pointer {
        /// The file, or its address.
        name: String,
        /// Bytes it stands for.
        size: u64,
        /// The digest it stands for.
        oid: Sha256,
    },
    /// Another process has brought it for longer than anybody waits.
    #[error("another process works on `{}`", .0.display())]
    Busy(PathBuf),
    /// An option makes no sense for the source.
    #[error("{0}")]
    Request(String),
}

fn each(errors: &[FetchError]) -> String {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    all.join("; ")
}

impl FetchError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// Says how to mend it, where that is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Refused { status: 401 | 403, .. } => {
                "it wants a token: for the hub write `token = \"${secret.HF_TOKEN}\"`, and accept the licence on its page"
                    .to_owned()
            }
            Self::Refused { status: 404 | 410, .. } => {
                "there is no such thing, or it is only shown to those with a token; compare the address with its page"
                    .to_owned()
            }
            Self::GivenUp { .. } => {
                "run it again, it goes on where it stopped; behind a proxy set `HTTPS_PROXY`, for another hub `HF_ENDPOINT`"
                    .to_owned()
            }
            Self::Changing { .. } => "pin a revision, or give its `sha256`".to_owned(),
            Self::Digest { .. } | Self::Size { .. } => {
                "it is another file than the plan means: correct `sha256`, or name the right source".to_owned()
            }
            Self::Space { .. } => {
                "free some space; `BENCHWRIGHT_CACHE_DIR` names another folder for what is under way".to_owned()
            }
            Self::NoFile { has, .. } if !has.is_empty() => {
                format!("it has `{}`", has.join("`, `"))
            }
            Self::Pointer { .. } => {
                "run `git lfs pull` where it came from, or name its server: `lfs = \"https://…/info/lfs\"`".to_owned()
            }
            Self::Mirrors(errors) => errors.iter().find_map(Self::help)?,
            _ => return None,
        })
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::GivenUp { .. } | Self::Changing { .. } | Self::Busy(_) | Self::Space { .. } => {
                true
            }
            Self::Mirrors(errors) => errors.iter().any(Self::is_transient),
            _ => false,
        }
    }
}
