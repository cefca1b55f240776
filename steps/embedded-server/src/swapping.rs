//! When a model comes onto the device and which one leaves for it: rules without clock or thread.
//!
//! They are those of the collocation benchmark's server: a model that is off is switched on once
//! enough requests wait for it, once the first of them would otherwise miss its objective, or once
//! there is room; where there is none, the first active model leaves. Both the embedded server and the
//! controller of other servers decide by them.

use std::time::Duration;

use crate::clock::Nanos;

/// When models leave by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapPolicy {
    /// Only where another needs the room.
    #[default]
    Baseline,
    /// Also after a time without requests.
    Enhanced,
}

/// The numbers in the rules.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// When models leave by themselves.
    pub policy: SwapPolicy,
    /// Requests that wait for a model that is off before another leaves for it.
    pub queue_threshold: usize,
    /// How long before the deadline of the first waiting request its model is switched on,
    /// whatever else: time to swap and to answer.
    pub lead: Duration,
    /// With [`SwapPolicy::Enhanced`]: how long a model stays without a request.
    pub idle: Duration,
    /// How long a model stays at least before it leaves for another, so that two with long queues
    /// do not swap without ever serving.
    pub quantum: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            policy: SwapPolicy::default(),
            queue_threshold: 10,
            // 60 s to cool down, 5 s each to swap out and in, 30 s to answer.
            lead: Duration::from_secs(100),
            idle: Duration::from_secs(10),
            quantum: Duration::from_secs(2),
        }
    }
}

/// Whether a model can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// It is on the device.
    Active,
    /// It comes or goes.
    InTransit,
    /// It is not on the device; its requests wait.
    Off,
}

/// A model as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Whether it can compute.
    pub state: ModelState,
    /// Since when it is in that state.
    pub since: Nanos,
    /// Requests that wait.
    pub n_waiting: usize,
    /// Requests that run.
    pub n_running: usize,
    /// When the first waiting request has to be answered.
    pub deadline: Option<Nanos>,
    /// When it last had a request, waiting or running.
    pub last_busy: Nanos,
    /// Whether there is room for it beside those that are active.
    pub has_room: bool,
}

/// Why a model moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Requests wait and there is room.
    Room,
    /// Enough requests wait.
    Queue,
    /// The first waiting request would miss its objective.
    Objective,
    /// Another model needs the room.
    Victim,
    /// It had no request for a time.
    Idle,
    /// Somebody asked for it.
    Asked,
}

/// What is to be done; models by their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A model comes; where one is named, that one leaves first.
    SwitchOn {
        /// Which comes.
        model: usize,
        /// Why.
        reason: Reason,
        /// Which leaves first.
        victim: Option<usize>,
    },
    /// A model leaves.
    SwitchOff {
        /// Which.
        model: usize,
        /// Why.
        reason: Reason,
    },
}

/// The next thing to do, one at a time: nothing while a model comes or goes.
#[must_use]
pub fn decide(now: Nanos, models: &[View], rules: &Rules) -> Option<Action> {
    if models.iter().any(|m| m.state == ModelState::InTransit) {
        return None;
    }
    switch_on(now, models, rules).or_else(|| switch_off(now, models, rules))
}

fn switch_on(now: Nanos, models: &[View], rules: &Rules) -> Option<Action> {
    let off = || (0..models.len()).filter(|&i| models[i].state == ModelState::Off);
    let wanted = off().filter_map(|i| Some((i, reason(now, &models[i], rules)?)));
    // Who has room need not wait for who has none; among equals the first deadline counts.
    let urgency = |&(i, reason): &(usize, Reason)| {
        let rank = match reason {
            Reason::Room => 0,
            Reason::Objective => 1,
            _ => 2,
        };
        (rank, models[i].deadline.map_or(u64::MAX, |at| at.0))
    };
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_by_key(urgency);
    for (model, reason) in wanted {
        if models[model].has_room {
            let victim = None;
            return Some(Action::SwitchOn {
                model,
                reason,
                victim,
            });
        }
        let victim = victim(now, models, rules);
        if victim.is_some() {
            return Some(Action::SwitchOn {
                model,
                reason,
                victim,
            });
        }
    }
    None
}

/// Which model leaves for another: the first active one that did not come just now. Where the room of one is
/// too little, it is asked for again once that one has left.
#[must_use]
pub fn victim(now: Nanos, models: &[View], rules: &Rules) -> Option<usize> {
    let stays = |view: &View| now.since(view.since) < rules.quantum;
    let leaves = |view: &View| view.state == ModelState::Active && !stays(view);
    models.iter().position(leaves)
}

/// Whether a model is off and somebody waits for it.
pub(crate) fn is_wanted(view: &View) -> bool {
    view.state == ModelState::Off && view.n_waiting > 0
}

/// Whether some model is on the device or on its way, so that there may be more room later.
pub(crate) fn may_leave(models: &[View]) -> bool {
    models.iter().any(|view| view.state != ModelState::Off)
}

/// Why a model that is off should come.
fn reason(now: Nanos, view: &View, rules: &Rules) -> Option<Reason> {
    if view.n_waiting == 0 {
        return None;
    }
    if view.has_room {
        return Some(Reason::Room);
    }
    let is_pressing = |deadline: Nanos| deadline.since(now) < rules.lead;
    if view.deadline.is_some_and(is_pressing) {
        return Some(Reason::Objective);
    }
    (view.n_waiting >= rules.queue_threshold).then_some(Reason::Queue)
}

