//! `workload.trace`: requests that some service had, with their instants and lengths, and with what their
//! prompts share where the trace tells that: Mooncake's, Azure's and BurstGPT's.
//!
//! Such traces hold no text. What stands in a prompt is made of the numbers of its blocks alone, so that
//! prompts share exactly what they did, and every prompt has the length of the trace.

use super::prompts::{allowed_ids, load_tokenizer};
use super::records::{Damaged, Whole, read};
use super::{MOST_TOKENS, OUTPUT, ideal_text, made, tokens_text, write};
use crate::files;
use crate::kinds::Model;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Any, Artifact};
use loadgen::{Prefixes, Prompt, Request};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

/// How the columns of a table may be called: when, how much was asked, how much was answered.
const COLUMNS: [&[&str]; 3] = [
    &["timestamp", "arrived_at"],
    &["contexttokens", "request tokens", "num_prefill_tokens"],
    &["generatedtokens", "response tokens", "num_decode_tokens"],
];

engine::options! {
    /// Options of `workload.trace`.
    pub struct WorkloadTrace {
        /// The trace: JSON objects of `timestamp` in milliseconds, `input_length`, `output_length` and perhaps
        /// `hash_ids`, as Mooncake publishes them; or a CSV table with the columns of Azure's or BurstGPT's, in which
        /// instants are dates or seconds.
        source: Artifact<Any>;
        /// The model whose tokenizer has the ids that prompts are made of.
        model: Artifact<Model>;
        /// Takes only so many requests, from the beginning.
        requests: Option<NonZeroU32>, in "requests";
        /// Leaves out requests whose prompt and answer together are longer; the step says how many.
        context_length: Option<NonZeroU32>, in "tokens";
        /// Tokens of the block that one of `hash_ids` stands for.
        block_tokens: NonZeroU32 = NonZeroU32::new(512).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// What becomes of a file of JSON that is damaged.
        damaged: Damaged = Damaged::Refuse;
        /// Starts the random numbers.
        seed: u64 = 42;
    }
}

impl StepType for WorkloadTrace {
    const NAME: &'static str = "workload.trace";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Replays a trace of a real service: its instants, its lengths and what its prompts share.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }
}

/// A request of a trace.
#[derive(Debug, Clone, PartialEq)]
struct Traced {
    /// Seconds, from wherever the trace counts.
    at: f64,
    input: u32,
    output: u32,
    /// The blocks of its prompt, each a number for all that stands up to its end.
    blocks: Vec<u64>,
}

/// A line of Mooncake's traces.
#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

impl WorkloadTrace {
    fn traced(&self, path: &Path) -> Result<(Vec<Traced>, Whole), StepError> {
        if !is_json(path)? {
            let all = of_table(&files::read_text(path)?);
            let all = all.map_err(|e| StepError::new(format!("`{}`: {e}", path.display())))?;
            return Ok((all, Whole::default()));
        }
        let mut all = Vec::new();
        let whole = read(path, self.damaged, |_, line: Line| {
            all.push(Traced {
                at: line.timestamp / 1e3,
                input: line.input_length,
                output: line.output_length,
                blocks: line.hash_ids,
            });
            Ok(())
        })?;
        Ok((all, whole))
    }

    /// Those that are replayed, by their instants from 0, and how many are left out.
    fn replayed(&self, mut all: Vec<Traced>) -> Result<(Vec<Traced>, Left), StepError> {
        all.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut left = Left::default();
        let most = self.context_length.map_or(u64::MAX, |n| n.get().into());
        all.retain(|one| {
            let is_empty = one.input == 0 || one.output == 0;
            let is_long = u64::from(one.input) + u64::from(one.output) > most;
            left.empty += usize::from(is_empty);
            left.long += usize::from(is_long && !is_empty);
            !is_empty && !is_long
        });
        all.truncate(self.requests.map_or(usize::MAX, |n| n.get() as usize));
        let tokens: u64 = all.iter().map(|one| u64::from(one.input)).sum();
        if tokens > MOST_TOKENS {
            let message = format!("{tokens} prompt tokens are more than {MOST_TOKENS}");
            return Err(StepError::new(message).help("take fewer with `requests = …`"));
        }
        let first = all.first().map_or(0.0, |one| one.at);
        all.iter_mut().for_each(|one| one.at -= first);
        Ok((all, left))
    }
}

