//! Journals that are cut, flipped, half written and reopened: no wrong record, none lost in vain.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn journal_of(records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = SimFile::default();
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    for record in records {
        journal.append(record, Durability::Buffered).unwrap();
    }
    file.content()
}

/// A file that remembers which writes no sync has covered yet.
#[derive(Debug, Default, Clone)]
struct SimFile {
    synced: Vec<u8>,
    pending: Vec<Vec<u8>>,
    /// How many bytes it takes before it is full.
    room: Option<usize>,
    /// Whether syncing and cutting fail.
    faulty: bool,
}

impl SimFile {
    fn content(&self) -> Vec<u8> {
        [self.synced.clone(), self.pending.concat()].concat()
    }

    /// Returns what a crash may leave: of each unsynced write the first bytes that `kept` says,
    /// the others zeros, as file systems do that extend a file before its data is there.
    fn after_crash(&self, kept: &[usize]) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (write, kept) in self.pending.iter().zip(kept) {
            let kept = (*kept).min(write.len());
            content.extend_from_slice(&write[..kept]);
            content.resize(content.len() + write.len() - kept, 0);
        }
        content
    }
}

impl JournalFile for &mut SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.unwrap_or(usize::MAX);
        self.pending.push(bytes[..bytes.len().min(room)].to_vec());
        self.room = self.room.map(|room| room.saturating_sub(bytes.len()));
        if bytes.len() > room {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.faulty {
            return Err(io::Error::other("faulty"));
        }
        self.synced = self.content();
        self.pending.clear();
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        if self.faulty {
            return Err(io::Error::other("faulty"));
        }
        self.synced = self.content();
        self.pending.clear();
        self.synced.truncate(usize::try_from(size).unwrap());
        Ok(())
    }
}

fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Frames within records are what a careless reader would fall for.
    let quoted = vec(any::<u8>(), 0..20).prop_map(|record| {
        let mut frame = Vec::new();
        frame::encode(0, &record, &mut frame);
        frame
    });
    vec(
        prop_oneof![3 => vec(any::<u8>(), 0..40), 1 => quoted],
        1..12,
    )
}

/// Whether `part` is `whole` with some records left out.
fn is_subsequence(part: &[Vec<u8>], whole: &[Vec<u8>]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|record| rest.any(|other| other == record))
}

proptest! {
    #[test]
    fn cut_at_any_byte_a_journal_is_a_prefix(records in some_records(), cut in any::<prop::sample::Index>()) {
        let mut bytes = journal_of(&records);
        let cut = cut.index(bytes.len() + 1);
        bytes.truncate(cut);
        let found = recover(&bytes);
        prop_assert_eq!(&found.records[..], &records[..found.records.len()]);
        // No more is lost than the record in which the cut lies.
        prop_assert_eq!(journal_of(&found.records).len() as u64, found.end);
        let torn = cut as u64 - found.end;
        let wanted = (torn > 0).then_some(Damage::TornEnd { offset: found.end, size: torn });
        prop_assert_eq!(found.damage, wanted.into_iter().collect::<Vec<_>>());
        if let Some(next) = records.get(found.records.len()) {
            prop_assert!(torn < (12 + next.len()) as u64);
        }
    }

    #[test]
    fn a_flipped_byte_costs_one_record_and_is_reported(
        records in some_records(), place in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        let mut bytes = journal_of(&records);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        let found = recover(&bytes);
        prop_assert_eq!(found.records.len(), records.len() - 1);
        prop_assert!(is_subsequence(&found.records, &records));
        prop_assert_eq!(found.damage.len(), 1);
    }

    #[test]
    fn zeros_in_the_middle_cost_only_what_they_cover(
        records in some_records(), start in any::<prop::sample::Index>(), length in 1..100usize,
    ) {
        let mut bytes = journal_of(&records);
        let start = start.index(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes[start..end].fill(0);
        let found = recover(&bytes);
        prop_assert!(is_subsequence(&found.records, &records));
        let mut untouched = Vec::new();
        let mut at = 0;
        for record in &records {
            let next = at + 12 + record.len();
            if next <= start || at >= end {
                untouched.push(record.clone());
            }
            at = next;
        }
        prop_assert!(is_subsequence(&untouched, &found.records));
    }

    #[test]
    fn after_a_crash_the_synced_records_are_there_and_writing_goes_on(
        records in vec((vec(any::<u8>(), 0..40), any::<bool>()), 1..12),
        kept in vec(0..60usize, 12),
    ) {
        let mut file = SimFile::default();
        let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
        for (record, synced) in &records {
            let durability = if *synced { Durability::Synced } else { Durability::Buffered };
            journal.append(record, durability).unwrap();
        }
        let all: Vec<Vec<u8>> = records.iter().map(|(record, _)| record.clone()).collect();
        let n_synced = records.iter().rposition(|(_, synced)| *synced).map_or(0, |last| last + 1);

        let mut after = SimFile { synced: file.after_crash(&kept), ..SimFile::default() };
        let found = recover(&after.synced);
        prop_assert!(found.records.starts_with(&all[..n_synced]));
        prop_assert!(is_subsequence(&found.records, &all));

        let mut journal = Journal::resume(&mut after, Path::new("sim"), &found).unwrap();
        journal.append(b"resumed", Durability::Synced).unwrap();
        let again = recover(&after.synced);
        let mut wanted = found.records.clone();
        wanted.push(b"resumed".to_vec());
        prop_assert_eq!(again.records, wanted);
    }
}

#[test]
fn a_full_disk_takes_back_the_half_record_and_goes_on_when_there_is_room() {
    let mut file = SimFile {
        room: Some(40),
        ..SimFile::default()
    };
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    journal.append(b"first", Durability::Buffered).unwrap();
    let error = journal.append(&[7; 100], Durability::Buffered).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Io {
                action: "append to",
                ..
            }
        ),
        "{error}"
    );
    journal.file.room = None;
    journal.append(b"second", Durability::Buffered).unwrap();
    let found = recover(&file.content());
    assert_eq!(
        (found.records, found.damage),
        (vec![b"first".to_vec(), b"second".to_vec()], vec![])
    );
}

