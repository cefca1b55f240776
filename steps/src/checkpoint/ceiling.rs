//! `storage.ceiling`: how fast the storage of a checkpoint can be read at all, so that rates of loading have
//! something to be a share of.

use super::fio::{self, SWEEP};
use super::{blocking, failure, permutation};
use crate::files;
use crate::kinds::Model;
use crate::result::{Definition, MeasuredFile, Row};
use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{Contents, Destination, Load, cache};
use engine::step::{
    Figure, Grade, OutputSpec, Sample, Step, StepContext, StepError, StepKind, StepReport,
    StepType, Verdict,
};
use engine::types::Artifact;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Instant;

/// Bytes that are copied to see how fast memory is: more than any cache of a processor holds.
const COPIED: usize = 256 << 20;
/// How jobs that copy within memory are called, before by how many threads.
const MEMCPY: &str = "memcpy";

engine::choices! {
    /// Who reads.
    pub enum ToolChoice {
        /// `fio` where it is there and large pages are reserved for it, else our own reader.
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
        checkpoint: Artifact<Model>;
        /// Who reads.
        tool: ToolChoice = ToolChoice::Automatic;
        /// How often each point of the sweep is measured, in an order by chance.
        rounds: NonZeroU32 = NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN);
        /// Starts the random orders; the sample's index is added.
        seed: u64 = 42;
    }
}

/// A point of our own sweep, the same as those of `fio`.
struct Point {
    way: Way,
    at_once: usize,
    block: u64,
}

const OWN: [Point; 4] = [
    point(Way::Direct, 4, 16 << 20),
    point(Way::IoUring, 16, 4 << 20),
    point(Way::IoUring, 32, 1 << 20),
    point(Way::IoUring, 8, 8 << 20),
];

const fn point(way: Way, at_once: usize, block: u64) -> Point {
    Point {
        way,
        at_once,
        block,
    }
}

impl Point {
    fn name(&self) -> String {
        format!(
            "own {} {} × {} MiB",
            self.way.word(),
            self.at_once,
            self.block >> 20
        )
    }
}

/// Rates by what reached them: bytes per second.
pub(crate) type Rates = Vec<(String, f64)>;

impl StepType for StorageCeiling {
    const NAME: &'static str = "storage.ceiling";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Measures how fast a checkpoint's storage can be read past the page cache, and how fast memory copies.";

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
}

#[async_trait::async_trait]
impl Step for StorageCeiling {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let contents = Contents::read(&context.path(&self.checkpoint)?).map_err(failure)?;
        let seed = self.seed.wrapping_add(u64::from(context.sample) << 32);
        let (program, note) = self.tool(context)?;
        let has_large_pages = fio::large_pages() >= fio::needed_memory();
        let mut rates = match &program {
            Some(program) => {
                self.by_fio(context, &contents, program, has_large_pages, seed)
                    .await?
            }
            None => {
                let rounds = self.rounds.get();
                let total = u64::from(rounds) * OWN.len() as u64;
                blocking(context, "reading", total, move |go_on| {
                    by_ourselves(&contents, rounds, seed, go_on)
                })
                .await?
            }
        };
        let rounds = self.rounds.get();
        rates.extend(blocking(context, "copying", 1, move |_| by_copying(rounds)).await?);
        let is_false = program.is_some() && !has_large_pages;
        let reasons = is_false.then(|| {
            "`fio` read into small pages, which is slower than the storage gives".to_owned()
        });
        files::write_json(
            &context.output("result.json"),
            &result(&rates, note, program),
        )?;
        let figures = figures(&rates);
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(Verdict {
                grade: if is_false {
                    Grade::Degraded
                } else {
                    Grade::Valid
                },
                reasons: reasons.into_iter().collect(),
            }),
            figures,
        })
    }
}

impl StorageCeiling {
    /// The program that reads, or none for ourselves with why.
    fn tool(&self, context: &StepContext) -> Result<(Option<PathBuf>, Option<String>), StepError> {
        let found = fio::find(context);
        let needed = fio::needed_memory() >> 20;
        match (self.tool, found) {
            (ToolChoice::Own, _) => Ok((None, None)),
            (ToolChoice::Fio, None) => {
                let error = StepError::new("`fio` is not on the path");
                Err(error.help(
                    "install it (Debian: `apt install fio`), or write `tool = \"automatic\"`",
                ))
            }
            (ToolChoice::Automatic, None) => Ok((
                None,
                Some("our own reader measured: `fio` is not on the path".to_owned()),
            )),
            (ToolChoice::Automatic, Some(_)) if fio::large_pages() < fio::needed_memory() => Ok((
                None,
                Some(format!(
                    "our own reader measured: for `fio` fewer than {needed} MiB of large pages are reserved, and with small ones it reads slower than the storage gives"
                )),
            )),
            (_, Some(program)) => Ok((Some(program), None)),
        }
    }

