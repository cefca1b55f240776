//! `analyze.cost`: what a model costs by its configuration, and how near measured times are to what the
//! device allows.

use super::cells::Times;
use super::peak::{self, Computing, DETECTED, Found, PeakOptions};
use super::rows::{self, Cell};
use crate::files;
use crate::kinds::{Measured, Model as ModelKind};
use crate::model::{failure, read_config, report};
use crate::result::SIMULATED;
use cost::{
    Deployment, Device, Executed, Formats, Logits, Model, Pairs, Phase, Precision, WeightFormat,
    Work, count,
};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Nested, Origin, Positive, Samples};
use engine::value::Table;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Batches at most: a result has an end.
const MOST_CELLS: usize = 4096;

engine::choices! {
    /// A phase of serving.
    pub enum PhaseChoice {
        /// All tokens of prompts at once, nothing cached.
        Prefill = "prefill",
        /// One token of each sequence behind those in the cache.
        Decode = "decode",
    }
}

engine::choices! {
    /// What weights are kept as.
    pub enum WeightsChoice {
        /// As the configuration says, its quantisation included.
        Config = "config",
        /// `f32`, computed in `f32`.
        F32 = "f32",
        /// `f16`, computed in `f16`.
        F16 = "f16",
        /// `bf16`, computed in `bf16`.
        Bf16 = "bf16",
        /// Projections of layers in eight bits with a scale for each block of 128 by 128.
        Fp8 = "fp8",
        /// Projections of layers in four bits with a scale and a zero for each group of 128.
        Int4 = "int4",
    }
}

engine::choices! {
    /// What keys and values are kept as.
    pub enum CacheChoice {
        /// As activations.
        Activations = "activations",
        /// In eight bits.
        Fp8 = "fp8",
    }
}

engine::choices! {
    /// Pairs of tokens that the server computes.
    pub enum PairsChoice {
        /// Those that the mask leaves.
        Causal = "causal",
        /// All.
        All = "all",
    }
}

engine::choices! {
    /// Tokens of which the server computes logits.
    pub enum LogitsChoice {
        /// The last of each sequence.
        Last = "last",
        /// All that are computed.
        All = "all",
    }
}

engine::options! {
    /// Options of `analyze.cost`.
    pub struct AnalyzeCost {
        /// A folder with `config_full.json` or `config.json`.
        model: Artifact<ModelKind>;
        /// Phases of the grid.
        phases: Vec<PhaseChoice> = vec![PhaseChoice::Prefill, PhaseChoice::Decode];
        /// Batch sizes of the grid, sequences of all ranks together; the batches of `times` if there is no grid.
        batch_sizes: Vec<NonZeroU32> = Vec::new(), in "sequences";
        /// Lengths of the grid: of prompts (prefill), or of what is in the cache before the step (decode).
        lengths: Vec<NonZeroU32> = Vec::new(), in "tokens";
        /// Ranks that share the model (tensor parallelism).
        tp: NonZeroU32 = NonZeroU32::MIN, in "ranks";
        /// Groups of those that experts are spread over.
        ep: NonZeroU32 = NonZeroU32::MIN, in "groups";
        /// Groups of those that sequences are spread over for attention (data-parallel attention).
        dp: NonZeroU32 = NonZeroU32::MIN, in "groups";
        /// What weights are kept as.
        weights: WeightsChoice = WeightsChoice::Config;
        /// What keys and values are kept as.
        cache: CacheChoice = CacheChoice::Activations;
        /// Pairs of tokens that the server computes: for executed work.
        pairs: PairsChoice = PairsChoice::Causal;
        /// Tokens of which the server computes logits: for executed work.
        logits: LogitsChoice = LogitsChoice::Last;
        /// Batch sizes that decode batches are padded to, such as those of CUDA graphs: for executed work.
        pad_to: Vec<NonZeroU32> = Vec::new(), in "sequences";
        /// The device: a name as NVML tells it, of those in the table, or `detected` for the one of this machine.
        device: String = DETECTED.to_owned();
        /// The clock that the device was held to; that of its data sheet if absent.
        sm_clock: Option<Positive>, in "MHz";
        /// Peaks of the device, in place of the table's.
        peak: Option<Nested<PeakOptions>>;
        /// Peaks as measured, see `compute.ceiling`.
        ceiling: Option<Samples<Measured>>;
        /// Measured times: rows with `phase`, `batch` and `length`, in values, labels or axes.
        times: Option<Samples<Measured>>;
        /// The value of those rows that is the time of a forward pass, milliseconds.
        time: String = "ms".to_owned();
    }
}

