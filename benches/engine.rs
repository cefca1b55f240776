//! The engine against its peers, through the real command: plans in which nothing is to be done,
//! and steps that do nothing.
//!
//! `cargo bench --bench engine`. Peers are run beside it where they are found: `ninja`, `doit` and
//! `snakemake` in PATH, or in the folder that `BENCHWRIGHT_PEERS` names. Prints tables in Markdown;
//! medians of several runs. What a million instances cost is measured by
//! `cargo bench -p engine --bench expansion`.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Steps of the plan in which nothing is to be done.
const MANY: usize = 10_000;
/// Steps of the plan that is run whole.
const SOME: usize = 300;
/// Steps that are run one at a time, to see what one costs.
const ALONE: usize = 200;
/// How often what takes little is repeated.
const REPEATS: usize = 5;

/// A tool that runs steps.
struct Tool {
    name: &'static str,
    /// Where its program is, if it is here.
    program: Option<PathBuf>,
    /// Writes its description of so many steps into a folder.
    describe: fn(&Path, usize),
    /// Its arguments, given how many steps run at a time.
    arguments: &'static [&'static str],
    /// Whether its first run has to be faked, because it takes too long.
    is_slow: bool,
}

fn tools() -> Vec<Tool> {
    vec![
        Tool {
            name: "benchwright",
            program: Some(env!("CARGO_BIN_EXE_benchwright").into()),
            describe: describe_ours,
            arguments: &["run", "plan.toml", "--quiet", "--jobs", "2"],
            is_slow: false,
        },
        Tool {
            name: "ninja",
            program: find("ninja"),
            describe: describe_ninja,
            arguments: &["--quiet", "-j", "2"],
            is_slow: false,
        },
        Tool {
            name: "doit",
            program: find("doit"),
            describe: describe_doit,
            arguments: &["-n", "2", "-v", "0"],
            is_slow: false,
        },
        Tool {
            name: "snakemake",
            program: find("snakemake"),
            describe: describe_snakemake,
            arguments: &["--quiet", "all", "-c", "2"],
            is_slow: true,
        },
    ]
}

