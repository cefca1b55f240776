//! When requests are sent, as plans say it: options of an open or a closed load, and what of them
//! does not go together.

use engine::options::Parser;
use engine::source::Place;
use engine::step::StepError;
use engine::types::{Nested, Positive};
use engine::value::Table;
use loadgen::{Arrivals, Load, Process, Profile, Rate, ReadyOrder, Rounds, Stage, Think};
use std::num::NonZeroU32;
use std::time::Duration;

engine::choices! {
    /// The arrival process of an open loop.
    pub enum ArrivalChoice {
        /// Independent exponential gaps.
        Poisson = "poisson",
        /// Gaps of a gamma distribution; `burstiness` is its shape.
        Gamma = "gamma",
        /// Gaps evenly spread between nothing and twice their mean.
        Uniform = "uniform",
        /// Equal gaps.
        Constant = "constant",
        /// Every request at the start.
        AllAtOnce = "all_at_once",
        /// The instants that the workload lists, such as those of a trace.
        Listed = "listed",
    }
}

engine::choices! {
    /// How long a user thinks.
    pub enum ThinkChoice {
        /// Always as long.
        Constant = "constant",
        /// Exponentially distributed.
        Exponential = "exponential",
    }
}

engine::choices! {
    /// Which of the conversations whose last answer has ended an arrival takes.
    pub enum ReadyChoice {
        /// Any of them, drawn by the seed.
        Random = "random",
        /// The one that has been ready longest.
        Fifo = "fifo",
        /// The one whose turn is next in the workload, and none while its answer before has not ended: what
        /// is slow holds up everything behind it.
        Strict = "strict",
    }
}

impl From<ReadyChoice> for ReadyOrder {
    fn from(choice: ReadyChoice) -> Self {
        match choice {
            ReadyChoice::Random => Self::Random,
            ReadyChoice::Fifo => Self::Fifo,
            ReadyChoice::Strict => Self::Strict,
        }
    }
}

engine::options! {
    /// A time during which the rate stays as it is or changes evenly.
    pub struct StageOptions {
        /// Mean arrivals per second at its beginning.
        rate: Positive, in "requests/s";
        /// Mean arrivals per second at its end; the same as at its beginning if absent.
        to: Option<Positive>, in "requests/s";
        /// How long it lasts.
        duration: Duration;
    }
}

/// Declares options of a step with those of its load among them, and `load()`, which tells these. The
/// step has a `seed` besides; the types of its load's options have to be in sight.
macro_rules! with_load {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident { $($before:tt)* } + load + { $($after:tt)* }
    ) => {
        engine::options! {
            $(#[doc = $doc])+
            pub struct $name {
                $($before)*
                /// Open loop: mean arrivals per second.
                request_rate: Option<Positive>, in "requests/s";
                /// Open loop: the arrival process; `poisson` if a rate is given.
                arrivals: Option<ArrivalChoice>;
                /// Open loop: the shape of `gamma` arrivals: below 1 they come in bursts, 1 is `poisson`,
                /// above 1 they are more even.
                burstiness: Option<Positive>;
                /// Open loop: rates that follow each other, in place of one `request_rate`; with `to` a
                /// stage is a ramp. The load ends with the last one.
                stages: Vec<Nested<StageOptions>> = Vec::new();
                /// Open loop: plays `listed` arrivals so many times as fast.
                speed: Option<Positive>;
                /// Open loop: holds arrivals back while so many are unanswered; the queue is recorded.
                max_in_flight: Option<NonZeroU32>, in "requests";
                /// Open loop: each arrival takes the next turn of a conversation whose last answer has ended, in
                /// this order; an arrival that finds none passes unused. Without it arrivals take requests in
                /// the workload's order.
                ready_queue: Option<ReadyChoice>;
                /// Open loop, with a ready queue: conversations go on in rounds; none begins before all answers of
                /// the one before it have ended.
                round_barrier: bool = false;
                /// Closed loop: users, each of whom sends when the last answer has ended.
                concurrency: Option<NonZeroU32>, in "users";
                /// Closed loop: how long a user thinks between an answer and the next request, on average.
                think_time: Option<Duration>;
                /// Closed loop: how think times vary.
                think: ThinkChoice = ThinkChoice::Constant;
                /// Closed loop: a user takes whole conversations of the workload, turn by turn.
                sessions: bool = false;
                /// Stops after so many requests; the workload's length if neither this nor `duration` is given.
                requests: Option<NonZeroU64>, in "requests";
                /// Stops sending after so much time.
                duration: Option<Duration>;
                /// What happens when more requests are needed than the workload has.
                reuse: ReuseChoice = ReuseChoice::Once;
                $($after)*
            }
        }

        impl $name {
            /// What it says of the load.
            fn load(&self) -> LoadOptions<'_> {
                LoadOptions {
                    request_rate: self.request_rate,
                    arrivals: self.arrivals,
                    burstiness: self.burstiness,
                    stages: &self.stages,
                    speed: self.speed,
                    max_in_flight: self.max_in_flight,
                    ready_queue: self.ready_queue,
                    round_barrier: self.round_barrier,
                    concurrency: self.concurrency,
                    think_time: self.think_time,
                    think: self.think,
                    sessions: self.sessions,
                    has_end: self.requests.is_some() || self.duration.is_some(),
                    seed: self.seed,
                }
            }
        }
    };
}

