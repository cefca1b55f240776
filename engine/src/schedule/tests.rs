//! The schedule on random graphs: never too early, never too many, always to the end.

use super::*;
use crate::policy::{Demand, Machine, Retry, ServicePolicy};
use crate::step::StepKind;
use proptest::prelude::*;

const JOBS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Service,
    Step(StepKind),
}

impl Sort {
    fn role(self) -> Role {
        let exclusive = Demand {
            machine: Machine::Exclusive,
            ..Default::default()
        };
        match self {
            Sort::Service => Role::Service(Arc::new(ServicePolicy {
                ready: crate::policy::Readiness {
                    timeout: Duration::from_secs(1),
                    http: None,
                    tcp: false,
                    log: None,
                    command: vec![],
                },
                liveness: crate::policy::Liveness::default(),
                restarts: 2,
                demand: exclusive,
            })),
            Sort::Step(kind @ (StepKind::Measure | StepKind::Effect)) => Role::Step(
                kind,
                Arc::new(Policy {
                    demand: exclusive,
                    ..Policy::default()
                }),
            ),
            Sort::Step(kind) => Role::Step(kind, Arc::default()),
        }
    }
}

fn sort(shape: &Shape) -> Sort {
    match &shape.role {
        Role::Service(_) => Sort::Service,
        Role::Step(kind, _) => Sort::Step(*kind),
    }
}

fn kinds() -> impl Strategy<Value = Sort> {
    prop_oneof![
        2 => Just(Sort::Service),
        3 => Just(Sort::Step(StepKind::Pure)),
        3 => Just(Sort::Step(StepKind::Measure)),
        2 => Just(Sort::Step(StepKind::Effect)),
        1 => Just(Sort::Step(StepKind::Report)),
    ]
}

/// The only pool, and how much there is of it.
const POOL: &str = "gpus";
const POOL_SIZE: u32 = 3;

fn supply() -> Supply {
    Supply::from([(POOL.to_owned(), crate::policy::Pool::Count(POOL_SIZE))])
}

fn machine(as_usual: bool, usual: Machine) -> Machine {
    match (as_usual, usual) {
        (true, usual) => usual,
        (false, Machine::Shared) => Machine::Exclusive,
        (false, Machine::Exclusive) => Machine::Shared,
    }
}

/// Roles with every kind of policy: what is demanded, when it is tried again, what failure means.
fn roles() -> impl Strategy<Value = Role> {
    (kinds(), any::<bool>(), 0..=POOL_SIZE, 0..3u32, 0..3usize).prop_map(
        |(kind, as_usual, gpus, tries, on_failure)| {
            let on_failure = [
                OnFailure::Stop,
                OnFailure::SkipDependents,
                OnFailure::Continue,
            ][on_failure];
            let amounts = if gpus == 0 {
                BTreeMap::new()
            } else {
                BTreeMap::from([(POOL.to_owned(), gpus)])
            };
            match kind.role() {
                Role::Service(policy) => Role::Service(Arc::new(ServicePolicy {
                    demand: Demand {
                        machine: machine(as_usual, policy.demand.machine),
                        amounts,
                    },
                    restarts: tries,
                    ..(*policy).clone()
                })),
                Role::Step(kind, policy) => Role::Step(
                    kind,
                    Arc::new(Policy {
                        demand: Demand {
                            machine: machine(as_usual, policy.demand.machine),
                            amounts,
                        },
                        retry: Retry {
                            max: tries,
                            on: vec![FailureClass::Step],
                            backoff: Duration::from_secs(1),
                        },
                        on_failure,
                        ..(*policy).clone()
                    }),
                ),
            }
        },
    )
}

/// Graphs whose edges go from lower to higher ids, with edges that the types allow.
fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(
        (
            roles(),
            prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
        ),
        1..12,
    )
    .prop_map(|raw| {
        let mut shapes: Vec<Shape> = Vec::new();
        for (i, (role, edges)) in raw.into_iter().enumerate() {
            let mut shape = Shape {
                role,
                ..node(Sort::Service)
            };
            let kind = sort(&shape);
            for (index, order_only) in edges.into_iter().filter(|_| i > 0) {
                let at = index.index(i);
                let from = NodeId(u32::try_from(at).unwrap());
                let list = match sort(&shapes[at]) {
                    // No front stands in front of another.
                    Sort::Service if kind == Sort::Service && !shapes[at].leases.is_empty() => {
                        continue;
                    }
                    Sort::Service => &mut shape.leases,
                    Sort::Step(StepKind::Effect) if kind == Sort::Service => continue,
                    Sort::Step(StepKind::Effect) => &mut shape.after,
                    Sort::Step(_) if order_only && kind != Sort::Service => &mut shape.after,
                    Sort::Step(StepKind::Measure) => &mut shape.reads,
                    Sort::Step(_) => &mut shape.needs,
                };
                if !list.contains(&from) {
                    list.push(from);
                }
            }
            close(&mut shape, &shapes);
            shapes.push(shape);
        }
        shapes
    })
}

