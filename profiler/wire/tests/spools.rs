//! Spools are read back as they were written, and what was damaged is told, never guessed.

use profiler_wire::rows::{Call, Kernel, Range};
use profiler_wire::{Damage, Frame, Frames, Line, SpoolError, Spooler};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn kernel(start: u64, name: u64) -> Kernel {
    Kernel {
        start_ns: start,
        end_ns: start + 1000,
        name,
        grid_x: 4,
        ..Kernel::default()
    }
}

/// A spool of every kind of frame that the engine reads first.
fn spool(folder: &TempDir) -> (PathBuf, Vec<Frame>) {
    let path = folder.path().join("window.spool");
    let mut spooler = Spooler::create(&path).expect("a spool");
    let (opened, closed) = (
        Line::new("opened").with("t0", 5),
        Line::new("closed").with("t1", 9),
    );
    let status = Line::new("status").with("records", 3);
    let names = vec![(1, "gemm".to_owned()), (2, "σ-norm".to_owned())];
    let kernels: Vec<Kernel> = (0..300)
        .map(|at| kernel((1 << 60) | (at * 1100), 1 + at % 2))
        .collect();
    let calls = vec![Call {
        cbid: 307,
        ..Call::default()
    }];
    let ranges = vec![Range {
        start_ns: u64::MAX,
        ..Range::default()
    }];
    spooler.opened(&opened).expect("written");
    spooler.names(&names).expect("written");
    spooler.rows(&kernels).expect("written");
    spooler.rows::<Kernel>(&[]).expect("nothing");
    spooler.rows(&calls).expect("written");
    spooler.rows(&ranges).expect("written");
    spooler.status(&status).expect("written");
    spooler.closed(&closed).expect("written");
    assert_eq!(
        fs::metadata(&path).expect("a file").len(),
        spooler.written()
    );
    let frames = vec![
        Frame::Opened(opened),
        Frame::Names(names),
        Frame::Kernels(kernels),
        Frame::Calls(calls),
        Frame::Ranges(ranges),
        Frame::Status(status),
        Frame::Closed(closed),
    ];
    (path, frames)
}

/// The frames up to an end or a damage, and that.
fn read(path: &Path) -> (Vec<Frame>, Option<Damage>) {
    let mut frames = Vec::new();
    for frame in Frames::open(path).expect("a spool") {
        match frame {
            Ok(frame) => frames.push(frame),
            Err(SpoolError::Damaged { damage, .. }) => return (frames, Some(damage)),
            Err(error) => panic!("{error}"),
        }
    }
    (frames, None)
}

#[test]
fn what_is_written_is_read() {
    let folder = TempDir::new().expect("a folder");
    let (path, frames) = spool(&folder);
    assert_eq!(read(&path), (frames, None));
    let error = Spooler::create(&path).unwrap_err().to_string();
    assert!(error.starts_with("cannot create "), "{error}");
}

#[test]
fn names_that_are_too_long_are_cut_between_letters() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("names.spool");
    let mut spooler = Spooler::create(&path).expect("a spool");
    spooler.names(&[(1, "ü".repeat(5000))]).expect("written");
    let expected = Frame::Names(vec![(1, "ü".repeat(4096))]);
    assert_eq!(read(&path), (vec![expected], None));
}

#[test]
fn many_rows_are_several_frames() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("many.spool");
    let mut spooler = Spooler::create(&path).expect("a spool");
    let kernels: Vec<Kernel> = (0..70_000).map(|at| kernel(at * 1100, 1)).collect();
    spooler.rows(&kernels).expect("written");
    // Two columns change, by a step of two bytes each, or none.
    assert!(spooler.written() < 70_000 * 24, "{}", spooler.written());
    let (frames, damage) = read(&path);
    assert_eq!((frames.len(), damage), (3, None));
    let rows = |frame| match frame {
        Frame::Kernels(kernels) => kernels,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        frames.into_iter().flat_map(rows).collect::<Vec<_>>(),
        kernels
    );
}

#[test]
fn a_spool_that_was_cut_anywhere_is_read_up_to_there() {
    let folder = TempDir::new().expect("a folder");
    let (path, frames) = spool(&folder);
    let bytes = fs::read(&path).expect("bytes");
    let mut most = 0;
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).expect("written");
        let (read, damage) = read(&path);
        assert_eq!(read, frames[..read.len()], "cut at {cut}");
        assert!(read.len() >= most, "cut at {cut}");
        assert!(
            damage.is_none_or(|damage| damage == Damage::Cut),
            "cut at {cut}"
        );
        most = read.len();
    }
    assert_eq!(most, frames.len() - 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is changed, what is read before it is what was written, and what is changed is not read.
    #[test]
    fn damage_is_found(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let folder = TempDir::new().expect("a folder");
        let (path, frames) = spool(&folder);
        let mut bytes = fs::read(&path).expect("bytes");
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&path, &bytes).expect("written");
        let (read, damage) = read(&path);
        prop_assert!(damage.is_some(), "byte {at}");
        prop_assert!(read.len() < frames.len());
        prop_assert_eq!(&read[..], &frames[..read.len()]);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("any.spool");
        fs::write(&path, &bytes).expect("written");
        let (frames, damage) = read(&path);
        prop_assert!(frames.is_empty());
        prop_assert_eq!(damage.is_some(), !bytes.is_empty());
    }
}