pub(super) use with_load;

/// What a plan says of a load.
pub(super) struct LoadOptions<'a> {
    pub(super) request_rate: Option<Positive>,
    pub(super) arrivals: Option<ArrivalChoice>,
    pub(super) burstiness: Option<Positive>,
    pub(super) stages: &'a [Nested<StageOptions>],
    pub(super) speed: Option<Positive>,
    pub(super) max_in_flight: Option<NonZeroU32>,
    pub(super) ready_queue: Option<ReadyChoice>,
    pub(super) round_barrier: bool,
    pub(super) concurrency: Option<NonZeroU32>,
    pub(super) think_time: Option<Duration>,
    pub(super) think: ThinkChoice,
    pub(super) sessions: bool,
    pub(super) has_end: bool,
    pub(super) seed: u64,
}

/// What does not go together.
struct Contradiction {
    /// Whether it is so.
    wrong: bool,
    /// The option that it is about; none if something is missing.
    option: &'static str,
    message: &'static str,
    label: &'static str,
    help: &'static str,
}

impl LoadOptions<'_> {
    /// A plan that says nothing of its load but what random numbers start from.
    pub(super) fn none(seed: u64) -> Self {
        Self {
            request_rate: None,
            arrivals: None,
            burstiness: None,
            stages: &[],
            speed: None,
            max_in_flight: None,
            ready_queue: None,
            round_barrier: false,
            concurrency: None,
            think_time: None,
            think: ThinkChoice::Constant,
            sessions: false,
            has_end: true,
            seed,
        }
    }

    /// Reports what does not go together.
    pub(super) fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        let all = self.of_both().into_iter().chain(self.of_open());
        let all = all.chain(self.of_closed()).chain(self.of_conversations());
        for found in all.filter(|c| c.wrong) {
            parser.wrong::<()>(&at(found.option), found.message, found.label, found.help);
        }
    }

    fn is_open(&self) -> bool {
        self.request_rate.is_some() || self.arrivals.is_some() || !self.stages.is_empty()
    }

    /// Whether the arrivals follow from something else than a rate.
    fn is_rateless(&self) -> bool {
        matches!(
            self.arrivals,
            Some(ArrivalChoice::AllAtOnce | ArrivalChoice::Listed)
        )
    }

    fn of_both(&self) -> [Contradiction; 2] {
        let closed = self.concurrency.is_some();
        [
            Contradiction {
                wrong: closed && self.is_open(),
                option: "concurrency",
                message: "a load is open or closed, not both",
                label: "closed loop, beside an open one",
                help: "give `request_rate` or `concurrency`",
            },
            Contradiction {
                wrong: !closed && !self.is_open(),
                option: "",
                message: "the load is not stated",
                label: "no load",
                help: "add `request_rate = …` for an open loop or `concurrency = …` for a closed one",
            },
        ]
    }

    fn of_open(&self) -> [Contradiction; 7] {
        let rated = self.request_rate.is_some();
        let staged = !self.stages.is_empty();
        let is_gamma = self.arrivals == Some(ArrivalChoice::Gamma);
        let is_listed = self.arrivals == Some(ArrivalChoice::Listed);
        [
            Contradiction {
                wrong: self.is_rateless() && rated,
                option: "request_rate",
                message: "these arrivals have no rate",
                label: "not used",
                help: "remove `request_rate`",
            },
            Contradiction {
                wrong: self.is_rateless() && staged,
                option: "stages",
                message: "these arrivals have no rate that could change",
                label: "not used",
                help: "remove `stages`, or choose another process",
            },
            Contradiction {
                wrong: self.is_open() && !self.is_rateless() && !rated && !staged,
                option: "arrivals",
                message: "this arrival process needs a rate",
                label: "needs a rate",
                help: "add `request_rate = …`",
            },
            Contradiction {
                wrong: staged && rated,
                option: "request_rate",
                message: "each stage has a rate of its own",
                label: "not used",
                help: "remove `request_rate` or `stages`",
            },
            Contradiction {
                wrong: staged && self.has_end,
                option: "stages",
                message: "the stages say how long the load lasts",
                label: "a second end",
                help: "remove `requests` and `duration`",
            },
            Contradiction {
                wrong: is_gamma != self.burstiness.is_some(),
                option: if is_gamma { "arrivals" } else { "burstiness" },
                message: "`gamma` arrivals have a burstiness, and no others",
                label: "one without the other",
                help: "write `arrivals = \"gamma\", burstiness = …`: below 1 is burstier than Poisson",
            },
            Contradiction {
                wrong: self.speed.is_some() && !is_listed,
                option: "speed",
                message: "only listed arrivals can be played faster",
                label: "not used",
                help: "write `arrivals = \"listed\"`, or remove `speed`",
            },
        ]
    }

    fn of_closed(&self) -> [Contradiction; 2] {
        let closed = self.concurrency.is_some();
        [
            Contradiction {
                wrong: closed && self.max_in_flight.is_some(),
                option: "max_in_flight",
                message: "a closed loop needs no cap: `concurrency` is one",
                label: "not used",
                help: "remove `max_in_flight`",
            },
            Contradiction {
                wrong: !closed && self.think_time.is_some(),
                option: "think_time",
                message: "only users of a closed loop think",
                label: "not used",
                help: "remove `think_time`, or give `concurrency`",
            },
        ]
    }

    fn of_conversations(&self) -> [Contradiction; 4] {
        let closed = self.concurrency.is_some();
        [
            Contradiction {
                wrong: !closed && self.sessions,
                option: "sessions",
                message: "only users of a closed loop hold conversations",
                label: "not used",
                help: "give `concurrency`, or write `ready_queue = \"random\"` in its place",
            },
            Contradiction {
                wrong: closed && self.ready_queue.is_some(),
                option: "ready_queue",
                message: "users of a closed loop hold their own conversations",
                label: "not used",
                help: "write `sessions = true` in its place, or give `request_rate`",
            },
            Contradiction {
                wrong: self.ready_queue.is_some() && self.is_rateless(),
                option: "ready_queue",
                message: "only arrivals with a rate can find conversations ready",
                label: "not used",
                help: "give `request_rate`; users of a closed loop with `sessions = true` follow each other at once",
            },
            Contradiction {
                wrong: self.round_barrier && self.ready_queue.is_none(),
                option: "round_barrier",
                message: "only a ready queue has rounds",
                label: "not used",
                help: "write `ready_queue = \"fifo\"` beside it, or remove it",
            },
        ]
    }

    /// The load of one sample.
    pub(super) fn load(&self, sample: u32) -> Result<Load, StepError> {
        let seed = self.seed.wrapping_add(sample.into());
        if let Some(concurrency) = self.concurrency {
            let think = self.think_time.map(|mean| Think {
                mean,
                seed: (self.think == ThinkChoice::Exponential).then_some(seed),
            });
            return Ok(Load::Closed {
                concurrency,
                think,
                sessions: self.sessions,
            });
        }
        Ok(Load::Open {
            arrivals: self.arrivals()?,
            seed,
            max_in_flight: self.max_in_flight,
            ready_queue: self.ready_queue.map(Into::into),
            rounds: match self.round_barrier {
                true => Rounds::Barrier,
                false => Rounds::Overlap,
            },
        })
    }

    fn arrivals(&self) -> Result<Arrivals, StepError> {
        let process = match self.arrivals.unwrap_or(ArrivalChoice::Poisson) {
            ArrivalChoice::AllAtOnce => return Ok(Arrivals::AllAtOnce),
            ArrivalChoice::Listed => {
                let speed = rate(self.speed.unwrap_or(Positive(1.0)))?;
                return Ok(Arrivals::Listed { speed });
            }
            ArrivalChoice::Poisson => Process::Poisson,
            ArrivalChoice::Uniform => Process::Uniform,
            ArrivalChoice::Constant => Process::Constant,
            ArrivalChoice::Gamma => Process::Gamma {
                burstiness: rate(self.burstiness.unwrap_or(Positive(1.0)))?,
            },
        };
        if self.stages.is_empty() {
            let stated = self.request_rate;
            let stated = stated.ok_or_else(|| StepError::new("the load has no rate"))?;
            return Ok(Arrivals::at(process, rate(stated)?));
        }
        let stage = |Nested(stage): &Nested<StageOptions>| {
            Ok(Stage {
                from: rate(stage.rate)?,
                to: rate(stage.to.unwrap_or(stage.rate))?,
                lasts: Some(stage.duration),
            })
        };
        let stages: Result<Vec<Stage>, StepError> = self.stages.iter().map(stage).collect();
        Ok(Arrivals::Paced {
            process,
            rate: Profile::stages(stages?),
        })
    }
}

fn rate(rate: Positive) -> Result<Rate, StepError> {
    Rate::per_second(rate.0).map_err(|e| StepError::new(e.to_string()))
}
