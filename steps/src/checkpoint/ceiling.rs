//! `storage.ceiling`: how fast the storage of a checkpoint can be read at all, so that rates of loading have
//! something to be a share of.

use super::copying::{self, MEMCPY, TO_DEVICE};
use super::fio::{self, Job};
use super::large_pages::{LargePages, Reserved};
use super::sweep::{self, by_ourselves};
use super::{blocking, count, failure, permutation};
use crate::files;
use crate::kinds::{Model, ReplicaSet};
use crate::result::{Definition, MeasuredFile, Row};
use checkpoints::{Contents, Replicas, cache};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::types::Artifact;
use engine::value::Table;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

engine::choices! {
    /// Who reads.
    pub enum ToolChoice {
        /// `fio` where it is there and large pages are reserved for it or may be, else our own reader.
        Automatic = "automatic",
        /// `fio`; without large pages it reads slower than the storage gives, and the result says so.
        Fio = "fio",
        /// Our own reader.
        Own = "own",
    }
}

engine::options! {
    /// Options of `storage.ceiling`.
    pub struct StorageCeiling {
        /// The checkpoint whose files are read: `fio` reads the largest of them, our own reader all.
        checkpoint: Option<Artifact<Model>>;
        /// Replicas, in place of `checkpoint`: the first is read, on the storage where they lie.
        replicas: Option<Artifact<ReplicaSet>>;
        /// Who reads.
        tool: ToolChoice = ToolChoice::Automatic;
        /// Whether large pages of the machine may be reserved for `fio` while it reads, which root may do; they are
        /// put back after it.
        reserve: bool = true;
        /// Threads of the loads by `direct` that are to have a point of their own beside the sweep.
        threads: NonZeroU32 = NonZeroU32::new(4).unwrap_or(NonZeroU32::MIN);
        /// Blocks under way of the loads by `io_uring` that are to have one.
        depth: NonZeroU32 = NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN), in "blocks";
        /// The block of these loads.
        block: NonZeroU32 = NonZeroU32::new(16).unwrap_or(NonZeroU32::MIN), in "MiB";
        /// How often each point is measured, in an order by chance.
        rounds: NonZeroU32 = NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN);
        /// Starts the random orders; the sample's index is added.
        seed: u64 = 42;
    }
}

/// Rates by what reached them: bytes per second.
pub(crate) type Rates = Vec<(String, f64)>;

impl StepType for StorageCeiling {
    const NAME: &'static str = "storage.ceiling";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Measures how fast a checkpoint's storage can be read past the page cache, and how fast memory copies, also to GPUs.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "One row for each round of each point of the sweep.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![("reader".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]
    }

    fn check(&self, _: &Table, place: &Place, parser: &mut Parser<'_>) {
        if self.checkpoint.is_some() != self.replicas.is_some() {
            return;
        }
        let (message, label, help) = match self.checkpoint {
            None => (
                "there is no checkpoint to read",
                "nothing to read",
                "give `checkpoint`, or `replicas`",
            ),
            Some(_) => (
                "`checkpoint` and `replicas` both say what is read",
                "which one?",
                "leave one of both out",
            ),
        };
        parser.wrong::<()>(place, message, label, help);
    }
}

/// Who reads, and what there is to say of it.
struct Reader {
    /// `fio`, or none for ourselves.
    program: Option<PathBuf>,
    /// Large pages for it, if it has some.
    pages: Option<Reserved>,
    /// Why it is not `fio` with large pages, where that was wanted.
    note: Option<String>,
}

