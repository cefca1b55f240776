//! `fio` as a reader of one file: what it is asked, what it says, and whether it can be believed here.
//!
//! With buffers of small pages it reads at half of what the storage gives, so it is taken only where
//! large pages are reserved, or may be.

use engine::process::{Exit, find_program};
use engine::step::{FailureClass, StepContext, StepError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long `fio` may take to end when told to.
const GRACE: Duration = Duration::from_secs(5);
/// How much longer than its own limit one run may take.
const SLACK: Duration = Duration::from_secs(30);

/// One way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) engine: &'static str,
    pub(super) jobs: u64,
    pub(super) depth: u64,
    /// Bytes of one read.
    pub(super) block: u64,
}

/// The points that are always measured.
const SWEEP: [Job; 4] = [
    job("psync", 4, 1, 16 << 20),
    job("libaio", 1, 16, 4 << 20),
    job("libaio", 1, 32, 1 << 20),
    job("io_uring", 1, 8, 8 << 20),
];

const fn job(engine: &'static str, jobs: u64, depth: u64, block: u64) -> Job {
    Job {
        engine,
        jobs,
        depth,
        block,
    }
}

/// Those points, and those that match loads by so many threads or with so many blocks of `block` bytes under way.
pub(super) fn sweep(threads: u64, depth: u64, block: u64) -> Vec<Job> {
    let mut all = SWEEP.to_vec();
    for matching in [
        job("psync", threads, 1, block),
        job("io_uring", 1, depth, block),
    ] {
        if !all.contains(&matching) {
            all.push(matching);
        }
    }
    all
}

impl Job {
    /// What it is called in results.
    pub(super) fn name(&self) -> String {
        let at_once = self.jobs * self.depth;
        format!("fio {} {at_once} × {} MiB", self.engine, self.block >> 20)
    }

    /// The command that reads all of a file once, each job its own part of it.
    fn argv(
        &self,
        program: &Path,
        file: &Path,
        bytes: u64,
        output: &Path,
        has_large_pages: bool,
    ) -> Vec<String> {
        let part = bytes / self.jobs / self.block * self.block;
        let mut argv = vec![
            program.display().to_string(),
            "--name=ceiling".to_owned(),
            format!(
                "--filename={}",
                file.display().to_string().replace(':', "\\:")
            ),
            "--readonly".to_owned(),
            "--rw=read".to_owned(),
            "--direct=1".to_owned(),
            format!("--ioengine={}", self.engine),
            format!("--iodepth={}", self.depth),
            format!("--bs={}", self.block),
            format!("--numjobs={}", self.jobs),
            format!("--size={part}"),
            format!("--offset_increment={part}"),
            "--thread".to_owned(),
            "--group_reporting".to_owned(),
            "--output-format=json".to_owned(),
            format!("--output={}", output.display()),
        ];
        if has_large_pages {
            argv.push("--mem=mmaphuge".to_owned());
        }
        argv
    }

    /// Reads `file` of `bytes` bytes; returns bytes per second.
    pub(super) async fn run(
        &self,
        context: &StepContext,
        program: &Path,
        file: (&Path, u64),
        has_large_pages: bool,
    ) -> Result<f64, StepError> {
        let output = context.logs.join("fio.json");
        let argv = self.argv(program, file.0, file.1, &output, has_large_pages);
        let limit = SLACK + Duration::from_secs(file.1 / 10_000_000);
        let process = context.spawn(argv, BTreeMap::new(), &context.logs).await?;
        let exit = tokio::select! {
            exit = tokio::time::timeout(limit, process.exited()) => exit.ok(),
            () = context.cancelled() => None,
        };
        let _ = process.stop(GRACE).await;
        if context.is_cancelled() {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        if exit != Some(Exit::Code(0)) {
            let how = exit.map_or_else(|| "took too long".to_owned(), |exit| exit.to_string());
            return Err(crate::diagnosis::failed(
                format!("`fio` {how}"),
                exit,
                &context.logs,
            ));
        }
        rate(&crate::files::read_text(&output)?)
    }
}

/// Finds the program.
pub(super) fn find(context: &StepContext) -> Option<std::path::PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    find_program("fio", &context.logs, &search).ok()
}

/// Bytes of large pages of `page` bytes that one of some jobs holds at most. Each thread of `fio` 3.33 takes two pages more
/// than its buffers are long, as trying it with fewer has shown.
pub(super) fn needed_memory(jobs: &[Job], page: u64) -> u64 {
    let buffers = |job: &Job| (job.depth * job.block).next_multiple_of(page.max(1));
    let of = |job: &Job| job.jobs * (buffers(job) + 2 * page);
    jobs.iter().map(of).max().unwrap_or(0)
}

/// What it says of its rate, bytes per second. Before its JSON it may say other things.
fn rate(text: &str) -> Result<f64, StepError> {
    let unknown = || StepError::new("could not understand what `fio` wrote");
    let begin = text.find('{').ok_or_else(unknown)?;
    let told: Value = serde_json::from_str(&text[begin..]).map_err(|_| unknown())?;
    let jobs = told["jobs"].as_array().ok_or_else(unknown)?;
    let rates = jobs.iter().map(|job| job["read"]["bw_bytes"].as_f64());
    let rates: Option<Vec<f64>> = rates.collect();
    let rate: f64 = rates.ok_or_else(unknown)?.iter().sum();
    if rate > 0.0 { Ok(rate) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_read_parts_of_their_own() {
        let at = Path::new("/f");
        let argv = SWEEP[0].argv(Path::new("fio"), at, (256 << 20) + 5, at, true);
        for word in [
            "--size=67108864",
            "--offset_increment=67108864",
            "--numjobs=4",
            "--readonly",
            "--mem=mmaphuge",
        ] {
            assert!(argv.iter().any(|other| other == word), "{word}: {argv:?}");
        }
        // 4 times 16 MiB and two pages.
        assert_eq!(needed_memory(&SWEEP, 2 << 20), 80 << 20);
        assert_eq!(SWEEP[0].name(), "fio psync 4 × 16 MiB");
        assert_eq!(SWEEP[1].name(), "fio libaio 16 × 4 MiB");
    }

    #[test]
    fn its_rate_is_that_of_all_jobs() {
        let text = "fio: a warning\n{\"jobs\": [{\"read\": {\"bw_bytes\": 1500}}, {\"read\": {\"bw_bytes\": 500}}]}";
        assert!((rate(text).unwrap() - 2000.0).abs() < 1e-9);
        assert!(rate("{}").is_err() && rate("").is_err());
    }
}