/// Adds what stands behind the services that a node leases.
fn close(shape: &mut Shape, before: &[Shape]) {
    for front in shape.leases.clone() {
        for service in &before[front.0 as usize].leases {
            if !shape.leases.contains(service) {
                shape.leases.push(*service);
            }
        }
    }
}

/// Performs a schedule with outcomes drawn from `luck`, and checks every action on the way.
struct World {
    shapes: Vec<Shape>,
    schedule: Schedule,
    pending: Vec<Happened>,
    running: Vec<NodeId>,
    up: Vec<NodeId>,
    done: Vec<NodeId>,
    ended: bool,
}

impl World {
    fn new(shapes: Vec<Shape>, seed: u64) -> Self {
        let order = (0..u32::try_from(shapes.len()).unwrap())
            .map(NodeId)
            .collect();
        let schedule = Schedule::new(shapes.clone(), order, JOBS, seed, &supply());
        Self {
            shapes,
            schedule,
            pending: vec![],
            running: vec![],
            up: vec![],
            done: vec![],
            ended: false,
        }
    }

    fn perform(&mut self, actions: Vec<Action>, luck: u8) {
        for action in actions {
            assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::Decide(node) => self
                    .pending
                    .push(Happened::Decided(node, self.decision(node, luck))),
                Action::Start(node, _) => self.start(node, luck),
                Action::Launch(service) => {
                    assert!(!self.up.contains(&service));
                    for behind in &self.shapes[service.0 as usize].leases {
                        let serves = self.up.contains(behind) && !self.is_coming(*behind);
                        assert!(serves, "{service:?} is launched before {behind:?} serves");
                    }
                    self.up.push(service);
                    self.check_pool();
                    self.pending.push(if luck % 23 == 22 {
                        Happened::Failed(service, FailureClass::Step)
                    } else {
                        Happened::Ready(service)
                    });
                }
                Action::Stop(service) => {
                    let users = |n: &&NodeId| self.shapes[n.0 as usize].leases.contains(&service);
                    assert_eq!(
                        self.running.iter().find(users),
                        None,
                        "a leased service is stopped"
                    );
                    let fronts = |n: &&NodeId| self.shapes[n.0 as usize].leases.contains(&service);
                    let front = self.up.iter().find(fronts);
                    assert_eq!(front, None, "a service is stopped before its front");
                    self.pending.retain(|h| {
                        *h != Happened::Ready(service)
                            && *h != Happened::Failed(service, FailureClass::Step)
                    });
                    self.pending.push(Happened::Stopped(service));
                }
                Action::Cancel(node) => {
                    self.pending.retain(|h| !is_end_of(h, node));
                    self.pending
                        .push(Happened::Failed(node, FailureClass::Step));
                }
                Action::Rest(node, _) => self.pending.push(Happened::Rested(node)),
                Action::Skip(node, _) => assert!(!self.running.contains(&node)),
                Action::Finish => self.ended = true,
            }
        }
    }

    /// Whether a service was launched and has not come up.
    fn is_coming(&self, service: NodeId) -> bool {
        let of_it = |h: &Happened| matches!(h, Happened::Ready(s) | Happened::Failed(s, _) if *s == service);
        self.pending.iter().any(of_it)
    }

    fn is_tolerated(&self, node: NodeId) -> bool {
        self.schedule.state(node).is_terminal() && self.schedule.is_tolerated(node)
    }

    fn check_pool(&self) {
        let holders = self.running.iter().chain(&self.up);
        let amounts = holders.filter_map(|n| demand(&self.shapes[n.0 as usize]).amounts.get(POOL));
        assert!(amounts.sum::<u32>() <= POOL_SIZE, "more than there is");
    }

    fn decision(&self, node: NodeId, luck: u8) -> Decision {
        match sort(&self.shapes[node.0 as usize]) {
            Sort::Service => Decision::Known,
            Sort::Step(StepKind::Effect) => Decision::OnDemand,
            Sort::Step(StepKind::Measure) => Decision::Run {
                times: u32::from(luck % 4),
                first: 0,
            },
            Sort::Step(_) if luck.is_multiple_of(3) => Decision::Satisfied,
            Sort::Step(_) => Decision::Run { times: 1, first: 0 },
        }
    }

    fn start(&mut self, node: NodeId, luck: u8) {
        let shape = &self.shapes[node.0 as usize];
        for need in &shape.needs {
            assert!(
                self.done.contains(need),
                "{node:?} starts before its input {need:?}"
            );
        }
        for read in &shape.reads {
            assert!(
                self.done.contains(read) || self.is_tolerated(*read),
                "{node:?} starts before the samples of {read:?}"
            );
        }
        for before in &shape.after {
            let is_effect = self.shapes[before.0 as usize].is_effect();
            assert!(
                is_effect || self.done.contains(before) || self.is_tolerated(*before),
                "{node:?} starts before {before:?}"
            );
        }
        for service in &shape.leases {
            assert!(
                self.up.contains(service),
                "{node:?} starts without its service {service:?}"
            );
        }
        self.running.push(node);
        self.check_pool();
        let alone = |n: &NodeId| demand(&self.shapes[n.0 as usize]).machine == Machine::Exclusive;
        let strangers = |s: &&NodeId| {
            let is_effect = shape.is_effect();
            !is_effect && alone(&node) && !shape.leases.contains(s)
        };
        let stranger = self.up.iter().find(strangers);
        assert_eq!(stranger, None, "{node:?} is disturbed");
        assert!(self.running.len() <= JOBS as usize, "too many at once");
        assert!(
            self.running.len() == 1 || !self.running.iter().any(alone),
            "a measurement is not alone"
        );
        self.pending.push(match luck % 11 {
            10 => Happened::Failed(node, FailureClass::Step),
            6..=9 if sort(shape) == Sort::Step(StepKind::Measure) => {
                Happened::Sampled(node, u32::from(luck % 3))
            }
            8 if !shape.is_effect() => Happened::Settled(node),
            _ => Happened::Done(node),
        });
    }

    /// A service that serves dies; its lessees are told to stop, and say so later.
    fn kill_one(&mut self, luck: u8) {
        let serving = |n: &&NodeId| {
            !self.pending.iter().any(|h| matches!(h, Happened::Ready(s) | Happened::Failed(s, _) | Happened::Stopped(s) if s == *n))
        };
        let victim = self.up.iter().find(serving).copied();
        if let Some(victim) = victim {
            self.happen(Happened::Died(victim), luck);
        }
    }

    fn happen(&mut self, happened: Happened, luck: u8) {
        match &happened {
            Happened::Done(node)
            | Happened::Sampled(node, _)
            | Happened::Settled(node)
            | Happened::Failed(node, _) => {
                self.running.retain(|n| n != node);
                self.up.retain(|n| n != node);
            }
            Happened::Stopped(node) | Happened::Died(node) => self.up.retain(|n| n != node),
            _ => {}
        }
        let actions = self.schedule.on(happened);
        self.note_done();
        self.perform(actions, luck);
    }

    fn states(&self) -> Vec<State> {
        let ids = (0..u32::try_from(self.shapes.len()).unwrap()).map(NodeId);
        ids.map(|n| self.schedule.state(n)).collect()
    }

    fn note_done(&mut self) {
        let ids = (0..u32::try_from(self.shapes.len()).unwrap()).map(NodeId);
        self.done = ids.filter(|n| self.schedule.is_done(*n)).collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn it_never_starts_too_early_never_exceeds_a_pool_and_always_ends(
        shapes in shapes(), luck in prop::collection::vec(any::<u8>(), 600), seed in any::<u64>(), interrupt_at in 0usize..900,
    ) {
        let mut world = World::new(shapes, seed);
        let begin = world.schedule.begin();
        world.perform(begin, luck[0]);
        for (i, luck) in luck.iter().enumerate() {
            if world.ended {
                break;
            }
            if i == interrupt_at {
                world.happen(Happened::Interrupted, *luck);
            }
            if *luck % 29 == 28 && !world.ended {
                world.kill_one(*luck);
            }
            if world.ended {
                break;
            }
            prop_assert!(
                !world.pending.is_empty(),
                "nothing is under way and it has not ended: {:?}", world.states()
            );
            let next = world.pending.remove(usize::from(*luck) % world.pending.len());
            world.happen(next, *luck);
        }
        prop_assert!(world.ended, "it did not end");
        prop_assert!(world.up.is_empty(), "a service is still up");
    }
}

