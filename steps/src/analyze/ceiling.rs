//! `compute.ceiling`: how fast this machine's processors multiply matrices and copy memory, so that times
//! on them have peaks to be held to.
//!
//! The product is the embedded server's own kernel, in `f32`: a peak of what that server can use, and no
//! more than a lower bound for what others could.

use crate::checkpoint::{blocking, by_copying};
use crate::files;
use crate::result::{Definition, MeasuredFile, Row};
use embedded_server::kernels::{Isa, PackedMatrix, Rows, Start, Workers, matmul};
use engine::step::{
    FailureClass, Figure, Grade, OutputSpec, Sample, Step, StepContext, StepError, StepKind,
    StepReport, StepType, Verdict,
};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Instant;

/// Label of rows of products.
const COMPUTE: &str = "compute";
/// Label of rows of copies.
const MEMORY: &str = "memory";

engine::options! {
    /// Options of `compute.ceiling`.
    pub struct ComputeCeiling {
        /// How often each rate is measured, after once that does not count.
        rounds: NonZeroU32 = NonZeroU32::new(9).unwrap_or(NonZeroU32::MIN);
        /// Rows of the product: as many tokens as a long prompt has.
        rows: NonZeroU32 = NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN);
        /// Columns of both sides of its square weights.
        width: NonZeroU32 = NonZeroU32::new(2048).unwrap_or(NonZeroU32::MIN);
        /// Threads that multiply; as many as there are processors if absent.
        threads: Option<NonZeroU32>;
    }
}

/// Rates of one tier, by job: operations or bytes per second.
type Rates = Vec<(String, f64)>;

impl StepType for ComputeCeiling {
    const NAME: &'static str = "compute.ceiling";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Measures how fast this machine's processors multiply matrices in single precision, and how fast memory is read and written.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "One row for each round: the rate of a product, or of copying.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![("kernel".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]
    }
}

#[async_trait::async_trait]
impl Step for ComputeCeiling {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let rounds = self.rounds.get();
        let product = self.clone();
        let total = rounds.into();
        let products = blocking(context, "multiplying", total, move |go_on| {
            product.by_multiplying(go_on)
        })
        .await?;
        let copies = blocking(context, "copying", 1, move |_| by_copying(rounds)).await?;
        // What is copied is read and written.
        let copies = copies.into_iter().map(|(job, rate)| (job, 2.0 * rate));
        let copies: Rates = copies.collect();
        files::write_json(&context.output("result.json"), &result(&products, &copies))?;
        let figures = vec![
            figure("product", best_of(&products) / 1e9, "GFLOPS"),
            figure("memory", best_of(&copies) / 1e9, "GB/s"),
        ];
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(Verdict {
                grade: Grade::Valid,
                reasons: Vec::new(),
            }),
            figures,
        })
    }
}