impl StepType for AnalyzeCost {
    const NAME: &'static str = "analyze.cost";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Counts parameters, operations, bytes and cache of forward passes from a configuration, and holds measured times to the device's roofline.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "Two rows for each batch: by the corrected formula, and by the suite's.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        self.check_grid(&at, parser);
        self.check_device(&at, parser);
        let Origin::Path(folder) = &self.model.origin else {
            return;
        };
        let config = match read_config(folder) {
            Ok(config) => config,
            Err(error) => {
                let help = "name a folder with `config_full.json` or `config.json`";
                parser.wrong::<()>(&at("model"), error.message, "no model configuration", help);
                return;
            }
        };
        match Model::of(&config) {
            Err(problem) => report(&problem, table, place, "model", parser),
            Ok(model) => {
                if let Err(unfit) = self.deployment().fits(&model) {
                    let option = ["dp", "ep", "tp"].into_iter();
                    let option = option
                        .filter(|option| unfit.message.contains(&format!("`{option}` is")))
                        .find(|option| table.get(option).is_some());
                    let place = at(option.unwrap_or("tp"));
                    parser.wrong::<()>(&place, unfit.message, "does not fit", &unfit.help);
                }
            }
        }
    }

    fn identity(&self) -> Vec<(String, String)> {
        let counted = ("counting".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let device = self.is_detected().then(|| {
            let name = peak::detect().unwrap_or_else(|why| why);
            ("device".to_owned(), name)
        });
        [counted].into_iter().chain(device).collect()
    }
}

#[async_trait::async_trait]
impl Step for AnalyzeCost {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let model = self.counted(&context.path(&self.model)?)?;
        let times = match &self.times {
            Some(times) => Some(Times::read(&context.samples(times), &self.time, None)?),
            None => None,
        };
        let by_work = times.as_ref().map(Times::by_work).unwrap_or_default();
        let cpu = context.environment.identity.get("cpu_model");
        let ceiling = self.ceiling.as_ref().map(|all| context.samples(all));
        let found = match ceiling {
            Some(samples) => Found::measured(&samples, cpu.map_or("cpu", String::as_str))?,
            None => self.found(&model)?,
        };
        let (deployment, formats) = (self.deployment(), self.formats(&model));
        let works = self.works(&by_work)?;
        let cells: Vec<Cell<'_>> = works
            .into_iter()
            .map(|work| Cell {
                model: &model,
                deployment: &deployment,
                formats: &formats,
                found: &found,
                work,
                counted: count(&model, &work, &self.executed(&work), &deployment, &formats),
                times: by_work.get(&work).map_or(&[], Vec::as_slice),
            })
            .collect();
        let mut result = rows::result(&model, &formats, &found, &cells);
        let simulated: Vec<String> = times.into_iter().flat_map(|t| t.simulated).collect();
        if !simulated.is_empty() {
            result
                .target
                .insert(SIMULATED.to_owned(), simulated.join("; "));
        }
        files::write_json(&context.output("result.json"), &result)?;
        Ok(StepReport::line(summary(&model, &found, &cells)))
    }
}

impl AnalyzeCost {
    fn check_grid(&self, at: &dyn Fn(&str) -> Place, parser: &mut Parser<'_>) {
        let has_half = self.batch_sizes.is_empty() != self.lengths.is_empty();
        let n_cells = self.phases.len() * self.batch_sizes.len() * self.lengths.len();
        if has_half {
            let message = "a grid needs both `batch_sizes` and `lengths`";
            let option = match self.lengths.is_empty() {
                true => "batch_sizes",
                false => "lengths",
            };
            parser.wrong::<()>(
                &at(option),
                message,
                "only one of both",
                "give the other, too",
            );
        } else if n_cells == 0 && self.times.is_none() {
            let message = "there is nothing to count: no grid, and no `times`";
            let help = "give `phases`, `batch_sizes` and `lengths`, or measured `times`";
            parser.wrong::<()>(&at("batch_sizes"), message, "no batches", help);
        } else if n_cells > MOST_CELLS {
            let message = format!("the grid has {n_cells} batches, expected at most {MOST_CELLS}");
            parser.wrong::<()>(&at("lengths"), message, "too many", "leave some out");
        }
    }

    fn check_device(&self, at: &dyn Fn(&str) -> Place, parser: &mut Parser<'_>) {
        if self.peak.is_some() && self.ceiling.is_some() {
            let message = "`peak` and `ceiling` both say what the device does at most";
            parser.wrong::<()>(
                &at("ceiling"),
                message,
                "which one?",
                "leave one of both out",
            );
        }
        let is_in_table = self.peak.is_none() && self.ceiling.is_none();
        if self.sm_clock.is_some() && !is_in_table {
            let message = "`sm_clock` scales the table's rates, and the rates are given";
            parser.wrong::<()>(&at("sm_clock"), message, "scales nothing", "leave it out");
        }
        if is_in_table
            && self.device != DETECTED
            && let Err(error) = Device::find(&self.device)
        {
            let help = peak::mend(&self.device);
            parser.wrong::<()>(&at("device"), error.to_string(), "not known", &help);
        }
    }

    fn is_detected(&self) -> bool {
        self.device == DETECTED && self.peak.is_none() && self.ceiling.is_none()
    }

    fn deployment(&self) -> Deployment {
        Deployment {
            tp: self.tp,
            ep: self.ep,
            dp: self.dp,
        }
    }