/// Whether a step and the effects before it use each service through one front: plans that do not
/// are refused, see `expand::fronts`.
fn has_one_front_each(shapes: &[Shape], at: usize) -> bool {
    let of = |id: &NodeId| &shapes[id.0 as usize];
    let mut steps = vec![at];
    let mut company: BTreeSet<NodeId> = BTreeSet::new();
    while let Some(at) = steps.pop() {
        company.extend(&shapes[at].leases);
        let effects = shapes[at].after.iter().filter(|id| of(id).is_effect());
        steps.extend(effects.map(|id| id.0 as usize));
    }
    let own = &shapes[at].leases;
    company.iter().all(|service| {
        let mut fronts = company.iter().filter(|id| of(id).leases.contains(service));
        match (fronts.next(), fronts.next()) {
            (_, Some(_)) => false,
            (Some(front), None) => !own.contains(service) || own.contains(front),
            (None, None) => true,
        }
    })
}

/// Actions that a graph whose nodes all do well may ask for: every node is decided and stopped, and
/// each sample may bring all services up and down.
fn most_actions(shapes: &[Shape], runs: &[u32]) -> usize {
    let n_samples: usize = runs.iter().map(|n| *n as usize + 1).sum();
    shapes.len() * 3 + n_samples * (2 * shapes.len() + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn where_nothing_fails_it_ends_without_moving_services_in_vain(
        shapes in shapes(), runs in prop::collection::vec(1..4u32, 12), seed in any::<u64>(),
    ) {
        prop_assume!((0..shapes.len()).all(|at| has_one_front_each(&shapes, at)));
        let runs: Vec<u32> = shapes.iter().zip(runs).map(|(shape, n)| match sort(shape) {
            Sort::Service | Sort::Step(StepKind::Effect) => 0,
            Sort::Step(StepKind::Measure) => n,
            Sort::Step(_) => 1,
        }).collect();
        let order = (0..u32::try_from(shapes.len()).unwrap()).map(NodeId).collect();
        let mut schedule = Schedule::new(shapes.clone(), order, JOBS, seed, &supply());
        let told = play_at_most(&mut schedule, &runs, most_actions(&shapes, &runs));
        let skipped = |why: Because| told.iter().any(|a| matches!(a, Action::Skip(_, because) if *because == why));
        // What has no room takes with it what waits for it.
        let others = told.iter().any(|a| matches!(a, Action::Skip(_, Because::Dependency(_) | Because::Failure(_))));
        prop_assert!(!others || skipped(Because::NoRoom), "{:?}", told);
    }
}

fn is_end_of(happened: &Happened, node: NodeId) -> bool {
    matches!(happened, Happened::Done(n) | Happened::Sampled(n, _) | Happened::Settled(n) | Happened::Failed(n, _) if *n == node)
}

fn demand(shape: &Shape) -> &Demand {
    match &shape.role {
        Role::Step(_, policy) => &policy.demand,
        Role::Service(policy) => &policy.demand,
    }
}

fn node(sort: Sort) -> Shape {
    Shape {
        role: sort.role(),
        reads: vec![],
        needs: vec![],
        after: vec![],
        leases: vec![],
    }
}

/// server(0) ← warm(1) ← load(2), which comes after the warm-up.
fn warm_and_load() -> Schedule {
    let mut warm = node(Sort::Step(StepKind::Effect));
    warm.leases.push(NodeId(0));
    let mut load = node(Sort::Step(StepKind::Measure));
    load.leases.push(NodeId(0));
    load.after.push(NodeId(1));
    Schedule::new(
        vec![node(Sort::Service), warm, load],
        vec![NodeId(0), NodeId(1), NodeId(2)],
        2,
        1,
        &Supply::new(),
    )
}

#[test]
fn a_satisfied_measurement_never_launches_its_server() {
    let mut schedule = warm_and_load();
    assert_eq!(schedule.begin(), [Action::Decide(NodeId(0))]);
    assert_eq!(
        schedule.on(Happened::Decided(NodeId(0), Decision::Known)),
        [Action::Decide(NodeId(1))]
    );
    assert_eq!(
        schedule.on(Happened::Decided(NodeId(1), Decision::OnDemand)),
        [Action::Decide(NodeId(2))]
    );
    let end = schedule.on(Happened::Decided(NodeId(2), Decision::Satisfied));
    assert_eq!(
        end,
        [Action::Skip(NodeId(1), Because::NotNeeded), Action::Finish]
    );
}

/// Decides everything, then lets every launch, start and stop end well.
fn play(schedule: &mut Schedule, runs: &[u32]) -> Vec<Action> {
    play_at_most(schedule, runs, 1000)
}

/// The same, with so many actions at most.
fn play_at_most(schedule: &mut Schedule, runs: &[u32], most: usize) -> Vec<Action> {
    let mut told = Vec::new();
    let mut queue: std::collections::VecDeque<Action> = schedule.begin().into();
    while let Some(action) = queue.pop_front() {
        assert!(told.len() < most, "it goes on and on: {told:?}");
        told.push(action.clone());
        let happened = match action {
            Action::Decide(n) => match runs[n.0 as usize] {
                0 if schedule.shape(n).is_service() => Happened::Decided(n, Decision::Known),
                0 => Happened::Decided(n, Decision::OnDemand),
                times => Happened::Decided(n, Decision::Run { times, first: 0 }),
            },
            Action::Start(n, _) => Happened::Done(n),
            Action::Launch(s) => Happened::Ready(s),
            Action::Stop(s) => Happened::Stopped(s),
            Action::Rest(n, _) => Happened::Rested(n),
            Action::Cancel(_) | Action::Skip(..) | Action::Finish => continue,
        };
        queue.extend(schedule.on(happened));
    }
    assert_eq!(told.last(), Some(&Action::Finish), "{told:?}");
    told
}

fn shape(sort: Sort, after: &[u32], leases: &[u32]) -> Shape {
    let ids = |list: &[u32]| list.iter().map(|n| NodeId(*n)).collect();
    Shape {
        role: sort.role(),
        reads: vec![],
        needs: vec![],
        after: ids(after),
        leases: ids(leases),
    }
}

fn schedule_of(shapes: Vec<Shape>) -> Schedule {
    let order = (0..u32::try_from(shapes.len()).unwrap())
        .map(NodeId)
        .collect();
    Schedule::new(shapes, order, 2, 1, &Supply::new())
}

#[test]
fn an_effect_before_a_step_without_its_server_is_performed_once() {
    let effect = shape(Sort::Step(StepKind::Effect), &[], &[0]);
    let pure = shape(Sort::Step(StepKind::Pure), &[1], &[]);
    let mut schedule = schedule_of(vec![shape(Sort::Service, &[], &[]), effect, pure]);
    let told = play(&mut schedule, &[0, 0, 1]);
    assert_eq!(
        told.iter()
            .filter(|a| matches!(a, Action::Launch(_)))
            .count(),
        1,
        "{told:?}"
    );
}

#[test]
fn effects_on_two_servers_before_one_load_end() {
    let (service, effect) = (shape(Sort::Service, &[], &[]), Sort::Step(StepKind::Effect));
    let load = shape(Sort::Step(StepKind::Measure), &[2, 3], &[0]);
    let shapes = vec![
        service.clone(),
        service,
        shape(effect, &[], &[0]),
        shape(effect, &[], &[1]),
        load,
    ];
    let told = play(&mut schedule_of(shapes), &[0, 0, 0, 0, 2]);
    assert_eq!(
        told.iter()
            .filter(|a| matches!(a, Action::Start(NodeId(4), _)))
            .count(),
        2,
        "{told:?}"
    );
}

#[test]
fn two_measurements_whose_servers_came_up_together_run_one_after_the_other() {
    let service = shape(Sort::Service, &[], &[]);
    let both = shape(Sort::Step(StepKind::Effect), &[], &[0, 1]);
    let load = |on: u32| shape(Sort::Step(StepKind::Measure), &[2], &[on]);
    let shapes = vec![service.clone(), service, both, load(0), load(1)];
    play(&mut schedule_of(shapes), &[0, 0, 0, 2, 2]);
}

/// Two servers (0 and 1), fronts before both (from 2 on), and one load on each front.
fn fronts(n: u32) -> Vec<Shape> {
    let mut shapes = vec![node(Sort::Service), node(Sort::Service)];
    shapes.extend((0..n).map(|_| shape(Sort::Service, &[], &[0, 1])));
    let load = |i| shape(Sort::Step(StepKind::Measure), &[], &[2 + i, 0, 1]);
    shapes.extend((0..n).map(load));
    shapes
}

fn comings_and_goings(told: &[Action]) -> Vec<Action> {
    let moves = |action: &&Action| matches!(action, Action::Launch(_) | Action::Stop(_));
    told.iter().filter(moves).cloned().collect()
}

#[test]
fn what_stands_behind_a_front_comes_before_it_one_by_one_and_goes_after_it() {
    use Action::{Launch, Stop};
    let [one, two, front] = [0, 1, 2].map(NodeId);
    let told = play(&mut schedule_of(fronts(1)), &[0, 0, 0, 3]);
    let moves = [
        Launch(one),
        Launch(two),
        Launch(front),
        Stop(front),
        Stop(one),
        Stop(two),
    ];
    assert_eq!(comings_and_goings(&told), moves);
    // The second waits until the first serves.
    let mut schedule = schedule_of(fronts(1));
    schedule.begin();
    for service in [one, two, front] {
        schedule.on(Happened::Decided(service, Decision::Known));
    }
    let run = Decision::Run { times: 1, first: 0 };
    let load = NodeId(3);
    assert_eq!(schedule.on(Happened::Decided(load, run)), [Launch(one)]);
    assert_eq!(schedule.front(one), Some(front));
    assert_eq!(schedule.on(Happened::Ready(one)), [Launch(two)]);
    assert_eq!(schedule.on(Happened::Ready(two)), [Launch(front)]);
    let start = [Action::Start(load, 0)];
    assert_eq!(schedule.on(Happened::Ready(front)), start);
}

#[test]
fn another_front_gets_servers_of_its_own() {
    let told = play(&mut schedule_of(fronts(2)), &[0, 0, 0, 0, 2, 2]);
    let launched = |service: u32| {
        let launch = Action::Launch(NodeId(service));
        told.iter().filter(|action| **action == launch).count()
    };
    assert_eq!([0, 1, 2, 3].map(launched), [2, 2, 1, 1], "{told:?}");
}

#[test]
fn two_fronts_do_not_take_each_others_servers() {
    // Who waits first is not always who comes first in the plan.
    let mut shapes = fronts(2);
    let alone = shape(Sort::Step(StepKind::Measure), &[], &[]);
    shapes.extend([alone.clone(), alone]);
    let (first, second) = (4, 5);
    shapes[first].after = vec![NodeId(7)];
    shapes[second].after = vec![NodeId(6)];
    let order = [0, 1, 2, 3, 6, 7, 4, 5].map(NodeId).to_vec();
    for seed in 0..8 {
        let mut schedule = Schedule::new(shapes.clone(), order.clone(), JOBS, seed, &Supply::new());
        let told = play(&mut schedule, &[0, 0, 0, 0, 2, 2, 1, 1]);
        let launch = |action: &&Action| **action == Action::Launch(NodeId(0));
        assert_eq!(told.iter().filter(launch).count(), 2, "{told:?}");
    }
}

#[test]
fn a_server_that_a_step_had_for_itself_is_launched_anew_for_a_front() {
    let mut shapes = fronts(1);
    shapes.push(shape(Sort::Step(StepKind::Measure), &[], &[0]));
    let told = play(&mut schedule_of(shapes), &[0, 0, 0, 1, 1]);
    let launches = |n: &&Action| **n == Action::Launch(NodeId(0));
    assert_eq!(told.iter().filter(launches).count(), 2, "{told:?}");
}

#[test]
fn if_one_behind_a_front_dies_all_of_them_come_anew() {
    use Action::{Cancel, Launch, Start, Stop};
    let [one, two, front, load] = [0, 1, 2, 3].map(NodeId);
    for dies in [one, front] {
        let mut shapes = fronts(1);
        let retry = Retry {
            max: 1,
            on: vec![FailureClass::Infrastructure],
            backoff: Duration::from_secs(1),
        };
        let policy = Policy {
            retry,
            ..Policy::default()
        };
        shapes[3].role = Role::Step(StepKind::Measure, Arc::new(policy));
        let mut schedule = schedule_of(shapes);
        schedule.begin();
        for service in [one, two, front] {
            schedule.on(Happened::Decided(service, Decision::Known));
        }
        let run = Decision::Run { times: 1, first: 0 };
        schedule.on(Happened::Decided(load, run));
        for service in [one, two, front] {
            schedule.on(Happened::Ready(service));
        }
        assert_eq!(schedule.on(Happened::Died(dies)), [Cancel(load)]);
        // While it rests nothing moves.
        let failed = Happened::Failed(load, FailureClass::Infrastructure);
        assert_eq!(
            schedule.on(failed),
            [Action::Rest(load, Duration::from_secs(1))]
        );
        let mut told = schedule.on(Happened::Rested(load));
        let mut at = 0;
        while at < told.len() {
            let happened = match told[at] {
                Stop(service) => Happened::Stopped(service),
                Launch(service) => Happened::Ready(service),
                Start(step, _) => Happened::Done(step),
                Action::Finish => break,
                ref other => panic!("{other:?}"),
            };
            told.extend(schedule.on(happened));
            at += 1;
        }
        let gone: Vec<Action> = told.iter().take(2).cloned().collect();
        let went = match dies == front {
            true => [Stop(one), Stop(two)],
            false => [Stop(front), Stop(two)],
        };
        assert_eq!(gone, went, "{told:?}");
        let came = [Launch(one), Launch(two), Launch(front), Start(load, 0)];
        assert_eq!(told[2..6], came, "{told:?}");
    }
}

#[test]
fn a_server_is_not_launched_again_while_a_step_on_the_dead_one_is_ending() {
    let load = || shape(Sort::Step(StepKind::Measure), &[], &[0]);
    let mut schedule = schedule_of(vec![shape(Sort::Service, &[], &[]), load(), load()]);
    schedule.begin();
    schedule.on(Happened::Decided(NodeId(0), Decision::Known));
    let run = Decision::Run { times: 1, first: 0 };
    schedule.on(Happened::Decided(NodeId(1), run));
    schedule.on(Happened::Decided(NodeId(2), run));
    let started = schedule.on(Happened::Ready(NodeId(0)));
    let [Action::Start(first, 0)] = started[..] else {
        panic!("{started:?}")
    };
    assert_eq!(
        schedule.on(Happened::Died(NodeId(0))),
        [Action::Cancel(first)]
    );
    let ended = schedule.on(Happened::Failed(first, FailureClass::Infrastructure));
    assert!(ended.contains(&Action::Finish), "{ended:?}");
    assert!(schedule.has_failed(first));
}

#[test]
fn a_step_is_not_tried_again_on_a_server_that_never_comes_back() {
    let retry = Retry {
        max: 3,
        on: vec![FailureClass::Infrastructure],
        backoff: Duration::from_secs(1),
    };
    let policy = Policy {
        retry,
        on_failure: OnFailure::SkipDependents,
        ..Policy::default()
    };
    let (load, next) = (NodeId(1), NodeId(2));
    // A death is its last: nothing restarts it.
    let frail = || {
        let mut server = shape(Sort::Service, &[], &[]);
        if let Role::Service(policy) = &mut server.role {
            Arc::make_mut(policy).restarts = 0;
        }
        server
    };
    let of_load = |next: &[u32]| Shape {
        role: Role::Step(StepKind::Measure, Arc::new(policy.clone())),
        ..shape(Sort::Step(StepKind::Measure), next, &[0])
    };
    for left in [None, Some(1)] {
        let mut schedule = schedule_of(vec![frail(), of_load(&[]), of_load(&[1])]);
        schedule.begin();
        schedule.on(Happened::Decided(NodeId(0), Decision::Known));
        let run = Decision::Run { times: 2, first: 0 };
        schedule.on(Happened::Decided(load, run));
        schedule.on(Happened::Decided(next, run));
        assert_eq!(
            schedule.on(Happened::Ready(NodeId(0))),
            [Action::Start(load, 0)]
        );
        schedule.on(Happened::Died(NodeId(0)));
        assert!(schedule.has_failed(NodeId(0)));
        let ended = schedule.on(match left {
            None => Happened::Failed(load, FailureClass::Infrastructure),
            Some(left) => Happened::Sampled(load, left),
        });
        let rests = |action: &Action| matches!(action, Action::Rest(..) | Action::Launch(_));
        assert!(!ended.iter().any(rests), "{ended:?}");
        assert_eq!(ended.last(), Some(&Action::Finish), "{ended:?}");
        let because = Because::Dependency(NodeId(0));
        let is_skipped = ended.contains(&Action::Skip(load, because));
        assert_eq!(is_skipped, left.is_some(), "{ended:?}");
    }
}

#[test]
fn a_restarted_server_is_warmed_again() {
    let mut schedule = warm_and_load();
    schedule.begin();
    schedule.on(Happened::Decided(NodeId(0), Decision::Known));
    schedule.on(Happened::Decided(NodeId(1), Decision::OnDemand));
    let run = Decision::Run { times: 2, first: 0 };
    assert_eq!(
        schedule.on(Happened::Decided(NodeId(2), run)),
        [Action::Launch(NodeId(0))]
    );
    assert_eq!(
        schedule.on(Happened::Ready(NodeId(0))),
        [Action::Start(NodeId(1), 0)]
    );
    assert_eq!(
        schedule.on(Happened::Done(NodeId(1))),
        [Action::Start(NodeId(2), 0)]
    );
    assert_eq!(
        schedule.on(Happened::Done(NodeId(2))),
        [Action::Start(NodeId(2), 1)]
    );
    assert_eq!(
        schedule.on(Happened::Done(NodeId(2))),
        [Action::Stop(NodeId(0))]
    );
    assert_eq!(schedule.on(Happened::Stopped(NodeId(0))), [Action::Finish]);
}

/// A sweep: `servers` servers, each warmed, then measured in `cells` cells of `samples` samples,
/// then profiled; inputs of every cell are derived first, and a report reads all.
fn sweep(servers: u32, cells: u32) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut loads = Vec::new();
    for _ in 0..servers {
        let id = |shapes: &Vec<Shape>| u32::try_from(shapes.len()).unwrap();
        let server = id(&shapes);
        shapes.push(node(Sort::Service));
        let warm = id(&shapes);
        shapes.push(shape(Sort::Step(StepKind::Effect), &[], &[server]));
        let mut own = Vec::new();
        for _ in 0..cells {
            let input = id(&shapes);
            shapes.push(node(Sort::Step(StepKind::Pure)));
            let mut load = shape(Sort::Step(StepKind::Measure), &[warm], &[server]);
            load.needs.push(NodeId(input));
            own.push(id(&shapes));
            shapes.push(load);
        }
        loads.extend(own.iter().map(|n| NodeId(*n)));
        shapes.push(shape(Sort::Step(StepKind::Measure), &own, &[server]));
    }
    let mut report = node(Sort::Step(StepKind::Report));
    report.reads = loads;
    shapes.push(report);
    shapes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_sweep_launches_every_server_once_and_no_more(
        servers in 1..5u32, cells in 1..6u32, samples in 1..4u32, seed in any::<u64>(), jobs in 1..5u32,
    ) {
        let shapes = sweep(servers, cells);
        let order: Vec<NodeId> = (0..u32::try_from(shapes.len()).unwrap()).map(NodeId).collect();
        let runs: Vec<u32> = shapes.iter().map(|s| match sort(s) {
            Sort::Service | Sort::Step(StepKind::Effect) => 0,
            Sort::Step(StepKind::Measure) => samples,
            Sort::Step(_) => 1,
        }).collect();
        let mut schedule = Schedule::new(shapes.clone(), order, jobs, seed, &Supply::new());
        let told = play(&mut schedule, &runs);
        let launches = told.iter().filter(|a| matches!(a, Action::Launch(_))).count();
        prop_assert_eq!(launches, servers as usize);
        let starts = |wanted: StepKind| told.iter().filter(|a| {
            matches!(a, Action::Start(n, _) if sort(&shapes[n.0 as usize]) == Sort::Step(wanted))
        }).count();
        prop_assert_eq!(starts(StepKind::Measure), (servers * (cells + 1) * samples) as usize);
        prop_assert_eq!(starts(StepKind::Effect), servers as usize);
        check_rounds(&shapes, &told)?;
    }
}