    async fn by_fio(
        &self,
        context: &StepContext,
        contents: &Contents,
        program: &std::path::Path,
        has_large_pages: bool,
        seed: u64,
    ) -> Result<Rates, StepError> {
        let largest = contents
            .files
            .iter()
            .enumerate()
            .max_by_key(|(_, file)| file.bytes);
        let Some((at, file)) = largest else {
            return Err(StepError::new("the checkpoint has no file to read"));
        };
        let (path, bytes) = (contents.path(at), file.bytes);
        let fits = |job: &&fio::Job| job.jobs * job.block <= bytes;
        let jobs: Vec<&fio::Job> = SWEEP.iter().filter(fits).collect();
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

/// Reads the files of a checkpoint into memory that is there, past the page cache.
fn by_ourselves(
    contents: &Contents,
    rounds: u32,
    seed: u64,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Rates, StepError> {
    let paths = contents.paths();
    let Some(first) = paths.first() else {
        return Err(StepError::new("the checkpoint has no file to read"));
    };
    let points: Vec<&Point> = OWN
        .iter()
        .filter(|point| point.way.refusal(first).is_none())
        .collect();
    if points.is_empty() {
        let message = format!("`{}` cannot be read past the page cache", first.display());
        return Err(StepError::new(message)
            .help("lay the checkpoint on a disk: files in memory have no storage"));
    }
    let room = contents.file_bytes() + paths.len() as u64 * (64 << 10);
    let mut pool = Pool::new(Region::new(room, Touch::Before).map_err(failure)?);
    let mut rates = Rates::new();
    for round in 0..rounds {
        for at in permutation(points.len(), seed.wrapping_add(round.into())) {
            let point = points[at];
            let at_once = NonZeroUsize::new(point.at_once).unwrap_or(NonZeroUsize::MIN);
            let load = Load {
                folder: contents.folder.clone(),
                way: point.way,
                effort: Effort {
                    threads: at_once,
                    depth: at_once,
                },
                block: point.block,
            };
            cache::evict(&paths).map_err(failure)?;
            pool.forget(&load.folder.to_string_lossy());
            let loaded = checkpoints::load(&load, Destination::Pool(&mut pool)).map_err(failure)?;
            let seconds = loaded.stages.read.as_secs_f64().max(1e-9);
            rates.push((point.name(), contents.file_bytes() as f64 / seconds));
            if !go_on(rates.len() as u64) {
                let error = StepError::new("interrupted");
                return Err(error.class(engine::step::FailureClass::Interrupted));
            }
        }
    }
    Ok(rates)
}

/// Copies within memory, by one thread and by as many as there are processors.
pub(crate) fn by_copying(rounds: u32) -> Result<Rates, StepError> {
    let region = || Region::new(COPIED as u64, Touch::Before).map_err(failure);
    let (from, mut to) = (region()?, region()?);
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut rates = Rates::new();
    for threads in BTreeSet::from([1, all]) {
        let part = COPIED.div_ceil(threads);
        for _ in 0..rounds {
            let began = Instant::now();
            std::thread::scope(|scope| {
                let parts = to.bytes_mut().chunks_mut(part);
                for (to, from) in parts.zip(from.bytes().chunks(part)) {
                    scope.spawn(|| to.copy_from_slice(from));
                }
            });
            let rate = COPIED as f64 / began.elapsed().as_secs_f64().max(1e-9);
            rates.push((format!("{MEMCPY}, threads: {threads}"), rate));
        }
    }
    Ok(rates)
}

fn tier(job: &str) -> &'static str {
    match job.starts_with(MEMCPY) {
        true => "memory",
        false => "storage",
    }
}

fn result(rates: &Rates, note: Option<String>, program: Option<PathBuf>) -> MeasuredFile {
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
        notes: note.into_iter().collect(),
        target: BTreeMap::from([("tool".to_owned(), tool)]),
        details: json!({ "large_pages_bytes": fio::large_pages() }),
    }
}

/// The median of each job, fastest first.
fn medians<'a>(rates: impl Iterator<Item = (&'a str, f64)>) -> Vec<(String, f64)> {
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
    ["storage", "memory"]
        .into_iter()
        .filter_map(best)
        .map(figure)
        .collect()
}

/// The best median of a tier among samples, GB/s.
pub(super) fn best(samples: &[Sample], tier: &str) -> Result<f64, StepError> {
    let mut rates = Vec::new();
    for sample in samples
        .iter()
        .filter(|sample| sample.verdict.grade != Grade::Invalid)
    {
        let Some(path) = sample.outputs.get("result") else {
            continue;
        };
        let file: MeasuredFile = files::read_json(path)?;
        for row in &file.rows {
            let (Some(job), Some(rate)) = (row.labels.get("job"), row.value("rate")) else {
                continue;
            };
            if row.labels.get("tier").is_some_and(|own| own == tier) {
                rates.push((job.clone(), rate));
            }
        }
    }
    let medians = medians(rates.iter().map(|(job, rate)| (job.as_str(), *rate)));
    let best = medians.first().map(|(_, rate)| *rate);
    best.ok_or_else(|| {
        let message = format!("`ceiling` has no rate of {tier} that can be believed");
        StepError::new(message).help("refer to all samples of a `storage.ceiling`")
    })
}
