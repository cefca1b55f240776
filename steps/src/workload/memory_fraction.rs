//! `workload.memory_fraction`: the share of memory that a model's server is given where several models
//! share a device, by the demand that a trace of `workload.multi_model` will put on each.
//!
//! Servers are launched one after the other, and each takes its share of what is free then: so the
//! second share is one of what the first has left.

use crate::files;
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Positive;
use engine::value::Table;
use std::num::NonZeroU32;

/// Shares and sizes as large as a device are given with this many digits: more than servers look at.
const DIGITS: usize = 6;

engine::choices! {
    /// What is divided by demand.
    pub enum Divided {
        /// The whole memory, whatever weights need.
        Memory = "memory",
        /// What weights leave of it: each server gets its weights and its share of the rest.
        Cache = "cache",
        /// Nothing: each model has all that is usable, whenever it is on the device, as where models swap.
        Nothing = "nothing",
    }
}

engine::options! {
    /// Options of `workload.memory_fraction`.
    pub struct WorkloadMemoryFraction {
        /// How many models share the device; the number of `weights` if those are given.
        models: Option<NonZeroU32>, in "models";
        /// The model whose share is asked for, from 0, in the order in which servers are launched.
        model: u32;
        /// How unequal popularity is, as in `workload.multi_model`.
        alpha: Positive = Positive(1.0);
        /// What is divided by demand; `cache` if `weights` are given.
        divided: Option<Divided>;
        /// The share of all memory that servers may take; 0.87 of `cache`, else 0.8, if absent.
        usable: Option<Positive>;
        /// Memory of the device.
        total_memory: Option<Positive>, in "GB";
        /// Memory of each model's weights, in the order of launches.
        weights: Vec<f64> = Vec::new(), in "GB";
    }
}

impl StepType for WorkloadMemoryFraction {
    const NAME: &'static str = "workload.memory_fraction";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Computes the share of free memory that a model's server gets beside others, from the demand for each.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "fraction",
            file: "fraction.txt",
            kind: engine::types::NUMBER,
            doc: "The share, which stands in texts and arguments as a number.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if let Err(Unfit {
            option,
            message,
            help,
        }) = self.division().and_then(|division| division.of(self.model))
        {
            parser.wrong::<()>(&at(option), message, "does not fit", help);
        }
    }
}

/// Why a share cannot be told.
#[derive(Debug)]
struct Unfit {
    option: &'static str,
    message: String,
    help: &'static str,
}

/// How memory is divided.
#[derive(Debug, Clone)]
struct Division {
    alpha: f64,
    usable: f64,
    /// Total memory and weights, where these count.
    sizes: Option<(f64, Vec<f64>)>,
    models: u32,
    /// Whether models are on the device together.
    is_shared: bool,
}

impl WorkloadMemoryFraction {
    fn division(&self) -> Result<Division, Unfit> {
        let unfit = |option, message: &str, help| Unfit {
            option,
            message: message.to_owned(),
            help,
        };
        if self.usable.is_some_and(|usable| usable.0 > 1.0) {
            let message = "expected a share above 0 and up to 1";
            return Err(unfit("usable", message, "0.87 is 87 % of all memory"));
        }
        let weighs = !self.weights.is_empty();
        let default = if weighs {
            Divided::Cache
        } else {
            Divided::Memory
        };
        let n_weights = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
        let models = self
            .models
            .map(NonZeroU32::get)
            .or(weighs.then_some(n_weights));
        let models = models.ok_or_else(|| {
            unfit(
                "models",
                "the number of models is missing",
                "add `models = …`",
            )
        })?;
        let sizes = match self.divided.unwrap_or(default) {
            Divided::Memory if weighs => {
                let message = "weights count only where the rest beside them is divided";
                let help = "write `divided = \"cache\"`, or remove `weights`";
                return Err(unfit("weights", message, help));
            }
            Divided::Memory | Divided::Nothing => None,
            Divided::Cache => {
                let total = self.total_memory.ok_or_else(|| {
                    let message = "without the whole there is no rest to divide";
                    unfit("total_memory", message, "add `total_memory = …`")
                })?;
                if n_weights != models {
                    let message = format!("{models} models have {n_weights} sizes of weights");
                    return Err(unfit("weights", &message, "give one number for each model"));
                }
                Some((total.0, self.weights.clone()))
            }
        };
        Ok(Division {
            alpha: self.alpha.0,
            usable: self
                .usable
                .map_or(if sizes.is_some() { 0.87 } else { 0.8 }, |u| u.0),
            sizes,
            models,
            is_shared: self.divided != Some(Divided::Nothing),
        })
    }
}

impl Division {
    /// The share of all requests that go to a model.
    fn demand(&self, model: u32) -> f64 {
        let below = |i: u32| (f64::from(i) / f64::from(self.models)).powf(self.alpha);
        below(model + 1) - below(model)
    }

