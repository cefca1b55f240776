//! The command line as clap reads it; the help texts here are its documentation.

use crate::exit;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use embedded_server::flags::{ServerFlags, size};
use std::path::PathBuf;
use std::time::Duration;

/// Benchmarks LLM inference servers from declarative plans, and says when to believe the numbers.
#[derive(Debug, Parser)]
#[command(name = "benchwright", version, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder for everything that is kept: the store, samples and runs
    #[arg(long, global = true, value_name = "DIR", default_value = "outputs")]
    pub(crate) out: PathBuf,
    /// Say only what was asked for, and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say everything: options as they took effect, every change, every word of progress
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// When to use colours; `auto` heeds NO_COLOR and TERM
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a plan: what is there already is reused, the rest runs
    #[command(visible_alias = "r", after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Go on with a run that was interrupted or that failed
    #[command(after_help = RESUME_EXAMPLES)]
    Resume(Resume),
    /// Show every mistake of a plan at once, or what would run and why
    #[command(visible_alias = "c", after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Say of every node why it is reused, topped up or will run
    #[command(visible_alias = "why", after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Compose a plan from steps and servers; asks on a terminal for what is missing
    #[command(after_help = NEW_EXAMPLES)]
    New(New),
    /// Pin what a plan resolves to in a lock file, for `run --locked`
    #[command(after_help = LOCK_EXAMPLES)]
    Lock(Lock),
    /// Draw a plan's graph with what would run, or a run's with what happened
    #[command(after_help = GRAPH_EXAMPLES)]
    Graph(Graph),
    /// List the steps, services and fragments that plans can use, with every option
    #[command(after_help = STEPS_EXAMPLES)]
    Steps(Steps),
    /// Write the JSON schema of plans, with which editors complete and check them
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema(Schema),
    /// List the runs, or show what goes on in one and what became of it
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Write a run as a trace for Perfetto: who did what when, and what waited
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(Trace),
    /// Print where the reports of runs are
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
    /// Remove old runs and what nothing needs any more
    #[command(after_help = GC_EXAMPLES)]
    Gc(Gc),
    /// Read everything that is kept, and mend what is damaged
    #[command(after_help = FSCK_EXAMPLES)]
    Fsck(Fsck),
    /// End what runs have left behind whose command was killed together with its guardians
    #[command(after_help = REAP_EXAMPLES)]
    Reap(Reap),
    /// Start the embedded inference server on its own
    #[command(after_help = SERVER_EXAMPLES)]
    Server(Box<Server>),
    /// Serve several models that share a device by servers that run already, as
    /// `multimodel.controller` does in a plan
    #[command(after_help = GATEWAY_EXAMPLES)]
    Gateway(Gateway),
    /// Write a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
}

/// A plan and what is set in it.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The plan's file
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Set a parameter, or a key such as `steps.load.with.requests`; `+` before it adds one that is
    /// not there. May be given several times, the last one wins
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Use the defaults of a variant of the plan
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME=VALUE, such as `layers=4`".to_owned()),
    }
}

/// `benchwright run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
    /// Steps that may run at a time; a measurement always runs alone [default: number of cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Draw new samples of every measurement, whatever is there; old ones are kept
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Refuse whatever a lock file does not pin, or has otherwise
    /// [default: PLAN with `.lock.toml` for its ending; `benchwright lock` writes it]
    #[arg(long, value_name = "LOCKFILE", num_args = 0..=1, require_equals = true)]
    pub(crate) locked: Option<Option<PathBuf>>,
    /// Show what would run and why, and run nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Shuffle the order of samples by another number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Write one JSON object per event and line to standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  benchwright run plans/quickstart.toml
  benchwright run plans/quickstart.toml --set layers=4 --set 'rates=[1, 2, 4]'
  benchwright run plans/quickstart.toml --variant smoke --dry-run
  benchwright run plans/quickstart.toml --locked
  benchwright run plans/quickstart.toml --json | jq -c 'select(.event == \"finished\")'

Press Ctrl-C once to tear down in order, twice to end at once; either way `benchwright resume`
goes on with what is left.";

