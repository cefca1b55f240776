//! One line per event with the time since the run began: for logs, pipes and plain terminals.

use super::{Nodes, interruption, was_interrupted};
use crate::terminal::{self, Ink, Terminal};
use crate::words;
use engine::event::{Event, Failure, Listener};
use engine::freshness::Freshness;
use engine::step::{FailureClass, Grade, Progress, Verdict};
use std::collections::BTreeMap;

/// Writes lines to standard output.
pub(super) struct Plain {
    terminal: Terminal,
    nodes: Nodes,
    /// What each node said last, so that only what is new is written.
    doing: BTreeMap<String, String>,
}

impl Plain {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            nodes: Nodes::default(),
            doing: BTreeMap::new(),
        }
    }

    fn text(&mut self, event: &Event) -> Option<String> {
        Some(match event {
            Event::RunStarted {
                run,
                plan,
                resumed,
                nodes,
                ..
            } => {
                self.nodes.learn(nodes);
                let word = if *resumed { "goes on with" } else { "begins" };
                let steps = match nodes.iter().filter(|n| n.kind.is_some()).count() {
                    // They are introduced in parts.
                    0 => String::new(),
                    n => format!(", {}", words::plural(n, "step")),
                };
                format!("run {run} {word}: plan {plan}{steps}")
            }
            Event::Planned { nodes } => {
                self.nodes.learn(nodes);
                return None;
            }
            Event::Decided {
                node, freshness, ..
            } => return self.decided(node, freshness),
            Event::Started { node, sample, .. } => match self.nodes.sample(node, *sample) {
                Some(sample) => format!("{}: {sample} started", self.bold(node)),
                None => format!("{}: started", self.bold(node)),
            },
            Event::Progressed { node, progress } => return self.progressed(node, progress),
            Event::Finished {
                node,
                sample,
                took_ms,
                summary,
                verdict,
                ..
            } => self.finished(
                node,
                *sample,
                *took_ms,
                summary.as_deref(),
                verdict.as_ref(),
            ),
            Event::Failed(failure) => self.failed(failure),
            Event::Skipped { because, .. }
                if was_interrupted(because) && !self.terminal.is_verbose() =>
            {
                return None;
            }
            Event::Skipped { node, because } => format!("{}: skipped: {because}", self.bold(node)),
            other => return self.service(other),
        })
    }

    fn service(&self, event: &Event) -> Option<String> {
        Some(match event {
            Event::ServiceLaunching { node, incarnation } => {
                let again = if *incarnation > 1 {
                    format!(", launch {incarnation}")
                } else {
                    String::new()
                };
                format!("{}: launching{again}", self.bold(node))
            }
            Event::ServiceReady {
                node, url, took_ms, ..
            } => {
                format!(
                    "{}: ready at {url} after {}",
                    self.bold(node),
                    words::duration(*took_ms)
                )
            }
            Event::ServiceDied { node, how, .. } => {
                format!(
                    "{}: {}: it {how}",
                    self.bold(node),
                    self.terminal.paint(Ink::Red, "died")
                )
            }
            Event::ServiceStopped {
                node,
                took_ms,
                trouble,
            } => {
                let trouble = trouble
                    .as_ref()
                    .map_or_else(String::new, |t| format!(", but {t}"));
                format!(
                    "{}: stopped in {}{trouble}",
                    self.bold(node),
                    words::duration(*took_ms)
                )
            }
            Event::Interrupted { at_once } => {
                self.terminal.paint(Ink::Yellow, interruption(*at_once))
            }
            _ => return None,
        })
    }

    fn bold(&self, node: &str) -> String {
        self.terminal.paint(Ink::Bold, node)
    }

    fn decided(&self, node: &str, freshness: &Freshness) -> Option<String> {
        let is_said = !matches!(
            freshness,
            Freshness::Service | Freshness::OnDemand | Freshness::Undecided { .. }
        );
        (is_said || self.terminal.is_verbose()).then(|| format!("{}: {freshness}", self.bold(node)))
    }

    fn progressed(&mut self, node: &str, progress: &Progress) -> Option<String> {
        if !self.terminal.is_verbose() || self.doing.get(node) == Some(&progress.doing) {
            return None;
        }
        self.doing.insert(node.to_owned(), progress.doing.clone());
        Some(format!("{}: {}", self.bold(node), progress.doing))
    }

    fn finished(
        &mut self,
        node: &str,
        sample: Option<u32>,
        took_ms: u64,
        summary: Option<&str>,
        verdict: Option<&Verdict>,
    ) -> String {
        self.doing.remove(node);
        let sample = self
            .nodes
            .sample(node, sample)
            .map_or_else(String::new, |s| format!("{s} "));
        let verdict = verdict.map_or_else(String::new, |v| {
            format!(", {}", self.terminal.paint(grade_ink(v.grade), v.grade))
        });
        let summary = summary.map_or_else(String::new, |s| format!(": {s}"));
        format!(
            "{}: {sample}done in {}{verdict}{summary}",
            self.bold(node),
            words::duration(took_ms)
        )
    }

    fn failed(&self, failure: &Failure) -> String {
        let node = self.bold(&failure.node);
        if failure.class == FailureClass::Interrupted {
            return format!("{node}: stopped before it was done");
        }
        let sample = self
            .nodes
            .sample(&failure.node, failure.sample)
            .map_or_else(String::new, |s| format!("{s} "));
        format!(
            "{node}: {sample}{}: {}",
            self.terminal.paint(Ink::Red, "failed"),
            failure.message
        )
    }
}