/// Within one server, no cell gets its next sample before every cell has the present one.
fn check_rounds(shapes: &[Shape], told: &[Action]) -> Result<(), TestCaseError> {
    let mut rounds: BTreeMap<NodeId, u32> = BTreeMap::new();
    for action in told {
        let Action::Start(node, sample) = action else {
            continue;
        };
        let shape = &shapes[node.0 as usize];
        // The profile comes after all loads and has rounds of its own.
        if sort(shape) != Sort::Step(StepKind::Measure) || shape.needs.is_empty() {
            continue;
        }
        let round = rounds.entry(shape.leases[0]).or_default();
        prop_assert!(*sample >= *round, "sample {sample} after round {round}");
        *round = *sample;
    }
    Ok(())
}

#[test]
fn seeds_shuffle_the_cells_of_a_round() {
    let shapes = sweep(1, 6);
    let order: Vec<NodeId> = (0..u32::try_from(shapes.len()).unwrap())
        .map(NodeId)
        .collect();
    let runs: Vec<u32> = shapes
        .iter()
        .map(|s| u32::from(!s.is_service() && !s.is_effect()))
        .collect();
    let told = |seed| {
        play(
            &mut Schedule::new(shapes.clone(), order.clone(), 1, seed, &Supply::new()),
            &runs,
        )
    };
    assert_eq!(told(1), told(1));
    assert!((2..9).any(|seed| told(seed) != told(1)));
}