/// `benchwright resume`
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The run: its name, a part of it, its folder, or `latest` [default: latest]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Steps that may run at a time; a measurement always runs alone [default: number of cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Write one JSON object per event and line to standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

const RESUME_EXAMPLES: &str = "\
Examples:
  benchwright resume
  benchwright resume 20261122-054500-quickstart

The plan is taken as it was when the run began, with the parameters that were set then; a run that
was begun with `--locked` stays so.";

/// `benchwright check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
    /// Write problems or the expanded plan as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  benchwright check plans/quickstart.toml
  benchwright check plans/quickstart.toml --set layers=4 --verbose
  benchwright check plans/quickstart.toml --json | jq '.nodes[] | select(.will == \"run\") | .node'";

/// `benchwright explain`
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
    /// A step or service of the plan, or one instance such as `load[request_rate=4]` [default: all]
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Compare with what the nodes were in a run: its name, a part of it, or `latest`
    #[arg(long, value_name = "RUN")]
    pub(crate) against: Option<String>,
    /// As if `run --fresh` were meant
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Write one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  benchwright explain plans/quickstart.toml
  benchwright explain plans/quickstart.toml load --set layers=4
  benchwright explain plans/quickstart.toml --against latest
  benchwright explain plans/quickstart.toml --json | jq '.nodes[] | {node, why}'";

/// `benchwright new`
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The plan's name
    #[arg(value_name = "NAME", value_parser = plan_name)]
    pub(crate) name: String,
    /// A step to take in, such as `load.test`; may be given several times
    #[arg(long, value_name = "USE")]
    pub(crate) step: Vec<String>,
    /// A fragment of a library to take in, such as `open_loop`; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) fragment: Vec<String>,
    /// The server that steps use, such as `server.embedded`
    #[arg(long, value_name = "USE")]
    pub(crate) server: Option<String>,
    /// The value of an option or of a fragment's parameter, of one step (`load.request_rate=4`) or
    /// of all that have it (`requests=32`); may be given several times
    #[arg(long, value_name = "OPTION=VALUE", value_parser = assignment)]
    pub(crate) param: Vec<(String, String)>,
    /// Begin with a plan that is complete
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["step", "fragment", "server", "param"])]
    pub(crate) template: Option<Template>,
    /// Where to write it [default: NAME.toml]; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Plans that others begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// Derive a small model, serve it, load-test it at several rates, profile, plot and report
    Quickstart,
}

fn plan_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("use letters, digits, `_` and `-`".to_owned())
}

const NEW_EXAMPLES: &str = "\
Examples:
  benchwright new mine
  benchwright new mine --template quickstart
  benchwright new rates --step load.test --step report.page --server server.embedded \\
    --param model.base=model_conf/qwen2.5-0.5b --param requests=32 --param input_tokens=64 \\
    --param output_tokens=16 --param load.request_rate=4
  benchwright new external --step load.test --server server.external \\
    --param url=http://127.0.0.1:30000 --param workload=prompts.jsonl --param concurrency=8 -o -
  benchwright new curves --fragment model --fragment open_loop --server server.embedded \\
    --param 'rates=[1, 2, 4]' --step report.page

What a step needs and another brings is wired by itself. Nothing is asked unless a person is there
to answer; else the values that are missing are named.";

/// `benchwright lock`
#[derive(Debug, Args)]
pub(crate) struct Lock {
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
    /// Where to write it; `-` is standard output
    /// [default: PLAN with `.lock.toml` for its ending]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write nothing; fail if the lock file is not up to date
    #[arg(long)]
    pub(crate) check: bool,
}

const LOCK_EXAMPLES: &str = "\
Examples:
  benchwright lock plans/quickstart.toml
  benchwright lock plans/quickstart.toml --check
  benchwright lock plans/quickstart.toml -o - | less

It pins the texts of the plan, parameters, versions of steps, options as they took effect, digests
of input files, and of the results that are there already. The machine is noted and not pinned.
Every run leaves the same in its folder as plan.lock.toml.";

