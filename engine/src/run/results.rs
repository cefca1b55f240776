//! What becomes of a step that has ended: its result is kept, shown and told.

use super::perform::{DoneStep, Ended};
use super::{LOG_LINES, Run, RunError, millis, no_verdict};
use crate::event::{Event, Failure};
use crate::graph::NodeId;
use crate::process::log_tail;
use crate::samples::SampleRecord;
use crate::schedule::{Action, Decision, Happened};
use crate::step::{FailureClass, Grade, StepError, StepKind, Verdict};
use std::path::PathBuf;
use std::time::Duration;

impl Run {
    /// A step begins to work, after all that it had to wait for.
    pub(super) fn began(
        &mut self,
        node: NodeId,
        sample: u32,
        logs: PathBuf,
    ) -> Result<Vec<Action>, RunError> {
        let is_measurement = self.graph.step_kind(node) == Some(StepKind::Measure);
        self.tell(&Event::Started {
            node: self.graph.name(node),
            sample: is_measurement.then_some(sample),
            logs,
        })?;
        Ok(Vec::new())
    }

    /// A step has ended: keeps what came of it and tells the schedule.
    pub(super) fn ended(&mut self, ended: Ended) -> Result<Vec<Action>, RunError> {
        let Ended {
            node,
            sample,
            took,
            result,
            held,
        } = ended;
        self.cancels.remove(&node);
        let actions = match result {
            Ok(Some(done)) => self.keep(node, sample, took, done),
            Ok(None) => self.settled(node, sample),
            Err(error) => self.step_failed(node, sample, error),
        };
        // Others may do the same work only once its result is kept.
        drop(held);
        actions
    }

    fn keep(
        &mut self,
        node: NodeId,
        sample: u32,
        took: Duration,
        done: DoneStep,
    ) -> Result<Vec<Action>, RunError> {
        let took_ms = millis(took);
        let DoneStep {
            report, outputs, ..
        } = &done;
        let (outputs, summary) = (outputs.clone(), report.summary.clone());
        let kind = self.graph.step_kind(node);
        let is_measurement = kind == Some(StepKind::Measure);
        let mut verdict = is_measurement.then(|| report.verdict.clone().unwrap_or_else(no_verdict));
        let changed = tokio::task::block_in_place(|| self.ledger.changed_meanwhile(node));
        if let (Some(verdict), Some(field)) = (&mut verdict, &changed) {
            verdict.grade = Grade::Invalid;
            verdict
                .reasons
                .push(format!("`{field}` was changed while it was measured"));
        }
        match (&verdict, changed) {
            (Some(verdict), _) => {
                let record = self.record(node, sample, took_ms, verdict.clone(), done);
                self.ledger.keep_sample(node, record)?;
            }
            (None, _) if kind == Some(StepKind::Effect) => {}
            (None, Some(field)) => self.ledger.take_unkept(node, outputs.clone(), &field),
            (None, None) => {
                let (outputs, summary) = (outputs.clone(), summary.clone());
                self.ledger.keep_action(node, outputs, took_ms, summary)?;
            }
        }
        self.show_results(node)?;
        self.tell(&Event::Finished {
            node: self.graph.name(node),
            sample: is_measurement.then_some(sample),
            took_ms,
            summary,
            verdict,
            outputs,
        })?;
        let happened = if is_measurement {
            Happened::Sampled(node, self.ledger.missing(node))
        } else {
            Happened::Done(node)
        };
        Ok(self.schedule.on(happened))
    }

    fn record(
        &self,
        node: NodeId,
        index: u32,
        took_ms: u64,
        verdict: Verdict,
        done: DoneStep,
    ) -> SampleRecord {
        let incarnations = self.live.incarnations_of(&self.graph, node);
        SampleRecord {
            run: self.folder.name().to_owned(),
            index,
            drawn_at: crate::samples::now_s(),
            boot_id: self.environment.boot_id.clone(),
            took_ms,
            verdict,
            summary: done.report.summary,
            figures: done.report.figures,
            before: done.before,
            after: done.after,
            outputs: done.outputs,
            incarnations,
        }
    }

