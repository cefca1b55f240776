//! What `analyze.cost` writes: two rows for each batch, one by each formula, and what a roofline is drawn
//! from.

use super::peak::Found;
use crate::result::{Definition, MeasuredFile, Row};
use cost::{
    Bound, Class, Counted, Deployment, Formats, Model, Precision, Seconds, Utilisation, Work, suite,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The label of a row's formula.
pub(super) const FORMULA: &str = "formula";
/// The formula of the crate `cost`.
pub(super) const CORRECTED: &str = "corrected";
/// The formula of [`suite`].
pub(super) const SUITE: &str = "suite";

/// The roof of one device, as it stands in a result's details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roof {
    /// What the device is called.
    pub(crate) device: String,
    /// Where its figures come from.
    pub(crate) source: String,
    /// Operations per second in projections.
    pub(crate) flops_per_s: f64,
    /// Operations per second in everything else.
    pub(crate) other_flops_per_s: f64,
    /// Bytes per second.
    pub(crate) bytes_per_s: f64,
    /// What projections are computed in, and what everything else.
    pub(crate) precisions: [String; 2],
}

impl From<&Found> for Roof {
    fn from(found: &Found) -> Self {
        Self {
            device: found.name.clone(),
            source: found.source.clone(),
            flops_per_s: found.peak.projections.0,
            other_flops_per_s: found.peak.others.0,
            bytes_per_s: found.peak.bandwidth.0,
            precisions: found.precisions.map(|p| p.name().to_owned()),
        }
    }
}

/// A batch that was counted.
pub(super) struct Cell<'a> {
    pub(super) model: &'a Model,
    pub(super) deployment: &'a Deployment,
    pub(super) formats: &'a Formats,
    pub(super) found: &'a Found,
    pub(super) work: Work,
    pub(super) counted: Counted,
    /// Measured times, milliseconds; none where there are none.
    pub(super) times: &'a [f64],
}

