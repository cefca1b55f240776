//! A run on a terminal: a line per running step and per service that is up, redrawn in place, and
//! above them, for good, what is done.

use super::{Nodes, interruption, is_news, was_interrupted};
use crate::terminal::{Ink, NoKeyEcho, Terminal};
use crate::words;
use engine::event::{Event, Failure, Listener};
use engine::freshness::Freshness;
use engine::step::{FailureClass, Grade, Progress, Verdict};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often spinners turn and clocks tick.
const TICK: Duration = Duration::from_millis(100);
/// How wide the column of names may become.
const MAX_NAME: usize = 40;

const SPINNING: &str = "{spinner:.cyan} {prefix:.bold} {elapsed:>4.dim}  {wide_msg}";
const COUNTING: &str = "{spinner:.cyan} {prefix:.bold} {elapsed:>4.dim}  {bar:24.cyan/dim} {human_pos}/{human_len}  {wide_msg}";
const SERVING: &str = "{prefix} {elapsed:>4.dim}  {wide_msg:.dim}";
const OVERALL: &str = "  {msg:.dim}  {elapsed:.dim}";

/// Draws on standard error, where redrawing disturbs no output.
pub(super) struct Live {
    terminal: Terminal,
    multi: MultiProgress,
    overall: ProgressBar,
    lines: BTreeMap<String, ProgressBar>,
    nodes: Nodes,
    name_width: usize,
    settled: BTreeSet<String>,
    n_reused: usize,
    _echo: Option<NoKeyEcho>,
    /// Which sample each running measurement draws.
    samples: BTreeMap<String, String>,
}

