//! `workload.multi_model`: a trace of requests to several models of unequal popularity, draw for draw
//! as the collocation benchmark for SGLang made it with NumPy.
//!
//! Popularity follows a power distribution: with `n` models the first `i` of them get the share
//! (i/n)^alpha of all requests. Arrivals are a gamma process. Prompts are one word repeated.

use super::numpy::LegacyRandom;
use super::{OUTPUT, check_tokens, ideal_text, write};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Nested, Positive};
use engine::value::Table;
use loadgen::{Prompt, Request, Slo};
use std::num::NonZeroU32;
use std::time::Duration;

/// What prompts are made of; each repetition counts as a token, as the benchmark counts.
const WORD: &str = "Hello ";

engine::options! {
    /// A model of a trace.
    pub struct TraceModel {
        /// The name that requests ask for.
        name: String;
        /// Objective of its requests: longest time to first token; the trace's own if absent.
        slo_ttft: Option<Duration>;
        /// Objective: longest time per output token.
        slo_tpot: Option<Duration>;
        /// Objective: longest end-to-end latency.
        slo_e2el: Option<Duration>;
    }
}

engine::options! {
    /// Options of `workload.multi_model`.
    pub struct WorkloadMultiModel {
        /// The models, the least popular first where `alpha` is above 1.
        models: Vec<Nested<TraceModel>>;
        /// Mean arrivals per second, of all models together.
        request_rate: Positive = Positive(4.0), in "requests/s";
        /// How long requests arrive, on average: there are `request_rate` × `duration` of them.
        duration: Duration = Duration::from_secs(60);
        /// Words of a prompt: from the first number up to and without the second.
        input_range: Vec<u32> = vec![8, 512], in "tokens";
        /// Answer lengths likewise.
        output_range: Vec<u32> = vec![8, 512], in "tokens";
        /// How unequal popularity is: 1 is even, below 1 favours the first models, above 1 the last.
        alpha: Positive = Positive(1.0);
        /// Coefficient of variation of the gaps between arrivals: 1 is Poisson.
        cv: Positive = Positive(1.0);
        /// Objective of every request whose model has none: longest time to first token.
        slo_ttft: Option<Duration>;
        /// Objective: longest time per output token.
        slo_tpot: Option<Duration>;
        /// Objective: longest end-to-end latency.
        slo_e2el: Option<Duration>;
        /// Models are on and off in turn, in cycles of this length; always on if absent. Requests to a
        /// model that is off are left out.
        on_off_cycle: Option<Duration>;
        /// The part of a cycle, at its end, in which a model is off, as a share.
        off_ratio: f64 = 0.5;
        /// How many of the models have cycles, as a share, from the first on.
        on_off_models: f64 = 1.0;
        /// The model that gets all requests, whatever was drawn, so that a trace can be played to one model
        /// alone; none if empty.
        all_to: String = String::new();
        /// Starts the random numbers, as `np.random.seed` does.
        seed: u32 = 42;
    }
}

impl StepType for WorkloadMultiModel {
    const NAME: &'static str = "workload.multi_model";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Makes a trace of requests to models of unequal popularity, with NumPy's own draws.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.models.is_empty() {
            let help = "write `models = [{ name = \"…\" }, …]`";
            parser.wrong::<()>(&at("models"), "a trace needs a model", "no model", help);
        }
        let is_known = |Nested(model): &Nested<TraceModel>| model.name == self.all_to;
        if !self.all_to.is_empty() && !self.models.iter().any(is_known) {
            let message = format!("no model is called `{}`", self.all_to);
            let help = "name one of `models`, or remove it";
            parser.wrong::<()>(&at("all_to"), message, "unknown model", help);
        }
        for (option, range) in [
            ("input_range", &self.input_range),
            ("output_range", &self.output_range),
        ] {
            if !matches!(range[..], [least, end] if 0 < least && least < end) {
                let message = format!("expected two ascending numbers above 0, found {range:?}");
                let help = "the second number itself is never drawn: `[8, 512]`";
                parser.wrong::<()>(&at(option), message, "no range", help);
            }
        }
        for (option, share) in [
            ("off_ratio", self.off_ratio),
            ("on_off_models", self.on_off_models),
        ] {
            if !(0.0..=1.0).contains(&share) {
                let message = format!("expected a share from 0 to 1, found {share}");
                parser.wrong::<()>(&at(option), message, "out of range", "0.5 is one half");
            }
        }
        if self.on_off_cycle.is_some_and(|cycle| cycle.is_zero()) {
            let help = "remove it: then models are always on";
            parser.wrong::<()>(&at("on_off_cycle"), "a cycle lasts some time", "zero", help);
        }
        if self.request_rate.0 * self.duration.as_secs_f64() < 1.0 {
            let message = "no request arrives in so short a time";
            let help = "make it longer, or raise `request_rate`";
            parser.wrong::<()>(&at("duration"), message, "too short", help);
        }
        let longest = self.input_range.get(1).copied().unwrap_or(0);
        let tokens = (self.request_rate.0 * self.duration.as_secs_f64()) * f64::from(longest);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is only compared"
        )]
        check_tokens(tokens as u64, "duration", (table, place), parser);
    }
}