/// `benchwright graph`
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// The plan's file
    #[arg(value_name = "PLAN", required_unless_present = "run")]
    pub(crate) plan: Option<PathBuf>,
    /// Set a parameter; may be given several times, the last one wins
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Use the defaults of a variant of the plan
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
    /// Draw a run with what happened: its name, a part of it, its folder, or `latest`
    #[arg(long, value_name = "RUN", conflicts_with_all = ["plan", "set", "variant", "bare"])]
    pub(crate) run: Option<String>,
    /// Leave out what would run
    #[arg(long)]
    pub(crate) bare: bool,
    /// Draw one box for each step with the count of its instances [default: above 60 nodes]
    #[arg(long, conflicts_with = "expand")]
    pub(crate) collapse: bool,
    /// Draw every instance, however many there are
    #[arg(long)]
    pub(crate) expand: bool,
    /// `dot` for Graphviz, `mermaid` for Markdown, `svg` for a picture [default: by FILE, else dot]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<GraphFormat>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Dot,
    Mermaid,
    Svg,
}

const GRAPH_EXAMPLES: &str = "\
Examples:
  benchwright graph plans/quickstart.toml -o quickstart.svg
  benchwright graph plans/quickstart.toml --format mermaid --bare
  benchwright graph --run latest -o what-happened.svg
  benchwright graph plans/quickstart.toml | dot -Tpng > quickstart.png";

/// `benchwright steps`
#[derive(Debug, Args)]
pub(crate) struct Steps {
    /// A step, a service, a fragment such as `library.open_loop`, or a family such as `plot`
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Write the declarations as JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,
    /// Write the whole reference as Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
}

const STEPS_EXAMPLES: &str = "\
Examples:
  benchwright steps
  benchwright steps load.test
  benchwright steps dataset
  benchwright steps library.open_loop
  benchwright steps --json | jq -r '.[].name'";

/// `benchwright schema`
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const SCHEMA_EXAMPLES: &str = "\
Examples:
  benchwright schema -o plans/plan.schema.json
  benchwright schema | jq '.definitions.\"with.load.test\".properties | keys'

A plan names its schema in its first line, `#:schema plan.schema.json`, by a path relative to
itself; taplo and the editors that use it (Even Better TOML) read that.";

/// `benchwright status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The run: its name, a part of it, its folder, or `latest`
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Show the run, the latest if none is named, again and again until it ends, every 2 s unless
    /// said otherwise
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
        default_missing_value = "2", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) watch: Option<u16>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  benchwright status
  benchwright status latest
  benchwright status --watch
  benchwright status latest --watch=10 --json | jq -c '.nodes[] | select(.state == \"running\") | .node'
  benchwright status --json | jq '.[] | select(.outcome == null) | .run'";

/// `benchwright trace`
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The run: its name, a part of it, its folder, or `latest` [default: latest]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Where to write it; `-` is standard output [default: trace.json in the run's folder]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const TRACE_EXAMPLES: &str = "\
Examples:
  benchwright trace
  benchwright trace 20261122-054500-quickstart -o quickstart.trace.json
  benchwright trace -o - | jq -r '.traceEvents[] | select(.cat == \"launch\") | .dur / 1e6'

https://ui.perfetto.dev opens it, and so does chrome://tracing. It can be written while the run
goes on, and after it was cut off.";

/// `benchwright report`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Runs: their names, parts of them, their folders, or `latest` [default: latest]
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Compute the numbers of load tests anew from their records, by the definitions of this version,
    /// say which are others now, and write them to this folder, with the same in the JSON of vLLM's and
    /// SGLang's benchmarks
    #[arg(long, value_name = "DIR")]
    pub(crate) recompute: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  benchwright report
  xdg-open \"$(benchwright report latest)\"
  benchwright report latest --recompute anew";

/// `benchwright gc`
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Show what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Remove all runs but the newest so many; a living run and the latest one always stay
    #[arg(long, value_name = "N")]
    pub(crate) keep_runs: Option<usize>,
    /// Remove runs in which nothing happened for this long
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) runs_max_age: Option<Duration>,
    /// Forget cached results that are older, unless a run that stays shows them
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) max_age: Option<Duration>,
    /// Forget the oldest cached results until no more than this is left
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_size: Option<u64>,
    /// Forget samples that are older; they cannot be made again, so nothing else removes them
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) samples_max_age: Option<Duration>,
    /// Keep whatever was made within this time
    #[arg(long, value_name = "AGE", value_parser = age, default_value = "1h")]
    pub(crate) grace: Duration,
    /// Write one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const GC_EXAMPLES: &str = "\
