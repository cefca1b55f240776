//! From the entries of a journal to slices: what is open is remembered until its end is told, or
//! until the part of the run that it belongs to is over.

use super::{Count, Group, Mark, Row, Slice, Trace};
use crate::event::{Event, Failure, NodeSummary};
use crate::freshness::Freshness;
use crate::run::history::Entry;
use crate::step::{StepKind, Verdict};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Args = Map<String, Value>;

/// What is not over yet.
struct Open {
    name: String,
    category: &'static str,
    start_us: u64,
    args: Args,
}

/// Goes through a journal.
pub(super) struct Walk {
    trace: Trace,
    kinds: BTreeMap<String, Option<StepKind>>,
    /// Steps that run, services in whichever state they are, by node.
    open: BTreeMap<String, Open>,
    /// Since when a node waits to run.
    waiting: BTreeMap<String, u64>,
    /// When the last sample of a measurement ended.
    drawn: BTreeMap<String, u64>,
    part: Option<Open>,
    n_parts: u32,
    /// When the first part began, milliseconds since 1970.
    began_ms: u64,
    /// What is added to the times of the present part.
    offset_us: u64,
    last_us: u64,
    running: u32,
}

impl Walk {
    pub(super) fn new(run: &str) -> Self {
        let trace = Trace {
            run: run.to_owned(),
            plan: String::new(),
            slices: Vec::new(),
            marks: Vec::new(),
            counts: Vec::new(),
        };
        Self {
            trace,
            kinds: BTreeMap::new(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            drawn: BTreeMap::new(),
            part: None,
            n_parts: 0,
            began_ms: 0,
            offset_us: 0,
            last_us: 0,
            running: 0,
        }
    }

    pub(super) fn take(&mut self, entry: &Entry) {
        if let Event::RunStarted { .. } = &entry.event {
            self.end_part("cut off", None);
            self.begin_part(entry);
        }
        let at = self.offset_us.saturating_add(micros(entry.at_ms));
        self.last_us = self.last_us.max(at);
        match &entry.event {
            Event::RunStarted { nodes, .. } | Event::Planned { nodes } => self.learn(nodes),
            Event::Decided {
                node, freshness, ..
            } => self.decided(node, freshness, at),
            Event::Started { node, sample, .. } => self.started(node, *sample, at),
            Event::Finished {
                node,
                summary,
                verdict,
                ..
            } => self.finished(node, summary.as_deref(), verdict.as_ref(), at),
            Event::Failed(failure) => self.failed(failure, at),
            Event::Skipped { node, because } => self.skipped(node, because, at),
            Event::Interrupted { at_once } => {
                self.mark(
                    run_row(),
                    "interrupted",
                    at,
                    args(&[("at_once", json!(at_once))]),
                );
            }
            Event::RunFinished { outcome, .. } => {
                self.end_part("torn down", Some(json!(outcome)));
            }
            event => self.service(event, at),
        }
    }

    pub(super) fn finish(mut self, now_ms: Option<u64>) -> Trace {
        let why = match now_ms {
            Some(now) => {
                let now_us = micros(now.saturating_sub(self.began_ms));
                self.last_us = self.last_us.max(now_us);
                "goes on"
            }
            None => "cut off",
        };
        self.end_part(why, None);
        self.trace
    }

    /// Parts lie as far apart as they did on the clock, and never over each other.
    fn begin_part(&mut self, entry: &Entry) {
        let Event::RunStarted { plan, resumed, .. } = &entry.event else {
            return;
        };
        let start_ms = entry.wall_ms.saturating_sub(entry.at_ms);
        if self.n_parts == 0 {
            self.began_ms = start_ms;
        }
        self.offset_us = micros(start_ms.saturating_sub(self.began_ms)).max(self.last_us);
        self.n_parts += 1;
        plan.clone_into(&mut self.trace.plan);
        let name = if *resumed { "resumed" } else { "run" };
        self.part = Some(Open {
            name: name.to_owned(),
            category: "run",
            start_us: self.offset_us,
            args: args(&[("part", json!(self.n_parts))]),
        });
    }

    /// Ends whatever is open: nothing outlives its part of the run.
    fn end_part(&mut self, why: &str, outcome: Option<Value>) {
        let at = self.last_us;
        let names: Vec<String> = self.open.keys().cloned().collect();
        for name in names {
            self.close(&name, at, args(&[("ended", why.into())]));
        }
        self.drawn.clear();
        for (node, since) in std::mem::take(&mut self.waiting) {
            self.waited(&node, since, at);
        }
        self.running = 0;
        if let Some(mut part) = self.part.take() {
            let how = outcome.unwrap_or_else(|| why.into());
            part.args.insert("outcome".to_owned(), how);
            self.push(run_row(), part, at);
        }
        self.count(at);
    }

    fn learn(&mut self, nodes: &[NodeSummary]) {
        let kinds = nodes.iter().map(|n| (n.node.clone(), n.kind));
        self.kinds.extend(kinds);
    }

    fn row(&self, node: &str) -> Row {
        let group = match self.kinds.get(node).copied().flatten() {
            None => Group::Services,
            Some(StepKind::Pure) => Group::Steps("pure"),
            Some(StepKind::Fetch) => Group::Steps("fetch"),
            Some(StepKind::Measure) => Group::Steps("measure"),
            Some(StepKind::Effect) => Group::Steps("effect"),
            Some(StepKind::Report) => Group::Steps("report"),
        };
        // Instances of a service each have a row: what matters is which one was up when.
        let name = match group {
            Group::Services => node,
            _ => node.split('[').next().unwrap_or(node),
        };
        Row {
            group,
            name: name.to_owned(),
        }
    }

    fn decided(&mut self, node: &str, freshness: &Freshness, at: u64) {
        match freshness {
            Freshness::Reused { .. } => {
                let why = args(&[("why", freshness.to_string().into())]);
                self.mark(self.row(node), format!("reused {node}"), at, why);
            }
            Freshness::ToppedUp { .. } | Freshness::Stale { .. } => {
                self.waiting.insert(node.to_owned(), at);
                self.count(at);
            }
            Freshness::OnDemand | Freshness::Service | Freshness::Undecided { .. } => {}
        }
    }

    fn started(&mut self, node: &str, sample: Option<u32>, at: u64) {
        let mut known = Args::new();
        let drawn = self.drawn.remove(node);
        if let Some(since) = self.waiting.remove(node).or(drawn) {
            known.insert(
                "waited_ms".to_owned(),
                (at.saturating_sub(since) / 1000).into(),
            );
            self.waited(node, since, at);
        }
        let name = match sample {
            Some(sample) => format!("{node} sample {}", sample + 1),
            None => node.to_owned(),
        };
        if let Some(sample) = sample {
            known.insert("sample".to_owned(), (sample + 1).into());
        }
        self.open(node, name, "step", at, known);
        self.running += 1;
        self.count(at);
    }

    fn finished(&mut self, node: &str, summary: Option<&str>, verdict: Option<&Verdict>, at: u64) {
        let mut known = Args::new();
        if let Some(verdict) = verdict {
            known.insert("verdict".to_owned(), json!(verdict.grade));
            if !verdict.reasons.is_empty() {
                known.insert("reasons".to_owned(), json!(verdict.reasons));
            }
            // Another sample of it may be due, which then waits from here on.
            self.drawn.insert(node.to_owned(), at);
        }
        if let Some(summary) = summary {
            known.insert("summary".to_owned(), summary.into());
        }
        self.end_step(node, at, known);
    }

    fn failed(&mut self, failure: &Failure, at: u64) {
        let known = args(&[
            ("failed", failure.message.as_str().into()),
            ("class", json!(failure.class)),
        ]);
        let mark = format!("{} failed", failure.node);
        self.mark(self.row(&failure.node), mark, at, known.clone());
        if self.is_service(&failure.node) {
            self.close(&failure.node, at, known);
        } else {
            // It may be tried again, and then waits from here on.
            self.drawn.insert(failure.node.clone(), at);
            self.end_step(&failure.node, at, known);
        }
    }

    fn end_step(&mut self, node: &str, at: u64, known: Args) {
        if self.close(node, at, known) {
            self.running = self.running.saturating_sub(1);
            self.count(at);
        }
    }

    fn skipped(&mut self, node: &str, because: &str, at: u64) {
        self.waiting.remove(node);
        let known = args(&[("because", because.into())]);
        self.mark(self.row(node), format!("skipped {node}"), at, known);
    }

    fn service(&mut self, event: &Event, at: u64) {
        match event {
            Event::ServiceLaunching {
                node, incarnation, ..
            } => {
                let known = args(&[("incarnation", json!(incarnation))]);
                let name = format!("launch {incarnation}");
                self.open(node, name, "launch", at, known);
            }
            Event::ServiceReady { node, url, .. } => {
                let launched = self.incarnation(node);
                self.close(node, at, Args::new());
                let known = args(&[
                    ("url", url.as_str().into()),
                    ("incarnation", launched.clone()),
                ]);
                self.open(node, format!("up {launched}"), "up", at, known);
            }
            Event::ServiceDied { node, how, .. } => {
                let known = args(&[("died", how.as_str().into())]);
                self.mark(self.row(node), format!("{node} died"), at, known.clone());
                self.close(node, at, known);
            }
            Event::ServiceStopped {
                node,
                took_ms,
                trouble,
                ..
            } => self.stopped(node, *took_ms, trouble.as_deref(), at),
            _ => {}
        }
    }

    /// What it took to stop is told when it is over.
    fn stopped(&mut self, node: &str, took_ms: u64, trouble: Option<&str>, at: u64) {
        let begun = self.open.get(node).map_or(at, |open| open.start_us);
        let stop_us = at.saturating_sub(micros(took_ms)).max(begun);
        self.close(node, stop_us, Args::new());
        let known = trouble.map_or_else(Args::new, |t| args(&[("trouble", t.into())]));
        self.open(node, "stop".to_owned(), "stop", stop_us, known);
        self.close(node, at, Args::new());
    }

    fn incarnation(&self, node: &str) -> Value {
        let open = self.open.get(node);
        open.and_then(|o| o.args.get("incarnation").cloned())
            .unwrap_or_else(|| json!(1))
    }

    fn is_service(&self, node: &str) -> bool {
        self.row(node).group == Group::Services
    }

    fn open(&mut self, node: &str, name: String, category: &'static str, at: u64, args: Args) {
        let open = Open {
            name,
            category,
            start_us: at,
            args,
        };
        self.open.insert(node.to_owned(), open);
    }

    /// Ends what is open of a node; false if nothing is.
    fn close(&mut self, node: &str, at: u64, known: Args) -> bool {
        let Some(mut open) = self.open.remove(node) else {
            return false;
        };
        open.args.extend(known);
        self.push(self.row(node), open, at);
        true
    }

    fn waited(&mut self, node: &str, since: u64, at: u64) {
        if at <= since {
            return;
        }
        let mut row = self.row(node);
        row.name.push_str(" waiting");
        let open = Open {
            name: format!("{node} waits"),
            category: "wait",
            start_us: since,
            args: Args::new(),
        };
        self.push(row, open, at);
    }

    fn push(&mut self, row: Row, open: Open, at: u64) {
        self.trace.slices.push(Slice {
            row,
            name: open.name,
            category: open.category,
            start_us: open.start_us,
            took_us: at.saturating_sub(open.start_us),
            args: open.args,
        });
    }

    fn mark(&mut self, row: Row, name: impl Into<String>, at_us: u64, args: Args) {
        self.trace.marks.push(Mark {
            row,
            name: name.into(),
            at_us,
            args,
        });
    }

    fn count(&mut self, at_us: u64) {
        let count = Count {
            at_us,
            running: self.running,
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
        };
        self.trace.counts.push(count);
    }
}

fn micros(ms: u64) -> u64 {
    ms.saturating_mul(1000)
}

fn run_row() -> Row {
    Row {
        group: Group::Run,
        name: "run".to_owned(),
    }
}

fn args(known: &[(&str, Value)]) -> Args {
    let owned = known.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
    owned.collect()
}