fn find(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("BENCHWRIGHT_PEERS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(std::env::split_paths(&path));
    folders.map(|f| f.join(name)).find(|p| p.is_file())
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a description");
}

/// One step with an axis: each instance writes a file, as the peers' steps do.
fn describe_ours(folder: &Path, n: usize) {
    let numbers: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    let text = format!(
        "schema = 1\nname = \"bench\"\n[axes]\ni = [{}]\n[steps.a]\nuse = \"shell.run\"\naxes = [\"i\"]\n\
         with = {{ argv = [\"touch\", \"f${{axes.i}}\"], outputs = [\"f${{axes.i}}\"] }}\n",
        numbers.join(", ")
    );
    write(folder, "plan.toml", &text);
}

fn describe_ninja(folder: &Path, n: usize) {
    let mut text = "rule t\n  command = touch $out\n".to_owned();
    for i in 0..n {
        let _ = writeln!(text, "build f{i}: t");
    }
    write(folder, "build.ninja", &text);
}

fn describe_doit(folder: &Path, n: usize) {
    let text = format!(
        "def task_a():\n    for i in range({n}):\n        yield {{'name': str(i), 'actions': ['touch f%d' % i], 'targets': ['f%d' % i], 'uptodate': [True]}}\n"
    );
    write(folder, "dodo.py", &text);
}

fn describe_snakemake(folder: &Path, n: usize) {
    let text = format!(
        "rule all:\n    input: expand('f{{i}}', i=range({n}))\nrule t:\n    output: 'f{{i}}'\n    shell: 'touch {{output}}'\n"
    );
    write(folder, "Snakefile", &text);
}

/// Runs a tool to its end; seconds.
fn run(tool: &Tool, program: &Path, folder: &Path) -> f64 {
    let began = Instant::now();
    let mut command = Command::new(program);
    command
        .args(tool.arguments)
        .current_dir(folder)
        .env("BENCHWRIGHT_LOCK_DIR", folder.join(".locks"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output().expect("a tool");
    assert!(
        output.status.success(),
        "{}: {}",
        tool.name,
        String::from_utf8_lossy(&output.stderr)
    );
    began.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Where the work lies: memory where there is some, so that the disk is no part of the comparison.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

/// A run in which nothing is to be done; seconds.
fn no_op(tool: &Tool, program: &Path, n: usize) -> f64 {
    let folder = scratch();
    (tool.describe)(folder.path(), n);
    if tool.is_slow {
        for i in 0..n {
            write(folder.path(), &format!("f{i}"), "");
        }
    } else {
        run(tool, program, folder.path());
    }
    median(
        (0..REPEATS)
            .map(|_| run(tool, program, folder.path()))
            .collect(),
    )
}

/// A run of steps that do nothing, from the start of the tool to its end; ms for each step.
fn per_step(tool: &Tool, program: &Path, n: usize) -> f64 {
    let once = || {
        let folder = scratch();
        (tool.describe)(folder.path(), n);
        run(tool, program, folder.path())
    };
    let repeats = if tool.is_slow { 1 } else { 3 };
    median((0..repeats).map(|_| once()).collect()) * 1e3 / n as f64
}

/// The same steps without an engine: each program is started and waited for; ms for each.
fn spawned(n: usize) -> f64 {
    let folder = scratch();
    let once = |round: usize| {
        let began = Instant::now();
        for i in 0..n {
            let mut command = Command::new("touch");
            command
                .arg(format!("f{round}-{i}"))
                .current_dir(folder.path());
            assert!(command.status().expect("touch").success());
        }
        began.elapsed().as_secs_f64() * 1e3 / n as f64
    };
    median((0..REPEATS).map(once).collect())
}

/// A run of steps one at a time, where syncing costs nothing; ms for each step, without what a run
/// of one step costs.
fn alone(n: usize) -> f64 {
    let ours = Tool {
        arguments: &["run", "plan.toml", "--quiet", "--jobs", "1"],
        ..tools().swap_remove(0)
    };
    let program = ours.program.as_deref().expect("ours");
    let once = |n: usize| {
        let folder = scratch();
        (ours.describe)(folder.path(), n);
        run(&ours, program, folder.path()) * 1e3
    };
    let pairs = (0..REPEATS).map(|_| (once(n) - once(1)) / (n - 1) as f64);
    median(pairs.collect())
}

/// What the engine adds to a step beyond the start of its program and syncing.
fn overhead() {
    println!("\n| {ALONE} steps one at a time, in memory | ms per step |");
    println!("|---|---:|");
    let (whole, bare) = (alone(ALONE), spawned(ALONE));
    println!("| benchwright | {whole:.2} |");
    println!("| the programs alone | {bare:.2} |");
    println!("| beyond spawn and sync | {:.2} |", whole - bare);
}

fn main() {
    let only = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    if wanted("noop") {
        println!("| {MANY} steps, nothing to do | s | against benchwright |");
        println!("|---|---:|---:|");
        table(|tool, program| no_op(tool, program, MANY), "");
    }
    if wanted("steps") {
        println!(
            "\n| {SOME} steps that write a file, two at a time | ms per step | against benchwright |"
        );
        println!("|---|---:|---:|");
        table(|tool, program| per_step(tool, program, SOME), "");
    }
    if wanted("overhead") {
        overhead();
    }
    if wanted("linear") {
        let ours = &tools()[0];
        println!("\n| steps, nothing to do | s | µs per step |");
        println!("|---:|---:|---:|");
        for n in [1_000, 4_000, 10_000] {
            let time = no_op(ours, ours.program.as_deref().expect("ours"), n);
            println!("| {n} | {time:.3} | {:.1} |", time * 1e6 / n as f64);
        }
    }
}

fn table(measure: impl Fn(&Tool, &Path) -> f64, missing: &str) {
    let mut ours = None;
    for tool in tools() {
        let Some(program) = &tool.program else {
            println!("| {} | not installed{missing} | |", tool.name);
            continue;
        };
        let value = measure(&tool, program);
        let ratio = value / *ours.get_or_insert(value);
        println!("| {} | {value:.3} | {ratio:.2} × |", tool.name);
    }
}