/// What of a trace is drawn.
struct Draws {
    rate: f64,
    n: usize,
    input: (u32, u32),
    output: (u32, u32),
    models: usize,
    alpha: f64,
    cv: f64,
    /// Who gets every request, whatever is drawn.
    all_to: Option<usize>,
    seed: u32,
}

/// One request as it was drawn.
#[derive(Debug, PartialEq)]
struct Drawn {
    model: usize,
    /// Seconds after the start.
    arrival: f64,
    input: u32,
    output: u32,
}

impl Draws {
    /// The requests: first every model, then every gap, then every length, as NumPy's arrays are drawn.
    fn all(&self) -> Vec<Drawn> {
        let mut random = LegacyRandom::seeded(self.seed);
        let models: Vec<usize> = (0..self.n)
            .map(|_| share_of(random.power(self.alpha), self.models))
            // A draw may round to 1 itself, which is behind the last model.
            .map(|model| model.min(self.models.saturating_sub(1)))
            .collect();
        let shape = 1.0 / (self.cv * self.cv);
        let scale = self.cv * self.cv / self.rate;
        let mut arrival = 0.0;
        let mut arrive = || {
            arrival += random.gamma(shape, scale);
            arrival
        };
        let arrivals: Vec<f64> = (0..self.n).map(|_| arrive()).collect();
        let mut lengths = |(least, end)| -> Vec<u32> {
            (0..self.n).map(|_| random.integer(least, end)).collect()
        };
        let (inputs, outputs) = (lengths(self.input), lengths(self.output));
        let all = models
            .into_iter()
            .map(|model| self.all_to.unwrap_or(model))
            .zip(arrivals)
            .zip(inputs.into_iter().zip(outputs));
        all.map(|((model, arrival), (input, output))| Drawn {
            model,
            arrival,
            input,
            output,
        })
        .collect()
    }
}

/// A share of so many models, rounded down.
fn share_of(share: f64, models: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "not below zero, and not above a number of models"
    )]
    let part = (share * models as f64).floor() as usize;
    part
}

impl WorkloadMultiModel {
    fn draws(&self) -> Draws {
        let range = |range: &[u32]| match range {
            [least, end] => (*least, *end),
            _ => (1, 2),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by what may be made"
        )]
        let n = (self.request_rate.0 * self.duration.as_secs_f64()) as usize;
        Draws {
            rate: self.request_rate.0,
            n,
            input: range(&self.input_range),
            output: range(&self.output_range),
            models: self.models.len(),
            alpha: self.alpha.0,
            cv: self.cv.0,
            all_to: self
                .models
                .iter()
                .position(|Nested(m)| m.name == self.all_to),
            seed: self.seed,
        }
    }

    fn cycles(&self) -> Option<Cycles> {
        Some(Cycles {
            length: self.on_off_cycle?.as_secs_f64(),
            off: self.off_ratio,
            models: share_of(self.on_off_models, self.models.len()),
        })
    }

    fn slo(&self, model: &TraceModel) -> Option<Slo> {
        let slo = Slo {
            ttft: model.slo_ttft.or(self.slo_ttft),
            tpot: model.slo_tpot.or(self.slo_tpot),
            e2el: model.slo_e2el.or(self.slo_e2el),
        };
        (slo != Slo::default()).then_some(slo)
    }

    fn requests(&self) -> Vec<Request> {
        let cycles = self.cycles();
        let is_on = |drawn: &Drawn| {
            cycles
                .as_ref()
                .is_none_or(|c| c.is_on(drawn.model, drawn.arrival))
        };
        // Prompts of one model begin alike: the longest so far holds all of a shorter one.
        let mut longest = vec![0; self.models.len()];
        let drawn = self.draws().all().into_iter().enumerate();
        let on = drawn.filter(|(_, drawn)| is_on(drawn));
        on.map(|(i, drawn)| {
            let Nested(model) = &self.models[drawn.model];
            let longest: &mut u32 = &mut longest[drawn.model];
            let cacheable = drawn.input.min(*longest);
            *longest = drawn.input.max(*longest);
            let prompt = Prompt::Text(WORD.repeat(drawn.input as usize));
            let output = NonZeroU32::new(drawn.output).unwrap_or(NonZeroU32::MIN);
            Request {
                arrival: Some(Duration::try_from_secs_f64(drawn.arrival).unwrap_or(Duration::MAX)),
                model: Some(model.name.clone()),
                slo: self.slo(model),
                cacheable_tokens: Some(cacheable),
                ..Request::new(format!("trace-{i}"), prompt, drawn.input, output)
            }
        })
        .collect()
    }
}