/// How many requests of a trace are left out.
#[derive(Debug, Default, PartialEq)]
struct Left {
    empty: usize,
    long: usize,
}

impl Left {
    fn text(&self) -> String {
        let parts = [
            (self.empty, "without a prompt or an answer"),
            (self.long, "too long"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0);
        parts
            .map(|(n, what)| format!("; {n} left out {what}"))
            .collect()
    }
}

/// What prompts are made of.
struct Blocks {
    /// Ids besides special ones.
    allowed: Vec<u32>,
    tokens: usize,
    seed: u64,
}

impl Blocks {
    /// The prompt of a request with this number, exactly as long as the trace says.
    fn prompt(&self, number: u64, traced: &Traced) -> Vec<u32> {
        let length = traced.input as usize;
        let mut ids = Vec::with_capacity(length);
        for block in &traced.blocks {
            let n = self.tokens.min(length - ids.len());
            // Blocks have the even streams, what no block tells the odd ones.
            self.draw(block.wrapping_mul(2), n, &mut ids);
        }
        self.draw(
            number.wrapping_mul(2).wrapping_add(1),
            length - ids.len(),
            &mut ids,
        );
        ids
    }

    /// The first ids of a stream: they depend on nothing but its number and the seed.
    fn draw(&self, stream: u64, n: usize, into: &mut Vec<u32>) {
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        random.set_stream(stream);
        into.extend((0..n).map(|_| self.allowed[random.random_range(0..self.allowed.len())]));
    }

    /// The requests of a trace; `made` is told how many there are.
    fn requests(
        &self,
        all: &[Traced],
        mut made: impl FnMut(u32) -> Result<(), StepError>,
    ) -> Result<Vec<Request>, StepError> {
        let mut seen = Prefixes::default();
        let mut requests = Vec::with_capacity(all.len());
        for (number, traced) in (0..).zip(all) {
            if number % 100 == 0 {
                made(number)?;
            }
            let ids = self.prompt(number.into(), traced);
            let cacheable = u32::try_from(seen.add(&ids)).unwrap_or(u32::MAX);
            let output = NonZeroU32::new(traced.output).unwrap_or(NonZeroU32::MIN);
            let id = format!("trace-{number}");
            requests.push(Request {
                arrival: Some(Duration::try_from_secs_f64(traced.at).unwrap_or_default()),
                cacheable_tokens: Some(cacheable),
                ..Request::new(id, Prompt::Tokens(ids), traced.input, output)
            });
        }
        Ok(requests)
    }
}

#[async_trait::async_trait]
impl Step for WorkloadTrace {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let tokenizer = load_tokenizer(&context.path(&self.model)?)?;
        let blocks = Blocks {
            allowed: allowed_ids(&tokenizer),
            tokens: self.block_tokens.get() as usize,
            seed: self.seed,
        };
        if blocks.allowed.is_empty() {
            return Err(StepError::new(
                "the tokenizer has no ids besides special ones",
            ));
        }
        let (all, whole) = self.traced(&context.path(&self.source)?)?;
        let (all, left) = self.replayed(all)?;
        let n = u32::try_from(all.len()).ok().and_then(NonZeroU32::new);
        let n = n.ok_or_else(|| {
            StepError::new(format!(
                "no request of the trace is replayed{}",
                left.text()
            ))
        })?;
        let requests = blocks.requests(&all, |i| made(context, "making prompts", i, n))?;
        let workload = write(context, requests)?;
        Ok(StepReport::line(format!(
            "{n} requests over {:.0} s, of {} in, {} out{}{}{}",
            all.last().map_or(0.0, |last| last.at),
            tokens_text(&workload, |r| r.input_tokens),
            tokens_text(&workload, |r| r.output_tokens.get()),
            ideal_text(&workload),
            left.text(),
            whole.text()
        )))
    }
}