impl Cell<'_> {
    /// The median of the times.
    pub(super) fn time(&self) -> Option<Seconds> {
        statistics::median(self.times).map(|ms| Seconds(ms / 1e3))
    }

    /// What the time says, if there is one.
    pub(super) fn utilisation(&self) -> Option<Utilisation> {
        let devices = self.deployment.ranks();
        let time = self.time()?;
        Some(Utilisation::of(
            &self.counted,
            &self.found.peak,
            devices,
            time,
        ))
    }

    fn labelled(&self, formula: &str) -> Row {
        let mut row = Row::default();
        let labels = [
            ("phase", self.work.phase.name()),
            (FORMULA, formula),
            ("device", self.found.name.as_str()),
        ];
        for (name, value) in labels {
            row.labels.insert(name.to_owned(), value.to_owned());
        }
        row.set("batch", self.work.batch.get().into());
        row.set("length", self.work.length.get().into());
        row.set("devices", self.deployment.ranks() as f64);
        if let Some(time) = self.time() {
            row.set("time_ms", time.0 * 1e3);
            row.set("times", self.times.len() as f64);
        }
        row
    }

    /// The row by the formula of the crate `cost`.
    pub(super) fn corrected(&self) -> Row {
        let (counted, model) = (&self.counted, self.model);
        let bound = Bound::of(counted, &self.found.peak);
        let mut row = self.labelled(CORRECTED);
        row.labels
            .insert("bound".to_owned(), bound.limit().name().to_owned());
        let (flops, bytes) = (counted.rank_flops(), counted.rank_bytes());
        let kv_token = model.kv_bytes_per_layer(
            self.deployment.kv_heads_per_rank(model),
            self.formats.kv_bytes,
        );
        let groups = self.deployment.ranks() / self.deployment.attention_ranks();
        let sequences = (f64::from(self.work.batch.get()) / groups as f64).ceil();
        let cached = model.shape.n_layers as f64 * self.work.context() as f64 * sequences;
        for (name, value) in [
            ("parameters", model.total_parameters() as f64),
            ("active_parameters", model.active_parameters() as f64),
            ("flops", counted.useful.total().0),
            ("executed_flops", counted.executed.0),
            ("rank_flops", flops.0),
            ("rank_bytes", bytes.0),
            ("weight_bytes", counted.weight_bytes.0),
            ("kv_read_bytes", counted.kv_read.0),
            ("kv_written_bytes", counted.kv_written.0),
            ("kv_token_bytes", kv_token.0 * model.shape.n_layers as f64),
            ("kv_cache_bytes", (kv_token * cached).0),
            ("activation_bytes", counted.activation_bytes.0),
            ("sent_bytes", counted.bytes_sent.0),
            ("intensity", flops / bytes),
            ("compute_bound_ms", bound.compute.0 * 1e3),
            ("memory_bound_ms", bound.memory.0 * 1e3),
            ("bound_ms", bound.time().0 * 1e3),
            ("class_bound_ms", bound.by_class.0 * 1e3),
        ] {
            row.set(name, value);
        }
        if let (Some(time), Some(used)) = (self.time(), self.utilisation()) {
            for (name, value) in [
                ("mfu", used.useful_mfu),
                ("executed_mfu", used.executed_mfu),
                ("mbu", used.bandwidth),
                ("roofline_share", used.of_bound),
                ("class_roofline_share", used.of_bound_by_class),
                ("attained", (flops / time).0 / 1e12),
            ] {
                row.set(name, value);
            }
        }
        row
    }

    /// The row by the suite's formula.
    pub(super) fn suite(&self) -> Row {
        let mut row = self.labelled(SUITE);
        row.set("parameters", suite::parameters(self.model) as f64);
        row.set("flops", suite::flops(self.model, &self.work).0);
        if let Some(time) = self.time() {
            let (devices, peak) = (self.deployment.ranks(), self.found.peak.others);
            row.set(
                "mfu",
                suite::mfu(self.model, &self.work, devices, peak, time),
            );
        }
        row
    }
}

/// What the values mean.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "batch",
        "sequences",
        "sequences of the batch, all ranks together",
    ),
    (
        "length",
        "tokens",
        "tokens of each: of the prompt, or in the cache before a decode step",
    ),
    ("devices", "devices", "ranks that share the work"),
    ("time_ms", "ms", "median of the measured times"),
    ("times", "times", "measured times"),
    (
        "parameters",
        "parameters",
        "corrected: as published, what is shared once; suite: matrices of layers, and embedding and head as two",
    ),
    (
        "active_parameters",
        "parameters",
        "parameters less the routed experts that a token does not pass",
    ),
    (
        "flops",
        "FLOP",
        "operations that have to be done, all ranks together; see docs/latency.md for both formulas",
    ),
    (
        "executed_flops",
        "FLOP",
        "operations of all ranks with padding, repetition, logits and pairs that nobody needs",
    ),
    ("rank_flops", "FLOP", "operations of the fullest rank"),
    (
        "rank_bytes",
        "bytes",
        "weights, rows of the embedding, and cache read and written by the fullest rank",
    ),
    (
        "weight_bytes",
        "bytes",
        "weights that the rank reads; of routed experts the share expected to be hit by even routing",
    ),
    (
        "kv_read_bytes",
        "bytes",
        "cache that the rank reads, each token once",
    ),
    ("kv_written_bytes", "bytes", "cache that the rank writes"),
    ("kv_token_bytes", "bytes", "cache of one token on the rank"),
    (
        "kv_cache_bytes",
        "bytes",
        "cache of the rank's sequences after the step",
    ),
    (
        "activation_bytes",
        "bytes",
        "inputs and outputs of projections, were each to pass through memory; in no bound",
    ),
    (
        "sent_bytes",
        "bytes",
        "bytes that the rank sends to others around rings",
    ),
    ("intensity", "FLOP/byte", "rank_flops / rank_bytes"),
    (
        "compute_bound_ms",
        "ms",
        "operations of the rank at the device's peak",
    ),
    (
        "memory_bound_ms",
        "ms",
        "bytes of the rank at the device's bandwidth",
    ),
    (
        "bound_ms",
        "ms",
        "the longer of both: the least time if everything overlaps",
    ),
    (
        "class_bound_ms",
        "ms",
        "the longer of both for each class of work, summed: the least time of one class after the other",
    ),
    (
        "mfu",
        "",
        "flops / time / (peak · devices); corrected: the peak of each class in its own type; suite: that of 16 bits",
    ),
    ("executed_mfu", "", "executed_flops in place of flops"),
    ("mbu", "", "rank_bytes / time / bandwidth"),
    ("roofline_share", "", "bound_ms / time_ms"),
    ("class_roofline_share", "", "class_bound_ms / time_ms"),
    ("attained", "TFLOPS", "rank_flops / time"),
];