fn step(policy: Policy) -> Shape {
    Shape {
        role: Role::Step(StepKind::Pure, Arc::new(policy)),
        ..node(Sort::Service)
    }
}

#[test]
fn a_step_is_tried_again_only_after_failures_that_its_policy_names_and_with_longer_pauses() {
    let retry = Retry {
        max: 2,
        on: vec![FailureClass::Infrastructure],
        backoff: Duration::from_secs(10),
    };
    let policy = Policy {
        retry,
        ..Policy::default()
    };
    let only = NodeId(0);
    let begin = || {
        let mut schedule = schedule_of(vec![step(policy.clone())]);
        schedule.begin();
        let run = Decision::Run { times: 1, first: 0 };
        assert_eq!(
            schedule.on(Happened::Decided(only, run)),
            [Action::Start(only, 0)]
        );
        schedule
    };
    let mut schedule = begin();
    for seconds in [10, 20] {
        assert_eq!(
            schedule.on(Happened::Failed(only, FailureClass::Infrastructure)),
            [Action::Rest(only, Duration::from_secs(seconds))]
        );
        assert_eq!(
            schedule.on(Happened::Rested(only)),
            [Action::Start(only, 0)]
        );
    }
    let end = schedule.on(Happened::Failed(only, FailureClass::Infrastructure));
    assert_eq!(end, [Action::Finish]);
    assert!(schedule.has_failed(only));
    let mut schedule = begin();
    let end = schedule.on(Happened::Failed(only, FailureClass::Step));
    assert_eq!(end, [Action::Finish]);
}

