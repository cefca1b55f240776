//! Journals that are cut or flipped at any byte, and disks that are full at any moment: the run
//! goes on to the same results.

mod scripted;

use engine::disk::{self, Operation, Watcher};
use engine::event::{Event, Outcome};
use engine::expand::Expanded;
use engine::run::history;
use scripted::crash::{Disk, Survivors};
use scripted::recorder::{Change, Recorder};
use scripted::{Listing, PLAN};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

struct Bench {
    expanded: Expanded,
    runtime: Runtime,
    out: tempfile::TempDir,
    results: Listing,
    changes: Vec<Change>,
}

impl Bench {
    /// Makes a run that is whole, and remembers how it came about.
    fn new() -> Self {
        let (expanded, runtime) = (scripted::expand(PLAN), scripted::runtime());
        let out = scripted::scratch();
        let recorder = Recorder::new(out.path(), Disk::empty());
        let watch = disk::watch(out.path(), recorder.clone());
        let (outcome, _) = runtime.block_on(scripted::perform(&expanded, out.path(), None));
        drop(watch);
        assert_eq!(outcome.expect("a run"), Outcome::Done);
        Self {
            results: scripted::results(&history::list(out.path())[0]),
            changes: recorder.changes(),
            expanded,
            runtime,
            out,
        }
    }

    /// Goes on with the only run in `out` to the same results; returns what was told.
    fn resume(&self, out: &Path, case: &str) -> Vec<Event> {
        let run = history::list(out).pop();
        let performed = scripted::perform(&self.expanded, out, run.as_deref());
        let (outcome, events) = self.runtime.block_on(performed);
        let outcome = outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(outcome, Outcome::Done, "{case}: {events:#?}");
        let run = history::list(out).pop().expect("a run");
        assert_eq!(scripted::results(&run), self.results, "{case}");
        events
    }

    /// Resumes the whole run with other bytes in its journal: nothing is done again.
    fn resume_with_journal(&self, journal: &[u8], case: &str) {
        let run = history::list(self.out.path()).remove(0);
        fs::write(run.join("journal.log"), journal).expect("a journal");
        let events = self.resume(self.out.path(), case);
        assert!(scripted::starts(&events).is_empty(), "{case}: {events:#?}");
    }

    fn journal(&self) -> Vec<u8> {
        let run = history::list(self.out.path()).remove(0);
        fs::read(run.join("journal.log")).expect("a journal")
    }

    /// Puts back the moment at which so many bytes of the journal were written, and goes on.
    fn resume_from_moment(&self, n_bytes: usize) {
        let mut disk = Disk::empty();
        let mut left = n_bytes;
        for change in &self.changes {
            match change {
                Change::Append(path, bytes) if path.ends_with("journal.log") => {
                    let n = left.min(bytes.len());
                    disk.apply(&Change::Append(path.clone(), bytes[..n].to_vec()));
                    left -= n;
                    if n < bytes.len() {
                        break;
                    }
                }
                change => disk.apply(change),
            }
        }
        let out = scripted::scratch();
        disk.crash_into(out.path(), Survivors::All);
        let case = format!("cut off after {n_bytes} bytes of the journal");
        let finished = journal_finishes(out.path());
        let starts = scripted::starts(&self.resume(out.path(), &case));
        for (node, target) in scripted::targets() {
            let count = |of: &std::collections::BTreeMap<_, _>| of.get(&node).copied().unwrap_or(0);
            assert!(
                count(&starts) + count(&finished) <= target,
                "{case}: {node}"
            );
        }
    }

    fn cut_and_flip(&self, stride: usize) {
        let journal = self.journal();
        for at in (0..journal.len()).step_by(stride) {
            self.resume_from_moment(at);
            self.resume_with_journal(&journal[..at], &format!("cut at {at}"));
            let mut flipped = journal.clone();
            flipped[at] ^= 1 << (at % 8);
            self.resume_with_journal(&flipped, &format!("flipped at {at}"));
        }
    }

