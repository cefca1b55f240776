//! The schedule on random graphs: never too early, never too many, always to the end.

use super::*;
use proptest::prelude::*;

const JOBS: u32 = 2;

fn kinds() -> impl Strategy<Value = Sort> {
    prop_oneof![
        2 => Just(Sort::Service),
        3 => Just(Sort::Step(StepKind::Pure)),
        3 => Just(Sort::Step(StepKind::Measure)),
        2 => Just(Sort::Step(StepKind::Effect)),
        1 => Just(Sort::Step(StepKind::Report)),
    ]
}

/// Graphs whose edges go from lower to higher ids, with edges that the types allow.
fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    prop::collection::vec(
        (
            kinds(),
            prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
        ),
        1..12,
    )
    .prop_map(|raw| {
        let mut shapes: Vec<Shape> = Vec::new();
        for (i, (sort, edges)) in raw.into_iter().enumerate() {
            let mut shape = Shape {
                sort,
                needs: vec![],
                after: vec![],
                leases: vec![],
            };
            for (index, order_only) in edges.into_iter().filter(|_| i > 0) {
                let at = index.index(i);
                let from = NodeId(u32::try_from(at).unwrap());
                let list = match shapes[at].sort {
                    Sort::Service if sort == Sort::Service => continue,
                    Sort::Service => &mut shape.leases,
                    Sort::Step(StepKind::Effect) if sort == Sort::Service => continue,
                    Sort::Step(StepKind::Effect) => &mut shape.after,
                    Sort::Step(_) if order_only && sort != Sort::Service => &mut shape.after,
                    Sort::Step(_) => &mut shape.needs,
                };
                if !list.contains(&from) {
                    list.push(from);
                }
            }
            shapes.push(shape);
        }
        shapes
    })
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
        let schedule = Schedule::new(shapes.clone(), order, JOBS, seed);
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
                    self.up.push(service);
                    self.pending.push(if luck % 23 == 22 {
                        Happened::Failed(service)
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
                    self.pending.retain(|h| {
                        *h != Happened::Ready(service) && *h != Happened::Failed(service)
                    });
                    self.pending.push(Happened::Stopped(service));
                }
                Action::Cancel(node) => {
                    self.pending
                        .retain(|h| *h != Happened::Done(node) && *h != Happened::Failed(node));
                    self.pending.push(Happened::Failed(node));
                }
                Action::Skip(node, _) => assert!(!self.running.contains(&node)),
                Action::Finish => self.ended = true,
            }
        }
    }

    fn decision(&self, node: NodeId, luck: u8) -> Decision {
        match self.shapes[node.0 as usize].sort {
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
        for service in &shape.leases {
            assert!(
                self.up.contains(service),
                "{node:?} starts without its service {service:?}"
            );
        }
        self.running.push(node);
        let alone = |n: &NodeId| {
            matches!(
                self.shapes[n.0 as usize].sort,
                Sort::Step(StepKind::Measure | StepKind::Effect)
            )
        };
        assert!(self.running.len() <= JOBS as usize, "too many at once");
        assert!(
            self.running.len() == 1 || !self.running.iter().any(alone),
            "a measurement is not alone"
        );
        self.pending.push(if luck % 11 == 10 {
            Happened::Failed(node)
        } else {
            Happened::Done(node)
        });
    }

    fn happen(&mut self, happened: Happened, luck: u8) {
        match &happened {
            Happened::Done(node) | Happened::Failed(node) => {
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

    fn note_done(&mut self) {
        let ids = (0..u32::try_from(self.shapes.len()).unwrap()).map(NodeId);
        self.done = ids.filter(|n| self.schedule.is_done(*n)).collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn it_never_starts_too_early_never_exceeds_a_pool_and_always_ends(
        shapes in shapes(), luck in prop::collection::vec(any::<u8>(), 400), seed in any::<u64>(), interrupt_at in 0usize..120,
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
            if world.ended {
                break;
            }
            prop_assert!(!world.pending.is_empty(), "nothing is under way and it has not ended");
            let next = world.pending.remove(usize::from(*luck) % world.pending.len());
            world.happen(next, *luck);
        }
        prop_assert!(world.ended, "it did not end");
        prop_assert!(world.up.is_empty(), "a service is still up");
    }
}

fn node(sort: Sort) -> Shape {
    Shape {
        sort,
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
