//! What is known of a declaration while others are linked to it: what it uses, its instances, and
//! which of them agree with an instance of another declaration.

use crate::graph::NodeId;
use crate::library::{ServiceEntry, StepEntry};
use crate::plan::NodeSort;
use crate::point::{Point, PointKey};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What a declaration uses.
#[derive(Clone)]
pub(super) enum Entry {
    Step(Arc<StepEntry>),
    Service(Arc<ServiceEntry>),
}

/// An instance before its options are read.
pub(super) struct Instance {
    pub(super) id: NodeId,
    pub(super) point: Point,
}

/// Instances by their values on some axes.
type Groups = HashMap<PointKey, Vec<NodeId>>;

/// What is known of a declaration while others are linked to it.
pub(super) struct Declared {
    pub(super) entry: Option<Entry>,
    pub(super) instances: Vec<Instance>,
    pub(super) axes: Vec<Arc<str>>,
    /// The points on its axes that are left out.
    pub(super) pruned: HashSet<PointKey>,
    /// Its instances by positions of axes, for every choice of axes that a reader had so far.
    by_axes: RefCell<BTreeMap<Vec<usize>, Groups>>,
}

impl Declared {
    /// Builds a declaration that has no instances yet.
    pub(super) fn new(entry: Option<Entry>, axes: Vec<Arc<str>>) -> Self {
        Self {
            entry,
            instances: Vec::new(),
            axes,
            pruned: HashSet::new(),
            by_axes: RefCell::default(),
        }
    }

    /// Looks at the instances that have the same values as `point` on the axes that both have, in
    /// their order. Takes constant time but for the first reader that has just these axes.
    pub(super) fn agreeing<T>(&self, point: &Point, look: impl FnOnce(&[NodeId]) -> T) -> T {
        let mut common = Vec::with_capacity(self.axes.len());
        let mut ids = Vec::with_capacity(self.axes.len());
        for (at, axis) in self.axes.iter().enumerate() {
            if let Some(coordinate) = point.get(axis) {
                common.push(at);
                ids.push(coordinate.id);
            }
        }
        let mut by_axes = self.by_axes.borrow_mut();
        let groups = by_axes
            .entry(common)
            .or_insert_with_key(|common| self.groups(common));
        look(groups.get(ids.as_slice()).map_or(&[], Vec::as_slice))
    }

    fn groups(&self, common: &[usize]) -> Groups {
        let mut groups = Groups::new();
        for instance in &self.instances {
            let key = common.iter().map(|at| instance.point[*at].id);
            groups.entry(key.collect()).or_default().push(instance.id);
        }
        groups
    }
}

/// All declarations by name.
#[derive(Default)]
pub(super) struct DeclaredAll {
    steps: BTreeMap<String, Declared>,
    services: BTreeMap<String, Declared>,
}

impl DeclaredAll {
    /// Returns what is known of a declaration.
    pub(super) fn get(&self, sort: NodeSort, name: &str) -> Option<&Declared> {
        match sort {
            NodeSort::Step => self.steps.get(name),
            NodeSort::Service => self.services.get(name),
        }
    }

    /// Adds a declaration.
    pub(super) fn insert(&mut self, sort: NodeSort, name: &str, declared: Declared) {
        let known = match sort {
            NodeSort::Step => &mut self.steps,
            NodeSort::Service => &mut self.services,
        };
        known.insert(name.to_owned(), declared);
    }

    /// Returns the names of all steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Coordinate;
    use crate::value::Kind;
    use proptest::prelude::*;

    const AXES: [&str; 3] = ["a", "b", "c"];

    fn point(axes: &[bool], ids: &[u32]) -> Point {
        let coordinate = |((axis, id), _): ((&str, &u32), &bool)| {
            let kind = Kind::Int((*id).into());
            Arc::new(Coordinate::new(axis.into(), kind, None, *id))
        };
        let pairs = AXES.into_iter().zip(ids).zip(axes);
        pairs.filter(|(_, has)| **has).map(coordinate).collect()
    }

    fn agree(a: &Point, b: &Point) -> bool {
        a.iter()
            .all(|c| b.get(&c.axis).is_none_or(|d| c.id == d.id))
    }

    proptest! {
        #[test]
        fn instances_are_found_that_have_the_same_values_on_common_axes(
            axes in prop::collection::vec(any::<bool>(), 3),
            points in prop::collection::vec(prop::collection::vec(0_u32..3, 3), 0..20),
            readers in prop::collection::vec(
                (prop::collection::vec(any::<bool>(), 3), prop::collection::vec(0_u32..3, 3)),
                1..10,
            ),
        ) {
            let named = AXES.iter().zip(&axes).filter(|(_, has)| **has);
            let mut declared = Declared::new(None, named.map(|(axis, _)| (*axis).into()).collect());
            for (id, ids) in (0..).zip(&points) {
                let point = point(&axes, ids);
                declared.instances.push(Instance { id: NodeId(id), point });
            }
            for (axes, ids) in &readers {
                let reader = point(axes, ids);
                let instances = declared.instances.iter();
                let expected = instances.filter(|i| agree(&i.point, &reader)).map(|i| i.id);
                let found = declared.agreeing(&reader, <[NodeId]>::to_vec);
                prop_assert_eq!(found, expected.collect::<Vec<_>>());
            }
        }
    }
}