    /// Fills the disk after so many changes; returns whether that was before the end.
    fn fill(&self, n_changes: usize, returns: bool) -> bool {
        let case = format!("full after {n_changes} changes");
        let out = scripted::scratch();
        let full = Arc::new(Full {
            room: Mutex::new(n_changes),
            refused: AtomicBool::new(false),
            returns,
        });
        let watch = disk::watch(out.path(), full.clone());
        // Dropping it waits for steps that are under way, as the end of the process does.
        let runtime = scripted::runtime();
        let (outcome, events) =
            runtime.block_on(scripted::perform(&self.expanded, out.path(), None));
        drop(runtime);
        drop(watch);
        let was_full = full.refused.load(Ordering::SeqCst);
        match outcome {
            Err(error) => assert_is_told(&error.to_string(), out.path(), &case),
            Ok(Outcome::Done) => {}
            Ok(_) => assert_is_told(&failures(&events), out.path(), &case),
        }
        let finished = journal_finishes(out.path());
        let starts = scripted::starts(&self.resume(out.path(), &case));
        for (node, n_finished) in finished {
            let target = scripted::targets()[&node];
            let n_started = starts.get(&node).copied().unwrap_or(0);
            assert!(n_started + n_finished <= target, "{case}: {node}");
        }
        was_full
    }

    fn fill_everywhere(&self, stride: usize) {
        for returns in [false, true] {
            let mut at = 0;
            while self.fill(at, returns) {
                at += stride;
            }
        }
    }
}

fn journal_finishes(out: &Path) -> std::collections::BTreeMap<String, usize> {
    let run = history::list(out).pop();
    run.map(|run| scripted::journal_finishes(&run))
        .unwrap_or_default()
}

fn failures(events: &[Event]) -> String {
    let failures = events.iter().filter_map(|event| match event {
        Event::Failed(failure) => Some(failure.message.as_str()),
        _ => None,
    });
    failures.collect::<Vec<_>>().join("\n")
}

fn assert_is_told(message: &str, out: &Path, case: &str) {
    let mend = "no space is left; free some with `benchwright gc`";
    assert!(message.contains(mend), "{case}: {message}");
    let path = out.display().to_string();
    assert!(message.contains(&path), "{case}: {message}");
}

/// A disk with room for so many changes.
struct Full {
    room: Mutex<usize>,
    /// Whether a change was refused.
    refused: AtomicBool,
    /// Whether one change is refused and there is room again, rather than none for ever.
    returns: bool,
}

impl Watcher for Full {
    fn around(
        &self,
        operation: &Operation<'_>,
        change: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let takes_room = !matches!(
            operation,
            Operation::Remove { .. }
                | Operation::SyncFile { .. }
                | Operation::SyncFolder { .. }
                | Operation::SetLength { .. }
                | Operation::SetAttributes { .. }
        );
        if !takes_room {
            return change();
        }
        let mut room = self.room.lock().expect("the room");
        if *room > 0 {
            *room -= 1;
            return change();
        }
        self.refused.store(true, Ordering::SeqCst);
        if self.returns {
            *room = usize::MAX;
        }
        // Part of it may still have fitted.
        if let Operation::Append { path, bytes } = operation {
            let mut file = fs::OpenOptions::new().append(true).open(path)?;
            io::Write::write_all(&mut file, &bytes[..bytes.len() / 2])?;
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// Every byte takes a minute and more where many tests run at once, so that is left to the soak
/// test; this one shares no factor with the sizes of records.
const STRIDE: usize = 13;

#[test]
fn a_journal_may_end_or_be_damaged_at_any_byte() {
    Bench::new().cut_and_flip(STRIDE);
}

#[test]
fn a_disk_may_be_full_at_any_moment() {
    Bench::new().fill_everywhere(3);
}

#[test]
#[ignore = "a soak test: `cargo xtask soak every_cut`"]
fn soak_every_cut() {
    let bench = Bench::new();
    bench.cut_and_flip(1);
    bench.fill_everywhere(1);
}