    /// Its part of all memory, as a share.
    fn part(&self, model: u32) -> f64 {
        let Some((total, weights)) = &self.sizes else {
            return self.demand(model);
        };
        let rest = total * self.usable - weights.iter().sum::<f64>();
        (weights[model as usize] + rest * self.demand(model)) / total
    }

    /// The share of what those before it have left free.
    fn of(&self, model: u32) -> Result<f64, Unfit> {
        if model >= self.models {
            return Err(Unfit {
                option: "model",
                message: format!("there are {} models, numbered from 0", self.models),
                help: "give the place of a model in the order of launches",
            });
        }
        if !self.is_shared {
            return Ok(self.usable);
        }
        let taken: f64 = (0..model).map(|before| self.part(before)).sum();
        let share = self.part(model) / (1.0 - taken);
        // Where weights count, what is usable is part of the parts already.
        let share = if self.sizes.is_some() {
            share
        } else {
            self.usable * share
        };
        let written = 0.1_f64.powi(i32::try_from(DIGITS).unwrap_or(i32::MAX));
        if self.leaves_room() && (share.is_nan() || share < written) {
            return Err(Unfit {
                option: "alpha",
                message: format!("next to no request goes to model {model}: its share is nothing"),
                help: "take an `alpha` nearer to 1",
            });
        }
        if share <= 1.0 && self.leaves_room() {
            return Ok(share);
        }
        Err(Unfit {
            option: "total_memory",
            message: "the weights leave no memory for caches".to_owned(),
            help: "take a larger device, smaller models or a larger `usable` share, 1 at most",
        })
    }

    fn leaves_room(&self) -> bool {
        self.sizes.as_ref().is_none_or(|(total, weights)| {
            weights.iter().all(|w| *w > 0.0) && total * self.usable > weights.iter().sum()
        })
    }
}

#[async_trait::async_trait]
impl Step for WorkloadMemoryFraction {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let share = self.division().and_then(|division| division.of(self.model));
        let share = share.map_err(|unfit| StepError::new(unfit.message).help(unfit.help))?;
        let text = format!("{share:.DIGITS$}");
        files::write(&context.output("fraction.txt"), format!("{text}\n"))?;
        Ok(StepReport::line(format!("{text} of what is free")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn division(alpha: f64, models: u32, sizes: Option<(f64, Vec<f64>)>) -> Division {
        let usable = if sizes.is_some() { 0.87 } else { 0.8 };
        Division {
            alpha,
            usable,
            sizes,
            models,
            is_shared: true,
        }
    }

    fn shares(division: &Division) -> Vec<f64> {
        let all = (0..division.models).map(|model| division.of(model).unwrap());
        all.collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        let is_close = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(
            is_close && found.len() == expected.len(),
            "{found:?} {expected:?}"
        );
    }

    #[test]
    fn two_models_share_as_the_benchmark_says() {
        // p1 = (1/2)^alpha, p2 = 1 − p1; f = [0.8·p1, 0.8·p2/(1 − p1)].
        let p1 = 0.5_f64.powf(0.1);
        assert_close(&shares(&division(0.1, 2, None)), &[0.8 * p1, 0.8]);
        // kv = total·0.87 − weights; a server gets its weights and kv·p; f2 of what f1 has left.
        let (total, weights) = (37.55, [3.5, 9.5]);
        let kv = total * 0.87 - 13.0;
        let memory = [3.5 + kv * p1, 9.5 + kv * (1.0 - p1)];
        let expected = [memory[0] / total, memory[1] / (total - memory[0])];
        let found = shares(&division(0.1, 2, Some((total, weights.to_vec()))));
        assert_close(&found, &expected);
    }

    #[test]
    fn any_number_of_models_takes_what_is_usable_together() {
        for (n, alpha) in [(1, 1.0), (3, 0.3), (7, 4.0)] {
            let division = division(alpha, n, Some((80.0, vec![2.0; n as usize])));
            let free = shares(&division)
                .iter()
                .fold(1.0, |free, share| free * (1.0 - share));
            assert!((1.0 - free - 0.87).abs() < 1e-12, "{free}");
        }
    }

    #[test]
    fn models_that_swap_have_all_that_is_usable() {
        let alone = Division {
            is_shared: false,
            ..division(0.1, 2, None)
        };
        assert_close(&shares(&alone), &[0.8, 0.8]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let crowded = division(1.0, 2, Some((10.0, vec![5.0, 4.0])));
        assert!(crowded.of(0).unwrap_err().message.contains("no memory"));
        let even = division(1.0, 2, None);
        assert_eq!(even.of(2).unwrap_err().option, "model");
        let steep = division(30.0, 2, None).of(0).unwrap_err();
        assert_eq!(steep.option, "alpha", "{steep:?}");
    }
}
