//! Native loaders held to `fio` and to the Python package of safetensors, on the same file, in the same rounds.
//!
//! `cargo bench -p checkpoints --bench bars -- FOLDER [ROUNDS] [PYTHON]`
//!
//! FOLDER holds a `model.safetensors` on the storage that is to be measured, of a type that numpy has, such as
//! F16: `model.weights` writes one. `fio` takes part where it is on the path and large pages are reserved for it
//! (`sysctl vm.nr_hugepages=40`), Python where PYTHON is one with `safetensors` and `numpy`. In each of 7 rounds all take their
//! turn in an order by chance, cold ones after the file was evicted and looked for; what is told are
//! medians of ratios within rounds, with an interval of 95 %. Nothing else should run meanwhile.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]

use checkpoints::loader::{Effort, Way};
use checkpoints::memory::{Pool, Region, Touch};
use checkpoints::{Contents, Destination, Load, cache};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// The largest share of a file that may be cached before a cold read.
const COLD: f64 = 0.001;
/// Loads a file with the Python package and says its version and the time in seconds, without that of starting.
const PYTHON: &str = "
import sys, time, safetensors
from safetensors.numpy import load_file
begin = time.perf_counter()
tensors = load_file(sys.argv[1])
print(safetensors.__version__, time.perf_counter() - begin)
";

/// Who reads, and from which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Arm {
    /// By engine, jobs, depth and MiB of a read.
    Fio(&'static str, u64, u64, u64),
    Native(Way, State),
    Python(State),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Cold,
    Warm,
}

/// The job that reads as `direct` does, and the rest of the sweep.
const FIO: [Arm; 4] = [
    Arm::Fio("psync", 4, 1, 16),
    Arm::Fio("libaio", 1, 16, 4),
    Arm::Fio("libaio", 1, 32, 1),
    Arm::Fio("io_uring", 1, 8, 8),
];

struct Bench {
    folder: PathBuf,
    file: PathBuf,
    bytes: u64,
    python: Option<String>,
    pool: Pool,
    version: Option<String>,
}

/// Rates by round and arm, GB/s.
type Rates = Vec<BTreeMap<Arm, f64>>;

fn main() {
    // cargo passes its own flags, such as `--bench`.
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let Some(folder) = words.next().map(PathBuf::from) else {
        println!("name a folder with a `model.safetensors`; see the head of benches/bars.rs");
        return;
    };
    let rounds: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(7);
    let file = folder.join("model.safetensors");
    let contents = Contents::read(&folder).expect("a checkpoint");
    assert!(file.exists(), "it has several files, and fio reads one");
    let bytes = contents.file_bytes();
    let region = Region::new(bytes + MIB, Touch::Before).expect("memory for the checkpoint");
    let mut bench = Bench {
        folder,
        file,
        bytes,
        python: words.next(),
        pool: Pool::new(region),
        version: None,
    };
    let arms = bench.arms();
    let mut rates = Rates::new();
    for round in 0..rounds {
        let mut of_round = BTreeMap::new();
        for at in order(arms.len(), round) {
            let rate = bench.measure(arms[at]);
            println!("round {round}: {:?} {rate:.3} GB/s", arms[at]);
            of_round.insert(arms[at], rate);
        }
        rates.push(of_round);
    }
    report(&rates, bench.version.as_deref());
}

impl Bench {
    fn arms(&self) -> Vec<Arm> {
        let mut arms = vec![
            Arm::Native(Way::Direct, State::Cold),
            Arm::Native(Way::IoUring, State::Cold),
            Arm::Native(Way::Buffered, State::Warm),
        ];
        match fio_works(&self.file) {
            Ok(()) => arms.extend(FIO),
            Err(why) => println!("without fio: {why}"),
        }
        match &self.python {
            Some(_) => arms.extend([Arm::Python(State::Cold), Arm::Python(State::Warm)]),
            None => println!("without Python: none was named"),
        }
        arms
    }

    /// Reads once, GB/s.
    fn measure(&mut self, arm: Arm) -> f64 {
        let state = match arm {
            Arm::Fio(..) => State::Cold,
            Arm::Native(_, state) | Arm::Python(state) => state,
        };
        prepare(&self.file, state);
        match arm {
            Arm::Fio(engine, jobs, depth, mib) => {
                let bytes = self.bytes / jobs / (mib * MIB) * (mib * MIB);
                fio(&self.file, (engine, jobs, depth, mib), bytes).expect("fio reads")
            }
            Arm::Native(way, _) => {
                let load = Load {
                    folder: self.folder.clone(),
                    way,
                    effort: Effort {
                        threads: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
                        depth: NonZeroUsize::new(8).unwrap_or(NonZeroUsize::MIN),
                    },
                    block: 16 * MIB,
                };
                self.pool.forget(&load.folder.to_string_lossy());
                let loaded = checkpoints::load(&load, Destination::Pool(&mut self.pool));
                let took = loaded.expect("a load").stages.total;
                self.rate(took)
            }
            Arm::Python(_) => {
                let program = self.python.clone().unwrap_or_default();
                let script = Command::new(program)
                    .arg("-c")
                    .arg(PYTHON)
                    .arg(&self.file)
                    .output();
                let told = script.expect("Python starts");
                let text = String::from_utf8_lossy(&told.stdout).into_owned();
                let (version, seconds) = text.trim().split_once(' ').unwrap_or_else(|| {
                    panic!("Python said {}", String::from_utf8_lossy(&told.stderr))
                });
                self.version = Some(version.to_owned());
                self.rate(Duration::from_secs_f64(seconds.parse().expect("seconds")))
            }
        }
    }