/// When models are on.
struct Cycles {
    length: f64,
    /// The share of a cycle, at its end, in which a model is off.
    off: f64,
    /// How many models have cycles.
    models: usize,
}

impl Cycles {
    /// Whether a model is on so many seconds after the start. Its cycle is ahead of the first model's by
    /// its number in half as many steps as there are models with cycles, two at least.
    fn is_on(&self, model: usize, at: f64) -> bool {
        if model >= self.models {
            return true;
        }
        let steps = (self.models / 2).max(2);
        #[expect(clippy::cast_precision_loss, reason = "no trace has 2^53 models")]
        let shift = model as f64 / steps as f64 * self.length;
        let phase = (at + shift).rem_euclid(self.length) / self.length;
        phase < 1.0 - self.off
    }
}

#[async_trait::async_trait]
impl Step for WorkloadMultiModel {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let requests = self.requests();
        if requests.is_empty() {
            let error = StepError::new("no request of this trace finds its model on");
            return Err(error.help("make it longer, or the models on for longer"));
        }
        let workload = write(context, requests)?;
        let last = workload.requests().last().and_then(|r| r.arrival);
        Ok(StepReport::line(format!(
            "{} requests to {} models within {:.1} s{}",
            workload.requests().len(),
            self.models.len(),
            last.unwrap_or_default().as_secs_f64(),
            ideal_text(&workload)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, slo_e2el: Option<Duration>) -> Nested<TraceModel> {
        Nested(TraceModel {
            name: name.to_owned(),
            slo_ttft: None,
            slo_tpot: None,
            slo_e2el,
        })
    }

    fn options(models: Vec<Nested<TraceModel>>) -> WorkloadMultiModel {
        WorkloadMultiModel {
            models,
            request_rate: Positive(4.0),
            duration: Duration::from_secs(60),
            input_range: vec![8, 512],
            output_range: vec![8, 512],
            alpha: Positive(1.0),
            cv: Positive(1.0),
            slo_ttft: None,
            slo_tpot: None,
            slo_e2el: None,
            on_off_cycle: None,
            off_ratio: 0.5,
            on_off_models: 1.0,
            all_to: String::new(),
            seed: 42,
        }
    }

    /// A trace that NumPy 2.4.6 made: `seed`, then `power(alpha, n)`, `gamma(1/cv², cv²/rate, n)`
    /// summed up, `randint(input)` and `randint(output)`.
    struct Numpy {
        draws: Draws,
        /// Of the first six.
        models: [usize; 6],
        /// Of the first four, and of the last.
        arrivals: [f64; 5],
        inputs: [u32; 5],
        outputs: [u32; 5],
        /// Requests of each model.
        counts: &'static [usize],
        /// Sums over all requests.
        sums: (f64, u32, u32),
    }

    const NUMPY: [Numpy; 3] = [
        Numpy {
            draws: Draws {
                rate: 4.0,
                n: 240,
                input: (8, 512),
                output: (8, 512),
                models: 2,
                alpha: 1.0,
                cv: 1.0,
                all_to: None,
                seed: 42,
            },
            models: [0, 1, 1, 1, 0, 0],
            arrivals: [
                0.7052707868183258,
                1.4746613900153316,
                2.090538861173792,
                2.2061107102981334,
                63.93093738872415,
            ],
            inputs: [240, 312, 21, 150, 99],
            outputs: [177, 324, 29, 412, 8],
            counts: &[121, 119],
            sums: (7672.235356453679, 63_223, 56_939),
        },
        Numpy {
            draws: Draws {
                rate: 2.0,
                n: 600,
                input: (8, 1024),
                output: (8, 512),
                models: 2,
                alpha: 0.1,
                cv: 4.0,
                all_to: None,
                seed: 42,
            },
            models: [0, 1, 0, 0, 0, 0],
            arrivals: [
                3.5205195438375365e-12,
                1.0951974179369114e-11,
                1.0968070010979318e-11,
                9.730831247353401e-11,
                322.7174732990984,
            ],
            inputs: [530, 529, 790, 280, 272],
            outputs: [379, 493, 441, 141, 361],
            counts: &[552, 48],
            sums: (77766.53157680636, 319_960, 162_099),
        },
        Numpy {
            draws: Draws {
                rate: 8.0,
                n: 240,
                input: (8, 512),
                output: (8, 512),
                models: 3,
                alpha: 4.0,
                cv: 0.5,
                all_to: None,
                seed: 7,
            },
            models: [1, 2, 2, 2, 2, 2],
            arrivals: [
                0.09981054990548202,
                0.2968699233922319,
                0.4286068143080437,
                0.5039573989734465,
                28.93469093855965,
            ],
            inputs: [49, 228, 105, 393, 156],
            outputs: [199, 167, 440, 372, 274],
            counts: &[4, 43, 193],
            sums: (3430.3838967488427, 60_153, 61_401),
        },
    ];

    fn assert_same(drawn: f64, numpy: f64) {
        assert!((drawn - numpy).abs() <= 1e-12 * numpy, "{drawn} {numpy}");
    }

    #[test]
    fn whole_traces_are_numpys() {
        for numpy in NUMPY {
            let all = numpy.draws.all();
            let models: Vec<usize> = all.iter().map(|d| d.model).collect();
            assert_eq!(models[..6], numpy.models);
            let count = |model: usize| models.iter().filter(|m| **m == model).count();
            let counts: Vec<usize> = (0..numpy.counts.len()).map(count).collect();
            assert_eq!(counts, numpy.counts);
            let seen = [&all[0], &all[1], &all[2], &all[3], &all[all.len() - 1]];
            for (drawn, expected) in seen.iter().zip(numpy.arrivals) {
                assert_same(drawn.arrival, expected);
            }
            assert_eq!(seen.map(|d| d.input), numpy.inputs);
            assert_eq!(seen.map(|d| d.output), numpy.outputs);
            let (arrivals, inputs, outputs) = numpy.sums;
            assert_same(all.iter().map(|d| d.arrival).sum(), arrivals);
            assert_eq!(all.iter().map(|d| d.input).sum::<u32>(), inputs);
            assert_eq!(all.iter().map(|d| d.output).sum::<u32>(), outputs);
        }
    }

    #[test]
    fn requests_name_their_model_its_objectives_and_their_instants() {
        let own = Duration::from_secs(3);
        let mut options = options(vec![named("a", None), named("b", Some(own))]);
        options.slo_e2el = Some(Duration::from_secs(100));
        let requests = options.requests();
        assert_eq!(requests.len(), 240);
        let first = &requests[0];
        assert_eq!(first.prompt, Prompt::Text("Hello ".repeat(240)));
        assert_eq!(
            (first.model.as_deref(), first.input_tokens),
            (Some("a"), 240)
        );
        assert_eq!(first.slo.unwrap().e2el, Some(Duration::from_secs(100)));
        assert_eq!(requests[1].slo.unwrap().e2el, Some(own));
        assert!(requests.is_sorted_by_key(|r| r.arrival));
        // The first of each model finds nothing; the third request is shorter than the second.
        let cacheable: Vec<_> = requests[..3].iter().map(|r| r.cacheable_tokens).collect();
        assert_eq!(cacheable, [Some(0), Some(0), Some(21)]);
    }

    #[test]
    fn models_are_on_and_off_in_turn() {
        let cycles = Cycles {
            length: 10.0,
            off: 0.4,
            models: 4,
        };
        // On for six seconds of ten; the second model is half a cycle ahead.
        for (model, at, is_on) in [
            (0, 0.0, true),
            (0, 5.9, true),
            (0, 6.1, false),
            (0, 10.0, true),
            (1, 0.0, true),
            (1, 1.1, false),
            (1, 5.0, true),
            (2, 6.1, false),
            (4, 6.1, true),
        ] {
            assert_eq!(cycles.is_on(model, at), is_on, "{model} {at}");
        }
        let mut options = options(vec![named("a", None), named("b", None)]);
        options.on_off_cycle = Some(Duration::from_secs(10));
        options.on_off_models = 0.5;
        let requests = options.requests();
        let of = |name: &str| {
            requests
                .iter()
                .filter(|r| r.model.as_deref() == Some(name))
                .count()
        };
        assert_eq!(of("b"), 119);
        let seconds = |r: &Request| r.arrival.unwrap().as_secs_f64();
        let first = requests.iter().filter(|r| r.model.as_deref() == Some("a"));
        assert!(first.clone().count() > 20 && first.clone().all(|r| seconds(r) % 10.0 < 5.0));
        // Who is left keeps its number and its instant.
        let all = options_of_all(&options);
        assert!(requests.iter().all(|r| all.contains(r)));
    }

    /// The requests of the same trace without cycles, whatever a cache could hold of them.
    fn options_of_all(options: &WorkloadMultiModel) -> Vec<Request> {
        let mut always = options.clone();
        always.on_off_cycle = None;
        let cacheable: std::collections::BTreeMap<String, Option<u32>> = options
            .requests()
            .into_iter()
            .map(|r| (r.id, r.cacheable_tokens))
            .collect();
        let mut all = always.requests();
        for request in &mut all {
            request.cacheable_tokens = cacheable.get(&request.id).copied().flatten();
        }
        all
    }
}