/// Reads one of the templates above, without its colours unless they are wanted.
fn style(template: &str, color: bool) -> ProgressStyle {
    let mut template = template.to_owned();
    if !color {
        for ink in [".cyan/dim", ".cyan", ".bold", ".dim"] {
            template = template.replace(ink, "");
        }
    }
    // The templates are constants, and a test reads each of them.
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

impl Live {
    pub(super) fn new(terminal: Terminal) -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let overall =
            multi.add(ProgressBar::new_spinner().with_style(style(OVERALL, terminal.error_color)));
        Self {
            terminal,
            multi,
            overall,
            lines: BTreeMap::new(),
            nodes: Nodes::default(),
            name_width: 0,
            settled: BTreeSet::new(),
            n_reused: 0,
            samples: BTreeMap::new(),
            _echo: NoKeyEcho::begin(),
        }
    }

    /// Writes a line above the others, for good.
    fn keep(&self, mark: (Ink, &str), node: &str, text: &str) {
        let (ink, mark) = mark;
        let name = self.terminal.paint_error(Ink::Bold, self.padded(node));
        let line = format!("{} {name}  {text}", self.terminal.paint_error(ink, mark));
        // A terminal that is gone is no reason to stop.
        let _ = self.multi.println(line);
    }

    fn padded(&self, node: &str) -> String {
        format!("{node:<width$}", width = self.name_width)
    }

    /// Returns the node's line, a new one at the bottom if it has none.
    fn line(&mut self, node: &str, template: &str) -> ProgressBar {
        let prefix = self.padded(node);
        let (multi, overall, color) = (&self.multi, &self.overall, self.terminal.error_color);
        let add = || {
            let bar = multi.insert_before(
                overall,
                ProgressBar::new_spinner().with_style(style(template, color)),
            );
            bar.set_prefix(prefix);
            bar.enable_steady_tick(TICK);
            bar
        };
        self.lines
            .entry(node.to_owned())
            .or_insert_with(add)
            .clone()
    }

    fn drop_line(&mut self, node: &str) {
        if let Some(line) = self.lines.remove(node) {
            line.finish_and_clear();
            self.multi.remove(&line);
        }
    }

    /// Counts a step that needs nothing more; an effect may come twice, a service is no step.
    fn settle(&mut self, node: &str) {
        if self.nodes.steps.contains(node) {
            self.settled.insert(node.to_owned());
        }
        self.count();
    }

    fn count(&self) {
        let reused = match self.n_reused {
            0 => String::new(),
            n => format!(", {n} reused"),
        };
        let steps = words::plural(self.nodes.steps.len(), "step");
        self.overall
            .set_message(format!("{} of {steps}{reused}", self.settled.len()));
    }

    fn begin(
        &mut self,
        run: &str,
        plan: &str,
        resumed: bool,
        nodes: &[engine::event::NodeSummary],
    ) {
        self.learn(nodes);
        let word = if resumed { "resuming" } else { "running" };
        let plan = self.terminal.paint_error(Ink::Bold, plan);
        let _ = self.multi.println(format!("{word} {plan} as {run}"));
        self.overall.enable_steady_tick(TICK);
        self.count();
    }

    fn learn(&mut self, nodes: &[engine::event::NodeSummary]) {
        self.nodes.learn(nodes);
        let longest = nodes.iter().map(|n| n.node.chars().count()).max();
        let longest = longest.unwrap_or(0).min(MAX_NAME);
        self.name_width = self.name_width.max(longest);
    }

    fn decided(&mut self, node: &str, freshness: &Freshness) {
        if matches!(freshness, Freshness::Reused { .. }) {
            self.n_reused += 1;
            self.settle(node);
            let text = self.terminal.paint_error(Ink::Dim, freshness);
            self.keep((Ink::Green, "✓"), node, &text);
        } else if is_news(freshness)
            || (self.terminal.is_verbose() && matches!(freshness, Freshness::Stale { .. }))
        {
            self.keep((Ink::Yellow, "→"), node, &freshness.to_string());
        }
    }

    fn started(&mut self, node: &str, sample: Option<u32>) {
        self.drop_line(node);
        self.samples.remove(node);
        if let Some(sample) = self.nodes.sample(node, sample) {
            self.samples.insert(node.to_owned(), sample);
        }
        let doing = self.doing(node, "starting");
        self.line(node, SPINNING).set_message(doing);
    }

    /// Says what a node does, and for which sample.
    fn doing(&self, node: &str, doing: &str) -> String {
        match self.samples.get(node) {
            Some(sample) => format!("{sample}: {doing}"),
            None => doing.to_owned(),
        }
    }

    fn progressed(&mut self, node: &str, progress: &Progress) {
        let Some(line) = self.lines.get(node) else {
            return;
        };
        let color = self.terminal.error_color;
        match progress.done {
            Some((done, total)) if total > 0 => {
                if line.length() != Some(total) {
                    line.set_length(total);
                    line.set_style(style(COUNTING, color));
                }
                line.set_position(done.min(total));
            }
            _ if line.length().is_some() => {
                line.unset_length();
                line.set_style(style(SPINNING, color));
            }
            _ => {}
        }
        line.set_message(self.doing(node, &progress.doing));
    }

    fn finished(
        &mut self,
        node: &str,
        sample: Option<u32>,
        took_ms: u64,
        summary: Option<&str>,
        verdict: Option<&Verdict>,
    ) {
        self.drop_line(node);
        let grade = verdict.map(|v| v.grade);
        let mark = match grade {
            None | Some(Grade::Valid) => (Ink::Green, "✓"),
            Some(Grade::Degraded) => (Ink::Yellow, "!"),
            Some(Grade::Invalid) => (Ink::Red, "✗"),
        };
        let grade = grade.map(|g| self.terminal.paint_error(mark.0, g));
        let took = self
            .terminal
            .paint_error(Ink::Dim, words::duration(took_ms));
        let parts = [
            self.nodes.sample(node, sample),
            Some(took),
            grade,
            summary.map(str::to_owned),
        ];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join("  ");
        self.keep(mark, node, &text);
        let target = self.nodes.targets.get(node).copied().unwrap_or(1);
        let is_last = sample.is_none_or(|index| index + 1 >= target);
        if is_last {
            self.settle(node);
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.drop_line(&failure.node);
        self.settle(&failure.node);
        if failure.class == FailureClass::Interrupted {
            return self.keep(
                (Ink::Yellow, "■"),
                &failure.node,
                "stopped before it was done",
            );
        }
        let text = self.terminal.paint_error(Ink::Red, &failure.message);
        self.keep((Ink::Red, "✗"), &failure.node, &text);
    }

    fn service(&mut self, event: &Event) {
        match event {
            Event::ServiceLaunching { node, incarnation } => {
                self.drop_line(node);
                let again = if *incarnation > 1 {
                    format!(" (launch {incarnation})")
                } else {
                    String::new()
                };
                self.line(node, SPINNING)
                    .set_message(format!("launching{again}"));
            }
            Event::ServiceReady {
                node, url, took_ms, ..
            } => {
                self.drop_line(node);
                let text = format!("ready after {} at {url}", words::duration(*took_ms));
                self.keep(
                    (Ink::Cyan, "●"),
                    node,
                    &self.terminal.paint_error(Ink::Dim, text),
                );
                let (mark, name) = (
                    self.terminal.paint_error(Ink::Cyan, "●"),
                    self.terminal.paint_error(Ink::Bold, self.padded(node)),
                );
                let line = self.line(node, SERVING);
                line.set_prefix(format!("{mark} {name}"));
                line.set_message(format!("serving at {url}"));
            }
            Event::ServiceDied { node, how, .. } => {
                self.drop_line(node);
                let text = self
                    .terminal
                    .paint_error(Ink::Red, format!("died: it {how}"));
                self.keep((Ink::Red, "✗"), node, &text);
            }
            Event::ServiceStopped {
                node,
                took_ms,
                trouble,
            } => {
                self.drop_line(node);
                let text = format!("stopped in {}", words::duration(*took_ms));
                match trouble {
                    Some(trouble) => {
                        self.keep((Ink::Red, "✗"), node, &format!("{text}, but {trouble}"))
                    }
                    None => self.keep(
                        (Ink::Cyan, "○"),
                        node,
                        &self.terminal.paint_error(Ink::Dim, text),
                    ),
                }
            }
            _ => {}
        }
    }

    fn end(&mut self) {
        let names: Vec<String> = self.lines.keys().cloned().collect();
        names.iter().for_each(|node| self.drop_line(node));
        self.overall.finish_and_clear();
        // What is left on a terminal that is gone disturbs nobody.
        let _ = self.multi.clear();
    }
}

impl Listener for Live {
    fn hear(&mut self, _at_ms: u64, event: &Event) {
        match event {
            Event::RunStarted {
                run,
                plan,
                resumed,
                nodes,
                ..
            } => self.begin(run, plan, *resumed, nodes),
            Event::Decided {
                node, freshness, ..
            } => self.decided(node, freshness),
            Event::Planned { nodes } => {
                self.learn(nodes);
                self.count();
            }
            Event::Started { node, sample, .. } => self.started(node, *sample),
            Event::Progressed { node, progress } => self.progressed(node, progress),
            Event::Finished {
                node,
                sample,
                took_ms,
                summary,
                verdict,
                ..
            } => {
                self.finished(
                    node,
                    *sample,
                    *took_ms,
                    summary.as_deref(),
                    verdict.as_ref(),
                );
            }
            Event::Failed(failure) => self.failed(failure),
            Event::Skipped { node, because } => {
                self.settle(node);
                if was_interrupted(because) && !self.terminal.is_verbose() {
                    return;
                }
                let because = self
                    .terminal
                    .paint_error(Ink::Dim, format!("skipped: {because}"));
                self.keep((Ink::Dim, "-"), node, &because);
            }
            Event::Interrupted { at_once } => {
                let text = self
                    .terminal
                    .paint_error(Ink::Yellow, interruption(*at_once));
                let _ = self.multi.println(text);
            }
            Event::RunFinished { .. } => self.end(),
            other => self.service(other),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_read_with_and_without_colours() {
        for template in [SPINNING, COUNTING, SERVING, OVERALL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
            style(template, true);
            style(template, false);
        }
    }
}