#[async_trait::async_trait]
impl Step for StorageCeiling {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let contents = Contents::read(&self.folder(context)?).map_err(failure)?;
        let seed = self.seed.wrapping_add(u64::from(context.sample) << 32);
        let rounds = self.rounds.get();
        let jobs = self.jobs(&contents);
        let Reader {
            program,
            pages,
            note,
        } = self.reader(context, &jobs)?;
        let has_pages = pages.is_some();
        let mut rates = match &program {
            Some(program) => {
                self.by_fio(context, &contents, (program, &jobs), has_pages, seed)
                    .await?
            }
            None => self.by_own_reader(context, contents, seed).await?,
        };
        let mut notes: Vec<String> = note.into_iter().collect();
        if let Some(Err(why)) = pages.map(Reserved::put_back) {
            notes.push(why);
        }
        let copied = blocking(context, "copying", 1, move |_| {
            let mut rates = copying::by_copying(rounds)?;
            rates.extend(copying::to_devices(rounds)?);
            Ok(rates)
        });
        rates.extend(copied.await?);
        let is_false = program.is_some() && !has_pages;
        let result = result(&rates, notes, program, has_pages);
        files::write_json(&context.output("result.json"), &result)?;
        let figures = figures(&rates);
        let reason = "`fio` read into small pages, which is slower than the storage gives";
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(Verdict {
                grade: if is_false {
                    Grade::Degraded
                } else {
                    Grade::Valid
                },
                reasons: is_false.then(|| reason.to_owned()).into_iter().collect(),
            }),
            figures,
        })
    }
}

impl StorageCeiling {
    /// The checkpoint that is read.
    fn folder(&self, context: &StepContext) -> Result<PathBuf, StepError> {
        let nothing = || StepError::new("there is no checkpoint to read");
        if let Some(checkpoint) = &self.checkpoint {
            return context.path(checkpoint);
        }
        let replicas = self.replicas.as_ref().ok_or_else(nothing)?;
        let replicas: Replicas = files::read_json(&context.path(replicas)?)?;
        replicas
            .ready(&|_| !context.is_cancelled())
            .map_err(failure)?;
        replicas.folders.into_iter().next().ok_or_else(nothing)
    }

    /// Bytes of the reads of loads that have a point of their own.
    fn block(&self) -> u64 {
        u64::from(self.block.get()) << 20
    }

    /// Jobs of `fio` for which the largest file is long enough.
    fn jobs(&self, contents: &Contents) -> Vec<Job> {
        let longest = contents.files.iter().map(|file| file.bytes).max();
        let mut jobs = fio::sweep(
            self.threads.get().into(),
            self.depth.get().into(),
            self.block(),
        );
        jobs.retain(|job| job.jobs * job.block <= longest.unwrap_or(0));
        jobs
    }

    /// Who reads: `fio` where it can do so rightly, or must.
    fn reader(&self, context: &StepContext, jobs: &[Job]) -> Result<Reader, StepError> {
        let own = |note| Reader {
            program: None,
            pages: None,
            note,
        };
        if self.tool == ToolChoice::Own {
            return Ok(own(None));
        }
        let Some(program) = fio::find(context) else {
            if self.tool == ToolChoice::Fio {
                let error = StepError::new("`fio` is not on the path");
                return Err(error.help(
                    "install it (Debian: `apt install fio`), or write `tool = \"automatic\"`",
                ));
            }
            let note = "our own reader measured: `fio` is not on the path";
            return Ok(own(Some(note.to_owned())));
        };
        if jobs.is_empty() && self.tool == ToolChoice::Automatic {
            let note = "our own reader measured: no file is long enough for any job of `fio`";
            return Ok(own(Some(note.to_owned())));
        }
        match (self.pages(jobs), self.tool) {
            (Ok(pages), _) => Ok(Reader {
                program: Some(program),
                pages: Some(pages),
                note: None,
            }),
            (Err(why), ToolChoice::Fio) => Ok(Reader {
                program: Some(program),
                pages: None,
                note: Some(format!("`fio` had no large pages: {why}")),
            }),
            (Err(why), _) => Ok(own(Some(format!(
                "our own reader measured, because with small pages `fio` reads slower than the storage gives: {why}"
            )))),
        }
    }

    /// Large pages for all jobs, reserved if that is allowed.
    fn pages(&self, jobs: &[Job]) -> Result<Reserved, String> {
        let kernel = LargePages::default();
        let needed = fio::needed_memory(jobs, kernel.size());
        if self.reserve || needed <= kernel.free() {
            return kernel.reserve(needed);
        }
        let mib = needed >> 20;
        Err(format!(
            "fewer than {mib} MiB of large pages are reserved, and `reserve` is false"
        ))
    }