pub(super) fn definitions() -> Vec<Definition> {
    let definition = |(name, unit, formula): &(&str, &str, &str)| Definition {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
    };
    DEFINITIONS.iter().map(definition).collect()
}

/// Everything else of the result: parameters and weights by class, the roof, each batch by class.
pub(super) fn details(model: &Model, formats: &Formats, cells: &[Cell<'_>]) -> serde_json::Value {
    let classes = Class::ALL.into_iter().map(|class| {
        let values = json!({
            "parameters": model.parameters.get(class),
            "weight_bytes": model.weight_bytes(class, formats.weights).0,
        });
        (class.name().to_owned(), values)
    });
    let of_cell = |cell: &Cell<'_>| {
        let loads = cell.counted.rank.iter().map(|(class, load)| {
            let useful = cell.counted.useful.get(class).0;
            let values = json!({
                "useful_flops": useful, "rank_flops": load.flops.0, "rank_bytes": load.bytes.0,
            });
            (class.name().to_owned(), values)
        });
        let work = &cell.work;
        json!({
            "phase": work.phase.name(), "batch": work.batch, "length": work.length,
            "classes": loads.collect::<serde_json::Map<_, _>>(),
        })
    };
    json!({
        "classes": classes.collect::<serde_json::Map<_, _>>(),
        "vision_parameters": model.vision_parameters,
        "roof": cells.first().map(|cell| Roof::from(cell.found)),
        "batches": cells.iter().map(of_cell).collect::<Vec<_>>(),
    })
}

/// Remarks on what was counted.
pub(super) fn notes(model: &Model, found: &Found) -> Vec<String> {
    let mut notes = Vec::new();
    if model.experts.is_some() {
        notes.push(
            "experts are taken to be chosen by even chance, and ranks to have equal shares of tokens"
                .to_owned(),
        );
    }
    if model.vision_parameters > 0 {
        notes.push("what reads images is in the parameters and in no operation".to_owned());
    }
    if found.precisions[1] == Precision::F32 && model.activations != Precision::F32 {
        notes.push(
            "the peak is that of f32, and the model is counted in another type: write `weights = \"f32\"` for what the embedded server does"
                .to_owned(),
        );
    }
    notes
}

