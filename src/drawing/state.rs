//! What is said of a box: what would become of a node, or what became of it, in a word and a
//! colour. Knows nothing of how boxes are drawn.

use crate::outlook::{Prospect, Will};
use engine::freshness::Freshness;
use engine::run::history::{NodeHistory, NodeState};
use engine::step::FailureClass;

/// The state of a node; the first of several is the one to look at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Failed,
    CutOff,
    Running,
    WillRun,
    ToppedUp,
    MayRun,
    Waiting,
    Skipped,
    Done,
    Reused,
    Idle,
}

/// Colours of a state: fill and line on light ground, fill on dark ground.
pub(crate) struct Colors {
    pub(crate) fill: &'static str,
    pub(crate) line: &'static str,
    pub(crate) dark_fill: &'static str,
}

impl State {
    /// What it is called.
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Failed => "failed",
            State::CutOff => "cut off",
            State::Running => "running",
            State::WillRun => "will run",
            State::ToppedUp => "topped up",
            State::MayRun => "may run",
            State::Waiting => "waiting",
            State::Skipped => "skipped",
            State::Done => "done",
            State::Reused => "reused",
            State::Idle => "not needed",
        }
    }

    /// A name for it in style sheets.
    pub(crate) fn class(self) -> &'static str {
        match self {
            State::Failed => "failed",
            State::CutOff => "cut-off",
            State::Running => "running",
            State::WillRun => "will-run",
            State::ToppedUp => "topped-up",
            State::MayRun => "may-run",
            State::Waiting => "waiting",
            State::Skipped => "skipped",
            State::Done => "done",
            State::Reused => "reused",
            State::Idle => "idle",
        }
    }

    /// Whether it is uncertain or did not come to be: drawn with a dashed line.
    pub(crate) fn is_dashed(self) -> bool {
        matches!(self, State::MayRun | State::Skipped | State::CutOff)
    }

    /// Its colours.
    pub(crate) fn colors(self) -> Colors {
        let (fill, line, dark_fill) = match self {
            State::Failed => ("#ffcecb", "#cf222e", "#5d1a1e"),
            State::CutOff => ("#fff1e5", "#bc4c00", "#43220c"),
            State::Running => ("#ddf4ff", "#0969da", "#0c2d4d"),
            State::WillRun => ("#fff8c5", "#9a6700", "#3a2d07"),
            State::ToppedUp => ("#e0f7f4", "#0f766e", "#0b3531"),
            State::MayRun => ("#fffdf0", "#bf8700", "#211b0a"),
            State::Waiting | State::Skipped | State::Idle => ("#f6f8fa", "#8c959f", "#161b22"),
            State::Done => ("#aceebb", "#116329", "#14502a"),
            State::Reused => ("#dafbe1", "#1a7f37", "#0f2f19"),
        };
        Colors {
            fill,
            line,
            dark_fill,
        }
    }
}

/// Says in a few words what would become of a node.
pub(crate) fn of_prospect(prospect: &Prospect) -> (State, String) {
    let is_service = prospect.kind == "service";
    let word = |text: &str| text.to_owned();
    match (&prospect.freshness, prospect.will) {
        (Freshness::ToppedUp { have, want, .. }, _) => {
            (State::ToppedUp, format!("has {} of {want}", have.have))
        }
        (Freshness::Reused { .. }, _) => (State::Reused, word("reused")),
        (_, Will::Run) if is_service => (State::WillRun, word("will be launched")),
        (_, Will::Perhaps) if is_service => (State::MayRun, word("may be launched")),
        (_, Will::Rest) if is_service => (State::Idle, word("not launched")),
        (_, Will::Run) => (State::WillRun, word("will run")),
        (_, Will::Perhaps) => (State::MayRun, word("may run")),
        (_, Will::Rest) => (State::Idle, word("not needed")),
    }
}

/// Says in a few words what became of a node; `live` is whether its run goes on.
pub(crate) fn of_history(node: &NodeHistory, live: bool) -> (State, String) {
    let is_service = node.node.kind.is_none();
    let was_interrupted = |class| class == FailureClass::Interrupted;
    let state = match node.state {
        NodeState::Running if live => State::Running,
        NodeState::Running => State::CutOff,
        NodeState::Failed
            if node
                .failure
                .as_ref()
                .is_some_and(|f| was_interrupted(f.class)) =>
        {
            State::CutOff
        }
        NodeState::Failed => State::Failed,
        NodeState::Skipped if node.finished > 0 => State::Done,
        NodeState::Skipped => State::Skipped,
        NodeState::Done => State::Done,
        NodeState::Reused => State::Reused,
        NodeState::Waiting if live => State::Waiting,
        NodeState::Waiting => State::Idle,
    };
    let word = match state {
        State::Running if is_service && node.url.is_some() => "up",
        State::Running if is_service => "launching",
        State::Done if is_service => "stopped",
        State::Idle if is_service => "not launched",
        State::Idle => "not begun",
        State::CutOff if node.state == NodeState::Failed => "interrupted",
        other => other.word(),
    };
    (state, format!("{word}{}", samples(node)))
}

/// Counts the samples of a measurement that wants several.
fn samples(node: &NodeHistory) -> String {
    if node.node.target > 1 && node.finished > 0 {
        return format!(", {} of {} samples", node.finished, node.node.target);
    }
    String::new()
}