    async fn by_own_reader(
        &self,
        context: &StepContext,
        contents: Contents,
        seed: u64,
    ) -> Result<Rates, StepError> {
        let sweep = sweep::sweep(
            count(self.threads).get(),
            count(self.depth).get(),
            self.block(),
        );
        let rounds = self.rounds.get();
        let total = u64::from(rounds) * sweep.len() as u64;
        blocking(context, "reading", total, move |go_on| {
            by_ourselves(&contents, &sweep, rounds, seed, go_on)
        })
        .await
    }

    async fn by_fio(
        &self,
        context: &StepContext,
        contents: &Contents,
        (program, jobs): (&std::path::Path, &[Job]),
        has_large_pages: bool,
        seed: u64,
    ) -> Result<Rates, StepError> {
        let files = contents.files.iter().enumerate();
        let Some((at, file)) = files.max_by_key(|(_, file)| file.bytes) else {
            return Err(StepError::new("the checkpoint has no file to read"));
        };
        let (path, bytes) = (contents.path(at), file.bytes);
        if jobs.is_empty() {
            let message =
                format!("the largest file has {bytes} bytes, too few for any point of the sweep");
            return Err(
                StepError::new(message).help("take a larger checkpoint, or `tool = \"own\"`")
            );
        }
        let total = u64::from(self.rounds.get()) * jobs.len() as u64;
        let mut rates = Rates::new();
        for round in 0..self.rounds.get() {
            for at in permutation(jobs.len(), seed.wrapping_add(round.into())) {
                context.done(jobs[at].name(), rates.len() as u64, total);
                cache::evict(std::slice::from_ref(&path)).map_err(failure)?;
                let rate = jobs[at]
                    .run(context, program, (&path, bytes), has_large_pages)
                    .await?;
                rates.push((jobs[at].name(), rate));
            }
        }
        Ok(rates)
    }
}

fn tier(job: &str) -> &'static str {
    match job {
        job if job.starts_with(MEMCPY) => "memory",
        job if job.starts_with(TO_DEVICE) => "device",
        _ => "storage",
    }
}

fn result(
    rates: &Rates,
    notes: Vec<String>,
    program: Option<PathBuf>,
    has_large_pages: bool,
) -> MeasuredFile {
    let row = |(job, rate): &(String, f64)| {
        let mut row = Row::default();
        row.labels.insert("job".to_owned(), job.clone());
        row.labels.insert("tier".to_owned(), tier(job).to_owned());
        row.set("rate", rate / 1e9);
        row
    };
    let tool = program.map_or_else(|| "own".to_owned(), |program| program.display().to_string());
    MeasuredFile {
        rows: rates.iter().map(row).collect(),
        definitions: vec![Definition {
            name: "rate".to_owned(),
            unit: "GB/s".to_owned(),
            formula:
                "bytes read past the page cache / time, or bytes copied / time; 1 GB = 10^9 bytes"
                    .to_owned(),
        }],
        notes,
        target: BTreeMap::from([("tool".to_owned(), tool)]),
        details: json!({ "fio_large_pages": has_large_pages }),
    }
}

/// The median of each job, fastest first.
pub(super) fn medians<'a>(rates: impl Iterator<Item = (&'a str, f64)>) -> Vec<(String, f64)> {
    let mut jobs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (job, rate) in rates {
        jobs.entry(job).or_default().push(rate);
    }
    let median =
        |(job, rates): (&str, Vec<f64>)| Some((job.to_owned(), statistics::median(&rates)?));
    let mut medians: Vec<(String, f64)> = jobs.into_iter().filter_map(median).collect();
    medians.sort_by(|a, b| b.1.total_cmp(&a.1));
    medians
}

fn figures(rates: &Rates) -> Vec<Figure> {
    let medians = medians(rates.iter().map(|(job, rate)| (job.as_str(), *rate)));
    let best = |wanted: &str| medians.iter().find(|(job, _)| tier(job) == wanted);
    let figure = |(job, rate): &(String, f64)| Figure {
        name: job.clone(),
        value: rate / 1e9,
        unit: "GB/s".to_owned(),
    };
    ["storage", "memory", "device"]
        .into_iter()
        .filter_map(best)
        .map(figure)
        .collect()
}
