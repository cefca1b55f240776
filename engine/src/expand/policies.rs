//! What a plan says of steps and services besides their options: read into policies, and demands
//! checked against what there is.

use super::supply::MACHINE;
use crate::library::{ServiceEntry, StepEntry};
use crate::options::{OptionType, Options, Parser};
use crate::plan::NodeDecl;
use crate::policy::{
    Demand, LIVENESS_EVERY, LIVENESS_FAILURES, LIVENESS_TIMEOUT, Liveness, Machine, OnFailure,
    Policy, REPLACEMENTS, RESTARTS, RUN_TIMEOUT, Readiness, Retry, Sampling, ServicePolicy, Supply,
};
use crate::problem::{Problem, did_you_mean};
use crate::step::{FailureClass, StepKind, Timeout};
use crate::types::Pattern;
use crate::value::{Kind, Table, Value};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

crate::options! {
    /// The `samples` of a measurement.
    pub struct SamplesOptions {
        /// Samples wanted.
        target: NonZeroU32 = NonZeroU32::MIN;
        /// Older samples do not count.
        max_age: Option<Duration>;
        /// Suspect samples that a run replaces before it is content with them.
        replacements: u32 = REPLACEMENTS;
    }
}

crate::options! {
    /// The `timeout` of a step.
    pub struct TimeoutOptions {
        /// The longest that it may take.
        run: Duration = RUN_TIMEOUT;
        /// The longest that it may say nothing.
        idle: Option<Duration>;
    }
}

crate::options! {
    /// The `retry` of a step.
    pub struct RetryOptions {
        /// Further tries at most.
        max: u32;
        /// Failures after which it is tried again.
        on: Vec<RetryOn> = vec![RetryOn::Infrastructure];
        /// The pause before the first further try; it doubles with every one.
        backoff: Duration = Retry::default().backoff;
    }
}

crate::options! {
    /// The `ready` of a service.
    pub struct ReadyOptions {
        /// The longest that a launch may take; the kind of service says if absent.
        timeout: Option<Duration>;
        /// A path that must answer with status 200, besides the one that its kind asks.
        http: Option<String>;
        /// Whether its port must accept connections.
        tcp: bool = false;
        /// What its log must have said: text, or a regular expression between slashes.
        log: Option<Pattern>;
        /// A program and its arguments that must return status 0. `{url}` and `{port}` stand for
        /// where the service answers.
        command: Vec<String> = Vec::new();
    }
}

crate::options! {
    /// The `liveness` of a service.
    pub struct LivenessOptions {
        /// Whether a service that hangs is taken for dead, ended and launched again.
        enabled: bool = true;
        /// The path that must answer with status 200; the one that its kind asks if absent.
        http: Option<String>;
        /// The pause between two questions.
        every: Duration = LIVENESS_EVERY;
        /// The longest that an answer may take.
        timeout: Duration = LIVENESS_TIMEOUT;
        /// How many questions in a row must fail.
        failures: NonZeroU32 = LIVENESS_FAILURES;
    }
}

crate::choices! {
    /// A failure after which a step is tried again.
    pub enum RetryOn {
        /// The machine's, the network's or a service's.
        Infrastructure = "infrastructure",
        /// It took too long.
        Timeout = "timeout",
        /// The step's own.
        Step = "step",
    }
}

crate::choices! {
    /// What a failure means for the others.
    pub enum OnFailureOption {
        /// Nothing new is started.
        Stop = "stop",
        /// What waits for it is skipped.
        SkipDependents = "skip_dependents",
        /// Only what reads its output is skipped.
        Continue = "continue",
    }
}

crate::choices! {
    /// How a node shares the machine.
    pub enum MachineOption {
        /// Others may run beside it.
        Shared = "shared",
        /// It has the machine to itself.
        Exclusive = "exclusive",
    }
}

/// Reads the policies of one declaration.
pub(super) struct PolicyReader<'a, 'p> {
    pub(super) decl: &'a NodeDecl,
    /// Its settings, references resolved.
    pub(super) settings: &'a Table,
    pub(super) supply: &'a Supply,
    pub(super) parser: &'a mut Parser<'p>,
}

impl PolicyReader<'_, '_> {
    /// Reads what is said of a step.
    pub(super) fn step(&mut self, entry: &StepEntry) -> Option<Arc<Policy>> {
        if let Some(value) = self.settings.get("samples")
            && entry.kind != StepKind::Measure
        {
            let message = format!(
                "`{}` is not a measurement, so it has no samples",
                entry.name
            );
            let problem = Problem::at(&value.place, message, "not possible here");
            self.parser.problems.push(problem.help("remove `samples`"));
        }
        let samples = self.table::<SamplesOptions>("samples");
        let timeout = self.table::<TimeoutOptions>("timeout");
        let retry = self.retry();
        let on_failure = self.on_failure();
        let demand = self.demand(machine_of(entry.kind));
        let (samples, timeout) = (samples?, timeout?);
        Some(Arc::new(Policy {
            samples: Sampling {
                target: samples.target,
                max_age: samples.max_age,
                replacements: samples.replacements,
            },
            timeout: Timeout {
                run: timeout.run,
                idle: timeout.idle,
            },
            retry: retry?,
            on_failure: on_failure?,
            demand: demand?,
        }))
    }