#[test]
fn what_a_failure_means_for_the_others_is_its_policys_word() {
    let first = |on_failure| {
        step(Policy {
            on_failure,
            ..Policy::default()
        })
    };
    let shapes = |on_failure| {
        let mut reader = step(Policy::default());
        reader.needs.push(NodeId(0));
        let later = shape(Sort::Step(StepKind::Pure), &[0], &[]);
        let other = step(Policy::default());
        let mut next = step(Policy::default());
        next.needs.push(NodeId(3));
        vec![first(on_failure), reader, later, other, next]
    };
    let skipped = |on_failure| {
        let mut schedule = schedule_of(shapes(on_failure));
        let mut queue: VecDeque<Action> = schedule.begin().into();
        let mut skipped = Vec::new();
        while let Some(action) = queue.pop_front() {
            queue.extend(match action {
                Action::Decide(n) => {
                    schedule.on(Happened::Decided(n, Decision::Run { times: 1, first: 0 }))
                }
                Action::Start(NodeId(0), _) => {
                    schedule.on(Happened::Failed(NodeId(0), FailureClass::Step))
                }
                Action::Start(n, _) => schedule.on(Happened::Done(n)),
                Action::Skip(n, _) => {
                    skipped.push(n.0);
                    continue;
                }
                Action::Finish => return skipped,
                other => panic!("{other:?}"),
            });
        }
        panic!("it did not end")
    };
    assert_eq!(skipped(OnFailure::Continue), [1]);
    assert_eq!(skipped(OnFailure::SkipDependents), [1, 2]);
    assert_eq!(skipped(OnFailure::Stop), [1, 2, 4]);
}