/// When a model leaves that gets no request until then, if it does.
pub(crate) fn idle_at(view: &View, rules: &Rules) -> Option<Nanos> {
    let has_requests = view.n_waiting > 0 || view.n_running > 0;
    let is_idle = view.state == ModelState::Active && !has_requests;
    let leaves = is_idle && rules.policy == SwapPolicy::Enhanced;
    leaves.then(|| view.last_busy.max(view.since).after(rules.idle))
}

fn switch_off(now: Nanos, models: &[View], rules: &Rules) -> Option<Action> {
    let is_idle = |view: &View| idle_at(view, rules).is_some_and(|at| at <= now);
    let model = models.iter().position(is_idle)?;
    let reason = Reason::Idle;
    Some(Action::SwitchOff { model, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModelState::{Active, InTransit, Off};

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * SECOND)
    }

    fn view(state: ModelState, n_waiting: usize) -> View {
        View {
            state,
            since: at(0),
            n_waiting,
            n_running: 0,
            deadline: None,
            last_busy: at(0),
            has_room: false,
        }
    }

    fn on(model: usize, reason: Reason, victim: Option<usize>) -> Option<Action> {
        Some(Action::SwitchOn {
            model,
            reason,
            victim,
        })
    }

    #[test]
    fn enough_waiting_requests_make_the_first_active_model_leave() {
        let rules = Rules::default();
        let models = |n| [view(Active, 0), view(Active, 0), view(Off, n)];
        assert_eq!(decide(at(50), &models(9), &rules), None);
        assert_eq!(
            decide(at(50), &models(10), &rules),
            on(2, Reason::Queue, Some(0))
        );
    }

    #[test]
    fn a_model_that_came_just_now_stays_a_while() {
        let rules = Rules::default();
        let fresh = View {
            since: at(49),
            ..view(Active, 20)
        };
        let waiting = view(Off, 10);
        assert_eq!(decide(at(50), &[fresh, waiting], &rules), None);
        assert_eq!(
            decide(at(51), &[fresh, waiting], &rules),
            on(1, Reason::Queue, Some(0))
        );
        let older = view(Active, 0);
        assert_eq!(
            decide(at(50), &[fresh, older, waiting], &rules),
            on(2, Reason::Queue, Some(1))
        );
    }

    #[test]
    fn a_deadline_presses_by_the_lead() {
        let rules = Rules::default();
        let late = View {
            deadline: Some(at(160)),
            ..view(Off, 1)
        };
        let models = [view(Active, 0), late];
        assert_eq!(decide(at(60), &models, &rules), None);
        assert_eq!(
            decide(at(61), &models, &rules),
            on(1, Reason::Objective, Some(0))
        );
        // Past its deadline too.
        assert_eq!(
            decide(at(900), &models, &rules),
            on(1, Reason::Objective, Some(0))
        );
    }

    #[test]
    fn who_has_room_comes_with_the_first_request_and_nobody_leaves() {
        let roomy = View {
            has_room: true,
            ..view(Off, 1)
        };
        let pressing = View {
            deadline: Some(at(50)),
            ..view(Off, 1)
        };
        let models = [view(Active, 0), pressing, roomy];
        assert_eq!(
            decide(at(60), &models, &Rules::default()),
            on(2, Reason::Room, None)
        );
        let nobody = View {
            has_room: true,
            ..view(Off, 0)
        };
        assert_eq!(decide(at(60), &[nobody], &Rules::default()), None);
    }

    #[test]
    fn one_move_at_a_time() {
        let models = [view(InTransit, 0), view(Off, 99)];
        assert_eq!(decide(at(60), &models, &Rules::default()), None);
    }

    #[test]
    fn only_the_enhanced_policy_sends_idle_models_away() {
        let mut rules = Rules::default();
        let idle = View {
            last_busy: at(50),
            ..view(Active, 0)
        };
        assert_eq!(decide(at(90), &[idle], &rules), None);
        rules.policy = SwapPolicy::Enhanced;
        assert_eq!(decide(at(59), &[idle], &rules), None);
        let off = Action::SwitchOff {
            model: 0,
            reason: Reason::Idle,
        };
        assert_eq!(decide(at(60), &[idle], &rules), Some(off));
        assert_eq!(decide(at(60), &[view(Active, 1)], &rules), None);
        let running = View {
            n_running: 1,
            ..idle
        };
        assert_eq!(decide(at(90), &[running], &rules), None);
    }

    #[test]
    fn victims_leave_one_after_the_other_and_none_that_came_just_now() {
        let rules = Rules::default();
        let fresh = View {
            since: at(49),
            ..view(Active, 0)
        };
        let models = [view(Off, 0), view(Active, 0), fresh];
        assert_eq!(victim(at(50), &models, &rules), Some(1));
        let models = [view(Off, 0), view(Off, 0), fresh];
        assert_eq!(victim(at(50), &models, &rules), None);
        assert_eq!(victim(at(51), &models, &rules), Some(2));
    }
}