    /// The model as it is computed with, which must fit its ranks.
    fn counted(&self, folder: &std::path::Path) -> Result<Model, StepError> {
        let config = read_config(folder)?;
        let mut model = Model::of(&config).map_err(|problem| failure(&[problem]))?;
        if let WeightFormat::Plain(precision) = self.weight_format() {
            model.activations = precision;
        }
        let fits = self.deployment().fits(&model);
        fits.map_err(|unfit| StepError::new(unfit.message).help(unfit.help))?;
        Ok(model)
    }

    fn weight_format(&self) -> WeightFormat {
        match self.weights {
            WeightsChoice::Config => WeightFormat::Configured,
            WeightsChoice::F32 => WeightFormat::Plain(Precision::F32),
            WeightsChoice::F16 => WeightFormat::Plain(Precision::F16),
            WeightsChoice::Bf16 => WeightFormat::Plain(Precision::Bf16),
            WeightsChoice::Fp8 => WeightFormat::Fp8Blocks,
            WeightsChoice::Int4 => WeightFormat::Int4Groups,
        }
    }

    fn formats(&self, model: &Model) -> Formats {
        Formats {
            weights: self.weight_format(),
            kv_bytes: match self.cache {
                CacheChoice::Activations => model.activations.bytes(),
                CacheChoice::Fp8 => Precision::F8.bytes(),
            },
        }
    }

    /// Peaks without a measured ceiling.
    fn found(&self, model: &Model) -> Result<Found, StepError> {
        let is_fp8 = match self.weights {
            WeightsChoice::Config => model.is_fp8(),
            other => other == WeightsChoice::Fp8,
        };
        let computing = Computing {
            model,
            is_fp8,
            clock_mhz: self.sm_clock.map(|clock| clock.0),
        };
        match &self.peak {
            Some(Nested(peak)) => Ok(Found::stated(peak, &computing)),
            None if self.device == DETECTED => {
                let name = peak::detect().map_err(|why| peak::undetected(&why))?;
                Found::in_table(&name, &computing)
            }
            None => Found::in_table(&self.device, &computing),
        }
    }

    /// The batches of the grid, or those of the times.
    fn works(&self, by_work: &BTreeMap<Work, Vec<f64>>) -> Result<Vec<Work>, StepError> {
        if self.batch_sizes.is_empty() {
            let phases: Vec<Phase> = self.phases.iter().map(|p| p.phase()).collect();
            let of_phases = |work: &&Work| phases.contains(&work.phase);
            let works: Vec<Work> = by_work.keys().filter(of_phases).copied().collect();
            let message = "`times` has no time of these `phases`";
            let none = || StepError::new(message).help("leave `phases` out");
            return (!works.is_empty()).then_some(works).ok_or_else(none);
        }
        let mut works = Vec::new();
        for phase in &self.phases {
            for batch in &self.batch_sizes {
                let of_length = |length: &NonZeroU32| Work {
                    phase: phase.phase(),
                    batch: *batch,
                    length: *length,
                };
                works.extend(self.lengths.iter().map(of_length));
            }
        }
        works.dedup();
        Ok(works)
    }

    fn executed(&self, work: &Work) -> Executed {
        let padded = self.pad_to.iter().filter(|batch| **batch >= work.batch);
        let padded = padded.min().filter(|_| work.phase == Phase::Decode);
        Executed {
            batch: padded.copied().unwrap_or(work.batch),
            pairs: match self.pairs {
                PairsChoice::Causal => Pairs::Causal,
                PairsChoice::All => Pairs::All,
            },
            logits: match self.logits {
                LogitsChoice::Last => Logits::Last,
                LogitsChoice::All => Logits::All,
            },
        }
    }
}

impl PhaseChoice {
    fn phase(self) -> Phase {
        match self {
            PhaseChoice::Prefill => Phase::Prefill,
            PhaseChoice::Decode => Phase::Decode,
        }
    }
}

/// What was counted, and the range of what times say.
fn summary(model: &Model, found: &Found, cells: &[Cell<'_>]) -> String {
    let parameters = |n: u64| format!("{:.3} billion", n as f64 / 1e9);
    let total = model.total_parameters();
    let active = match model.active_parameters() {
        active if active == total => String::new(),
        active => format!(", {} active", parameters(active)),
    };
    let mut line = format!(
        "{} parameters{active}; {} batches on {}",
        parameters(total),
        cells.len(),
        found.name
    );
    for phase in [Phase::Prefill, Phase::Decode] {
        let own = cells.iter().filter(|cell| cell.work.phase == phase);
        let used: Vec<_> = own.filter_map(Cell::utilisation).collect();
        let most = |of: fn(&cost::Utilisation) -> f64| {
            let most = used.iter().map(of).fold(0.0, f64::max);
            charts::format_number(most * 100.0)
        };
        if !used.is_empty() {
            let (mfu, mbu) = (most(|used| used.useful_mfu), most(|used| used.bandwidth));
            let name = phase.name();
            line.push_str(&format!("; {name} MFU up to {mfu} %, MBU up to {mbu} %"));
        }
    }
    line
}
