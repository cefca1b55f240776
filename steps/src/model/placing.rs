//! How files of one model's folder come into another.
//!
//! By hard links, so that weights are neither copied nor touched; by copies where no link is
//! possible, as between file systems. A step's folder may hold no link that leads out of it, since
//! what it holds goes into the store, which keeps each content once however many folders have it.

use super::gigabytes;
use engine::step::{FailureClass, StepError};
use models::WriteError;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Told of every piece that is copied, with the file's path, how many of its bytes are there and of
/// how many; says whether to go on.
pub(super) type GoOn<'a> = &'a (dyn Fn(&Path, u64, u64) -> bool + Sync);

/// Bytes that are copied before somebody is told.
const PIECE: u64 = 64 << 20;

/// How many files came into a folder in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Placed {
    linked: usize,
    copied: usize,
}

/// Brings files of one folder into another: by hard links to where they really are, or as copies
/// where that is impossible. Blocks; what is copied is on its way only if all of it has room.
pub(super) fn place(
    names: impl IntoIterator<Item = impl AsRef<Path>>,
    from: &Path,
    to: &Path,
    go_on: GoOn<'_>,
) -> Result<Placed, StepError> {
    place_by(
        |from, to| std::fs::hard_link(from, to),
        names,
        from,
        to,
        go_on,
    )
}

/// [`place`], with `link` for hard links.
fn place_by(
    link: impl Fn(&Path, &Path) -> io::Result<()>,
    names: impl IntoIterator<Item = impl AsRef<Path>>,
    from: &Path,
    to: &Path,
    go_on: GoOn<'_>,
) -> Result<Placed, StepError> {
    let mut placed = Placed::default();
    let mut apart = Vec::new();
    let mut bytes = 0;
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        // A hub's folder may hold symbolic links, and a link to one of those would lead nowhere.
        let real = std::fs::canonicalize(&from).map_err(failed("find", &from))?;
        match link(&real, &to) {
            Ok(()) => placed.linked += 1,
            Err(e) if forbids_links(e.kind()) => {
                let about = std::fs::metadata(&real).map_err(failed("look at", &real))?;
                bytes += about.len();
                apart.push((real, to));
            }
            Err(e) => return Err(failed("link", &real)(e)),
        }
    }
    if !apart.is_empty() {
        models::ensure_room(to, bytes).map_err(refused)?;
    }
    for (from, to) in apart {
        copy(&from, &to, go_on)?;
        placed.copied += 1;
    }
    Ok(placed)
}

impl Placed {
    /// Whether there were any.
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    /// Says it: `3 files linked`.
    pub(super) fn phrase(self) -> String {
        let files = |n| if n == 1 { "file" } else { "files" };
        match self {
            Placed { linked, copied: 0 } => format!("{linked} {} linked", files(linked)),
            Placed { linked: 0, copied } => format!("{copied} {} copied", files(copied)),
            Placed { linked, copied } => {
                format!("{linked} {} linked and {copied} copied", files(linked))
            }
        }
    }
}

/// Whether a file that could not be linked may still be copied: file systems differ or know no
/// links, the file has as many as it can, or it is somebody else's.
fn forbids_links(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::CrossesDevices
            | ErrorKind::TooManyLinks
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
    )
}

fn refused(error: WriteError) -> StepError {
    match error {
        WriteError::NoSpace {
            folder,
            needed,
            free,
        } => StepError::new(format!(
            "{} have to be copied into `{}`, where {} are free",
            gigabytes(needed),
            folder.display(),
            gigabytes(free)
        ))
        .help("free some space, or name a folder on a larger disk with `--out`"),
        other => StepError::new(other.to_string()),
    }
}