/// Whether a file begins as JSON does.
fn is_json(path: &Path) -> Result<bool, StepError> {
    let unread = |e| StepError::because(format!("could not read `{}`", path.display()), e);
    let mut file = std::io::BufReader::new(std::fs::File::open(path).map_err(unread)?);
    let begins = std::io::BufRead::fill_buf(&mut file).map_err(unread)?;
    let first = begins.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(matches!(first, Some(b'{' | b'[')))
}

/// Reads a CSV table by the names of its columns.
fn of_table(text: &str) -> Result<Vec<Traced>, String> {
    let mut lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or("it is empty")?;
    let names: Vec<String> = cells(header).map(str::to_ascii_lowercase).collect();
    let mut columns = [0; 3];
    for (column, called) in columns.iter_mut().zip(COLUMNS) {
        let found = names
            .iter()
            .position(|name| called.contains(&name.as_str()));
        *column = found.ok_or_else(|| {
            format!(
                "expected a column called one of `{}`, found `{header}`",
                called.join("`, `")
            )
        })?;
    }
    lines
        .map(|(number, line)| row(line, columns).map_err(|e| format!("line {number}: {e}")))
        .collect()
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim_start_matches('\u{feff}');
    line.split(',').map(|cell| cell.trim().trim_matches('"'))
}

fn row(line: &str, columns: [usize; 3]) -> Result<Traced, String> {
    let cells: Vec<&str> = cells(line).collect();
    let cell = |column: usize| cells.get(column).copied().ok_or("it has too few cells");
    let tokens = |column: usize| {
        let text = cell(column)?;
        let tokens = text.parse::<u32>();
        tokens.map_err(|_| format!("expected a number of tokens, found `{text}`"))
    };
    let at = cell(columns[0])?;
    Ok(Traced {
        at: seconds(at).ok_or_else(|| format!("expected seconds or a date, found `{at}`"))?,
        input: tokens(columns[1])?,
        output: tokens(columns[2])?,
        blocks: Vec::new(),
    })
}

