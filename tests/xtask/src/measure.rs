//! `cargo xtask measure`: the quickstart as a newcomer meets it, in seconds and bytes.
//!
//! Prints a table in Markdown. Times are wall time of the whole command, memory is sampled over
//! the command and all processes below it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::problem::Problem;
use crate::process::{self, Watch};
use crate::workspace::Workspace;

/// A cold build on two cores, then two short runs.
const MINUTES: u64 = 45;
/// Runs of `benchwright --version`; an even count would have no middle one.
const STARTS: usize = 21;
/// The plan of the quickstart.
const PLAN: &str = "plans/quickstart.toml";

/// Measures and prints the table.
pub(crate) fn command(workspace: &Workspace, given: &Arguments) -> Result<(), Problem> {
    let deadline = given.deadline(MINUTES);
    let folder = Scratch::new()?;
    let target = match given.cold {
        true => folder.path.join("target"),
        false => workspace.target(deadline)?,
    };
    let built = build(workspace, &target, deadline)?;
    let binary = target.join("release/benchwright");

    let mut rows = Vec::new();
    if given.cold {
        rows.push(("build from nothing", seconds(built)));
    }
    let start = median_start(&binary)?;
    rows.push(("`benchwright --version`, median", milliseconds(start)));
    for name in ["first run", "second run"] {
        let run = quickstart(workspace, &binary, &folder.path.join("outputs"), deadline)?;
        rows.push((name, seconds(run.took)));
        rows.push((memory_of(name), mebibytes(run.peak)));
    }
    println!(
        "{}\n\n| quickstart | measured |\n|---|---:|",
        machine(deadline)
    );
    for (name, value) in rows {
        println!("| {name} | {value} |");
    }
    Ok(())
}

/// One run of the quickstart.
struct Measured {
    took: Duration,
    peak: u64,
}

/// Samples the resident memory of everything below xtask, in bytes.
#[derive(Default)]
struct Memory {
    peak: u64,
}

impl Watch for Memory {
    fn line(&mut self, _: &str) {}

    fn tick(&mut self) {
        let all = process::descendants();
        let now = all.iter().map(|one| resident(one.pid)).sum();
        self.peak = self.peak.max(now);
    }
}

/// A folder of its own under the system's temporary one, removed at the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Problem> {
        let name = format!("benchwright-measure-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|error| Problem::io(&path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("warning: not removed: {}", Problem::io(&self.path, &error));
        }
    }
}

/// The build that the README tells newcomers to make.
fn build(workspace: &Workspace, target: &Path, deadline: Instant) -> Result<Duration, Problem> {
    let mut command = workspace.resolving_cargo("build");
    command.arg("--release").env("CARGO_TARGET_DIR", target);
    let began = Instant::now();
    process::output(&mut command, deadline)?;
    Ok(began.elapsed())
}

fn quickstart(
    workspace: &Workspace,
    binary: &Path,
    out: &Path,
    deadline: Instant,
) -> Result<Measured, Problem> {
    let mut command = Command::new(binary);
    command.args(["run", PLAN, "--out"]).arg(out);
    command.current_dir(workspace.root());
    let mut memory = Memory::default();
    let began = Instant::now();
    let ending = process::run(&mut command, deadline, &mut memory)?;
    let took = began.elapsed();
    if !ending.is_good() {
        return Err(Problem::new(format!("`benchwright run {PLAN}` {ending}")));
    }
    Ok(Measured {
        took,
        peak: memory.peak,
    })
}

/// The median time from starting `benchwright --version` to its end.
fn median_start(binary: &Path) -> Result<Duration, Problem> {
    let mut all = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let mut command = Command::new(binary);
        command.arg("--version").stdin(Stdio::null());
        let began = Instant::now();
        let output = command
            .output()
            .map_err(|error| Problem::io(binary, &error))?;
        all.push(began.elapsed());
        if !output.status.success() {
            return Err(Problem::new("`benchwright --version` fails"));
        }
    }
    all.sort();
    Ok(all[STARTS / 2])
}

/// What the numbers were measured on.
fn machine(deadline: Instant) -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown memory".into());
    let mut rustc = Command::new("rustc");
    rustc.arg("--version");
    let rustc = process::output(&mut rustc, deadline).unwrap_or_default();
    format!(
        "Measured on {cpu}, {cores} cores, {memory}, {}.",
        rustc.trim()
    )
}

/// The value of the first `name : value` line of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// A process's resident memory in bytes; 0 once it has ended.
fn resident(pid: i32) -> u64 {
    let status = field(&format!("/proc/{pid}/status"), "VmRSS");
    let kibibytes = status.and_then(|text| text.strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

fn memory_of(run: &str) -> &'static str {
    match run {
        "first run" => "first run, peak memory",
        _ => "second run, peak memory",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_gone_one_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(resident(own) > 100_000);
        assert_eq!(resident(-1), 0);
    }

    #[test]
    fn units_are_written_out() {
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(milliseconds(Duration::from_micros(1250)), "1.2 ms");
        assert_eq!(mebibytes(3 << 20), "3 MiB");
    }
}