    /// Reads what is said of a service.
    pub(super) fn service(&mut self, entry: &ServiceEntry) -> Option<Arc<ServicePolicy>> {
        for name in ["ready", "liveness"] {
            self.check_path(name);
        }
        let ready = self.table::<ReadyOptions>("ready");
        let liveness = self.table::<LivenessOptions>("liveness");
        let restarts = match self.settings.get("restarts") {
            Some(value) => u32::parse(value, self.parser),
            None => Some(RESTARTS),
        };
        // It is there to be measured.
        let demand = self.demand(Machine::Exclusive);
        Some(Arc::new(ServicePolicy {
            ready: ready?.readiness(entry.ready_timeout),
            liveness: liveness?.liveness(),
            restarts: restarts?,
            demand: demand?,
        }))
    }

    /// Finds an `http` that is no path.
    fn check_path(&mut self, name: &str) {
        let Some(Kind::Table(table)) = self.settings.get(name).map(|v| &v.kind) else {
            return;
        };
        if let Some(value) = table.get("http")
            && let Kind::Text(path) = &value.kind
            && !path.starts_with('/')
        {
            let message = format!("`{path}` is no path of a server");
            let help = "write the path alone, such as `/health`";
            self.parser
                .wrong::<()>(&value.place, message, "does not begin with `/`", help);
        }
    }

    /// Reads a table of settings, or its defaults where there is none.
    fn table<T: Options>(&mut self, name: &str) -> Option<T> {
        let (table, place) = match self.settings.get(name) {
            Some(Value {
                kind: Kind::Table(table),
                place,
            }) => (table, place),
            Some(other) => return self.parser.mismatch(other, "a table"),
            None => (&Table::default(), &self.decl.key.place),
        };
        let owner = format!("`{name}` of `{}`", self.decl.key.name);
        let mut parser = Parser::new(owner, self.parser.linker(), self.parser.problems);
        T::parse(table, place, &mut parser)
    }

    fn retry(&mut self) -> Option<Retry> {
        if self.settings.get("retry").is_none() {
            return Some(Retry::default());
        }
        let given = self.table::<RetryOptions>("retry")?;
        let class = |on: &RetryOn| match on {
            RetryOn::Infrastructure => FailureClass::Infrastructure,
            RetryOn::Timeout => FailureClass::Timeout,
            RetryOn::Step => FailureClass::Step,
        };
        Some(Retry {
            max: given.max,
            on: given.on.iter().map(class).collect(),
            backoff: given.backoff,
        })
    }

    fn on_failure(&mut self) -> Option<OnFailure> {
        let Some(value) = self.settings.get("on_failure") else {
            return Some(OnFailure::default());
        };
        Some(match OnFailureOption::parse(value, self.parser)? {
            OnFailureOption::Stop => OnFailure::Stop,
            OnFailureOption::SkipDependents => OnFailure::SkipDependents,
            OnFailureOption::Continue => OnFailure::Continue,
        })
    }

    fn demand(&mut self, machine: Machine) -> Option<Demand> {
        let mut demand = Demand {
            machine,
            ..Demand::default()
        };
        let table = match self.settings.get("resources") {
            None => return Some(demand),
            Some(Value {
                kind: Kind::Table(table),
                ..
            }) => table,
            Some(other) => return self.parser.mismatch(other, "a table"),
        };
        let mut sound = true;
        for (key, value) in &table.entries {
            let read = if key.name == MACHINE {
                MachineOption::parse(value, self.parser).map(|option| {
                    demand.machine = match option {
                        MachineOption::Shared => Machine::Shared,
                        MachineOption::Exclusive => Machine::Exclusive,
                    };
                })
            } else {
                self.amount(key, value).map(|amount| {
                    demand.amounts.insert(key.name.clone(), amount);
                })
            };
            sound &= read.is_some();
        }
        demand.amounts.retain(|_, amount| *amount > 0);
        sound.then_some(demand)
    }

    fn amount(&mut self, key: &crate::value::Key, value: &Value) -> Option<u32> {
        let Some(pool) = self.supply.get(&key.name) else {
            let message = format!("the machine has no pool `{}`", key.name);
            let known = self.supply.keys().map(String::as_str).chain([MACHINE]);
            let help = match crate::problem::nearest(&key.name, known.clone()) {
                Some(_) => did_you_mean(&key.name, known),
                None => format!("declare it: `[resources]` with `{} = 1`", key.name),
            };
            return self
                .parser
                .wrong(&key.place, message, "unknown pool", &help);
        };
        let amount = u32::parse(value, self.parser)?;
        if amount <= pool.size() {
            return Some(amount);
        }
        let shown = self.decl.shown();
        let message = format!(
            "{shown} takes {amount} of `{}`, and the machine has {}",
            key.name,
            pool.size()
        );
        let help = format!(
            "take less, or say what there is in `[resources]`: `{} = {amount}`",
            key.name
        );
        self.parser
            .wrong(&value.place, message, "more than there is", &help)
    }
}

impl ReadyOptions {
    fn readiness(self, timeout: Duration) -> Readiness {
        Readiness {
            timeout: self.timeout.unwrap_or(timeout),
            http: self.http,
            tcp: self.tcp,
            log: self.log,
            command: self.command,
        }
    }
}

impl LivenessOptions {
    fn liveness(self) -> Liveness {
        Liveness {
            enabled: self.enabled,
            http: self.http,
            every: self.every,
            timeout: self.timeout,
            failures: self.failures,
        }
    }
}

/// How a step shares the machine when the plan does not say: a measurement not at all.
fn machine_of(kind: StepKind) -> Machine {
    match kind {
        StepKind::Measure | StepKind::Effect => Machine::Exclusive,
        StepKind::Pure | StepKind::Fetch | StepKind::Report => Machine::Shared,
    }
}