/// The result of all batches.
pub(super) fn result(
    model: &Model,
    formats: &Formats,
    found: &Found,
    cells: &[Cell<'_>],
) -> MeasuredFile {
    let rows = cells
        .iter()
        .flat_map(|cell| [cell.corrected(), cell.suite()]);
    MeasuredFile {
        rows: rows.collect(),
        definitions: definitions(),
        notes: notes(model, found),
        target: [("device".to_owned(), found.name.clone())].into(),
        details: details(model, formats, cells),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peak::Computing;
    use super::*;
    use cost::{Executed, Phase, WeightFormat, count};
    use std::num::NonZeroU32;
    use std::path::Path;

    fn llama() -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model_conf/llama-3.1-8b");
        let config = crate::model::read_config(&folder).expect("a configuration");
        Model::of(&config).expect("sound")
    }

    /// Does something with a decode step of 64 sequences behind 2,048 tokens each on one H100.
    fn with_cell(times: &[f64], look: impl Fn(&Cell<'_>)) {
        let model = llama();
        let computing = Computing {
            model: &model,
            is_fp8: false,
            clock_mhz: None,
        };
        let found = Found::in_table("NVIDIA H100 80GB HBM3", &computing).expect("known");
        let formats = Formats {
            weights: WeightFormat::Configured,
            kv_bytes: 2.0,
        };
        let number = |n| NonZeroU32::new(n).expect("not zero");
        let work = Work {
            phase: Phase::Decode,
            batch: number(64),
            length: number(2048),
        };
        let (deployment, executed) = (Deployment::SINGLE, Executed::only(&work));
        look(&Cell {
            model: &model,
            deployment: &deployment,
            formats: &formats,
            found: &found,
            work,
            counted: count(&model, &work, &executed, &deployment, &formats),
            times,
        });
    }

    #[test]
    fn a_measured_batch_has_its_shares_by_both_formulas() {
        with_cell(&[30.0, 19.0, 20.0], |cell| {
            let (ours, suite) = (cell.corrected(), cell.suite());
            let of = |row: &Row, name: &str| row.value(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(of(&ours, "time_ms"), 20.0);
            assert_eq!(ours.labels["bound"], "memory");
            // 32.2 GB in 20 ms are 1.61 of 3.35 TB/s.
            assert!((of(&ours, "mbu") - 0.4807).abs() < 5e-4, "{ours:?}");
            assert!((of(&ours, "mbu") - of(&ours, "roofline_share")).abs() < 1e-12);
            assert_eq!(of(&ours, "kv_cache_bytes"), 64.0 * 2049.0 * 131_072.0);
            // Half of what scores take is missing, in both the operations and the share.
            let scores = 64.0 * 32.0 * 4.0 * 4096.0 * (2049.0 - 1024.0);
            let gates = 64.0 * 32.0 * 14336.0;
            let missing = of(&ours, "flops") - of(&suite, "flops");
            assert!((missing / (scores - gates) - 1.0).abs() < 1e-9);
            let of_flops = of(&suite, "flops") / of(&ours, "flops");
            assert!((of(&suite, "mfu") / of(&ours, "mfu") / of_flops - 1.0).abs() < 1e-9);
        });
    }

    #[test]
    fn every_value_is_defined_and_no_share_is_told_without_a_time() {
        with_cell(&[], |cell| {
            let rows = [cell.corrected(), cell.suite()];
            assert!(rows.iter().all(|row| row.value("mfu").is_none()));
        });
        with_cell(&[20.0], |cell| {
            let defined = definitions();
            for row in [cell.corrected(), cell.suite()] {
                for name in row.values.keys() {
                    assert!(defined.iter().any(|d| d.name == *name), "{name}");
                }
            }
            let used: Vec<&str> = DEFINITIONS.iter().map(|(name, ..)| *name).collect();
            let ours = cell.corrected();
            assert!(used.iter().all(|name| ours.values.contains_key(*name)));
        });
    }

    #[test]
    fn classes_of_the_details_sum_to_the_whole() {
        with_cell(&[], |cell| {
            let details = details(cell.model, cell.formats, std::slice::from_ref(cell));
            let classes = details["classes"].as_object().expect("classes").values();
            let sum: u64 = classes.filter_map(|c| c["parameters"].as_u64()).sum();
            assert_eq!(sum, 8_030_261_248);
            let classes = &details["batches"][0]["classes"];
            let classes = classes.as_object().expect("classes").values();
            let sum: f64 = classes.filter_map(|c| c["useful_flops"].as_f64()).sum();
            assert!((sum / cell.counted.useful.total().0 - 1.0).abs() < 1e-12);
        });
    }
}