    fn rate(&self, took: Duration) -> f64 {
        self.bytes as f64 / 1e9 / took.as_secs_f64()
    }
}

/// Makes the page cache hold all or nothing of a file, and looks whether it does.
fn prepare(file: &Path, state: State) {
    let paths = [file.to_owned()];
    for _ in 0..3 {
        match state {
            State::Cold => cache::evict(&paths).expect("eviction"),
            State::Warm => cache::warm(&paths).expect("reading"),
        }
        let share = cache::residency(&paths).expect("residency").share();
        match state {
            State::Cold if share <= COLD => return,
            State::Warm if share >= 1.0 - COLD => return,
            _ => println!("{share:.3} of the file is cached, which is not {state:?}"),
        }
    }
    panic!("the file cannot be brought into this state");
}

/// Whether there is `fio`, and large pages for it: it is asked to read one block.
fn fio_works(file: &Path) -> Result<(), String> {
    fio(file, ("psync", 4, 1, 16), 16 * MIB).map(drop)
}

/// Has `fio` read `bytes` bytes for each job, GB/s.
fn fio(
    file: &Path,
    (engine, jobs, depth, mib): (&str, u64, u64, u64),
    bytes: u64,
) -> Result<f64, String> {
    let told = Command::new("fio")
        .args([
            "--name=bars",
            "--readonly",
            "--rw=read",
            "--direct=1",
            "--thread",
        ])
        .args([
            "--group_reporting",
            "--output-format=json",
            "--mem=mmaphuge",
        ])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--bs={}", mib * MIB))
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--size={bytes}"))
        .arg(format!("--offset_increment={bytes}"))
        .output()
        .map_err(|e| e.to_string())?;
    if !told.status.success() {
        return Err(String::from_utf8_lossy(&told.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let begin = text.find('{').ok_or("no JSON")?;
    let json: serde_json::Value =
        serde_json::from_str(&text[begin..]).map_err(|e| e.to_string())?;
    let rate = json["jobs"][0]["read"]["bw_bytes"].as_f64();
    rate.map(|rate| rate / 1e9)
        .ok_or_else(|| "no rate".to_owned())
}

/// An order by chance, always the same for a round.
fn order(n: usize, round: u64) -> Vec<usize> {
    let key = models::noise::key(round, "order");
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|at| models::noise::bits(key, *at as u64));
    order
}

fn report(rates: &Rates, version: Option<&str>) {
    let direct = Arm::Native(Way::Direct, State::Cold);
    let warm = Arm::Native(Way::Buffered, State::Warm);
    let best = |round: &BTreeMap<Arm, f64>| {
        let all = FIO.iter().filter_map(|arm| round.get(arm).copied());
        all.reduce(f64::max)
    };
    let of = |arm: Arm| move |round: &BTreeMap<Arm, f64>| round.get(&arm).copied();
    let python = format!("safetensors {}", version.unwrap_or("of Python"));
    println!("\n{:<64} {:>7} {:>17}", "within rounds", "median", "95 %");
    ratio(
        "direct, cold / the same job of fio",
        rates,
        of(direct),
        of(FIO[0]),
    );
    ratio(
        "direct, cold / the best job of fio",
        rates,
        of(direct),
        best,
    );
    let io_uring = Arm::Native(Way::IoUring, State::Cold);
    ratio(
        "io_uring, cold / the best job of fio",
        rates,
        of(io_uring),
        best,
    );
    let cold = Arm::Python(State::Cold);
    ratio(
        &format!("direct, cold / {python}, cold"),
        rates,
        of(direct),
        of(cold),
    );
    let other = Arm::Python(State::Warm);
    ratio(
        &format!("buffered, warm / {python}, warm"),
        rates,
        of(warm),
        of(other),
    );
}

/// Tells the median of a ratio, where both took part.
fn ratio(
    name: &str,
    rates: &Rates,
    own: impl Fn(&BTreeMap<Arm, f64>) -> Option<f64>,
    other: impl Fn(&BTreeMap<Arm, f64>) -> Option<f64>,
) {
    let ratios: Vec<f64> = rates
        .iter()
        .filter_map(|round| Some(own(round)? / other(round)?))
        .collect();
    let Some(median) = statistics::median(&ratios) else {
        return;
    };
    let interval = statistics::median_interval(&ratios, 0.95);
    let interval = interval.map_or_else(String::new, |i| format!("{:.2} to {:.2}", i.low, i.high));
    println!("{name:<64} {median:>7.2} {interval:>17}");
}
