//! The power fails between any two changes that a run makes on disk, and the run goes on.

mod scripted;

use engine::event::Outcome;
use engine::expand::Expanded;
use engine::run::folder::read_recipe;
use engine::run::history;
use engine::store::{Finding, FsckOptions, Problem, Store};
use scripted::crash::{Disk, Survivors};
use scripted::recorder::{Change, Recorder};
use scripted::{Listing, PLAN, Random};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run of which every change on disk is known.
struct Recorded {
    expanded: Expanded,
    runtime: tokio::runtime::Runtime,
    /// The run's folder, relative to the folder of outputs.
    run: PathBuf,
    changes: Vec<Change>,
    results: Listing,
}

fn record() -> Recorded {
    let (expanded, runtime) = (scripted::expand(PLAN), scripted::runtime());
    let out = scripted::scratch();
    let recorder = Recorder::new(out.path(), Disk::empty());
    let watch = engine::disk::watch(out.path(), recorder.clone());
    let (outcome, _) = runtime.block_on(scripted::perform(&expanded, out.path(), None));
    drop(watch);
    assert_eq!(outcome.expect("a run"), Outcome::Done);
    let run = history::list(out.path()).remove(0);
    Recorded {
        expanded,
        runtime,
        changes: recorder.changes(),
        results: scripted::results(&run),
        run: run.strip_prefix(out.path()).expect("below").to_owned(),
    }
}

impl Recorded {
    fn disk_after(&self, n_changes: usize) -> Disk {
        let mut disk = Disk::empty();
        self.changes[..n_changes]
            .iter()
            .for_each(|change| disk.apply(change));
        disk
    }

    fn told(&self, case: &str, n_changes: usize) -> String {
        let last = n_changes.checked_sub(1).map(|i| &self.changes[i]);
        format!("{case}, after {n_changes} changes, the last of them {last:?}")
    }

    /// Cuts the power after `n_changes`, and goes on.
    fn cut(&self, n_changes: usize, survivors: Survivors, case: &str) {
        let case = self.told(case, n_changes);
        self.go_on_after(&self.disk_after(n_changes), survivors, &case);
    }

    /// Kills the engine after `n_changes`, goes on, and cuts the power when all is done: what
    /// the killed engine had written and not synced must not have been taken for safe.
    fn kill_then_cut(&self, n_changes: usize, survivors: Survivors, case: &str) {
        let case = self.told(case, n_changes);
        let mut disk = self.disk_after(n_changes);
        let out = scripted::scratch();
        disk.crash_into(out.path(), Survivors::All);
        let recorder = Recorder::new(out.path(), disk.clone());
        let watch = engine::disk::watch(out.path(), recorder.clone());
        self.go_on(out.path(), &BTreeMap::new(), &case);
        drop(watch);
        recorder.changes().iter().for_each(|c| disk.apply(c));
        self.go_on_after(&disk, survivors, &case);
    }

    fn go_on_after(&self, disk: &Disk, survivors: Survivors, case: &str) {
        let out = scripted::scratch();
        disk.crash_into(out.path(), survivors);
        let promised = disk
            .synced(&self.run.join("journal.log"))
            .map(scripted::finished_in)
            .unwrap_or_default();
        self.go_on(out.path(), &promised, case);
    }

    /// Resumes the run in `out`, or begins one, and sees to it that all ends well and nothing is
    /// done again that was `promised` to be done.
    fn go_on(&self, out: &Path, promised: &BTreeMap<String, usize>, case: &str) {
        let begun = history::list(out).into_iter().next();
        if let Some(begun) = &begun {
            read_recipe(begun).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        let told = begun
            .as_deref()
            .map(scripted::journal_finishes)
            .unwrap_or_default();
        let performed = scripted::perform(&self.expanded, out, begun.as_deref());
        let (outcome, events) = self.runtime.block_on(performed);
        let outcome = outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(outcome, Outcome::Done, "{case}: {events:#?}");
        let starts = scripted::starts(&events);
        for (node, target) in scripted::targets() {
            let count = |of: &BTreeMap<String, usize>| of.get(&node).copied().unwrap_or(0);
            let (kept, started) = (count(promised), count(&starts));
            assert!(count(&told) >= kept, "{case}: the journal forgot `{node}`");
            assert!(
                started + kept <= target,
                "{case}: `{node}` was done {kept} times and began {started} times again: {events:#?}"
            );
        }
        let run = history::list(out).pop().expect("a run");
        assert_eq!(scripted::results(&run), self.results, "{case}");
        self.verify_store(out, case);
        let latest = out.join("latest/results");
        assert!(latest.exists(), "{case}: `latest` leads nowhere");
    }

    /// Reads everything: nothing torn passes for whole, and no record names what is not there.
    fn verify_store(&self, out: &Path, case: &str) {
        let store = Store::open(&out.join("store")).expect("a store");
        let report = store.fsck(FsckOptions { dry_run: true }).expect("a check");
        let is_bad =
            |f: &&Finding| matches!(f.problem, Problem::Damaged | Problem::Dangling { .. });
        let bad: Vec<&Finding> = report.findings.iter().filter(is_bad).collect();
        assert!(
            bad.is_empty() && report.trouble.is_empty(),
            "{case}: {report:#?}"
        );
    }

    /// Makes `n_cases` of each kind at random places.
    fn cut_at_random(&self, seed: u64, n_cases: usize) {
        let mut random = Random(seed);
        for case in 0..n_cases {
            let case = format!("seed {seed}, case {case}");
            let mut place = || random.below(self.changes.len() + 1);
            let places = [place(), place()];
            self.cut(places[0], Survivors::Some(Random(random.next())), &case);
            self.kill_then_cut(places[1], Survivors::Some(Random(random.next())), &case);
        }
    }

    /// Cuts the power at each `stride`-th place, leaving all and leaving the least.
    fn cut_everywhere(&self, stride: usize) {
        for at in (0..=self.changes.len()).step_by(stride) {
            self.cut(at, Survivors::Synced, "with what was synced");
            self.cut(at, Survivors::All, "with all that was written");
            self.kill_then_cut(at, Survivors::Synced, "killed, then with what was synced");
        }
    }
}

/// Every place takes a minute where many tests run at once, so that is left to the soak test.
const STRIDE: usize = 5;

#[test]
fn the_power_may_fail_after_any_change() {
    let recorded = record();
    recorded.cut_everywhere(STRIDE);
    recorded.cut_at_random(1, 25);
}

#[test]
#[ignore = "a soak test: `cargo xtask soak power_cuts`"]
fn soak_power_cuts() {
    let recorded = record();
    let seed = scripted::soak_number("BENCHWRIGHT_SOAK_SEED", 1);
    recorded.cut_everywhere(1);
    for round in 0..scripted::soak_number("BENCHWRIGHT_SOAK_ROUNDS", 5) {
        recorded.cut_at_random(seed.wrapping_add(round), 100);
    }
}