fn copy(from: &Path, to: &Path, go_on: GoOn<'_>) -> Result<(), StepError> {
    let mut source = File::open(from).map_err(failed("open", from))?;
    let total = source.metadata().map_err(failed("look at", from))?.len();
    let created = OpenOptions::new().write(true).create_new(true).open(to);
    let mut target = created.map_err(failed("create", to))?;
    let mut done = 0;
    loop {
        let mut piece = Read::by_ref(&mut source).take(PIECE);
        let n = io::copy(&mut piece, &mut target).map_err(failed("copy", from))?;
        if n == 0 {
            return Ok(());
        }
        done += n;
        if !go_on(from, done, total) {
            let message = format!("copying `{}` was stopped", from.display());
            return Err(StepError::new(message).class(FailureClass::Interrupted));
        }
    }
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> StepError {
    let what = format!("could not {action} `{}`", path.display());
    move |e| StepError::because(what, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_link_of_the_hub_is_followed_and_the_file_behind_it_linked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("out")).unwrap();
        std::fs::write(at("blob"), "x").unwrap();
        std::os::unix::fs::symlink("blob", at("model.safetensors")).unwrap();
        let names = ["model.safetensors"];
        let again = || place(names, folder.path(), &at("out"), &|_, _, _| true);
        assert_eq!(again().unwrap().phrase(), "1 file linked");
        let here = std::fs::symlink_metadata(at("out/model.safetensors")).unwrap();
        assert_eq!(here.ino(), std::fs::metadata(at("blob")).unwrap().ino());
        // Twice is a mistake, which no copy hides.
        let message = again().unwrap_err().message;
        assert!(message.starts_with("could not link `"), "{message}");
    }

    #[test]
    fn what_cannot_be_linked_is_copied_and_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("out")).unwrap();
        for name in ["near", "far", "farther"] {
            std::fs::write(at(name), name).unwrap();
        }
        let link = |from: &Path, to: &Path| match from.ends_with("near") {
            true => std::fs::hard_link(from, to),
            false => Err(ErrorKind::CrossesDevices.into()),
        };
        let names = ["near", "far", "farther"];
        let go_on: GoOn<'_> = &|_, _, _| true;
        let placed = place_by(link, names, folder.path(), &at("out"), go_on).unwrap();
        assert_eq!(placed.phrase(), "1 file linked and 2 copied");
        let inode = |name: &str| std::fs::metadata(at(name)).unwrap().ino();
        assert_eq!(inode("near"), inode("out/near"));
        for name in ["far", "farther"] {
            let copied = format!("out/{name}");
            assert_eq!(std::fs::read_to_string(at(&copied)).unwrap(), name);
            assert_ne!(inode(name), inode(&copied));
        }
        // What is there is never written over.
        let broken = |_: &Path, _: &Path| Err(ErrorKind::CrossesDevices.into());
        let error = place_by(broken, ["far"], folder.path(), &at("out"), go_on).unwrap_err();
        assert!(error.message.starts_with("could not create `"), "{error}");
        let broken = |_: &Path, _: &Path| Err(ErrorKind::StorageFull.into());
        let error = place_by(broken, ["far"], folder.path(), &at("out"), go_on).unwrap_err();
        assert!(error.message.starts_with("could not link `"), "{error}");
    }

    #[test]
    fn copies_are_told_of_and_end_when_they_are_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("from"), "some text").unwrap();
        let told = std::sync::Mutex::new(Vec::new());
        let go_on = |file: &Path, done, total| {
            told.lock().unwrap().push((file.to_owned(), done, total));
            done < total
        };
        let error = copy(&at("from"), &at("to"), &go_on).unwrap_err();
        assert_eq!(error.class, FailureClass::Interrupted);
        assert_eq!(told.into_inner().unwrap(), [(at("from"), 9, 9)]);
        copy(&at("from"), &at("other"), &|_, _, _| true).unwrap();
        assert_eq!(std::fs::read(at("other")).unwrap(), b"some text");
    }

    #[test]
    fn a_lack_of_room_for_copies_is_said_in_gigabytes() {
        for (number, name, expected) in [
            (18, "EXDEV", true),
            (1, "EPERM", true),
            (28, "ENOSPC", false),
            (5, "EIO", false),
        ] {
            let kind = io::Error::from_raw_os_error(number).kind();
            assert_eq!(forbids_links(kind), expected, "{name}");
        }
        let error = refused(WriteError::NoSpace {
            folder: "out".into(),
            needed: 1_064_000_000,
            free: 1_000_000_000,
        });
        assert_eq!(
            error.message,
            "1.064 GB have to be copied into `out`, where 1.000 GB are free"
        );
    }
}