    fn step_failed(
        &mut self,
        node: NodeId,
        sample: u32,
        error: StepError,
    ) -> Result<Vec<Action>, RunError> {
        let error = self.blame_service(node, error);
        let is_measurement = self.graph.step_kind(node) == Some(StepKind::Measure);
        let sample = is_measurement.then_some(sample);
        let actions = self.schedule.on(Happened::Failed(node, error.class));
        let retry = actions.iter().find_map(|action| match action {
            Action::Rest(resting, pause) if *resting == node => Some(*pause),
            _ => None,
        });
        match retry {
            Some(pause) => self.tell_failure(node, sample, &error, Some(pause))?,
            None => self.fail(node, sample, &error)?,
        }
        Ok(actions)
    }

    /// Another run has done what this one was about to do.
    fn settled(&mut self, node: NodeId, sample: u32) -> Result<Vec<Action>, RunError> {
        let (freshness, decision) = match tokio::task::block_in_place(|| self.ledger.decide(node)) {
            Ok(decided) => decided,
            Err(error) => {
                let error = StepError::because("could not take what another run has done", error);
                return self.step_failed(node, sample, error);
            }
        };
        let is_there = matches!(
            decision,
            Decision::Satisfied | Decision::Run { times: 0, .. }
        );
        if !is_there {
            let error = StepError::new("what another run did for it is not for what it is now")
                .help("something that it reads was changed while it waited; run the plan again");
            return self.step_failed(node, sample, error);
        }
        let key = self.ledger.key(node);
        self.tell(&Event::Decided {
            node: self.graph.name(node),
            freshness,
            key,
        })?;
        self.show_results(node)?;
        Ok(self.schedule.on(Happened::Settled(node)))
    }

    /// A step that was cancelled because its service died says so.
    fn blame_service(&self, node: NodeId, error: StepError) -> StepError {
        if self.tally.interrupted || error.class != FailureClass::Interrupted {
            return error;
        }
        match self.live.death_of_lease(&self.graph, node) {
            Some((service, how, log)) => StepError {
                message: format!("its service `{service}` died while it ran: it {how}"),
                help: Some(
                    "the log of the service says why; `benchwright resume` tries again".to_owned(),
                ),
                log,
                class: FailureClass::Infrastructure,
            },
            None => error,
        }
    }

    /// Links results into the run's folder.
    pub(super) fn show_results(&mut self, node: NodeId) -> Result<(), RunError> {
        let Some(step) = self.graph.step(node) else {
            return Ok(());
        };
        let name = self.graph.name(node);
        if let Some(set) = self.ledger.samples(node) {
            for (i, record) in set.records.iter().enumerate() {
                for output in step.entry.outputs {
                    if let Some(artifact) = record.outputs.get(output.name) {
                        self.folder.link(
                            &[&name, &i.to_string()],
                            output.file,
                            &self.store.path(artifact),
                        )?;
                    }
                }
            }
        }
        for output in step.entry.outputs {
            if let Some(artifact) = self.ledger.artifact(node, output.name) {
                self.folder
                    .link(&[&name], output.file, &self.store.path(artifact))?;
            }
        }
        Ok(())
    }

    /// Tells of a failure that is not made good by another try.
    pub(super) fn fail(
        &mut self,
        node: NodeId,
        sample: Option<u32>,
        error: &StepError,
    ) -> Result<(), RunError> {
        // Without an interruption there is nothing that could have interrupted it.
        self.tally.failed |= error.class != FailureClass::Interrupted || !self.tally.interrupted;
        self.tell_failure(node, sample, error, None)
    }

    fn tell_failure(
        &mut self,
        node: NodeId,
        sample: Option<u32>,
        error: &StepError,
        retry: Option<Duration>,
    ) -> Result<(), RunError> {
        let log_tail = error
            .log
            .as_deref()
            .map(|log| log_tail(log, LOG_LINES))
            .unwrap_or_default();
        self.tell(&Event::Failed(Failure {
            node: self.graph.name(node),
            sample,
            message: error.message.clone(),
            help: error.help.clone(),
            class: error.class,
            log: error.log.clone(),
            log_tail,
            retry_ms: retry.map(millis),
        }))
    }
}