#[test]
fn what_is_held_is_written_with_what_comes_next_or_when_it_is_much() {
    let mut file = SimFile::default();
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    journal.append(b"one", Durability::Held).unwrap();
    assert!(journal.file.content().is_empty());
    journal.append(b"two", Durability::Buffered).unwrap();
    journal.append(b"three", Durability::Held).unwrap();
    assert_eq!(recover(&journal.file.content()).records.len(), 2);
    journal.flush().unwrap();
    assert_eq!(recover(&journal.file.content()).records.len(), 3);
    journal
        .append(&vec![7; MOST_HELD], Durability::Held)
        .unwrap();
    journal.append(b"five", Durability::Held).unwrap();
    journal.sync().unwrap();
    let found = recover(&file.synced);
    assert_eq!((found.records.len(), found.damage), (5, vec![]));
}

#[test]
fn a_full_disk_takes_back_all_that_was_held() {
    let mut file = SimFile {
        room: Some(40),
        ..SimFile::default()
    };
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    journal.append(b"kept", Durability::Buffered).unwrap();
    journal.append(&[7; 20], Durability::Held).unwrap();
    journal.append(b"x", Durability::Buffered).unwrap_err();
    journal.file.room = None;
    journal.append(b"later", Durability::Synced).unwrap();
    let found = recover(&file.content());
    assert_eq!(
        (found.records, found.damage),
        (vec![b"kept".to_vec(), b"later".to_vec()], vec![])
    );
}

#[test]
fn after_a_failed_sync_nothing_is_pretended() {
    let mut file = SimFile {
        faulty: true,
        ..SimFile::default()
    };
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    let error = journal.append(b"x", Durability::Synced).unwrap_err();
    assert!(
        matches!(error, JournalError::Io { action: "sync", .. }),
        "{error}"
    );
    journal.file.faulty = false;
    let error = journal.append(b"y", Durability::Buffered).unwrap_err();
    assert!(matches!(error, JournalError::Broken { .. }), "{error}");
    assert!(matches!(journal.sync(), Err(JournalError::Broken { .. })));
}

#[test]
fn records_beyond_the_limit_are_refused_and_change_nothing() {
    let mut file = SimFile::default();
    let mut journal = Journal::over(&mut file, Path::new("sim"), 0);
    let error = journal
        .append(&vec![0; MAX_RECORD + 1], Durability::Buffered)
        .unwrap_err();
    assert!(
        matches!(error, JournalError::TooLarge { size, .. } if size == MAX_RECORD + 1),
        "{error}"
    );
    assert!(file.content().is_empty());
}

#[test]
fn a_journal_on_disk_is_created_read_torn_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::create(&path).unwrap();
    journal.append(b"one", Durability::Buffered).unwrap();
    assert_eq!(read(&path).unwrap().records, [b"one".to_vec()]);
    assert!(matches!(
        Journal::open(&path),
        Err(JournalError::Busy { .. })
    ));
    journal.append(b"two", Durability::Synced).unwrap();
    drop(journal);
    let size = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size - 1)
        .unwrap();

    let (mut journal, found) = Journal::open(&path).unwrap();
    assert_eq!(found.records, [b"one".to_vec()]);
    assert_eq!(
        found.damage,
        [Damage::TornEnd {
            offset: 15,
            size: 14
        }]
    );
    journal.append(b"three", Durability::Synced).unwrap();
    let found = read(&path).unwrap();
    assert_eq!(
        (found.records, found.damage),
        (vec![b"one".to_vec(), b"three".to_vec()], vec![])
    );
    let error = Journal::create(&path).unwrap_err();
    assert!(
        error.to_string().contains("could not create the journal"),
        "{error}"
    );
}

#[test]
fn opening_destroys_nothing_that_is_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thesis.txt");
    fs::write(&path, "years of work").unwrap();
    assert!(matches!(
        Journal::open(&path),
        Err(JournalError::NotAJournal { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"years of work");
    for torn in [&b""[..], b"\xFE", b"\0\0\0\0\0", b"\xFEBJ\x01\x05\0\0"] {
        fs::write(&path, torn).unwrap();
        Journal::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