fn grade_ink(grade: Grade) -> Ink {
    match grade {
        Grade::Valid => Ink::Green,
        Grade::Degraded => Ink::Yellow,
        Grade::Invalid => Ink::Red,
    }
}

impl Listener for Plain {
    fn hear(&mut self, at_ms: u64, event: &Event) {
        if let Some(text) = self.text(event) {
            let elapsed = format!("[{:>5}.{}s]", at_ms / 1000, at_ms % 1000 / 100);
            terminal::line(format!("{} {text}", self.terminal.paint(Ink::Dim, elapsed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Verbosity;
    use engine::event::NodeSummary;
    use engine::step::StepKind;

    fn plain(verbosity: Verbosity) -> Plain {
        let mut plain = Plain::new(Terminal {
            verbosity,
            color: false,
            error_color: false,
            live: false,
        });
        let load = NodeSummary {
            node: "load".into(),
            uses: "load.test".into(),
            kind: Some(StepKind::Measure),
            target: 3,
        };
        let begun = Event::RunStarted {
            run: "r".into(),
            plan: "p".into(),
            resumed: false,
            seed: 0,
            nodes: vec![load],
        };
        assert_eq!(
            plain.text(&begun).as_deref(),
            Some("run r begins: plan p, 1 step")
        );
        plain
    }

    #[test]
    fn a_sample_says_which_it_is_how_long_it_took_and_what_it_is_worth() {
        let verdict = Some(Verdict {
            grade: Grade::Degraded,
            reasons: vec![],
        });
        let done = Event::Finished {
            node: "load".into(),
            sample: Some(1),
            took_ms: 1500,
            summary: Some("TTFT p50 12 ms".into()),
            verdict,
            outputs: BTreeMap::new(),
        };
        let text = plain(Verbosity::Normal).text(&done);
        assert_eq!(
            text.as_deref(),
            Some("load: sample 2 of 3 done in 1.5 s, degraded: TTFT p50 12 ms")
        );
    }

    #[test]
    fn progress_is_written_only_when_asked_for_and_only_when_it_is_new() {
        let doing = |n: u64| Event::Progressed {
            node: "load".into(),
            progress: Progress {
                doing: "sending".into(),
                done: Some((n, 9)),
            },
        };
        assert_eq!(plain(Verbosity::Normal).text(&doing(1)), None);
        let mut verbose = plain(Verbosity::Verbose);
        assert_eq!(verbose.text(&doing(1)).as_deref(), Some("load: sending"));
        assert_eq!(verbose.text(&doing(2)), None);
    }
}