/// An instant in seconds: a number, or `2023-11-16 18:15:46.68`, perhaps with a `T` between and a time
/// zone behind, which all rows of a table share.
fn seconds(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let (date, time) = text.split_once([' ', 'T'])?;
    let time = time.split(['+', 'Z']).next()?.trim();
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':').map(str::parse::<f64>);
    let (hours, minutes, seconds) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    let days = days(year, month, day) as f64;
    is_date.then_some(days * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Days since the first of March of the year 0, which puts the leap day at a year's end.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    // Months from March on have 31, 30, 31, 30, 31 days again and again.
    let before = (153 * month + 2) / 5;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + before + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(tokens: usize, seed: u64) -> Blocks {
        Blocks {
            allowed: (7..5000).collect(),
            tokens,
            seed,
        }
    }

    fn traced(at: f64, input: u32, blocks: &[u64]) -> Traced {
        Traced {
            at,
            input,
            output: 5,
            blocks: blocks.to_vec(),
        }
    }

    #[test]
    fn prompts_share_what_their_blocks_say_and_have_their_length() {
        let all = [
            traced(0.0, 1200, &[1, 2, 3]),
            traced(1.0, 1500, &[1, 2, 4]),
            traced(2.0, 700, &[1, 5]),
            traced(3.0, 300, &[9]),
            // Blocks that are not told are its own; blocks beyond its length do not matter.
            traced(4.0, 600, &[9]),
            traced(5.0, 100, &[9, 1, 2]),
            traced(6.0, 80, &[]),
        ];
        let requests = blocks(512, 1).requests(&all, |_| Ok(())).unwrap();
        let lengths: Vec<u32> = requests.iter().map(|r| r.input_tokens).collect();
        assert_eq!(lengths, [1200, 1500, 700, 300, 600, 100, 80]);
        let cacheable: Vec<u32> = requests.iter().filter_map(|r| r.cacheable_tokens).collect();
        // Blocks that differ begin alike by chance alone: one time in five thousand.
        assert_eq!(cacheable, [0, 1024, 512, 0, 300, 100, 0]);
        let workload = loadgen::Workload::new(requests.clone()).unwrap();
        let ideal = workload.ideal_cache_hit_rate().unwrap();
        assert!((ideal - 1936.0 / 4480.0).abs() < 1e-12, "{ideal}");
        assert_eq!(requests[4].arrival, Some(Duration::from_secs(4)));
    }

    #[test]
    fn a_block_is_the_same_wherever_it_stands_and_by_the_seed() {
        let ids = |seed, number, traced: &Traced| blocks(4, seed).prompt(number, traced);
        let one = ids(1, 0, &traced(0.0, 8, &[7, 8]));
        let other = ids(1, 5, &traced(0.0, 10, &[8, 7]));
        assert_eq!((&one[..4], &one[4..]), (&other[4..8], &other[..4]));
        assert_ne!(one, ids(2, 0, &traced(0.0, 8, &[7, 8])));
        let own = |number| ids(1, number, &traced(0.0, 8, &[]));
        assert_ne!(own(0), own(1));
    }

    #[test]
    fn tables_are_read_by_the_names_of_their_columns() {
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
            2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n\
            2024-02-29 00:00:00+00:00,5,6\n2024-03-01T00:00:00Z,5,6\n";
        let rows = of_table(azure).unwrap();
        assert_eq!((rows[0].input, rows[0].output), (374, 44));
        assert!((rows[1].at - rows[0].at - 4.314_579).abs() < 1e-5);
        assert!((rows[3].at - rows[2].at - 86_400.0).abs() < 1e-6);
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
            5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,0,1087,API log\n";
        let rows = of_table(burst).unwrap();
        let told: Vec<_> = rows.iter().map(|r| (r.at, r.input, r.output)).collect();
        assert_eq!(told, [(5.0, 472, 18), (45.5, 1087, 0)]);
        for (table, said) in [
            (
                "a,b\n1,2\n",
                "one of `timestamp`, `arrived_at`, found `a,b`",
            ),
            (
                "timestamp,request tokens,response tokens\n1,2\n",
                "line 2: it has too few cells",
            ),
            (
                "timestamp,request tokens,response tokens\n\nx,2,3\n",
                "line 3: expected seconds or a date, found `x`",
            ),
            (
                "timestamp,request tokens,response tokens\n1,-2,3\n",
                "expected a number of tokens, found `-2`",
            ),
            ("", "it is empty"),
        ] {
            let error = of_table(table).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn dates_are_days_apart_as_calendars_have_them() {
        let apart = |a: &str, b: &str| (seconds(b).unwrap() - seconds(a).unwrap()) / 86_400.0;
        for (a, b, n) in [
            ("2023-02-28 00:00:00", "2023-03-01 00:00:00", 1.0),
            ("2024-02-28 00:00:00", "2024-03-01 00:00:00", 2.0),
            ("1900-02-28 00:00:00", "1900-03-01 00:00:00", 1.0),
            ("2000-01-01 00:00:00", "2001-01-01 00:00:00", 366.0),
            ("2023-12-31 12:00:00", "2024-01-01 00:00:00", 0.5),
        ] {
            assert!((apart(a, b) - n).abs() < 1e-9, "{a} {b}");
        }
        assert_eq!(seconds("2023-13-01 00:00:00"), None);
        assert_eq!(seconds("yesterday"), None);
    }
}