impl ComputeCeiling {
    fn by_multiplying(&self, go_on: &dyn Fn(u64) -> bool) -> Result<Rates, StepError> {
        let threads = match self.threads {
            Some(threads) => NonZeroUsize::try_from(threads).unwrap_or(NonZeroUsize::MIN),
            None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        let workers = Workers::new(threads)
            .map_err(|e| StepError::because("could not start threads that multiply", e))?;
        let (rows, width) = (self.rows.get() as usize, self.width.get() as usize);
        let isa = Isa::detect();
        let weights = PackedMatrix::from_fn(width, width, value);
        let (mut x, mut y) = (Rows::new(width), Rows::new(width));
        x.set_rows(rows);
        y.set_rows(rows);
        for row in 0..rows {
            for (column, element) in x.row_mut(row).iter_mut().enumerate() {
                *element = value(row * width + column);
            }
        }
        let name = isa.name();
        let job = format!("f32 product {rows} × {width} × {width}, {name}, threads: {threads}");
        let flops = 2.0 * rows as f64 * width as f64 * width as f64;
        let mut rates = Rates::new();
        for round in 0..=self.rounds.get() {
            let began = Instant::now();
            let out = y.view_mut(0..rows);
            matmul(&workers, isa, x.view(0..rows), &weights, out, Start::Zero);
            let seconds = began.elapsed().as_secs_f64().max(1e-9);
            // The first one meets cold caches and threads that sleep.
            if round > 0 {
                rates.push((job.clone(), flops / seconds));
            }
            if !go_on(round.into()) {
                let error = StepError::new("interrupted");
                return Err(error.class(FailureClass::Interrupted));
            }
        }
        Ok(rates)
    }
}

/// Values around 0 that are neither all alike nor denormal.
fn value(index: usize) -> f32 {
    (index % 251) as f32 / 251.0 - 0.5
}

fn figure(name: &str, value: f64, unit: &str) -> Figure {
    Figure {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
    }
}

fn result(products: &Rates, copies: &Rates) -> MeasuredFile {
    let row = |tier: &str, name: &str, (job, rate): &(String, f64)| {
        let mut row = Row::default();
        row.labels.insert("job".to_owned(), job.clone());
        row.labels.insert("tier".to_owned(), tier.to_owned());
        row.set(name, rate / 1e9);
        row
    };
    let products = products.iter().map(|rate| row(COMPUTE, "flop_rate", rate));
    let copies = copies.iter().map(|rate| row(MEMORY, "rate", rate));
    let definition = |name: &str, unit: &str, formula: &str| Definition {
        name: name.to_owned(),
        unit: unit.to_owned(),
        formula: formula.to_owned(),
    };
    MeasuredFile {
        rows: products.chain(copies).collect(),
        definitions: vec![
            definition(
                "flop_rate",
                "GFLOPS",
                "2 · rows · width² / time of one product in f32",
            ),
            definition(
                "rate",
                "GB/s",
                "2 · bytes copied / time, since each is read and written; 1 GB = 10^9 bytes",
            ),
        ],
        notes: Vec::new(),
        target: BTreeMap::new(),
        details: serde_json::Value::Null,
    }
}

/// The best median of all jobs; 0 if there are none.
fn best_of(rates: &Rates) -> f64 {
    let mut jobs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (job, rate) in rates {
        jobs.entry(job).or_default().push(*rate);
    }
    let medians = jobs.values().filter_map(|rates| statistics::median(rates));
    medians.fold(0.0, f64::max)
}

/// What samples of a ceiling say: operations and bytes per second.
pub(super) fn read(samples: &[Sample]) -> Result<(f64, f64), StepError> {
    let (mut products, mut copies) = (Rates::new(), Rates::new());
    let valid = samples.iter().filter(|s| s.verdict.grade != Grade::Invalid);
    for path in valid.filter_map(|sample| sample.outputs.get("result")) {
        let file: MeasuredFile = files::read_json(path)?;
        for row in &file.rows {
            let job = row.labels.get("job").cloned().unwrap_or_default();
            products.extend(row.value("flop_rate").map(|rate| (job.clone(), rate * 1e9)));
            let is_memory = row.labels.get("tier").is_some_and(|tier| tier == MEMORY);
            let rate = row.value("rate").filter(|_| is_memory);
            copies.extend(rate.map(|rate| (job, rate * 1e9)));
        }
    }
    match (best_of(&products), best_of(&copies)) {
        (flops, bytes) if flops > 0.0 && bytes > 0.0 => Ok((flops, bytes)),
        _ => Err(StepError::new(
            "`ceiling` has no rates of products and of memory that can be believed",
        )
        .help("refer to all samples of a `compute.ceiling`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::step::Sample;

    fn sample(folder: &std::path::Path, file: &MeasuredFile) -> Sample {
        let path = folder.join("result.json");
        files::write_json(&path, file).expect("a file");
        Sample {
            node: "ceiling".to_owned(),
            axes: Vec::new(),
            index: 0,
            verdict: Verdict {
                grade: Grade::Valid,
                reasons: Vec::new(),
            },
            drawn_at: 0,
            outputs: [("result".to_owned(), path)].into(),
        }
    }

    #[test]
    fn a_product_is_timed_as_often_as_asked_and_read_back() {
        let step = ComputeCeiling {
            rounds: NonZeroU32::new(3).expect("not zero"),
            rows: NonZeroU32::new(16).expect("not zero"),
            width: NonZeroU32::new(48).expect("not zero"),
            threads: Some(NonZeroU32::MIN),
        };
        let products = step.by_multiplying(&|_| true).expect("rates");
        assert_eq!(products.len(), 3);
        assert!(products.iter().all(|(_, rate)| *rate > 0.0));
        assert!(products[0].0.starts_with("f32 product 16 × 48 × 48"));
        let stopped = step.by_multiplying(&|_| false).expect_err("stopped");
        assert_eq!(stopped.class, FailureClass::Interrupted);
        let copies = vec![("one".to_owned(), 3e9), ("all".to_owned(), 8e9)];
        let folder = tempfile::tempdir().expect("a folder");
        let (flops, bytes) =
            read(&[sample(folder.path(), &result(&products, &copies))]).expect("both rates");
        assert!((flops / best_of(&products) - 1.0).abs() < 1e-12);
        assert!((bytes / 8e9 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_ceiling_without_products_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let copies = vec![("one".to_owned(), 3e9)];
        let told = read(&[sample(folder.path(), &result(&Rates::new(), &copies))]);
        let message = told.expect_err("no products").message;
        assert!(message.starts_with("`ceiling` has no rates"), "{message}");
    }
}
