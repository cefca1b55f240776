//! The step library: every kind of step and service that plans can use.
//!
//! One line each registers them; the documentation and the parser both come from there.

use crate::options::{OptionSpec, Options, Parser};
use crate::service::{DynService, ServiceType};
use crate::source::Place;
use crate::step::{DynStep, OutputSpec, StepKind, StepType};
use crate::value::Table;
use std::sync::Arc;
use std::time::Duration;

/// Reads options into a step.
type ParseStep = fn(&Table, &Place, &mut Parser<'_>) -> Option<Arc<dyn DynStep>>;
/// Reads options into a service.
type ParseService = fn(&Table, &Place, &mut Parser<'_>) -> Option<Arc<dyn DynService>>;

/// A kind of step.
#[derive(Clone)]
pub struct StepEntry {
    /// The name in `use`.
    pub name: &'static str,
    /// How results may be used again.
    pub kind: StepKind,
    /// Part of every key.
    pub version: u32,
    /// One sentence.
    pub summary: &'static str,
    /// Whether a changed plan makes it stale.
    pub reads_plan: bool,
    /// Its options.
    pub options: Vec<OptionSpec>,
    /// What it leaves behind.
    pub outputs: &'static [OutputSpec],
    /// Reads its options.
    pub parse: ParseStep,
}

/// A kind of service.
#[derive(Clone)]
pub struct ServiceEntry {
    /// The name in `use`.
    pub name: &'static str,
    /// What it serves as.
    pub kind: &'static str,
    /// Part of every key.
    pub version: u32,
    /// One sentence.
    pub summary: &'static str,
    /// Facts besides `url`.
    pub facts: &'static [&'static str],
    /// The limit of a launch when the plan gives none.
    pub ready_timeout: Duration,
    /// Its options.
    pub options: Vec<OptionSpec>,
    /// Reads its options.
    pub parse: ParseService,
}

/// All kinds of steps and services, by name.
#[derive(Clone, Default)]
pub struct Library {
    steps: Vec<Arc<StepEntry>>,
    services: Vec<Arc<ServiceEntry>>,
}

impl Library {
    /// Adds a kind of step.
    #[must_use]
    pub fn step<T: StepType>(mut self) -> Self {
        self.steps.push(Arc::new(StepEntry {
            name: T::NAME,
            kind: T::KIND,
            version: T::VERSION,
            summary: T::SUMMARY,
            reads_plan: T::READS_PLAN,
            options: T::describe(),
            outputs: T::outputs(),
            parse: |table, place, parser| {
                let step = <T as Options>::parse(table, place, parser)?;
                step.check(table, place, parser);
                Some(Arc::new(step))
            },
        }));
        self
    }

    /// Adds a kind of service.
    #[must_use]
    pub fn service<T: ServiceType>(mut self) -> Self {
        self.services.push(Arc::new(ServiceEntry {
            name: T::NAME,
            kind: T::KIND,
            version: T::VERSION,
            summary: T::SUMMARY,
            facts: T::FACTS,
            ready_timeout: T::READY_TIMEOUT,
            options: T::describe(),
            parse: |table, place, parser| {
                let service = <T as Options>::parse(table, place, parser)?;
                service.check(table, place, parser);
                Some(Arc::new(service))
            },
        }));
        self
    }

    /// Goes through the kinds of steps in the order of registration.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<StepEntry>> {
        self.steps.iter()
    }

    /// Goes through the kinds of services in the order of registration.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.iter()
    }

    /// Finds a kind of step.
    pub fn find_step(&self, name: &str) -> Option<&Arc<StepEntry>> {
        self.steps.iter().find(|s| s.name == name)
    }

    /// Finds a kind of service.
    pub fn find_service(&self, name: &str) -> Option<&Arc<ServiceEntry>> {
        self.services.iter().find(|s| s.name == name)
    }
}