Examples:
  benchwright gc --dry-run
  benchwright gc --keep-runs 20 --max-age 30d
  benchwright gc --max-size 50GiB

Without an age or a size only what nothing refers to is removed. Nothing is removed while a run
uses the store.";

/// `benchwright fsck`
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Say what is wrong, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Write one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const FSCK_EXAMPLES: &str = "\
Examples:
  benchwright fsck --dry-run
  benchwright fsck";

fn age(text: &str) -> Result<Duration, String> {
    engine::types::parse_duration(text)
        .ok_or_else(|| "expected an age such as `30d`, `12h` or `90m`".to_owned())
}

/// `benchwright reap`
#[derive(Debug, Args)]
pub(crate) struct Reap {
    /// List what is left, and end nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const REAP_EXAMPLES: &str = "\
Examples:
  benchwright reap --dry-run
  benchwright reap --json | jq '.[].left[].pid'

Processes are known by the run that started them, never by name; those of a run that is going on
are not touched. Exit code 1 says that something is still there.";

/// `benchwright server`
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) flags: ServerFlags,
    /// Write `http://HOST:PORT` to this file once the server listens
    #[arg(long, value_name = "FILE")]
    pub(crate) address_file: Option<PathBuf>,
}

/// `benchwright gateway`
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// A JSON file with the models, their servers, and the rules
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Write `http://HOST:PORT` to this file once it listens
    #[arg(long, value_name = "FILE")]
    pub(crate) address_file: Option<PathBuf>,
}

const GATEWAY_EXAMPLES: &str = "\
Examples:
  benchwright gateway --config gateway.json

where gateway.json holds, at least:
  { \"port\": 30000, \"models\": [
    { \"name\": \"a\", \"url\": \"http://127.0.0.1:30001\" },
    { \"name\": \"b\", \"url\": \"http://127.0.0.1:30002\", \"begins\": \"off\" } ] }

Of a model also `release` (`auto`, `sglang`, `vllm`), `memory_bytes`, `found` and `begins` (`active`, \
`off`: where it is, and where it shall be). Beside `models` also `host`, `most_active`, `aborts_late`, \
`queue_limit`, `max_body_bytes`, and times, which are written as seconds and nanoseconds: `period`, \
`wait_timeout`, `swap_timeout`, `answer_timeout`, `reading_timeout`, and in `rules` `lead`, `idle` and \
`quantum`, beside `policy` (`baseline`, `enhanced`) and `queue_threshold`:
  { \"swap_timeout\": { \"secs\": 300, \"nanos\": 0 },
    \"rules\": { \"queue_threshold\": 1, \"quantum\": { \"secs\": 0, \"nanos\": 500000000 } }, … }";

const SERVER_EXAMPLES: &str = "\
Examples:
  benchwright server --model-path model_conf/tiny --load-format dummy
  benchwright server --model-path DIR --executor sim --device-profile l4
  benchwright server --model-path DIR --port 0 --address-file address.txt
  benchwright server --executor sim --trace trace.jsonl --fault stall=0.1:2s --fault 429=0.05

Flags that SGLang has too are spelled as there. SIGINT and SIGTERM stop the server in order, a
second one at once.";

/// `benchwright completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  benchwright completions bash > ~/.local/share/bash-completion/completions/benchwright
  benchwright completions fish > ~/.config/fish/completions/benchwright.fish
  benchwright completions zsh > \"${fpath[1]}/_benchwright\"";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Arguments::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let example = format!("benchwright {}", command.get_name());
            assert!(
                help.starts_with("Examples:") && help.contains(&example),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn a_setting_needs_a_name_and_keeps_what_follows_the_first_equals_sign() {
        assert_eq!(assignment("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(assignment("=4").is_err());
        assert!(assignment("layers").is_err());
    }
}
